"""A folder of things that are made once and used by many processes of a node, bounded in size.

An entry is there whole or not at all (it is renamed into place), made by one process at a time, never changed, and
never removed while somebody uses it. Its lock is a file of its own, which the kernel lets go of when a process dies.
"""

import asyncio
import contextlib
import fcntl
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from runtime.implementer.scratch import open_tree, remove_tree, tree_bytes

_POLL_S = 0.05
_LOCKS = ".locks"


class Shelf:
    def __init__(self, folder: Path, *, bytes_max: int) -> None:
        """Blocks for nothing; the folder is made with the first entry. `bytes_max` bounds what nobody uses just now."""
        self._folder = folder
        self._bytes_max = bytes_max

    @asynccontextmanager
    async def use(self, key: str, make: Callable[[Path], Awaitable[None]]) -> AsyncIterator[Path]:
        """The entry, which stays while this lasts; `make` fills an empty folder with it when it is not there.

        Raises what `make` raises; nothing is left then, and the next one makes it again.
        """
        await asyncio.to_thread((self._folder / _LOCKS).mkdir, parents=True, exist_ok=True)
        entry = self._folder / key
        lock = self._open_lock(key)
        try:
            while True:
                await _lock(lock, fcntl.LOCK_SH)
                if entry.is_dir():
                    break
                # To change a lock is to let go of it first: whoever comes in between is met by looking again.
                await _lock(lock, fcntl.LOCK_EX)
                if not entry.is_dir():
                    await self._make(entry, make)
            os.utime(entry)
            yield entry
        finally:
            os.close(lock)

    async def _make(self, entry: Path, make: Callable[[Path], Awaitable[None]]) -> None:
        await self._make_room()
        beside = self._beside()
        beside.mkdir(mode=0o755)
        try:
            await make(beside)
            await open_tree(beside)
            os.rename(beside, entry)
        finally:
            await asyncio.shield(remove_tree(beside))

    async def _make_room(self) -> None:
        """Removes what dead processes left, then the longest unused entries above the bound."""
        for left in self._folder.glob(".[0-9]*-*"):
            pid = left.name[1:].partition("-")[0]
            if pid.isdecimal() and not psutil.pid_exists(int(pid)):
                await remove_tree(left)
        entries = {each: _used(each) for each in self._folder.iterdir() if not each.name.startswith(".")}
        sizes = {each: await tree_bytes(each) for each in entries}
        taken = sum(sizes.values())
        for entry in sorted(entries, key=lambda each: entries[each]):
            if taken <= self._bytes_max:
                return
            if await self._remove(entry):
                taken -= sizes[entry]

    async def _remove(self, entry: Path) -> bool:
        """False when somebody uses it."""
        lock = self._open_lock(entry.name)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            away = self._beside()
            os.rename(entry, away)
        except OSError:
            return False
        finally:
            os.close(lock)
        await remove_tree(away)
        return True

    def _beside(self) -> Path:
        return self._folder / f".{os.getpid()}-{secrets.token_hex(6)}"

    def _open_lock(self, key: str) -> int:
        return os.open(self._folder / _LOCKS / key, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


async def _lock(lock: int, how: int) -> None:
    """Waits without a thread: one that waits in the kernel could not be cancelled."""
    while True:
        try:
            fcntl.flock(lock, how | fcntl.LOCK_NB)
        except BlockingIOError:
            await asyncio.sleep(_POLL_S)
        else:
            return


def _used(entry: Path) -> float:
    with contextlib.suppress(OSError):
        return entry.stat().st_mtime
    return 0.0

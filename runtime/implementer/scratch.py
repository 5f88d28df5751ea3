"""Folders that generated code has written in: how they are handed over, and how they are removed.

Both run ordinary tools, because generated code can nest folders deeper than Python's own walkers can follow.
"""

import asyncio
import os
import secrets
import stat
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from runtime.errors import UnavailableError


class Scratch:
    """One process's own folder under `root`, which processes of the same node may share."""

    def __init__(self, root: Path) -> None:
        self.folder = root / f"{os.getpid()}-{secrets.token_hex(4)}"

    async def open(self) -> None:
        """Makes the folder (mode 0700) and removes what processes that are gone left under the same root.

        Raises UnavailableError where that is not possible, or the root is not this user's alone.
        """
        await asyncio.to_thread(_make, self.folder)
        for folder in await asyncio.to_thread(_abandoned, self.folder.parent):
            await remove_tree(folder)

    async def close(self) -> None:
        await remove_tree(self.folder)

    @asynccontextmanager
    async def subfolder(self, name: str) -> AsyncIterator[Path]:
        """A fresh empty folder, removed with all it holds at the end, whatever happened in between.

        Raises UnavailableError as `open` does: an implementer whose start failed is given work all the same.
        """
        await asyncio.to_thread(_make, self.folder)
        folder = self.folder / f"{name}-{secrets.token_hex(4)}"
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            await asyncio.shield(remove_tree(folder))


async def remove_tree(folder: Path) -> None:
    """Removes what is there, also folders that its own code made unreadable. Nothing there is fine too."""
    await asyncio.to_thread(remove_tree_now, folder)


def remove_tree_now(folder: Path) -> None:
    """`remove_tree`, blocking."""
    if os.geteuid() != 0:
        _execute("chmod", "-Rf", "u+rwX", "--", str(folder))
    _execute("rm", "-rf", "--", str(folder))


async def give_trees(folders: Sequence[Path], uid: int) -> None:
    """Makes `uid` the owner of the folders and everything in them; symbolic links are not followed."""
    await _run("chown", "-hR", f"{uid}:{uid}", "--", *map(str, folders))


async def open_tree(folder: Path) -> None:
    """Lets every user read it; symbolic links are not followed."""
    await _run("chmod", "-R", "u+rwX,a+rX", "--", str(folder))


async def add_tree(source: Path, target: Path) -> None:
    """Copies what is in `source` into `target`, which may have some of it already: that is left as it is.

    Raises UnavailableError when the disk does not take it.
    """
    _, said = await _ended("cp", "-a", "--no-clobber", "--reflink=auto", "--", f"{source}/.", str(target))
    # Some versions take a file that is left as it is for a failure.
    faults = [line for line in said.splitlines() if "not replacing" not in line]
    if faults:
        raise UnavailableError(
            f"Files cannot be copied for a check: {faults[-1][-200:]}.", "See whether its disk is full."
        )


async def tree_bytes(folder: Path) -> int:
    """What the files in it hold; 0 when there is nothing."""
    printed = await _run("du", "--summarize", "--apparent-size", "--block-size=1", "--", str(folder))
    return int(printed.split()[0]) if printed.strip() else 0


async def _run(*command: str) -> str:
    printed, _ = await _ended(*command)
    return printed


async def _ended(*command: str) -> tuple[str, str]:
    """What it wrote, and its errors, in English. Not asyncio's subprocess: uvloop forks, which takes this process, with
    all it has loaded, longer than the command itself.
    """
    return await asyncio.to_thread(_execute, *command)


def _execute(*command: str) -> tuple[str, str]:
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=environment, check=False)
    return done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def _make(folder: Path) -> None:
    """In a folder that everybody can write in, somebody else may have been there first under the same name."""
    root = folder.parent
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = root.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise _unusable(root, "it is not a folder of this user alone")
        folder.mkdir(mode=0o700, exist_ok=True)
        if os.statvfs(folder).f_flag & os.ST_NOEXEC:
            raise _unusable(root, "no program can be started from there (noexec)")
    except OSError as error:
        raise _unusable(root, error.strerror or str(error)) from error


def _unusable(root: Path, why: str) -> UnavailableError:
    return UnavailableError(f"{root} cannot be used to check work in: {why}.", "Set SCRATCH_DIR to another folder.")


def _abandoned(root: Path) -> list[Path]:
    def is_abandoned(folder: Path) -> bool:
        pid = folder.name.split("-")[0]
        return pid.isdecimal() and not psutil.pid_exists(int(pid))

    return [folder for folder in root.iterdir() if is_abandoned(folder)]

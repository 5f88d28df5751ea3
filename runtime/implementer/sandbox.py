"""Runs commands that nobody has vouched for: no network, no secrets, a bounded share of the machine."""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from runtime.errors import SandboxUnavailableError
from runtime.implementer import bubblewrap
from runtime.implementer.bubblewrap import View
from runtime.implementer.cgroup import Cgroup, sweep
from runtime.implementer.confined import ConfinedProcess, data_descriptor, setup_failure
from runtime.implementer.output import BoundedOutput
from runtime.implementer.scratch import give_trees, tree_bytes
from runtime.implementer.work import CommandResult, Limits

_CHUNK_BYTES = 64 << 10
_LOOK_AT_DISK_EVERY_S = 0.2
NO_FILES: Mapping[str, bytes] = MappingProxyType({})
NOTHING: Mapping[str, Path] = MappingProxyType({})


class Sandbox:
    """Everything it starts runs under bubblewrap, or not at all.

    Inside there is no network but an empty loopback, no environment but the given one, no file of the host but the
    system's programs and our Python (read-only) and the work folder, and no process but the command's own.
    """

    def __init__(self, *, bwrap: str = "bwrap") -> None:
        """`bwrap` is the program's name or path."""
        self._bwrap = bwrap

    async def probe(self) -> None:
        """Confines `true` once. Raises SandboxUnavailableError, which says what is missing and how to get it."""
        await asyncio.to_thread(sweep)
        process = await self.start(["true"], view=View(), limits=Limits())
        printed = await process.stdout.read()
        if await process.wait() != 0:
            raise SandboxUnavailableError(*setup_failure(printed.decode(errors="replace")))

    async def run(
        self,
        command: str,
        *,
        workdir: Path,
        limits: Limits,
        env: Mapping[str, str] | None = None,
        read_only: Sequence[Path] = (),
        offered: Mapping[str, Path] = NOTHING,
        writable: Mapping[str, Path] = NOTHING,
        files: Mapping[str, bytes] = NO_FILES,
    ) -> CommandResult:
        """Runs a shell command with `workdir` as `/work`, and waits. No process of it is left when this returns.

        Gives `workdir` and the `writable` folders, with all in them, to the run's own user when we are root.
        `read_only` folders appear at their own paths, `offered` (read-only) and `writable` ones, and `files` (path
        inside -> content), where they say. Cancelling ends the command. Raises SandboxUnavailableError; the command has
        not run then.
        """
        started = time.monotonic()
        process = await self.start(
            [bubblewrap.shell(), "-c", command],
            view=View(workdir=workdir, read_only=read_only, offered=offered, writable=writable, files=files),
            limits=limits,
            env=env,
        )
        output = BoundedOutput(limits.output_bytes)
        timed_out = False
        watch = asyncio.create_task(_stopped([workdir, *writable.values()], limits.disk_bytes, process))
        try:
            async with asyncio.timeout(limits.wall_s):
                while chunk := await process.stdout.read(_CHUNK_BYTES):
                    output.add(chunk)
                await process.wait()
        except TimeoutError:
            timed_out = True
        finally:
            await process.kill()
            watch.cancel()
            (why,) = await asyncio.gather(watch, return_exceptions=True)
        # What was printed last is still in the pipe; all who could add to it are dead.
        while chunk := await process.stdout.read(_CHUNK_BYTES):
            output.add(chunk)
        exit_status = await process.wait()
        if not process.was_reported and output.text().startswith("bwrap: "):
            raise SandboxUnavailableError(*setup_failure(output.text()))
        told = f"\n[stopped: {why}]" if isinstance(why, str) else ""
        return CommandResult(
            command=command,
            exit_status=exit_status or int(bool(told)),
            duration_s=time.monotonic() - started,
            output=output.text() + told,
            timed_out=timed_out,
        )

    async def start(
        self,
        command: Sequence[str],
        *,
        view: View,
        limits: Limits,
        env: Mapping[str, str] | None = None,
        with_stdin: bool = False,
        stderr: int = subprocess.STDOUT,
        line_bytes_max: int = _CHUNK_BYTES,
    ) -> ConfinedProcess:
        """Starts a command and returns while it runs; `wall_s` and `output_bytes` are then the caller's to hold.

        `stderr` is `subprocess.STDOUT` or `PIPE`; `line_bytes_max` bounds what `stdout.readline()` can read.
        The caller must `kill()` or `wait()` it. Raises SandboxUnavailableError; nothing runs then.
        """
        bwrap = self._program()
        uid = bubblewrap.pick_uid()
        if os.geteuid() == 0:
            workdir = [view.workdir] if view.workdir is not None else []
            if folders := [*workdir, *view.writable.values()]:
                await give_trees(folders, uid)
        cgroup = await asyncio.to_thread(
            Cgroup.make, memory_bytes=limits.memory_bytes, process_count=limits.process_count
        )
        files = {**bubblewrap.account_files(uid), **view.files}
        file_fds = {inside: data_descriptor(content) for inside, content in files.items()}
        try:
            return await ConfinedProcess.start(
                bwrap=bwrap,
                arguments=bubblewrap.arguments(
                    view=view,
                    uid=uid,
                    limits=limits,
                    env={**bubblewrap.base_environment(), **(env or {})},
                    file_fds=file_fds,
                ),
                command=[
                    *bubblewrap.rights_dropping(uid=uid, limits=limits, has_cgroup=cgroup is not None),
                    *command,
                ],
                file_fds=file_fds,
                cgroup=cgroup,
                with_stdin=with_stdin,
                stderr=stderr,
                line_bytes_max=line_bytes_max,
            )
        except BaseException:
            if cgroup is not None:
                await asyncio.to_thread(cgroup.remove)
            raise
        finally:
            for descriptor in file_fds.values():
                os.close(descriptor)

    def _program(self) -> str:
        bwrap = shutil.which(self._bwrap)
        if bwrap is None:
            raise SandboxUnavailableError(
                "What others wrote cannot be confined here, and is not run: bubblewrap is not installed.",
                "Install it with `apt-get install bubblewrap` (or your system's package of that name).",
            )
        for program in bubblewrap.PROGRAMS:
            if shutil.which(program) is None:
                raise SandboxUnavailableError(
                    f"What others wrote cannot be confined here, and is not run: `{program}` is not installed.",
                    "Install it with `apt-get install util-linux`.",
                )
        return bwrap


async def _stopped(folders: Sequence[Path], bytes_max: int, process: ConfinedProcess) -> str:
    """Ends the process once its folders hold more than they may, or cannot be looked at, and says so; else it waits to
    be cancelled.
    """
    try:
        size = await _filled(folders, bytes_max)
    except OSError as error:
        why = f"what it holds on disk cannot be seen: {error.strerror}"
    else:
        why = f"it filled {size >> 20} MB of disk; {bytes_max >> 20} MB are allowed"
    await process.kill()
    return why


async def _filled(folders: Sequence[Path], bytes_max: int) -> int:
    """What the folders hold, once that is more than `bytes_max`.

    They are of the host's disk, whose free space is looked at often and which are summed up when it has fallen.
    """
    free = _free_bytes(folders)
    while True:
        await asyncio.sleep(_LOOK_AT_DISK_EVERY_S)
        left = _free_bytes(folders)
        if free - left < bytes_max // 4:
            continue
        size = sum([await tree_bytes(folder) for folder in folders])
        if size > bytes_max:
            return size
        free = left


def _free_bytes(folders: Sequence[Path]) -> int:
    facts = os.statvfs(folders[0])
    return facts.f_bavail * facts.f_frsize

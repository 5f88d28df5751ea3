"""A process inside bubblewrap, with the means to end it and all its children for certain."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Self

from runtime.errors import SandboxUnavailableError
from runtime.implementer.cgroup import Cgroup

_STREAM_BYTES_MAX = 64 << 20
"""The longest line that can be read from a confined process."""


class ConfinedProcess:
    """Held by its namespace's first process: once that one is dead, the kernel has ended every other one in it."""

    def __init__(
        self,
        *,
        monitor: asyncio.subprocess.Process,
        status: asyncio.StreamReader,
        first_pid: int,
        pidfd: int,
        cgroup: Cgroup | None,
    ) -> None:
        self.first_pid = first_pid
        """The host's id of the namespace's first process; the confined program is its child."""
        self._monitor = monitor
        self._status = status
        self._pidfd = pidfd
        self._cgroup = cgroup
        self._exit_status: int | None = None
        self.was_reported = False
        """Once it has ended: whether the command ran and ended by itself, so that bwrap could report its status."""

    @classmethod
    async def start(
        cls,
        *,
        bwrap: str,
        arguments: Sequence[str],
        command: Sequence[str],
        file_fds: Mapping[str, int],
        cgroup: Cgroup | None,
        with_stdin: bool,
        stderr: int,
    ) -> Self:
        """`stderr` is `asyncio.subprocess.PIPE` or `STDOUT`. Raises SandboxUnavailableError; nothing runs then.

        The command starts only when it is bounded: bwrap waits at a gate until its first process is in the cgroup and
        held by a descriptor that no other process can ever come to mean.
        """
        status_read, status_write = os.pipe()
        gate_read, gate_write = os.pipe()
        # Arguments by descriptor: those on the command line could be read inside, and they name the host's folders.
        arguments_fd = data_descriptor(b"".join(argument.encode() + b"\0" for argument in arguments))
        given = (status_write, gate_read, arguments_fd)
        try:
            monitor = await asyncio.create_subprocess_exec(
                bwrap, "--json-status-fd", str(status_write), "--block-fd", str(gate_read),
                "--args", str(arguments_fd), "--", *command,
                stdin=asyncio.subprocess.PIPE if with_stdin else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE, stderr=stderr, limit=_STREAM_BYTES_MAX,
                pass_fds=(*given, *file_fds.values()), env={}, cwd="/",
            )  # fmt: skip
        except BaseException:
            _close(status_read, gate_write)
            raise
        finally:
            _close(*given)
        pidfd = -1
        try:
            status = await _reader(status_read)
            first_pid = await _first_pid(status)
            pidfd = os.pidfd_open(first_pid)
            if cgroup is not None:
                cgroup.add(first_pid)
            os.write(gate_write, b"\n")
        except BaseException as error:
            monitor.kill()
            await monitor.wait()
            if pidfd != -1:
                await _gone(pidfd)
                os.close(pidfd)
            if isinstance(error, OSError):
                raise SandboxUnavailableError(*setup_failure(await _printed(monitor) or str(error))) from error
            raise
        finally:
            _close(gate_write)
        return cls(monitor=monitor, status=status, first_pid=first_pid, pidfd=pidfd, cgroup=cgroup)

    @property
    def stdin(self) -> asyncio.StreamWriter:
        assert self._monitor.stdin is not None
        return self._monitor.stdin

    @property
    def stdout(self) -> asyncio.StreamReader:
        assert self._monitor.stdout is not None
        return self._monitor.stdout

    @property
    def stderr(self) -> asyncio.StreamReader:
        assert self._monitor.stderr is not None
        return self._monitor.stderr

    @property
    def is_running(self) -> bool:
        return self._monitor.returncode is None

    async def wait(self) -> int:
        """The command's exit status, 128 + n for signal n. When it returns, no process is left inside."""
        if self._exit_status is None:
            await self._monitor.wait()
            await _gone(self._pidfd)
            reported = _exit_status(await self._status.read())
            self.was_reported = reported is not None
            self._exit_status = 128 + signal.SIGKILL if reported is None else reported
            os.close(self._pidfd)
            if self._cgroup is not None:
                await asyncio.to_thread(self._cgroup.remove)
        return self._exit_status

    async def kill(self) -> None:
        """Ends everything inside. When it returns, no process is left. May be called at any time, more than once."""
        if self._exit_status is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            await asyncio.shield(self.wait())


def data_descriptor(content: bytes) -> int:
    """A descriptor from which `content` can be read; the caller closes it."""
    descriptor = os.memfd_create("masterbuilder")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


async def _reader(descriptor: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(descriptor, "rb"))
    return reader


async def _first_pid(status: asyncio.StreamReader) -> int:
    line = await status.readline()
    if not line:
        raise ChildProcessError("bwrap ended before it had made a namespace")
    pid = json.loads(line)["child-pid"]
    assert isinstance(pid, int)
    return pid


def _exit_status(status: bytes) -> int | None:
    """None when the namespace's first process was killed, or when bwrap failed before the command."""
    for line in status.splitlines():
        code = json.loads(line).get("exit-code")
        if isinstance(code, int):
            return code
    return None


async def _printed(monitor: asyncio.subprocess.Process) -> str:
    printed = b""
    for stream in (monitor.stderr, monitor.stdout):
        if stream is not None:
            printed += await stream.read(2_000)
    return printed.decode(errors="replace")


def setup_failure(printed: str) -> tuple[str, str]:
    """What to say, from what bwrap printed, and what to do about it."""
    return (
        f"Generated code cannot be confined here, so it is not run: bubblewrap failed ({printed.strip()}).",
        "Allow it namespaces: run as root with CAP_SYS_ADMIN, or allow unprivileged user namespaces "
        "(`sysctl -w kernel.unprivileged_userns_clone=1` on Debian, "
        "`sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` on Ubuntu). Then run `masterbuilder doctor`.",
    )


async def _gone(pidfd: int) -> None:
    """Returns once the process is dead, and with it, when it was a namespace's first, all others in that."""
    loop = asyncio.get_running_loop()
    dead = asyncio.Event()
    loop.add_reader(pidfd, dead.set)
    try:
        await dead.wait()
    finally:
        loop.remove_reader(pidfd)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)

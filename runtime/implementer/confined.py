"""A process inside bubblewrap, with the means to end it and all its children for certain."""

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO, Self, cast

from runtime.errors import SandboxUnavailableError
from runtime.implementer.cgroup import Cgroup

NICENESS = 10
"""What is built and checked may wait; whoever waits for an answer may not."""


class ConfinedProcess:
    """Held by its namespace's first process: once that one is dead, the kernel has ended every other one in it."""

    def __init__(
        self,
        *,
        monitor: "_Monitor",
        status: asyncio.StreamReader,
        first_pid: int,
        pidfd: int,
        cgroup: Cgroup | None,
    ) -> None:
        self.first_pid = first_pid
        """The host's id of the namespace's first process; the confined program is its child."""
        self.was_reported = False
        """Once it has ended: whether the command ran and ended by itself, so that bwrap could report its status."""
        self._monitor = monitor
        self._status = status
        self._pidfd = pidfd
        self._cgroup = cgroup
        self._end = asyncio.create_task(self._watch())

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
        line_bytes_max: int,
    ) -> Self:
        """`stderr` is `subprocess.PIPE` or `STDOUT`. Raises SandboxUnavailableError; nothing runs then.

        The command starts only when it is bounded: bwrap waits at a gate until its first process is in the cgroup and
        held by a descriptor that no other process can ever come to mean.
        """
        status_read, status_write = os.pipe()
        gate_read, gate_write = os.pipe()
        # Arguments by descriptor: those on the command line could be read inside, and they name the host's folders.
        arguments_fd = data_descriptor(b"".join(argument.encode() + b"\0" for argument in arguments))
        given = (status_write, gate_read, arguments_fd)
        own = ["--json-status-fd", str(status_write), "--block-fd", str(gate_read), "--args", str(arguments_fd), "--"]
        try:
            process = _spawn([bwrap, *own, *command], (*given, *file_fds.values()), with_stdin, stderr)
        except BaseException:
            _close(status_read, gate_write)
            raise
        finally:
            _close(*given)
        pidfd = -1
        monitor = _Monitor(process, line_bytes_max)
        try:
            await monitor.connect()
            status = await _reader(os.fdopen(status_read, "rb"))
            first_pid = await _first_pid(status)
            pidfd = os.pidfd_open(first_pid)
            if cgroup is not None:
                cgroup.add(first_pid)
            niceness = max(NICENESS, os.getpriority(os.PRIO_PROCESS, first_pid))
            os.setpriority(os.PRIO_PROCESS, first_pid, niceness)
            os.write(gate_write, b"\n")
        except BaseException as error:
            process.kill()
            await monitor.wait()
            if pidfd != -1:
                await _gone(pidfd)
                os.close(pidfd)
            if isinstance(error, OSError):
                raise SandboxUnavailableError(*setup_failure(await monitor.printed() or str(error))) from error
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
        return self._monitor.stdout

    @property
    def stderr(self) -> asyncio.StreamReader:
        assert self._monitor.stderr is not None
        return self._monitor.stderr

    @property
    def is_running(self) -> bool:
        return self._pidfd != -1 and not _is_dead(self._pidfd)

    async def wait(self) -> int:
        """The command's exit status, 128 + n for signal n. When it returns, no process is left inside."""
        return await asyncio.shield(self._end)

    async def kill(self) -> None:
        """Ends everything inside. When it returns, no process is left. May be called at any time, more than once."""
        if self._pidfd != -1:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        await self.wait()

    async def _watch(self) -> int:
        await _gone(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        await self._monitor.wait()
        reported = _exit_status(await self._status.read())
        self.was_reported = reported is not None
        if self._cgroup is not None:
            await asyncio.to_thread(self._cgroup.remove)
        return 128 + signal.SIGKILL if reported is None else reported


class _Monitor:
    """bwrap's outer process, which waits for the namespace, and the pipes that it shares with it.

    Not asyncio's own subprocess: what that lets through to a child depends on the event loop in use (under uvloop the
    command would inherit descriptors of ours), and this does not.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", line_bytes_max: int) -> None:
        self._process = process
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout = asyncio.StreamReader(limit=line_bytes_max)
        self.stderr: asyncio.StreamReader | None = None

    async def connect(self) -> None:
        assert self._process.stdout is not None
        await _reader(self._process.stdout, self.stdout)
        if self._process.stderr is not None:
            self.stderr = await _reader(self._process.stderr)
        if self._process.stdin is not None:
            self.stdin = await _writer(self._process.stdin)

    async def wait(self) -> None:
        if self._process.returncode is None:
            pidfd = os.pidfd_open(self._process.pid)
            try:
                await _gone(pidfd)
            finally:
                os.close(pidfd)
            self._process.wait()
        if self.stdin is not None:
            self.stdin.close()

    async def printed(self) -> str:
        parts = [await stream.read(2_000) for stream in (self.stderr, self.stdout) if stream is not None]
        return b"".join(parts).decode(errors="replace")


def data_descriptor(content: bytes) -> int:
    """A descriptor from which `content` can be read; the caller closes it."""
    descriptor = os.memfd_create("masterbuilder")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _spawn(command: Sequence[str], pass_fds: Sequence[int], with_stdin: bool, stderr: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE if with_stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        pass_fds=pass_fds,
        env={},
        cwd="/",
        bufsize=0,
    )


class _ReadToTheEnd(asyncio.StreamReaderProtocol):
    """Its pipe is closed with the last byte; uvloop would keep it until the collector comes."""

    def eof_received(self) -> bool:
        super().eof_received()
        return False


async def _reader(pipe: IO[bytes], reader: asyncio.StreamReader | None = None) -> asyncio.StreamReader:
    stream = reader or asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: _ReadToTheEnd(stream), _given_away(pipe))
    return stream


async def _writer(pipe: IO[bytes]) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), _given_away(pipe)
    )
    return asyncio.StreamWriter(transport, protocol, None, loop)


def _given_away(pipe: IO[bytes]) -> IO[bytes]:
    """For a loop to close. uvloop closes the number, and then the file object, when the number may be another file's
    already that a thread has opened in between. Source: MagicStack/uvloop#763.
    """
    if isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
        return pipe
    descriptor, mode = os.dup(pipe.fileno()), "rb" if pipe.readable() else "wb"
    pipe.close()
    return cast("IO[bytes]", open(descriptor, mode, buffering=0, closefd=False))


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


def setup_failure(printed: str) -> tuple[str, str]:
    """What to say, from what bwrap printed, and what to do about it."""
    return (
        f"What others wrote cannot be confined here, and is not run: bubblewrap failed ({printed.strip()}).",
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


def _is_dead(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)

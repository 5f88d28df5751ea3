"""The edit engine that is Aider: one warm confined process, spoken to in JSON lines."""

import asyncio
import base64
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from runtime.errors import EngineUnavailableError
from runtime.implementer.bubblewrap import View
from runtime.implementer.confined import ConfinedProcess
from runtime.implementer.engine import EditOutcome, EditRequest
from runtime.implementer.moves import MOVES_NOTE
from runtime.implementer.output import BoundedOutput
from runtime.implementer.relay import Relay
from runtime.implementer.sandbox import Sandbox
from runtime.implementer.scratch import Scratch
from runtime.implementer.work import Limits

_WORKER = "/worker/aider_worker.py"
_MOVES = "/worker/moves.py"
_SOCKET = "/worker/gateway.sock"
_START_S_MAX = 180.0
_STDERR_BYTES_MAX = 8_000
_REPLY_BYTES_MAX = 64 << 20
# A warm process adds up its processor time over all requests, so that is bounded by each request's time-out instead.
_LIMITS = Limits(cpu_s=7 * 86_400, memory_bytes=4 << 30, process_count=256)


def check_installed(python: Path) -> None:
    """Blocking. Raises EngineUnavailableError when Aider's environment is not there; says nothing about its health."""
    if not os.access(python, os.X_OK):
        raise _unavailable(f"Aider's environment is missing: there is no Python at {python}.")


class AiderEngine:
    """Aider, in its own environment and its own process, confined like the code it writes.

    The process starts with the first request (or `start`) and serves one after the other; it is ended and replaced
    after a time-out, a cancellation or a crash. It reaches only the gateway, only while a request is under way.
    """

    def __init__(self, *, python: Path, sandbox: Sandbox, scratch_dir: Path) -> None:
        """`python` is that of Aider's own environment. `scratch_dir` may be shared with other engines of this node."""
        self._python = python
        self._sandbox = sandbox
        self._scratch = Scratch(scratch_dir)
        self._relay: Relay | None = None
        self._worker: _Worker | None = None
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        async with self._turn:
            await self._running()

    async def edit(self, request: EditRequest) -> EditOutcome:
        async with self._turn:
            worker = await self._running()
            assert self._relay is not None
            self._relay.forward_to(request.gateway_url)
            keep = False
            try:
                async with asyncio.timeout(request.timeout_s):
                    reply = await worker.ask(_record(request))
                keep = True
            except TimeoutError:
                return worker.failed(f"The edit engine was stopped: it had not finished after {request.timeout_s:g} s.")
            except _WorkerDiedError as error:
                return worker.failed(str(error))
            finally:
                self._relay.forward_to(None)
                if not keep:
                    await self._end_worker()
            return EditOutcome(
                files={} if reply["error"] else _decoded(reply["files"]),
                error=reply["error"],
                cause=reply["cause"],
                gateway_status=reply["gateway_status"],
                log=reply["log"],
                engine=worker.name,
            )

    async def stop(self) -> None:
        async with self._turn:
            await self._end_worker()
            if self._relay is not None:
                await self._relay.stop()
                self._relay = None
                await self._scratch.close()

    async def _running(self) -> "_Worker":
        if self._worker is not None and self._worker.is_running:
            return self._worker
        await self._end_worker()
        await asyncio.to_thread(check_installed, self._python)
        if self._relay is None:
            await self._scratch.open()
            relay = Relay(self._scratch.folder / "gateway.sock")
            await relay.start()
            self._relay = relay
        self._worker = await _Worker.start(self._python, self._sandbox, self._relay.socket_path)
        return self._worker

    async def _end_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.end()


def _decoded(files: Mapping[str, str | None]) -> Mapping[str, bytes | None]:
    return {path: None if content is None else base64.b64decode(content) for path, content in files.items()}


class _WorkerDiedError(Exception):
    """The process ended in the middle of a request."""


class _Worker:
    """The process, from its first word to its last."""

    def __init__(self, process: ConfinedProcess, python: Path) -> None:
        self.name = f"aider ({python})"
        self._process = process
        self._errors = BoundedOutput(_STDERR_BYTES_MAX)
        self._listening = asyncio.create_task(self._collect_errors())

    @classmethod
    async def start(cls, python: Path, sandbox: Sandbox, gateway_socket: Path) -> "_Worker":
        folders = await asyncio.to_thread(_folders, python)
        files = {path: await asyncio.to_thread(_source, path) for path in (_WORKER, _MOVES)}
        process = await sandbox.start(
            [str(python), _WORKER, _SOCKET],
            view=View(read_only=folders, sockets={_SOCKET: gateway_socket}, files=files),
            limits=_LIMITS,
            with_stdin=True,
            stderr=subprocess.PIPE,
            line_bytes_max=_REPLY_BYTES_MAX,
        )
        worker = cls(process, python)
        try:
            async with asyncio.timeout(_START_S_MAX):
                ready = await worker._read()
        except (TimeoutError, _WorkerDiedError) as error:
            await worker.end()
            reason = str(error) or f"It was not ready after {_START_S_MAX:g} s."
            raise _unavailable(f"Aider cannot be started with {python}. {reason}") from error
        except BaseException:
            await worker.end()
            raise
        pid = await asyncio.to_thread(_confined_pid, process.first_pid)
        worker.name = f"aider {ready['version']} (pid {pid}, {python})"
        return worker

    @property
    def is_running(self) -> bool:
        return self._process.is_running

    async def ask(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Raises _WorkerDiedError with the last it said."""
        try:
            self._process.stdin.write(json.dumps(record).encode() + b"\n")
            await self._process.stdin.drain()
        except OSError as error:
            raise await self._died() from error
        return await self._read()

    def failed(self, error: str) -> EditOutcome:
        return EditOutcome(files={}, error=error, cause="engine", log=self._errors.text(), engine=self.name)

    async def end(self) -> None:
        await self._process.kill()
        await self._listening

    async def _read(self) -> dict[str, Any]:
        try:
            reply = json.loads(await self._process.stdout.readline())
        except ValueError as error:  # no line, half a line, or one over the stream's bound
            raise await self._died() from error
        assert isinstance(reply, dict)
        return reply

    async def _died(self) -> _WorkerDiedError:
        await self._process.kill()
        await self._listening
        status = await self._process.wait()
        said = self._errors.text().strip()
        return _WorkerDiedError(
            f"The edit engine's process ended (status {status}): {said[-2_000:] or 'no last words'}"
        )

    async def _collect_errors(self) -> None:
        while chunk := await self._process.stderr.read(4_096):
            self._errors.add(chunk)


def _record(request: EditRequest) -> dict[str, Any]:
    def encode(files: Mapping[str, bytes] | Mapping[str, bytes | None]) -> dict[str, str | None]:
        return {path: None if data is None else base64.b64encode(data).decode() for path, data in files.items()}

    return {
        "instruction": f"{request.instruction}\n\n{MOVES_NOTE}",
        "files": encode(request.files),
        "read_only": encode(request.read_only),
        "model": request.model,
        "token": request.token,
        "output_tokens_max": request.output_tokens_max,
    }


def _folders(python: Path) -> list[Path]:
    """Those that this Python reads."""
    venv = python.parent.parent
    folders = [venv, python.resolve().parent.parent]
    configuration = venv / "pyvenv.cfg"
    if configuration.is_file():
        settings = dict(line.partition("=")[::2] for line in configuration.read_text().splitlines())
        home = {name.strip(): value.strip() for name, value in settings.items()}.get("home")
        folders += [Path(home).parent] if home else []
    # A virtual environment's Python may stand in a system folder, which is visible anyway.
    return list(dict.fromkeys(folders))


def _source(path: str) -> bytes:
    """Of a file that the worker sees at `path`."""
    return Path(__file__).with_name(Path(path).name).read_bytes()


def _confined_pid(first_pid: int) -> int:
    """The host's id of the confined program: the only child of its namespace's first process."""
    children = psutil.Process(first_pid).children()
    return children[0].pid if children else first_pid


def _unavailable(text: str) -> EngineUnavailableError:
    return EngineUnavailableError(text, "Run `masterbuilder doctor`; `make setup` makes Aider's environment anew.")

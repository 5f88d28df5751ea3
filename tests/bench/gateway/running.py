"""A gateway that runs: where it answers, how it is asked, and which processes it is."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import psutil

from tests.bench.gateway.load import Load, body, run

ANSWERS_S_MAX = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """`models` and `headers` by upstream: `delayed` answers after a while, `instant` at once."""

    name: str
    port: int
    models: Mapping[str, str]
    headers: Mapping[str, Mapping[str, str]]
    processes: Callable[[], Sequence[psutil.Process]] = field(repr=False)

    @classmethod
    def of_child(cls, name: str, port: int, pid: int, headers: Mapping[str, str], **models: str) -> Self:
        def tree() -> list[psutil.Process]:
            root = psutil.Process(pid)
            return [root, *root.children(recursive=True)]

        return cls(name=name, port=port, models=models, headers=dict.fromkeys(models, headers), processes=tree)

    def with_headers(self, **headers: Mapping[str, str]) -> Self:
        return replace(self, headers=headers)

    def load(self, upstream: str, callers: int, seconds: float, *, streamed: bool = False) -> Load:
        return Load(
            port=self.port,
            headers=self.headers[upstream],
            body=body(self.models[upstream], streamed=streamed),
            callers=callers,
            seconds=seconds,
            streamed=streamed,
        )

    def cpu_s(self) -> float:
        """Of all its processes, since each began."""
        return sum(map(_cpu_s, self.processes()))

    def memory_bytes(self) -> int:
        """What it alone holds, and its share of what is held together."""
        return sum(map(_memory_bytes, self.processes()))


async def wait_until_it_answers(running: Running, process: asyncio.subprocess.Process | None = None) -> None:
    """A whole call goes through to either upstream. Raises RuntimeError with the last error where none does."""
    deadline = time.monotonic() + ANSWERS_S_MAX
    waiting = list(running.models)
    error = ""
    while waiting and time.monotonic() < deadline:
        if process is not None and process.returncode is not None:
            raise RuntimeError(f"{running.name} ended with status {process.returncode}.")
        seen = await run(running.load(waiting[0], callers=1, seconds=0.01))
        if seen.errors:
            error = seen.first_error
            await asyncio.sleep(0.5)
        else:
            waiting.pop(0)
    if waiting:
        raise RuntimeError(f"{running.name} does not answer: {error}")


@asynccontextmanager
async def child(
    command: Sequence[str], log_file: Path, environment: Mapping[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """In a process group of its own, which is ended with it."""
    with log_file.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(environment), start_new_session=True
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def _cpu_s(process: psutil.Process) -> float:
    """Of a process that ended: nothing."""
    try:
        spent = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(spent.user + spent.system)


def _memory_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0

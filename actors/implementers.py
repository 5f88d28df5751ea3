"""The pool of implementers: where tasks are carried out, away from everything that owns state."""

import asyncio
import hashlib
import logging
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ray.actor import ActorHandle

from actors.handles import ActorGoneError, ensure, once
from runtime.config import Settings
from runtime.entity.vitals import PoolVitals
from runtime.implementer.engines import check_edit_engine, edit_engine
from runtime.implementer.implementer import Implementer
from runtime.implementer.sandbox import Sandbox
from runtime.implementer.work import CheckReport, CheckWork, EditResult, EditWork

log = logging.getLogger(__name__)

POOL = "implementer-pool"


class ImplementerActor:
    """Owns one warm edit engine and one scratch folder, and does one piece of work at a time.

    Called by the pool only. A restart loses the work in hand: the pool says so and the project begins a new run.
    """

    def __init__(self, settings: Settings) -> None:
        # Short, because Unix sockets in it have a path bound; of this installation alone, so that it may be swept.
        mark = hashlib.sha256(str(settings.data_dir).encode()).hexdigest()[:10]
        scratch = Path(tempfile.gettempdir()) / f"mb-scratch-{mark}"
        sandbox = Sandbox()
        engine = edit_engine(settings, sandbox, scratch)
        self._implementer = Implementer(sandbox=sandbox, engine=engine, scratch_dir=scratch)

    async def start(self) -> None:
        """Warms the engine up. Raises EngineUnavailableError or SandboxUnavailableError."""
        await self._implementer.start()

    async def edit(self, work: EditWork) -> EditResult:
        return await self._implementer.edit(work)

    async def check(self, work: CheckWork) -> CheckReport:
        return await self._implementer.check(work)


class ImplementerPoolActor:
    """Owns the implementers and the queue in front of them. One runs.

    Called by entity hosts. As many implementers as MAX_PARALLEL_IMPLEMENTERS, but no more than this machine has cores:
    they are made when the first build starts. A restart forgets the queue; waiting callers ask again.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._free: asyncio.Queue[ActorHandle[Any]] = asyncio.Queue()
        self._hiring: asyncio.Task[None] | None = None
        self._hired = 0
        self._busy = 0
        self._queued = 0

    async def probe(self) -> None:
        """Whether code can be edited and confined here. Raises what says that it cannot."""
        await Sandbox().probe()
        await asyncio.to_thread(check_edit_engine, self._settings)

    async def prepare(self) -> None:
        """Hires and starts warming up; returns at once."""
        if self._hiring is None or (self._hiring.done() and not self._hired):
            self._hiring = asyncio.create_task(self._hire())

    async def edit(self, work: EditWork) -> EditResult:
        async with self._one() as implementer:
            return await once(lambda: implementer.edit.remote(work), what="The implementer", cancels=True)

    async def check(self, work: CheckWork) -> CheckReport:
        async with self._one() as implementer:
            return await once(lambda: implementer.check.remote(work), what="The implementer", cancels=True)

    async def vitals(self) -> PoolVitals:
        return PoolVitals(workers=self._hired, busy=self._busy, queued=self._queued)

    async def _hire(self) -> None:
        """One after the other: the first is at work while the next one warms up, which takes seconds of CPU."""
        for number in range(min(self._settings.max_parallel_implementers, os.cpu_count() or 1)):
            implementer = ensure(f"implementer-{number}", ImplementerActor, self._settings)
            self._hired += 1
            try:
                await once(implementer.start.remote, what="The implementer")
            except Exception as error:
                # Not lost: the first piece of work meets it again and says it to the project.
                log.warning("warming an implementer up failed: %s", error)
            self._free.put_nowait(implementer)

    @asynccontextmanager
    async def _one(self) -> AsyncIterator[ActorHandle[Any]]:
        await self.prepare()
        self._queued += 1
        try:
            implementer = await self._free.get()
        finally:
            self._queued -= 1
        self._busy += 1
        try:
            yield implementer
        finally:
            self._busy -= 1
            self._free.put_nowait(implementer)


class ImplementersHandle:
    """Implements `Implementers` from any process.

    Checks are repeated when a worker died, for they change nothing; edits are not, for they cost money: the caller
    begins a new run, so that the interrupted one is the platform's loss.
    """

    def __init__(self, settings: Settings) -> None:
        self._pool = ensure(POOL, ImplementerPoolActor, settings)

    async def probe(self) -> None:
        await self._patiently(lambda: self._pool.probe.remote())

    async def prepare(self) -> None:
        await self._patiently(lambda: self._pool.prepare.remote())

    async def vitals(self) -> PoolVitals:
        vitals: PoolVitals = await once(self._pool.vitals.remote, what="The implementer pool")
        return vitals

    async def edit(self, work: EditWork) -> EditResult:
        result: EditResult = await once(lambda: self._pool.edit.remote(work), what="The implementer pool", cancels=True)
        return result

    async def check(self, work: CheckWork) -> CheckReport:
        report: CheckReport = await self._patiently(lambda: self._pool.check.remote(work))
        return report

    async def _patiently(self, send: Any) -> Any:
        for pause_s in (0.5, 1.0, 2.0, 4.0, 8.0):
            try:
                return await once(send, what="The implementer pool", cancels=True)
            except ActorGoneError:
                await asyncio.sleep(pause_s)
        return await once(send, what="The implementer pool", cancels=True)

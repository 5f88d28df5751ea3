"""The pool of implementers: where tasks are carried out, away from everything that owns state."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

from ray.actor import ActorHandle

from actors.entities import EntitiesHandle
from actors.handles import ActorGoneError, call, ensure, once, this_actor
from runtime.config import Settings
from runtime.entity.vitals import PoolVitals
from runtime.ids import RunId
from runtime.implementer.engines import check_edit_engine, edit_engine
from runtime.implementer.implementer import Implementer
from runtime.implementer.packages.cache import PackageCache
from runtime.implementer.roster import Roster, Seat
from runtime.implementer.sandbox import Sandbox
from runtime.implementer.work import CheckReport, CheckWork, EditResult, EditWork
from runtime.project.waits import telling_project
from runtime.providers.waiting import telling

log = logging.getLogger(__name__)

POOL = "implementer-pool"
MEND_S_MAX = 120.0


class ImplementerActor:
    """Owns one warm edit engine and one scratch folder; edits one piece at a time, and checks beside it.

    Called by the pool only, which it tells when it could edit the next piece. A restart loses the work in hand: the
    pool says so and the project begins a new run.
    """

    def __init__(self, settings: Settings) -> None:
        scratch = settings.scratch_folder
        sandbox = Sandbox()
        engine = edit_engine(settings, sandbox, scratch)
        packages = PackageCache.of(settings)
        self._implementer = Implementer(sandbox=sandbox, engine=engine, scratch_dir=scratch, packages=packages)

    async def start(self) -> None:
        """Warms the engine up. Raises EngineUnavailableError or SandboxUnavailableError."""
        await self._implementer.start()

    async def edit(self, work: EditWork, pool: ActorHandle[Any]) -> EditResult:
        return await self._implementer.edit(work, edited=lambda: pool.edited.remote(work.run))

    async def check(self, work: CheckWork) -> CheckReport:
        return await self._implementer.check(work)


class ImplementerPoolActor:
    """Owns the implementers and the lines in front of them. One runs.

    Called by entity hosts. IMPLEMENTERS of them are made when the first build starts. One that died gets nothing more
    until it has started anew. A restart forgets the lines; waiting callers ask again.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        cores = os.cpu_count() or 1
        self._size = settings.implementers or min(settings.max_parallel_implementers, cores)
        self._roster: Roster[ActorHandle[Any]] = Roster(
            per_build_max=settings.max_parallel_implementers, checks_max=min(cores, self._size)
        )
        self._entities = EntitiesHandle()
        self._hiring: asyncio.Task[None] | None = None
        self._hired = 0
        self._mending: dict[ActorHandle[Any], asyncio.Task[None]] = {}
        self._seats: dict[RunId, Seat[ActorHandle[Any]]] = {}
        self._myself = this_actor()

    async def probe(self) -> None:
        """Whether code can be edited and confined here. Raises what says that it cannot."""
        await Sandbox().probe()
        await asyncio.to_thread(check_edit_engine, self._settings)

    async def prepare(self) -> None:
        """Hires and starts warming up; returns at once."""
        if self._hiring is None or (self._hiring.done() and not self._hired):
            self._hiring = asyncio.create_task(self._hire())

    async def edit(self, work: EditWork) -> EditResult:
        await self.prepare()
        with telling(telling_project(lambda: self._entities, work.run)):
            async with self._roster.editor(work.project) as seat:
                self._seats[work.run] = seat
                try:
                    result: EditResult = await self._send(
                        seat.worker, lambda: seat.worker.edit.remote(work, self._myself)
                    )
                finally:
                    self._seats.pop(work.run, None)
                return result

    async def edited(self, run: RunId) -> None:
        """By an implementer: it only checks this run's change now."""
        if seat := self._seats.get(run):
            seat.leave()

    async def check(self, work: CheckWork) -> CheckReport:
        await self.prepare()
        async with self._roster.checker(work.project) as implementer:
            report: CheckReport = await self._send(implementer, lambda: implementer.check.remote(work))
            return report

    async def vitals(self) -> PoolVitals:
        return self._roster.vitals(self._hired)

    async def _hire(self) -> None:
        """One after the other: the first is at work while the next one warms up, which takes seconds of CPU."""
        for number in range(self._size):
            implementer = ensure(f"implementer-{number}", ImplementerActor, self._settings)
            self._hired += 1
            try:
                await once(implementer.start.remote, what="The implementer")
            except Exception as error:
                # Not lost: the first piece of work meets it again and says it to the project.
                log.warning("warming an implementer up failed: %s", error)
            self._roster.join(implementer)

    async def _send(self, implementer: ActorHandle[Any], send: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await once(send, what="The implementer", cancels=True)
        except ActorGoneError:
            self._roster.leave(implementer)
            if implementer not in self._mending:
                self._mending[implementer] = asyncio.create_task(self._mend(implementer))
            raise

    async def _mend(self, implementer: ActorHandle[Any]) -> None:
        """Ray makes the process anew; it gets work again when its engine is warm, or says why it is not."""
        try:
            await call(implementer.start.remote, what="The implementer", patience_s=MEND_S_MAX)
        except Exception as error:
            log.warning("an implementer that died did not start well: %s", error)
        del self._mending[implementer]
        self._roster.join(implementer)


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

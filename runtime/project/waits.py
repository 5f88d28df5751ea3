"""What a build's worker waits for is known in other processes: this tells it to the project, which tells its owner."""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType

from runtime.entity.port import Entities
from runtime.errors import MasterbuilderError
from runtime.ids import EntityId, RunId
from runtime.project.messages import WorkerWaits
from runtime.providers.waiting import Tell

TOLD_AFTER_S = 1.0
"""Most waits are over sooner, and nobody has to hear of them."""


def telling_project(entities: Callable[[], Entities], run: RunId) -> Tell:
    """For the calls and the work of one run: each wait that lasts is told when it has lasted so long, and when it ends.

    A message that does not arrive is not repeated: what it says is true for seconds.
    """
    return lambda what, retry_in_s: _Wait(entities, run, what, retry_in_s)


class _Wait:
    def __init__(self, entities: Callable[[], Entities], run: RunId, what: str, retry_in_s: float | None) -> None:
        self._entities = entities
        self._run = run
        self._what = what
        self._retry_in_s = retry_in_s
        self._told: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TOLD_AFTER_S, self._begin)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._told is not None:
            _spawn(self._end(self._told))

    def _begin(self) -> None:
        left_s = None if self._retry_in_s is None else max(0.0, self._retry_in_s - TOLD_AFTER_S)
        self._told = _spawn(self._say(WorkerWaits(run=self._run, what=self._what, retry_in_s=left_s)))

    async def _end(self, begun: "asyncio.Task[None]") -> None:
        await asyncio.wait((begun,))
        await self._say(WorkerWaits(run=self._run, what=""))

    async def _say(self, message: WorkerWaits) -> None:
        try:
            await self._entities().ask(EntityId(self._run.partition("/")[0]), message)
        except MasterbuilderError:
            return


_saying: set["asyncio.Task[None]"] = set()
"""The loop itself keeps no task."""


def _spawn(saying: Coroutine[None, None, None]) -> "asyncio.Task[None]":
    task = asyncio.create_task(saying)
    _saying.add(task)
    task.add_done_callback(_saying.discard)
    return task

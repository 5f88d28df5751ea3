"""A project's steps: paid work, settled in the same transaction that records its result."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from runtime.entity.activation import Activation
from runtime.entity.journal import BeginRun, Moves, NewEvent
from runtime.entity.steps import Steps
from runtime.errors import (
    AccountStoppedError,
    CeilingReachedError,
    DoesNotFitError,
    MasterbuilderError,
    NotEnoughCreditsError,
    UnavailableError,
    WorkLostError,
)
from runtime.ids import RunId
from runtime.ledger.port import NewToken
from runtime.project.activity import Activity
from runtime.project.messages import Status
from runtime.project.shared_lock import SharedLock
from runtime.project.state import State
from runtime.providers.waiting import telling

TRIES_MAX = 3
BACK_OFF_S = (1.0, 4.0)
LOSSES_MAX = 20
"""How often a step is begun again because a process of ours died with it, before its owner hears of it."""

_PAUSED_BY = {NotEnoughCreditsError: Status.PAUSED_NO_CREDITS, CeilingReachedError: Status.PAUSED_QUOTE}

Work = Callable[[RunId], Awaitable[Mapping[str, Any]]]


async def _nothing() -> None: ...


class PaidSteps:
    """Runs a project's steps. A finished step returns its recorded result; a run that a crash cut off is abandoned.

    Abandoning books the cut-off calls as the platform's loss: the user pays once per (task, attempt).
    """

    def __init__(self, activation: Activation[State], activity: Activity) -> None:
        self.activity = activity
        self._side_by_side = SharedLock()
        self._activation = activation
        self._steps = Steps(activation, lambda state: state.steps)

    async def run(
        self,
        step: str,
        work: Work,
        *,
        task: str,
        attempt: int = 1,
        what: str = "asking the architect",
        prepare: Callable[[], Awaitable[None]] = _nothing,
        grant: Callable[[RunId], NewToken] | None = None,
        begins_with: Sequence[NewEvent] = (),
        ends_with: Callable[[Mapping[str, Any]], Sequence[NewEvent]] = lambda result: (),
    ) -> Mapping[str, Any]:
        """The step's result. Pauses the project, and waits, when money or a provider is missing.

        `prepare` runs while each run's beginning is put on disk, and has ended when `work` begins: it changes nothing
        and fails as `work` does. `begins_with` are told as its first run begins, and what `ends_with` makes of its
        result as it ends. Where others work for it, `grant` makes each run's token, which is there with the run.

        A step whose result was forgotten on purpose is a further attempt, and paid for as one.
        While the project is paused it neither begins nor returns: what runs ends and is recorded, and only what its
        work has begun meanwhile follows.
        What does not fit beside the worst case of other steps' calls is tried once more alone before it pauses.
        A run that fails is abandoned at once: its calls are the platform's loss, its holds are released.
        Raises RefusedError when the work can never succeed.
        """
        attempt += self._activation.state.steps.redone.get(step, 0)
        tries = losses = 0
        alone = False
        while (result := self._steps.result(step)) is None:
            waiting = self.activity.doing(task, attempt, "waiting: the calls of other tasks hold what is left")
            async with self._side_by_side.held(alone=alone, waiting=waiting) as accompanied:
                error = await self._once(step, work, task, attempt, what, prepare, grant, begins_with, ends_with)
                if isinstance(error, DoesNotFitError):
                    alone = not alone and accompanied()
                    if not alone:
                        await self._pause(_PAUSED_BY[type(error)], error)
            match error:
                case None | DoesNotFitError():
                    pass
                case AccountStoppedError():
                    await self._pause(Status.PAUSED, error)
                case WorkLostError() if losses < LOSSES_MAX:
                    losses += 1
                    await self._wait(task, attempt, BACK_OFF_S[0], error)
                case UnavailableError():
                    tries += 1
                    if tries % TRIES_MAX == 0:
                        await self._pause(Status.PAUSED, error)
                    else:
                        await self._wait(task, attempt, BACK_OFF_S[tries % TRIES_MAX - 1], error)
                case _:
                    raise error
        await self._until_resumed(task, attempt)
        return result

    async def _once(
        self,
        step: str,
        work: Work,
        task: str,
        attempt: int,
        what: str,
        prepare: Callable[[], Awaitable[None]],
        grant: Callable[[RunId], NewToken] | None,
        begins_with: Sequence[NewEvent],
        ends_with: Callable[[Mapping[str, Any]], Sequence[NewEvent]],
    ) -> MasterbuilderError | None:
        """One run, once the project is not paused. What its work raised, if it did: the run is abandoned then."""
        await self._until_resumed(task, attempt)
        preparing = asyncio.ensure_future(prepare())
        try:
            run = await self._begin(step, task, attempt, grant, begins_with)
            try:
                with self.activity.doing(task, attempt, what), telling(lambda *told: self._tell(task, attempt, *told)):
                    await preparing
                    done = await work(run)
            except MasterbuilderError as error:
                await self._steps.fail(step, run, str(error), Moves(abandon=(run,)))
                return error
        finally:
            preparing.cancel()
        await self._steps.finish(step, run, done, Moves(settle=(run,)), ends_with(done))
        return None

    async def _until_resumed(self, task: str, attempt: int) -> None:
        if self._activation.state.paused:
            with self.activity.doing(task, attempt, "waiting: the project is paused"):
                await self._activation.changed(lambda: not self._activation.state.paused)

    def _tell(self, task: str, attempt: int, what: str, retry_in_s: float | None) -> AbstractContextManager[None]:
        return self.activity.doing(task, attempt, f"waiting: {what}", retry_in_s=retry_in_s)

    async def _wait(self, task: str, attempt: int, pause_s: float, error: MasterbuilderError) -> None:
        with self.activity.doing(task, attempt, f"waiting: {error.message}", retry_in_s=pause_s):
            await asyncio.sleep(pause_s)

    async def _begin(
        self,
        step: str,
        task: str,
        attempt: int,
        grant: Callable[[RunId], NewToken] | None,
        beside: Sequence[NewEvent],
    ) -> RunId:
        state = self._activation.state

        def moves(run: RunId, cut_off: RunId | None) -> Moves:
            begin = BeginRun(run=run, user=state.owner, project=state.id, task=task, attempt=attempt)
            tokens = (grant(run),) if grant is not None else ()
            return Moves(begin=(begin,), tokens=tokens, abandon=(cut_off,) if cut_off else ())

        return await self._steps.begin(step, moves, beside)

    async def _pause(self, status: Status, error: MasterbuilderError) -> None:
        """Tells why, once, however many parallel steps meet the same wall."""
        if not self._activation.state.paused:
            key = f"status/{status}/{self._activation.last_seq}"
            await self._activation.emit("project.status", key, {"status": status, "text": str(error)})

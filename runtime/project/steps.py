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
    MasterbuilderError,
    NotEnoughCreditsError,
    UnavailableError,
    WorkLostError,
)
from runtime.ids import RunId
from runtime.project.activity import Activity
from runtime.project.messages import Status
from runtime.project.state import State
from runtime.providers.waiting import telling

TRIES_MAX = 3
BACK_OFF_S = (1.0, 4.0)
LOSSES_MAX = 20
"""How often a step is begun again because a process of ours died with it, before its owner hears of it."""

Work = Callable[[RunId], Awaitable[Mapping[str, Any]]]


class PaidSteps:
    """Runs a project's steps. A finished step returns its recorded result; a run that a crash cut off is abandoned.

    Abandoning books the cut-off calls as the platform's loss: the user pays once per (task, attempt).
    """

    def __init__(self, activation: Activation[State], activity: Activity) -> None:
        self.activity = activity
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
        begins_with: Sequence[NewEvent] = (),
        ends_with: Callable[[Mapping[str, Any]], Sequence[NewEvent]] = lambda result: (),
    ) -> Mapping[str, Any]:
        """The step's result. Pauses the project, and waits, when money or a provider is missing.

        `begins_with` are told as its first run begins, and what `ends_with` makes of its result as it ends.

        A step whose result was forgotten on purpose is a further attempt, and paid for as one.
        While the project is paused it neither begins nor returns: what runs ends and is recorded, nothing follows.
        A run that fails is abandoned at once: its calls are the platform's loss, its holds are released.
        Raises RefusedError when the work can never succeed.
        """
        attempt += self._activation.state.steps.redone.get(step, 0)
        tries = losses = 0
        while (result := self._steps.result(step)) is None:
            await self._until_resumed(task, attempt)
            run = await self._begin(step, task, attempt, begins_with)
            try:
                with self.activity.doing(task, attempt, what), telling(lambda *told: self._tell(task, attempt, *told)):
                    done = await work(run)
            except MasterbuilderError as error:
                await self._steps.fail(step, run, str(error), Moves(abandon=(run,)))
                if isinstance(error, NotEnoughCreditsError):
                    await self._pause(Status.PAUSED_NO_CREDITS, error)
                elif isinstance(error, CeilingReachedError):
                    await self._pause(Status.PAUSED_QUOTE, error)
                elif isinstance(error, AccountStoppedError):
                    await self._pause(Status.PAUSED, error)
                elif isinstance(error, WorkLostError) and losses < LOSSES_MAX:
                    losses += 1
                    await self._wait(task, attempt, BACK_OFF_S[0], error)
                elif isinstance(error, UnavailableError):
                    tries += 1
                    if tries % TRIES_MAX == 0:
                        await self._pause(Status.PAUSED, error)
                    else:
                        await self._wait(task, attempt, BACK_OFF_S[tries % TRIES_MAX - 1], error)
                else:
                    raise
            else:
                await self._steps.finish(step, run, done, Moves(settle=(run,)), ends_with(done))
        await self._until_resumed(task, attempt)
        return result

    async def _until_resumed(self, task: str, attempt: int) -> None:
        if self._activation.state.paused:
            with self.activity.doing(task, attempt, "waiting: the project is paused"):
                await self._activation.changed(lambda: not self._activation.state.paused)

    def _tell(self, task: str, attempt: int, what: str, retry_in_s: float | None) -> AbstractContextManager[None]:
        return self.activity.doing(task, attempt, f"waiting: {what}", retry_in_s=retry_in_s)

    async def _wait(self, task: str, attempt: int, pause_s: float, error: MasterbuilderError) -> None:
        with self.activity.doing(task, attempt, f"waiting: {error.message}", retry_in_s=pause_s):
            await asyncio.sleep(pause_s)

    async def _begin(self, step: str, task: str, attempt: int, beside: Sequence[NewEvent]) -> RunId:
        state = self._activation.state

        def moves(run: RunId, cut_off: RunId | None) -> Moves:
            begin = BeginRun(run=run, user=state.owner, project=state.id, task=task, attempt=attempt)
            return Moves(begin=(begin,), abandon=(cut_off,) if cut_off else ())

        return await self._steps.begin(step, moves, beside)

    async def _pause(self, status: Status, error: MasterbuilderError) -> None:
        """Tells why, once, however many parallel steps meet the same wall."""
        if not self._activation.state.paused:
            key = f"status/{status}/{self._activation.last_seq}"
            await self._activation.emit("project.status", key, {"status": status, "text": str(error)})

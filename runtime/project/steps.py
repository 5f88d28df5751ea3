"""Paid or outside work, done once: begun under its epoch, settled in the same transaction that records its result."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from runtime.entity.activation import Activation
from runtime.entity.journal import BeginRun, Moves
from runtime.errors import CeilingReachedError, MasterbuilderError, NotEnoughCreditsError, UnavailableError
from runtime.ids import RunId
from runtime.project.messages import Status
from runtime.project.state import State

TRIES_MAX = 3
BACK_OFF_S = (1.0, 4.0)

Work = Callable[[RunId], Awaitable[Mapping[str, Any]]]


class Steps:
    """Runs a project's steps. A finished step returns its recorded result; a run that a crash cut off is abandoned.

    Abandoning books the cut-off calls as the platform's loss: the user pays once per (task, attempt).
    """

    def __init__(self, activation: Activation[State]) -> None:
        self._activation = activation

    async def run(self, step: str, work: Work, *, task: str, attempt: int = 1) -> Mapping[str, Any]:
        """The step's result. Pauses the project, and waits, when money or a provider is missing.

        A run that fails is abandoned at once: its calls are the platform's loss, its holds are released.
        Raises RefusedError when the work can never succeed.
        """
        tries = 0
        while step not in self._activation.state.steps:
            await self._activation.changed(lambda: not self._activation.state.paused)
            run = await self._begin(step, task, attempt)
            try:
                result = await work(run)
            except MasterbuilderError as error:
                await self._abandon(step, run, error)
                if isinstance(error, NotEnoughCreditsError):
                    await self._pause(Status.PAUSED_NO_CREDITS, error)
                elif isinstance(error, CeilingReachedError):
                    await self._pause(Status.PAUSED_QUOTE, error)
                elif isinstance(error, UnavailableError):
                    tries += 1
                    if tries % TRIES_MAX == 0:
                        await self._pause(Status.PAUSED, error)
                    else:
                        await asyncio.sleep(BACK_OFF_S[tries % TRIES_MAX - 1])
                else:
                    raise
            else:
                await self._settle(step, run, result)
        return self._activation.state.steps[step]

    async def _begin(self, step: str, task: str, attempt: int) -> RunId:
        state = self._activation.state
        number = state.runs.get(step, 0) + 1
        run = RunId(f"{self._activation.entity}/{step}#{number}")
        begin = BeginRun(run=run, user=state.owner, project=state.id, task=task, attempt=attempt)

        def moves(state: State) -> Moves:
            cut_off = state.open_runs.get(step)
            return Moves(begin=(begin,), abandon=(cut_off,) if cut_off else ())

        started = {"step": step, "number": number, "run": run}
        await self._activation.emit("step.started", f"{step}/run/{number}", started, moves)
        return run

    async def _settle(self, step: str, run: RunId, result: Mapping[str, Any]) -> None:
        finished = {"step": step, "run": run, "result": dict(result)}
        await self._activation.emit("step.finished", f"{step}/done", finished, lambda state: Moves(settle=(run,)))

    async def _abandon(self, step: str, run: RunId, error: MasterbuilderError) -> None:
        failed = {"step": step, "run": run, "reason": str(error)}
        await self._activation.emit("step.failed", f"{run}/failed", failed, lambda state: Moves(abandon=(run,)))

    async def _pause(self, status: Status, error: MasterbuilderError) -> None:
        """Tells why, once, however many parallel steps meet the same wall."""
        if not self._activation.state.paused:
            key = f"status/{status}/{self._activation.last_seq}"
            await self._activation.emit("project.status", key, {"status": status, "text": str(error)})

"""Paid or outside work, done once: begun under its epoch, settled in the same transaction that records its result."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from runtime.entity.activation import Activation
from runtime.entity.journal import BeginRun
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

        Raises RefusedError when the work can never succeed; the run stays open then, for the caller to abandon.
        """
        tries = 0
        while step not in self._activation.state.steps:
            await self._activation.changed(lambda: not self._activation.state.paused)
            run = await self._begin(step, task, attempt)
            try:
                result = await work(run)
            except NotEnoughCreditsError as error:
                await self._pause(Status.PAUSED_NO_CREDITS, error)
            except CeilingReachedError as error:
                await self._pause(Status.PAUSED_QUOTE, error)
            except UnavailableError as error:
                tries += 1
                if tries % TRIES_MAX == 0:
                    await self._pause(Status.PAUSED, error)
                else:
                    await asyncio.sleep(BACK_OFF_S[tries % TRIES_MAX - 1])
            else:
                await self._activation.emit(
                    "step.finished",
                    f"{step}/done",
                    {"step": step, "run": run, "result": dict(result)},
                    settle_runs=(run,),
                )
        return self._activation.state.steps[step]

    async def _begin(self, step: str, task: str, attempt: int) -> RunId:
        state = self._activation.state
        number = state.runs.get(step, 0) + 1
        run = RunId(f"{self._activation.entity}/{step}#{number}")
        cut_off = state.open_runs.get(step)
        await self._activation.emit(
            "step.started",
            f"{step}/run/{number}",
            {"step": step, "number": number, "run": run},
            begin_runs=(BeginRun(run=run, user=state.owner, project=state.id, task=task, attempt=attempt),),
            abandon_runs=(cut_off,) if cut_off else (),
        )
        return run

    async def _pause(self, status: Status, error: MasterbuilderError) -> None:
        """Tells why, once, however many parallel steps meet the same wall."""
        if not self._activation.state.paused:
            key = f"status/{status}/{self._activation.last_seq}"
            await self._activation.emit("project.status", key, {"status": status, "text": str(error)})

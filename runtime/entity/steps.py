"""Steps: paid or outside work whose result is recorded, so that it is done once however often the code runs again."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic

from runtime.entity.activation import Activation
from runtime.entity.entity import State
from runtime.entity.journal import NO_MOVES, EventRecord, Moves, NewEvent
from runtime.errors import MasterbuilderError
from runtime.ids import RunId


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLog:
    """What the journal says about an entity's steps. The entity keeps it in its state and folds every event into it."""

    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Finished steps and their results."""
    runs: Mapping[str, int] = field(default_factory=dict)
    """Step -> the number of its newest run."""
    open: Mapping[str, RunId] = field(default_factory=dict)
    """Steps that were begun and are not finished: under way, or cut off by a crash."""
    redone: Mapping[str, int] = field(default_factory=dict)
    """Step -> how often its result was forgotten, so that it is done once more on purpose."""

    def after(self, event: EventRecord) -> "StepLog":
        match event.type:
            case "step.started":
                step = event.data["step"]
                return replace(
                    self,
                    runs={**self.runs, step: event.data["number"]},
                    open={**self.open, step: RunId(event.data["run"])},
                )
            case "step.failed":
                return replace(self, open=_without(self.open, event.data["step"]))
            case "step.finished":
                step = event.data["step"]
                return replace(
                    self,
                    results={**self.results, step: event.data["result"]},
                    open=_without(self.open, step),
                )
            case _:
                return self

    def without(self, *prefixes: str) -> "StepLog":
        """The results of steps whose names begin so are forgotten: they are done again, as new runs."""
        forgotten = [name for name in self.results if name.startswith(prefixes)]
        return replace(
            self,
            results={name: each for name, each in self.results.items() if name not in forgotten},
            redone={**self.redone, **{name: self.redone.get(name, 0) + 1 for name in forgotten}},
        )


class Steps(Generic[State]):
    """Begins a step under the entity's epoch before the work, and records its result after it.

    A run that a crash cut off is followed by a new one: work may be done again, its effect is recorded once. Whoever
    pays says with `moves` what the run's beginning, end or failure means in money.
    """

    def __init__(self, activation: Activation[State], log: Callable[[State], StepLog]) -> None:
        self._activation = activation
        self._log = log

    def result(self, step: str) -> Mapping[str, Any] | None:
        return self._log(self._activation.state).results.get(step)

    async def once(self, step: str, work: Callable[[RunId], Awaitable[Mapping[str, Any]]]) -> Mapping[str, Any]:
        """The recorded result; the work is done when there is none. Raises what the work raises."""
        known = self.result(step)
        if known is not None:
            return known
        run = await self.begin(step)
        try:
            result = await work(run)
        except MasterbuilderError as error:
            await self.fail(step, run, str(error))
            raise
        await self.finish(step, run, result)
        return result

    async def begin(
        self,
        step: str,
        moves: Callable[[RunId, RunId | None], Moves] = lambda run, cut_off: NO_MOVES,
        beside: Sequence[NewEvent] = (),
    ) -> RunId:
        """Journals that a run begins, in one append with events that are told first, where they are not there yet.

        `moves` is told the run that it replaces, if a crash cut one off.
        """
        number = self._log(self._activation.state).runs.get(step, 0) + 1
        run = RunId(f"{self._activation.entity}/{step}#{number}")
        data = {"step": step, "number": number, "run": run}
        started = NewEvent(type="step.started", key=f"{step}/run/{number}", data=data)
        await self._activation.emit_all((*beside, started), lambda state: moves(run, self._log(state).open.get(step)))
        return run

    async def finish(
        self,
        step: str,
        run: RunId,
        result: Mapping[str, Any],
        moves: Moves = NO_MOVES,
        beside: Sequence[NewEvent] = (),
    ) -> None:
        """In one append with events that are told next. A run that was ended from outside meanwhile moves no money."""
        data = {"step": step, "run": run, "result": dict(result)}
        finished = NewEvent(type="step.finished", key=f"{run}/done", data=data)
        await self._activation.emit_all((finished, *beside), self._while_open(step, run, moves))

    async def fail(self, step: str, run: RunId, reason: str, moves: Moves = NO_MOVES) -> None:
        """As `finish`."""
        failed = {"step": step, "run": run, "reason": reason}
        await self._activation.emit("step.failed", f"{run}/failed", failed, self._while_open(step, run, moves))

    def _while_open(self, step: str, run: RunId, moves: Moves) -> Callable[[State], Moves]:
        return lambda state: moves if self._log(state).open.get(step) == run else NO_MOVES


def _without(open_runs: Mapping[str, RunId], step: str) -> Mapping[str, RunId]:
    return {name: run for name, run in open_runs.items() if name != step}

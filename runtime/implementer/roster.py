"""Which worker does what next, and whose turn it is.

A worker edits one piece at a time and waits most of that for a model. So it may take the next one while what came out
is checked, and checks of main go beside the edits, in a line of their own: a change that waits to be merged holds up
all that depends on it, and never waits for an edit to end. How many of those run at once is bounded, because they use
the processor.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from runtime.entity.vitals import PoolVitals, WaitingBuild
from runtime.implementer.turns import Turns
from runtime.providers.waiting import waiting

W = TypeVar("W", bound=Hashable)


class Seat(Generic[W]):
    """A worker's one place for an edit, until it is left."""

    def __init__(self, worker: W, leave: Callable[[], None]) -> None:
        self.worker = worker
        self._leave: Callable[[], None] | None = leave

    def leave(self) -> None:
        """The edit is done, and the worker may take another. Again, it changes nothing."""
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()


class Roster(Generic[W]):
    """Workers come and go; whoever waits stays in the line. Belongs to one event loop."""

    def __init__(self, *, per_build_max: int, checks_max: int) -> None:
        """`per_build_max` bounds the edits of one build at once, `checks_max` the checks of all."""
        self._checks_max = checks_max
        self._edits: Turns[asyncio.Future[W]] = Turns(per_build_max)
        self._checks: Turns[asyncio.Future[W]] = Turns(checks_max)
        self._checking: dict[W, int] = {}
        """Present worker -> how many checks it runs."""
        self._checks_running = 0
        self._editing: set[W] = set()
        self._in_hand: Counter[W] = Counter()
        """Worker -> how many edits it has that have not ended, those included that it only checks."""

    def join(self, worker: W) -> None:
        """It can work: for the first time, or again."""
        self._checking.setdefault(worker, 0)
        self._deal()

    def leave(self, worker: W) -> None:
        """It gets nothing more; what it has in hand ends by itself."""
        self._checking.pop(worker, None)

    @asynccontextmanager
    async def editor(self, build: str) -> AsyncIterator[Seat[W]]:
        """A worker that edits nothing else until the seat is left, when it is this build's turn."""
        worker = await self._turn(self._edits, build)
        seat = Seat(worker, lambda: self._end_edit(build, worker))
        self._in_hand[worker] += 1
        try:
            yield seat
        finally:
            self._in_hand[worker] -= 1
            seat.leave()

    @asynccontextmanager
    async def checker(self, build: str) -> AsyncIterator[W]:
        """A worker to run checks on, when it is this build's turn."""
        worker = await self._turn(self._checks, build)
        try:
            yield worker
        finally:
            self._end_check(build, worker)

    def vitals(self, workers: int) -> PoolVitals:
        """`workers`: how many there are, absent ones included."""
        return PoolVitals(
            workers=workers,
            busy=len(self._editing.union(+self._in_hand)),
            queued=len(self._edits) + len(self._checks),
            checking=self._checks_running,
            waiting=[*_places("edit", self._edits), *_places("check", self._checks)],
        )

    async def _turn(self, turns: "Turns[asyncio.Future[W]]", build: str) -> W:
        turn: asyncio.Future[W] = asyncio.get_running_loop().create_future()
        turns.add(build, turn)
        self._deal()
        try:
            # Shielded: a caller that gives up either had its turn, or still stands in the line.
            with waiting("a free implementer"):
                return await asyncio.shield(turn)
        except asyncio.CancelledError:
            if not turn.done():
                turns.drop(build, turn)
            elif turns is self._edits:
                self._end_edit(build, turn.result())
            else:
                self._end_check(build, turn.result())
            raise

    def _end_edit(self, build: str, worker: W) -> None:
        self._editing.discard(worker)
        self._edits.end(build)
        self._deal()

    def _end_check(self, build: str, worker: W) -> None:
        self._checks_running -= 1
        if worker in self._checking:
            self._checking[worker] = max(0, self._checking[worker] - 1)
        self._checks.end(build)
        self._deal()

    def _deal(self) -> None:
        free = [worker for worker in self._checking if worker not in self._editing]
        for worker in sorted(free, key=self._in_hand.__getitem__):
            if (edit := self._edits.serve()) is None:
                break
            self._editing.add(worker)
            edit[1].set_result(worker)
        while self._checking and self._checks_running < self._checks_max:
            if (check := self._checks.serve()) is None:
                break
            worker = min(self._checking, key=self._checking.__getitem__)
            self._checking[worker] += 1
            self._checks_running += 1
            check[1].set_result(worker)


def _places(work: str, turns: "Turns[asyncio.Future[W]]") -> Sequence[WaitingBuild]:
    return [WaitingBuild(project=build, work=work, place=place) for place, build in enumerate(turns.order(), 1)]

"""Who is served next where many builds want few places. Pure: it holds who waits and who is served, and decides.

Of the builds that wait, the one with the fewest places goes first; among equals, the one that has waited longest since
its last turn, or since it began to wait. So places are shared equally among those who want them, and while a build
without a place waits, no other build gets a second turn before it.
"""

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Build(Generic[T]):
    waiting: deque[T] = field(default_factory=deque)
    served: int = 0
    since: int = 0
    """When its wait for the next turn began, as a number that grows with every turn and arrival."""


class Turns(Generic[T]):
    """The line in front of one kind of place. What waits is the caller's own; each is there at most once."""

    def __init__(self, per_build_max: int) -> None:
        """No build is served in more than `per_build_max` places at once."""
        self._per_build_max = per_build_max
        self._builds: dict[str, _Build[T]] = {}
        self._clock = itertools.count()

    def __len__(self) -> int:
        """How many wait."""
        return sum(len(build.waiting) for build in self._builds.values())

    def add(self, build: str, waiter: T) -> None:
        known = self._builds.setdefault(build, _Build())
        if not known.waiting:
            known.since = next(self._clock)
        known.waiting.append(waiter)

    def drop(self, build: str, waiter: T) -> None:
        """It gave up."""
        self._builds[build].waiting.remove(waiter)
        self._forget(build)

    def serve(self) -> tuple[str, T] | None:
        """Whose turn it is, now that a place is free, and takes it out of the line; None where nobody may be served."""
        first = next(self._by_turn(), None)
        if first is None:
            return None
        build = self._builds[first]
        build.served += 1
        build.since = next(self._clock)
        return first, build.waiting.popleft()

    def end(self, build: str) -> None:
        """One of its places is free again."""
        self._builds[build].served -= 1
        self._forget(build)

    def served(self, build: str) -> int:
        return self._builds[build].served if build in self._builds else 0

    def order(self) -> Sequence[str]:
        """Builds that wait, in the order of their next turns; those at their bound last. Each stands once."""
        now = list(self._by_turn())
        return [*now, *(name for name, build in self._builds.items() if build.waiting and name not in now)]

    def _by_turn(self) -> Iterator[str]:
        may = [
            (build.served, build.since, name)
            for name, build in self._builds.items()
            if build.waiting and build.served < self._per_build_max
        ]
        return (name for _, _, name in sorted(may))

    def _forget(self, build: str) -> None:
        if not self._builds[build].waiting and not self._builds[build].served:
            del self._builds[build]

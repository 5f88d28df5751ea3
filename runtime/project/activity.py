"""What the workers of a build do at this moment. Kept in memory alone: it is told, and never needed again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from runtime.project.messages import Doing


class Activity:
    """Of one build. Whoever works says what at; whoever asks is told all of it, oldest first."""

    def __init__(self) -> None:
        self._doing: dict[int, Doing] = {}
        self._waits: dict[tuple[str, int], Doing] = {}
        """(task, attempt) -> what its worker said that it waits for."""
        self._next = 0

    @contextmanager
    def doing(self, task: str, attempt: int, what: str, *, retry_in_s: float | None = None) -> Iterator[None]:
        """Tells it for as long as the block runs. A block inside another of the same task takes its place meanwhile."""
        number, self._next = self._next, self._next + 1
        self._doing[number] = _doing(task, attempt, what, retry_in_s)
        try:
            yield
        finally:
            self._doing.pop(number)
            if all(each.task != task for each in self._doing.values()):
                self._waits.pop((task, attempt), None)

    def waits(self, task: str, attempt: int, what: str, retry_in_s: float | None) -> None:
        """From a worker elsewhere; nothing, when `what` is empty. It ends with what is done for the task."""
        self._waits.pop((task, attempt), None)
        if what and any((each.task, each.attempt) == (task, attempt) for each in self._doing.values()):
            self._waits[task, attempt] = _doing(task, attempt, f"waiting: {what}", retry_in_s)

    def told(self) -> Sequence[Doing]:
        """One line for each task: the innermost of what is done for it, with the time since that began."""
        innermost = {each.task: each for each in self._doing.values()}
        return tuple(self._waits.get((each.task, each.attempt), each) for each in innermost.values())


def _doing(task: str, attempt: int, what: str, retry_in_s: float | None) -> Doing:
    now = datetime.now(UTC)
    retry_at = None if retry_in_s is None else now + timedelta(seconds=retry_in_s)
    return Doing(task=task, attempt=attempt, what=what, since=now, retry_at=retry_at)

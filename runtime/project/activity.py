"""What the workers of a build do at this moment. Kept in memory alone: it is told, and never needed again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from runtime.project.messages import Doing


class Activity:
    """Of one build. Whoever works says what at; whoever asks is told all of it, oldest first."""

    def __init__(self) -> None:
        self._doing: dict[int, Doing] = {}
        self._next = 0

    @contextmanager
    def doing(self, task: str, attempt: int, what: str, *, retry_in_s: float | None = None) -> Iterator[None]:
        """Tells it for as long as the block runs. A block inside another of the same task takes its place meanwhile."""
        now = datetime.now(UTC)
        number, self._next = self._next, self._next + 1
        retry_at = None if retry_in_s is None else now + timedelta(seconds=retry_in_s)
        self._doing[number] = Doing(task=task, attempt=attempt, what=what, since=now, retry_at=retry_at)
        try:
            yield
        finally:
            self._doing.pop(number)

    def told(self) -> Sequence[Doing]:
        """One line for each task: the innermost of what is done for it, with the time since that began."""
        innermost = {each.task: each for each in self._doing.values()}
        return tuple(innermost.values())

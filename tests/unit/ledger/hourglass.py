"""A subscription as a queue of what is left of each purchase: time takes from the first."""

from collections import deque
from datetime import timedelta


class Hourglass:
    def __init__(self) -> None:
        self._parts: deque[tuple[str, timedelta]] = deque()

    def buy(self, name: str, days: int) -> None:
        self._parts.append((name, timedelta(days=days)))

    def wait(self, time: timedelta) -> None:
        while time and self._parts:
            name, left = self._parts.popleft()
            used = min(time, left)
            time -= used
            if left > used:
                self._parts.appendleft((name, left - used))

    def refund(self, name: str) -> timedelta:
        """What was left of it."""
        before = self.left
        self._parts = deque(part for part in self._parts if part[0] != name)
        return before - self.left

    @property
    def left(self) -> timedelta:
        return sum((left for _, left in self._parts), timedelta())

"""Who waits for a model, and whose turn it is.

Interactive calls go before background ones, but of ten grants one is background's while it waits, so that it cannot
starve. Within a priority it is the turn of the user who used the model least of late: those who want less than an
equal share get it all, and the others share the rest equally (max-min fairness) - over some minutes, because whoever
used up a key's minute at once left the others nothing for the rest of it. Of twenty grants one goes to whoever has
waited longest, so that an endless row of new users cannot starve anybody. A user's own calls go in order.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from runtime.ids import UserId
from runtime.keys.keys import Priority

BACKGROUND_EVERY = 10
"""Of so many grants one goes to background, while it waits."""
OLDEST_EVERY = 20
"""Of so many grants one goes to whoever has waited longest."""
HALF_LIFE_S = 120.0
"""After so long what somebody used counts half."""
HALF_LIVES_MAX = 40
FORGET_BELOW = 0.05


@dataclass(slots=True, eq=False)
class Waiter:
    """A call that waits for a key. `id` is its session's own number for it."""

    session: str
    id: int
    model: str
    user: UserId
    priority: Priority
    tokens: int
    since: float
    deadline: float
    is_gone: bool = False


class Line:
    """Of one model."""

    def __init__(self, now: float) -> None:
        self._queues: dict[Priority, _Queue] = {"interactive": _Queue(), "background": _Queue()}
        self._used: dict[UserId, float] = {}
        """Calls of late, each weighed by what it would count had it been made at `_base`: so their order stands."""
        self._base = now
        self._interactive_in_a_row = 0
        self._grants = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def is_shared(self) -> bool:
        """More than one user called in the last minutes, or waits."""
        users = set(self._used)
        return len(users) > 1 or len(users.union(*(queue.users for queue in self._queues.values()))) > 1

    def add(self, waiter: Waiter) -> None:
        self._queues[waiter.priority].add(waiter, self._used.get(waiter.user, 0.0))
        self._size += 1

    def drop(self, waiter: Waiter) -> None:
        """It gave up, or was refused."""
        if not waiter.is_gone:
            self._queues[waiter.priority].leave(waiter)
            self._size -= 1

    def by_turn(self) -> Iterator[Waiter]:
        """The first of each user, in the order in which they are to be served. Take one with `serve` and begin anew."""
        order: tuple[Priority, Priority] = ("interactive", "background")
        is_backgrounds = self._interactive_in_a_row >= BACKGROUND_EVERY - 1
        for priority in reversed(order) if is_backgrounds else order:
            yield from self._queues[priority].by_turn(oldest_first=self._grants % OLDEST_EVERY == OLDEST_EVERY - 1)

    def serve(self, waiter: Waiter) -> None:
        """It got its key; what its user used is told by `used`."""
        self.drop(waiter)
        self._grants += 1
        if waiter.priority == "background":
            self._interactive_in_a_row = 0
        elif self._queues["background"]:
            self._interactive_in_a_row += 1

    def used(self, user: UserId, calls: int, now: float) -> None:
        """Also of calls that did not have to wait."""
        half_lives = (now - self._base) / HALF_LIFE_S
        if half_lives > HALF_LIVES_MAX:
            self.forget(now)
            half_lives = 0.0
        used = self._used[user] = self._used.get(user, 0.0) + calls * 2.0**half_lives
        for queue in self._queues.values():
            queue.put(user, used)

    def forget(self, now: float) -> bool:
        """What is long ago. True when nothing is left to know."""
        faded = 0.5 ** ((now - self._base) / HALF_LIFE_S)
        self._base = now
        self._used = {user: used * faded for user, used in self._used.items() if used * faded >= FORGET_BELOW}
        for queue in self._queues.values():
            queue.put_all(self._used)
        return not (self._size or self._used)

    def usage(self) -> tuple[float, dict[UserId, float]]:
        """What users used of late, for `recall`."""
        return self._base, dict(self._used)

    def recall(self, base: float, used: dict[UserId, float]) -> None:
        self._base, self._used = base, used

    def everyone(self) -> list[Waiter]:
        return [waiter for queue in self._queues.values() for waiter in queue.everyone()]


class _Queue:
    """Of one priority. Every user's own queue begins with somebody who waits; one that nobody waits in is gone."""

    def __init__(self) -> None:
        self._users: dict[UserId, deque[Waiter]] = {}
        self._heap: list[tuple[float, int, UserId]] = []
        """(used, number, user): only a user's newest entry counts."""
        self._newest: dict[UserId, int] = {}
        self._numbers = itertools.count()

    def __bool__(self) -> bool:
        return bool(self._users)

    @property
    def users(self) -> Collection[UserId]:
        return self._users.keys()

    def add(self, waiter: Waiter, used: float) -> None:
        queue = self._users.get(waiter.user)
        if queue is not None:
            queue.append(waiter)
            return
        self._users[waiter.user] = deque((waiter,))
        self.put(waiter.user, used)

    def leave(self, waiter: Waiter) -> None:
        waiter.is_gone = True
        queue = self._users[waiter.user]
        while queue and queue[0].is_gone:
            queue.popleft()
        if not queue:
            del self._users[waiter.user], self._newest[waiter.user]

    def put(self, user: UserId, used: float) -> None:
        if user in self._users:
            number = self._newest[user] = next(self._numbers)
            heapq.heappush(self._heap, (used, number, user))
            if len(self._heap) > 2 * len(self._users) + 100:
                self._heap = [entry for entry in self._heap if self._newest.get(entry[2]) == entry[1]]
                heapq.heapify(self._heap)

    def put_all(self, used: dict[UserId, float]) -> None:
        self._heap = [(used.get(user, 0.0), number, user) for user, number in self._newest.items()]
        heapq.heapify(self._heap)

    def by_turn(self, *, oldest_first: bool) -> Iterator[Waiter]:
        if oldest_first and self._users:
            yield min((queue[0] for queue in self._users.values()), key=lambda waiter: waiter.since)
        while self._heap and self._newest.get(self._heap[0][2]) != self._heap[0][1]:
            heapq.heappop(self._heap)
        if self._heap:
            yield self._users[self._heap[0][2]][0]
            for _, number, user in sorted(self._heap)[1:]:
                if self._newest.get(user) == number:
                    yield self._users[user][0]

    def everyone(self) -> Iterator[Waiter]:
        return (waiter for queue in self._users.values() for waiter in queue if not waiter.is_gone)

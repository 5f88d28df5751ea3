"""Writes on their way to the writer's thread, and answers on their way back."""

import asyncio
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from runtime.errors import StoreUnavailableError
from runtime.store.transaction import Transaction, Wanted

Act = Callable[[Transaction], Any]

WEIGHT_OF_GROUP_MAX = 1_000
WRITES_WAITING_MAX = 20_000


class Batch:
    """Writes of one caller that are answered together. Made on the caller's loop, answered from the writer's thread."""

    __slots__ = ("_loop", "acts", "answers", "done", "wanted", "weight")

    def __init__(self, acts: Sequence[Act], wanted: Sequence[Wanted], weight: int = 0) -> None:
        self.acts = acts
        self.wanted = wanted
        self.weight = weight or len(acts)
        """Its part of a group: as many as it has acts, unless they are large."""
        self.answers: list[Any] = [None] * len(acts)
        """What each act returned, or the exception it raised; complete when `done` is."""
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[list[Any]] = self._loop.create_future()

    @staticmethod
    def deliver(batches: Iterable["Batch"]) -> None:
        """Wakes the callers: each loop is interrupted once, however many batches it waits for."""
        by_loop: dict[asyncio.AbstractEventLoop, list[Batch]] = defaultdict(list)
        for batch in batches:
            by_loop[batch._loop].append(batch)
        for loop, own in by_loop.items():
            with suppress(RuntimeError):  # The loop is closed: nobody waits any more.
                loop.call_soon_threadsafe(_resolve, own)


def _resolve(batches: list[Batch]) -> None:
    for batch in batches:
        if not batch.done.done():
            batch.done.set_result(batch.answers)


class WriteQueue:
    """Batches wait here until the writer's thread takes as many as make a group."""

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.waiting = 0
        """Writes, not batches."""

    def put(self, batch: Batch) -> None:
        """Raises StoreUnavailableError when too many wait, or when nobody takes them any more."""
        with self._changed:
            if self._closed:
                raise StoreUnavailableError("The ledger is not open.", "Try again in a moment.")
            if self.waiting + len(batch.acts) > max(WRITES_WAITING_MAX, len(batch.acts)):
                raise StoreUnavailableError("The ledger has more to write than it can.", "Try again in a moment.")
            self._batches.append(batch)
            self.waiting += len(batch.acts)
            self._changed.notify()

    def take(self, weight_max: int = WEIGHT_OF_GROUP_MAX) -> list[Batch]:
        """Waits for the next group: one batch at least. Empty once the queue is closed and nothing waits."""
        with self._changed:
            self._changed.wait_for(lambda: self._batches or self._closed)
            group: list[Batch] = []
            weight = 0
            while self._batches and (not group or weight + self._batches[0].weight <= weight_max):
                group.append(self._batches.popleft())
                weight += group[-1].weight
            self.waiting -= sum(len(batch.acts) for batch in group)
            return group

    def close(self) -> None:
        """Takes no more; what waits may still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify()

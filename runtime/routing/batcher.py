"""Many callers, one round trip: what comes while requests are under way is sent together in the next one."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import islice
from typing import Generic, TypeVar

from runtime.errors import OverloadedError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Sends what waits at once while fewer than `in_flight_max` batches are under way, else when one returns.

    So an unloaded item waits for nothing, and under load batches grow by themselves: the round trip is the time
    bound. `send` answers item by item, in order, with a result or the exception for it; what it raises is raised to
    every item of its batch. Items are begun in the order in which they came; two batches under way may overtake each
    other. Used from one event loop.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        what: str,
        size_max: int,
        in_flight_max: int,
        waiting_max: int,
    ) -> None:
        self._send = send
        self._what = what
        self._size_max = size_max
        self._in_flight_max = in_flight_max
        self._waiting_max = waiting_max
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._in_flight: set[asyncio.Task[None]] = set()
        self._is_scheduled = False

    async def do(self, item: Item) -> Result:
        """The item's result. Raises its exception, or OverloadedError when too many wait.

        A caller that is cancelled before its item was sent takes it back; afterwards it only stops listening.
        """
        if len(self._waiting) >= self._waiting_max:
            raise OverloadedError(f"{self._what} has {self._waiting_max} requests waiting already.")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, answer))
        self._schedule(loop)
        return await answer

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        """At the end of this turn of the loop, so that all who call in one turn go together."""
        if not self._is_scheduled and len(self._in_flight) < self._in_flight_max:
            self._is_scheduled = True
            loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._is_scheduled = False
        while self._waiting and len(self._in_flight) < self._in_flight_max:
            batch = list(islice(self._live(), self._size_max))
            if batch:
                task = asyncio.create_task(self._carry(batch))
                self._in_flight.add(task)
                task.add_done_callback(self._returned)

    def _live(self) -> Iterator[tuple[Item, asyncio.Future[Result]]]:
        while self._waiting:
            item, answer = self._waiting.popleft()
            if not answer.done():
                yield item, answer

    async def _carry(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results: Sequence[Result | Exception] = await self._send([item for item, _ in batch])
            assert len(results) == len(batch), "one result an item"
        except asyncio.CancelledError:
            for _, answer in batch:
                answer.cancel()
            raise
        except Exception as error:
            results = [error] * len(batch)
        for (_, answer), result in zip(batch, results, strict=True):
            if answer.done():
                continue
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)

    def _returned(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        if self._waiting:
            self._schedule(task.get_loop())

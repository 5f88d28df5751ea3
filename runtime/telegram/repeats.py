"""Calls that are asked for again, because who asked died before the answer came."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

KEPT = 2_048
"""Answers. More than a host's chats can have asked for since it died."""


class Repeats:
    """A call with the key of one that is under way, or that was answered lately, is that one. Used from one loop.

    One that failed is forgotten: asked for again, it is made again.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._under_way: dict[str, asyncio.Task[Any]] = {}
        self._answered: OrderedDict[str, Any] = OrderedDict()

    async def once(self, key: str, call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """What `call` answers or raises. It goes on when this is cancelled: somebody may ask for it again."""
        if key in self._answered:
            return self._answered[key]
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(call())
            task.add_done_callback(lambda done: self._over(key, done))
        return await asyncio.shield(task)

    def _over(self, key: str, task: asyncio.Task[Any]) -> None:
        del self._under_way[key]
        if task.cancelled() or task.exception() is not None:
            return
        self._answered[key] = task.result()
        if len(self._answered) > self._kept:
            self._answered.popitem(last=False)

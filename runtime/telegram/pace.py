"""Telegram's limits on what a bot sends: 30 a second in all, one a second in a chat, 20 a minute in a group.

Source: https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from telegram.ext import AIORateLimiter

OVERALL = 3, 3 / 20
"""A bucket lets its size through at once and then its rate: 23 in the worst second leaves some for the net."""
IN_GROUP = 4, 4 * 60 / 14
"""18 in the worst minute."""
IN_CHAT_S = 1.05
"""From the end of one call to the beginning of the next."""
START_S = 1.2
"""A process that begins does not know what the one before it sent in the last second."""
CHATS_KEPT = 2_048
TRIES_MAX = 5
"""Of a call that Telegram told to wait: it waits as long as that says, and all others with it."""


@dataclass(slots=True)
class _Turn:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    free_at_s: float = 0.0
    """By the loop's clock."""


class Pace(AIORateLimiter):
    """The library's limiter, and one for a single chat, which it lacks.

    A chat's next call begins when the one before is over, wherever that had to wait. Used from one loop.
    """

    def __init__(self, in_chat_s: float = IN_CHAT_S, start_s: float = START_S) -> None:
        super().__init__(*OVERALL, *IN_GROUP, max_retries=TRIES_MAX)
        self._in_chat_s = in_chat_s
        self._start_s = start_s
        self._chats: dict[int, _Turn] = {}
        self._begins_at_s: float | None = None

    async def process_request(
        self,
        callback: Callable[..., Coroutine[Any, Any, Any]],
        args: Any,
        kwargs: dict[str, Any],
        endpoint: str,
        data: dict[str, Any],
        rate_limit_args: int | None,
    ) -> Any:
        chat = data.get("chat_id")
        if not isinstance(chat, int) or endpoint == "sendChatAction":
            return await super().process_request(callback, args, kwargs, endpoint, data, rate_limit_args)
        clock = asyncio.get_running_loop().time
        turn = self._turn(chat, clock())
        async with turn.lock:
            await asyncio.sleep(max(turn.free_at_s, self._begins_at_s or 0.0) - clock())
            try:
                return await super().process_request(callback, args, kwargs, endpoint, data, rate_limit_args)
            finally:
                turn.free_at_s = clock() + self._in_chat_s

    def _turn(self, chat: int, now_s: float) -> _Turn:
        if self._begins_at_s is None:
            self._begins_at_s = now_s + self._start_s
        if len(self._chats) >= CHATS_KEPT:
            busy = {each: turn for each, turn in self._chats.items() if turn.lock.locked() or turn.free_at_s > now_s}
            self._chats = busy
        return self._chats.setdefault(chat, _Turn())

"""Telegram's limits on what a bot sends: 30 a second in all, one a second in a chat, 20 a minute in a group.

Source: https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this
"""

from collections.abc import Callable, Coroutine
from typing import Any

from aiolimiter import AsyncLimiter
from telegram.ext import AIORateLimiter

OVERALL = 3, 3 / 22
"""A bucket lets its size through at once and then its rate: 25 in the worst second leaves some for the net."""
IN_GROUP = 4, 4 * 60 / 14
"""18 in the worst minute."""
IN_CHAT = 1, 1.1
CHATS_KEPT = 2_048
TRIES_MAX = 5
"""Of a call that Telegram told to wait: it waits as long as that says, and all others with it."""


class Pace(AIORateLimiter):
    """The library's limiter, which has no rule for a single chat, with one."""

    def __init__(self) -> None:
        super().__init__(*OVERALL, *IN_GROUP, max_retries=TRIES_MAX)
        self._chats: dict[int, AsyncLimiter] = {}

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
        if isinstance(chat, int) and endpoint != "sendChatAction":
            await self._chat(chat).acquire()
        return await super().process_request(callback, args, kwargs, endpoint, data, rate_limit_args)

    def _chat(self, chat: int) -> AsyncLimiter:
        if chat not in self._chats:
            if len(self._chats) >= CHATS_KEPT:
                self._chats = {each: limiter for each, limiter in self._chats.items() if not limiter.has_capacity()}
            self._chats[chat] = AsyncLimiter(*IN_CHAT)
        return self._chats[chat]

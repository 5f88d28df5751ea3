"""Where updates come in, from a webhook or from polling: whose they are, in which order, and onto disk."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

from runtime.accounts.port import TelegramIdentity
from runtime.entity.port import Entities
from runtime.errors import BadInputError, ConflictError, ForbiddenError
from runtime.ledger.port import Ledger
from runtime.telegram.chat import GAP_S_MAX, Receive, chat_entity
from runtime.telegram.updates import Update, User, parse_update, plain_update

AHEAD_MAX = 1_000

log = logging.getLogger(__name__)


class Reception:
    """One for each door. When `take` returns, the update is on disk, or was before."""

    def __init__(self, ledger: Ledger, entities: Entities) -> None:
        self._ledger = ledger
        self._entities = entities
        self._numbers = Numbers()
        self._last: dict[int, asyncio.Future[None]] = {}
        """The end of the newest update's turn in each chat that has one."""

    async def take(self, data: Any) -> bool:
        """Whether it was news. Raises BadInputError for what is none of Telegram's, UnavailableError: send it again."""
        try:
            update = parse_update(data)
        except BadInputError:
            self._numbers.let_go(data.get("update_id") if isinstance(data, Mapping) else None)
            raise
        is_early = self._numbers.came(update.update_id)
        sender, chat = update.sender, update.chat
        if sender is None or sender.is_bot or chat is None:
            return False
        async with self._turn(chat.id):
            return await self._take(update, sender, chat.id, is_early=is_early)

    async def _take(self, update: Update, sender: User, chat: int, *, is_early: bool) -> bool:
        identity = TelegramIdentity(
            telegram_id=sender.id,
            username=sender.username,
            first_name=sender.first_name,
            last_name=sender.last_name,
            language_code=sender.language_code,
        )
        try:
            account = await self._ledger.register(identity)
        except (ForbiddenError, ConflictError) as error:
            log.info("an update was not taken: %s", error.message)
            return False
        receive = Receive(
            owner=account.user, update_id=update.update_id, update=plain_update(update), is_early=is_early
        )
        is_news: bool = await self._entities.ask(chat_entity(chat), receive)
        return is_news

    @contextlib.asynccontextmanager
    async def _turn(self, chat: int) -> AsyncIterator[None]:
        """One update of a chat at a time, in the order of their coming. It holds up no other chat."""
        before, mine = self._last.get(chat), asyncio.get_running_loop().create_future()
        self._last[chat] = mine
        try:
            if before is not None:
                await asyncio.wait([before])
            yield
        finally:
            mine.set_result(None)
            if self._last[chat] is mine:
                del self._last[chat]


class Numbers:
    """Which updates overtook another on the net: Telegram numbers them one by one, so a gap shows.

    A gap that stays is none of ours to fill: after `GAP_S_MAX` nobody is early because of it. The loop's clock counts.
    """

    def __init__(self) -> None:
        self._next: int | None = None
        """The smallest number that did not come yet, of those since the first."""
        self._ahead: dict[int, float] = {}
        """Number -> when it came, of those behind a gap."""

    def came(self, number: int) -> bool:
        """Whether one with a smaller number is still to come."""
        now_s = asyncio.get_running_loop().time()
        if self._next is None or abs(number - self._next) > AHEAD_MAX:
            self._next, self._ahead = number + 1, {}
            return False
        if number >= self._next:
            self._ahead.setdefault(number, now_s)
        while self._ahead:
            lowest = min(self._ahead)
            if lowest > self._next and self._ahead[lowest] + GAP_S_MAX > now_s:
                break
            del self._ahead[lowest]
            self._next = lowest + 1
        return number in self._ahead

    def let_go(self, number: Any) -> None:
        """Nobody waits for what came and is no update, if it had a number that could be one's."""
        is_number = isinstance(number, int) and not isinstance(number, bool)
        if is_number and self._next is not None and 0 <= number - self._next <= AHEAD_MAX:
            self.came(number)

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
from runtime.telegram.chat import Receive, chat_entity
from runtime.telegram.updates import Update, User, parse_update, plain_update

GAP_S_MAX = 1.0
"""How long an update waits for one that Telegram numbered before it and that has not come."""
AHEAD_MAX = 1_000

log = logging.getLogger(__name__)


class Reception:
    """One for each door. When `take` returns, the update is on disk, or was before."""

    def __init__(self, ledger: Ledger, entities: Entities) -> None:
        self._ledger = ledger
        self._entities = entities
        self._order = Order()
        self._last: dict[int, asyncio.Future[None]] = {}
        """The end of the newest update's turn in each chat that has one."""

    async def take(self, data: Any) -> bool:
        """Whether it was news. Raises BadInputError for what is none of Telegram's, UnavailableError: send it again."""
        try:
            update = parse_update(data)
        except BadInputError:
            self._order.let_go(data.get("update_id") if isinstance(data, Mapping) else None)
            raise
        sender, chat = update.sender, update.chat
        try:
            await self._order.wait(update.update_id)
            if sender is None or sender.is_bot or chat is None:
                return False
            async with self._turn(chat.id, update.update_id):
                return await self._take(update, sender, chat.id)
        finally:
            self._order.passed(update.update_id)

    async def _take(self, update: Update, sender: User, chat: int) -> bool:
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
        receive = Receive(owner=account.user, update_id=update.update_id, update=plain_update(update))
        is_news: bool = await self._entities.ask(chat_entity(chat), receive)
        return is_news

    @contextlib.asynccontextmanager
    async def _turn(self, chat: int, number: int) -> AsyncIterator[None]:
        """One update of a chat at a time, in the order of their coming. Whoever has a place in it holds up no other."""
        before, mine = self._last.get(chat), asyncio.get_running_loop().create_future()
        self._last[chat] = mine
        self._order.passed(number)
        try:
            if before is not None:
                await asyncio.wait([before])
            yield
        finally:
            mine.set_result(None)
            if self._last[chat] is mine:
                del self._last[chat]


class Order:
    """Updates that overtook another on the net wait for it, a moment: Telegram numbers them one by one.

    A gap that stays is none of ours to fill: who waited long enough goes on, after whoever waits with a lower number.
    """

    def __init__(self) -> None:
        self._next: int | None = None
        """The smallest number that did not pass yet, of those since the first."""
        self._passed: set[int] = set()
        self._waiting: list[int] = []
        self._moved = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    async def wait(self, number: int) -> None:
        """Returns `GAP_S_MAX` after the call at the latest. The loop's clock counts."""
        if self._next is None or abs(number - self._next) > AHEAD_MAX:
            self._next, self._passed = number, set()
        self._waiting.append(number)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GAP_S_MAX), self._moved:
                    await self._moved.wait_for(lambda: self._is_due(number))
            async with self._moved:
                while not self._is_due(number):
                    self._skip_to(min(self._waiting))
                    if not self._is_due(number):
                        await self._moved.wait()
        finally:
            self._waiting.remove(number)

    def _is_due(self, number: int) -> bool:
        return self._next is None or number <= self._next

    def _skip_to(self, number: int) -> None:
        if not self._is_due(number):
            self._next = number
            self._passed = {each for each in self._passed if each >= number}
            self._advance()
            self._moved.notify_all()

    def passed(self, number: int) -> None:
        """Whoever waits for it goes on."""
        if self._next is None or number < self._next or number in self._passed:
            return
        self._passed.add(number)
        self._advance()
        task = asyncio.ensure_future(self._tell())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def let_go(self, number: Any) -> None:
        """Nobody waits for what came and is no update, if it had a number that could be one's."""
        is_number = isinstance(number, int) and not isinstance(number, bool)
        if is_number and self._next is not None and 0 <= number - self._next <= AHEAD_MAX:
            self.passed(number)

    def _advance(self) -> None:
        while self._next is not None and self._next in self._passed:
            self._passed.discard(self._next)
            self._next += 1

    async def _tell(self) -> None:
        async with self._moved:
            self._moved.notify_all()

"""Where updates come in, from a webhook or from polling: whose they are, in which order, and onto disk."""

import asyncio
import contextlib
import logging
import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from runtime.accounts.port import TelegramIdentity
from runtime.entity.port import Entities
from runtime.errors import BadInputError, ConflictError, ForbiddenError, MasterbuilderError
from runtime.ledger.port import Ledger
from runtime.telegram.chat import Receive, chat_entity
from runtime.telegram.updates import Update, User, parse_update, plain_update

GAP_S_MAX = 5.0
"""How long an update waits in its chat for one that Telegram numbered before it and that has not come."""
HELD_S = (0.01,) * 10
"""And before that at the door, where it keeps one of Telegram's connections: most gaps are closed in milliseconds."""
AGAIN_S_MAX = 20.0
"""And for one that was refused, or had nobody to take it: Telegram sends it again after pauses that grow."""
PENDING_EVERY_S = 1.0
MISSING_S_MAX = 30.0
"""How long Telegram may keep an update to itself, with many more waiting there, while it sends later ones."""
AHEAD_MAX = 20_000
"""Two numbers farther apart are not of one sequence: Telegram begins anew after a week without updates."""

log = logging.getLogger(__name__)


class Reception:
    """One for each door. When `take` returns, the update is on disk, or was before.

    `is_pushed`: updates come by themselves, in any order, also those that came when there was no door; otherwise they
    are fetched in their order.
    """

    def __init__(
        self, ledger: Ledger, entities: Entities, *, is_pushed: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ledger = ledger
        self._entities = entities
        self._numbers = Numbers(clock, unsettled_s=AGAIN_S_MAX) if is_pushed else None
        self._unkept = Unkept(clock)
        self._last: dict[int, asyncio.Future[None]] = {}
        """The end of the newest update's turn in each chat that has one."""

    async def take(self, data: Any) -> bool:
        """Whether it was news. Raises BadInputError for what is none of Telegram's, UnavailableError: send it again."""
        try:
            update = parse_update(data)
        except BadInputError:
            if self._numbers is not None:
                self._numbers.let_go(data.get("update_id") if isinstance(data, Mapping) else None)
            raise
        number = update.update_id
        if self._numbers is not None:
            self._numbers.came(number)
        sender, chat = update.sender, update.chat
        if sender is None or sender.is_bot or chat is None:
            return False
        self._unkept.came(chat.id, number)
        try:
            for pause_s in HELD_S:
                if not self._wait_s(chat.id, number):
                    break
                await asyncio.sleep(pause_s)
            async with self._turn(chat.id):
                is_news = await self._take(update, sender, chat.id, self._order(chat.id, number))
        except BaseException as error:
            if self._comes_again(error):
                self._unkept.refused(chat.id, number)
            else:
                self._unkept.over(chat.id, number)
            raise
        self._unkept.over(chat.id, number)
        return is_news

    def _comes_again(self, error: BaseException) -> bool:
        """What is pushed does, unless it is no update; what is fetched is let go where it meets an error of ours."""
        if isinstance(error, BadInputError):
            return False
        return self._numbers is not None or isinstance(error, MasterbuilderError | asyncio.CancelledError)

    def _wait_s(self, chat: int, number: int) -> float:
        """For how many seconds one of this chat with a smaller number may still come; 0: none is missing."""
        waits_s = self._numbers.wait_s(number) if self._numbers is not None else 0.0
        return max(waits_s, self._unkept.wait_s(chat, number))

    def _order(self, chat: int, number: int) -> dict[str, Any]:
        """What the chat is told of it: `waits_s` and `whole_to` of `Receive`."""
        whole_to = self._numbers.whole_to if self._numbers is not None else number
        whole_to = int(min(whole_to, self._unkept.first(chat, but=number) - 1))
        return {"waits_s": self._wait_s(chat, number), "whole_to": whole_to}

    async def settle(self, pending: Callable[[], Awaitable[int]]) -> None:
        """Asks how many updates Telegram keeps, until it keeps none: none is missing then, and nothing need wait.

        Returns also when what came while there was no door must have come again.
        """
        while self._numbers is not None and not self._numbers.is_settled:
            try:
                if await pending() == 0:
                    self._numbers.settle()
                    break
            except MasterbuilderError as error:
                log.info("nobody knows yet what Telegram keeps: %s", error.message)
            await asyncio.sleep(PENDING_EVERY_S)

    async def _take(self, update: Update, sender: User, chat: int, order: Mapping[str, Any]) -> bool:
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
        receive = Receive(owner=account.user, update_id=update.update_id, update=plain_update(update), **order)
        is_news: bool = await self._entities.ask(chat_entity(chat), receive)
        return is_news

    @contextlib.asynccontextmanager
    async def _turn(self, chat: int) -> AsyncIterator[None]:
        """One update of a chat at a time, in the order of their coming. It holds up no other chat."""
        before, mine = self._last.get(chat), asyncio.get_running_loop().create_future()
        self._last[chat] = mine

        def end(_: object = None) -> None:
            mine.set_result(None)
            if self._last[chat] is mine:
                del self._last[chat]

        try:
            if before is not None:
                await asyncio.wait([before])
            yield
        finally:
            if before is None or before.done():
                end()
            else:
                before.add_done_callback(end)  # Whoever waits behind this one waits for the one before it too.


class Numbers:
    """Which updates overtook another on the net: Telegram numbers them one by one, so a gap shows.

    A number that is missing for `MISSING_S_MAX` is none of ours. At first nobody knows which are missing, because those
    before may have met no door: whatever comes waits, until this is settled or `unsettled_s` are over.
    """

    def __init__(self, clock: Callable[[], float], unsettled_s: float) -> None:
        self._clock = clock
        self._settled_at_s = clock() + unsettled_s
        self._highest: int | None = None
        self._missing: OrderedDict[int, float] = OrderedDict()
        """Number -> when it was missed. Both grow from the first to the last."""

    @property
    def is_settled(self) -> bool:
        return self._settled_at_s <= self._clock()

    def settle(self) -> None:
        self._settled_at_s = self._clock()

    def came(self, number: int) -> None:
        now_s = self._clock()
        if self._highest is None or abs(number - self._highest) > AHEAD_MAX:
            self._highest = number
            self._missing.clear()
        self._missing.update((each, now_s) for each in range(self._highest + 1, number))
        self._missing.pop(number, None)
        self._highest = max(self._highest, number)

    def wait_s(self, number: int) -> float:
        """For how many seconds a smaller one may still come; 0: none is missing."""
        is_early = self._first_missing(number) < number
        return max(GAP_S_MAX if is_early else 0.0, self._settled_at_s - self._clock(), 0.0)

    @property
    def whole_to(self) -> int:
        """Every number up to here came, or is none of ours; 0 while nobody knows."""
        if not self.is_settled or self._highest is None:
            return 0
        return self._first_missing(self._highest + 1) - 1

    def _first_missing(self, otherwise: int) -> int:
        now_s = self._clock()
        while self._missing and next(iter(self._missing.values())) + MISSING_S_MAX <= now_s:
            self._missing.popitem(last=False)
        return next(iter(self._missing), otherwise)

    def let_go(self, number: Any) -> None:
        """Nobody waits for what came and is no update, if it had a number that could be one's."""
        is_number = isinstance(number, int) and not isinstance(number, bool)
        if is_number and self._highest is not None and abs(number - self._highest) <= AHEAD_MAX:
            self.came(number)


class Unkept:
    """Updates that came and are not on disk: at the door, or refused until they come again."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until_s: dict[tuple[int, int], float] = {}
        """By chat and number: until when others of the chat wait for it to come again; for ever while it is here."""

    def came(self, chat: int, number: int) -> None:
        self._until_s[chat, number] = math.inf

    def over(self, chat: int, number: int) -> None:
        """It is on disk, or will not come again."""
        self._until_s.pop((chat, number), None)

    def refused(self, chat: int, number: int) -> None:
        now_s = self._clock()
        self._until_s = {each: until_s for each, until_s in self._until_s.items() if until_s > now_s}
        self._until_s[chat, number] = now_s + AGAIN_S_MAX

    def first(self, chat: int, but: int) -> float:
        """The lowest number of the chat that is still waited for, but for one; infinite where there is none."""
        now_s = self._clock()
        waited = (n for (its, n), until_s in self._until_s.items() if its == chat and n != but and until_s > now_s)
        return min(waited, default=math.inf)

    def wait_s(self, chat: int, number: int) -> float:
        """How long this one waits for those before it."""
        now_s = self._clock()
        lower_ones = [until_s for (its, lower), until_s in self._until_s.items() if its == chat and lower < number]
        waits_s = [GAP_S_MAX if until_s == math.inf else max(0.0, until_s - now_s) for until_s in lower_ones]
        return max(waits_s, default=0.0)

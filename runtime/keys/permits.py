"""The keys of one provider for the calls of one process: permits in stock, and a line to the pool for more.

A call finds a permit in stock and waits for nobody; what becomes of calls is told to the pool in batches, and the
stock is filled up behind their backs to what the last second used. Where there is none in stock, the call goes to the
pool and waits its turn there. What is told of time are durations, measured here, and always the safer of two.
"""

import asyncio
import itertools
import logging
import secrets
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from runtime.errors import MasterbuilderError, UnavailableError, WorkLostError
from runtime.ids import UserId
from runtime.keys.desk import Advance, Answer, Ask, Grant, Request, Return, Told
from runtime.keys.keys import KeyOutcome, Lease, ProviderKey, Wish
from runtime.keys.pool import TTL_S, Held

CALLS_MAX = 2
"""Calls under way: one waits at the pool for permits while another brings it what came since, and relieves it."""
FETCH_S = 5.0
CALL_S_MAX = 20.0
REQUESTS_MAX = 500
BLOCK_MAX = 512
STOCKS_MAX = 200
"""Models; beyond, those that are not used are forgotten."""
TURNS_MAX = 16
"""Keys of one model whose turn is remembered while nothing of them is in stock."""
AHEAD_UNLIMITED = 4
"""Permits that live longer than a second are asked for so many seconds of use ahead."""
SCARCE_S = 0.5
SCARCE_S_MAX = 4.0
"""After a request in advance was not met, the next one waits: from the first to the second figure."""
GATHER_S = 0.1
"""What comes while calls wait for their turn goes to the pool so often."""
BEAT_S = 0.5
"""What nobody hurries for is told to the pool so often."""
HEARTBEAT_S = 5.0
RETRY_S = 0.2
RETRY_S_MAX = 2.0
TRIP_S = 5.0
"""A call waits so much longer than it may, because the pool says more clearly why there is no key."""

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Block:
    """Permits of one grant, until the pool has heard of every one of them."""

    id: int
    key: ProviderKey
    model: str
    permits: int
    tokens_each: int
    """0: as many as a call likes."""
    dies_at: float
    is_long_lived: bool
    is_pressing: bool
    """Others may wait for the end of its calls."""
    left: int
    """In stock."""
    over: int = 0
    tokens: int = 0
    dropped: int = 0
    arrived_by: float = 0.0
    """The latest moment at which a call of it can have arrived."""

    @property
    def is_closed(self) -> bool:
        return self.over + self.dropped >= self.permits


@dataclass(slots=True, eq=False)
class _Waiting:
    wish: Wish
    deadline: float
    answer: "asyncio.Future[_Block]"
    is_sent: bool = False


@dataclass(slots=True, eq=False)
class _Stock:
    """Of one model: what is there, and what was used lately."""

    blocks: dict[str, deque[_Block]] = field(default_factory=dict)
    """By key, the one first that was not used for longest."""
    left: int = 0
    second: int = 0
    used: int = 0
    """Within `second`; `used_before` within the one before it."""
    used_before: int = 0
    tokens_top: int = 0
    """The largest of late."""
    is_asked: bool = False
    ask_again_at: float = 0.0
    scarce_s: float = SCARCE_S
    ahead: int = 1

    def put(self, block: _Block) -> None:
        key_id = block.key.key_id
        if key_id not in self.blocks:
            self.blocks = {key_id: deque(), **self.blocks}
        self.blocks[key_id].append(block)
        self.left += block.left

    def has_used(self, key_id: str) -> None:
        """It is the others' turn."""
        self.blocks[key_id] = self.blocks.pop(key_id, deque())


@dataclass(slots=True, eq=False)
class _Session:
    name: str = field(default_factory=lambda: secrets.token_hex(8))
    was: str = ""
    incarnation: str = ""
    calls: int = 0
    asked_at: float = 0.0


class Permits:
    """Implements `KeyLeases` for one provider. `exchange` carries a call to the pool: it raises WorkLostError while the
    pool restarts. Used from one event loop."""

    def __init__(
        self,
        provider: str,
        exchange: Callable[[Ask], Awaitable[Answer]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._provider = provider
        self._exchange = exchange
        self._clock = clock
        self._numbers = itertools.count(1)
        self._stocks: dict[str, _Stock] = {}
        self._leased: dict[int, _Block] = {}
        self._blocks: dict[int, _Block] = {}
        """Every one of which the pool does not know the end yet."""
        self._dirty: dict[int, _Block] = {}
        self._told: list[tuple[str, str, KeyOutcome, float]] = []
        self._limits: dict[tuple[str, str], tuple[KeyOutcome, float]] = {}
        """The newest word of each key and model."""
        self._used: Counter[tuple[str, UserId]] = Counter()
        """Whose calls the stock went to, since the pool heard of it."""
        self._waiting: dict[int, _Waiting] = {}
        self._unsent: deque[int] = deque()
        self._withdrawn: list[int] = []
        self._session = _Session()
        self._retry_s = RETRY_S
        self._is_urgent = False
        self._is_scheduled = False
        self._is_closed = False
        self._beat: asyncio.TimerHandle | None = None
        self._gathering: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def lease(self, wish: Wish, wait_s: float) -> Lease:
        now = self._clock()
        stock = self._stocks.get(wish.model) or self._new_stock(wish.model, now)
        self._measure(stock, wish, now)
        block = self._pick(stock, wish.tokens_max, now)
        wants_more = 2 * stock.left < _ahead(stock) and not stock.is_asked and now >= stock.ask_again_at
        if wants_more:
            self._schedule()
        if block is None:
            block = await self._wait(wish, wait_s)
        else:
            self._used[wish.model, wish.user] += 1
        number = next(self._numbers)
        self._leased[number] = block
        return block.key.lease(wish, number)

    def report(self, lease: Lease, outcome: KeyOutcome) -> None:
        block = self._leased.pop(lease.permit, None)
        if block is None:
            return
        self._dirty[block.id] = block
        if outcome.kind == "unused":
            block.dropped += 1
        else:
            now = self._clock()
            block.over += 1
            block.tokens += lease.tokens_max if outcome.tokens is None else outcome.tokens
            arrived_by = now - outcome.heard_s_ago if outcome.heard_s_ago else now
            if arrived_by > block.arrived_by:
                block.arrived_by = arrived_by
            if outcome.limits is not None or outcome.kind in ("rate_limited", "key_refused"):
                self._tell(block, outcome, now)
        if block.is_pressing:
            self._is_urgent = True
            self._schedule()
        elif self._waiting:
            self._gather()
        elif self._beat is None:
            self._keep_beating()

    async def close(self) -> None:
        """Gives back what was not used, and tells what is still to be told; for a moment at most."""
        self._is_closed = True
        for model in self._stocks:
            self._drop_stock(model, lambda block: True)
        for timer in (self._beat, self._gathering):
            if timer is not None:
                timer.cancel()
        for waiting in self._waiting.values():
            if not waiting.answer.done():
                waiting.answer.set_exception(UnavailableError("This process is closing.", "Try again."))
        if self._dirty:
            try:
                async with asyncio.timeout(2.0):
                    await self._exchange(self._pack(self._session, self._clock(), wait_s=0.0))
            except Exception as error:
                log.info("the key pool of %s was not told of the end: %s", self._provider, error)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Stock

    def _new_stock(self, model: str, now: float) -> _Stock:
        if len(self._stocks) >= STOCKS_MAX:
            for name, stock in list(self._stocks.items()):
                if not stock.left and not stock.is_asked and now - stock.second > FETCH_S:
                    del self._stocks[name]
        stock = self._stocks[model] = _Stock()
        return stock

    def _measure(self, stock: _Stock, wish: Wish, now: float) -> None:
        second = int(now)
        if second != stock.second:
            stock.used_before = stock.used if second == stock.second + 1 else 0
            stock.second, stock.used = second, 0
            stock.tokens_top -= stock.tokens_top // 16
        stock.used += 1
        if wish.tokens_max > stock.tokens_top:
            stock.tokens_top = wish.tokens_max

    def _pick(self, stock: _Stock, tokens: int, now: float) -> _Block | None:
        """A permit that is large enough, of the keys in turn."""
        for key_id, blocks in stock.blocks.items():
            while blocks and (now >= blocks[0].dies_at or not blocks[0].left):
                self._discard(stock, blocks.popleft())
            for block in blocks:
                if block.left and now < block.dies_at and (not block.tokens_each or tokens <= block.tokens_each):
                    block.left -= 1
                    stock.left -= 1
                    stock.has_used(key_id)
                    return block
        return None

    def _discard(self, stock: _Stock, block: _Block) -> None:
        """What is left of it in stock is given back. The caller takes it out of `stock.blocks`."""
        if block.left:
            stock.left -= block.left
            block.dropped += block.left
            block.left = 0
            self._dirty[block.id] = block

    def _drop_stock(self, model: str, is_bad: Callable[[_Block], bool]) -> None:
        stock = self._stocks[model]
        for key_id, blocks in list(stock.blocks.items()):
            for block in blocks:
                if is_bad(block):
                    self._discard(stock, block)
            stock.blocks[key_id] = deque(block for block in blocks if block.left)
            if not stock.blocks[key_id] and len(stock.blocks) > TURNS_MAX:
                del stock.blocks[key_id]

    def _tell(self, block: _Block, outcome: KeyOutcome, now: float) -> None:
        key_id, model = block.key.key_id, block.model
        if outcome.kind == "key_refused":
            for each in self._stocks:
                self._drop_stock(each, lambda stocked: stocked.key.key_id == key_id)
        elif outcome.kind == "rate_limited":
            self._drop_stock(model, lambda stocked: stocked.key.key_id == key_id)
        else:
            if block.is_long_lived and (key_id, model) not in self._limits:
                # There are limits where the pool knew of none: it shall give anew, by what they leave.
                self._drop_stock(model, lambda stocked: stocked.is_long_lived and stocked.key.key_id == key_id)
                self._is_urgent = True
                self._schedule()
            self._limits[key_id, model] = outcome, now
            return
        self._told.append((key_id, model, outcome, now))
        self._is_urgent = True
        self._schedule()

    # Waiting

    async def _wait(self, wish: Wish, wait_s: float) -> _Block:
        number = next(self._numbers)
        answer: asyncio.Future[_Block] = asyncio.get_running_loop().create_future()
        self._waiting[number] = _Waiting(wish, self._clock() + wait_s, answer)
        self._unsent.append(number)
        if len(self._waiting) > 1:
            self._gather()
        else:
            self._schedule()
        try:
            async with asyncio.timeout(wait_s + TRIP_S):
                return await answer
        except TimeoutError:
            self._not_wanted(answer)
            raise UnavailableError(
                f"The key pool of {self._provider} did not answer in time.", "Try again in a few seconds."
            ) from None
        except asyncio.CancelledError:
            self._not_wanted(answer)
            raise
        finally:
            waiting = self._waiting.pop(number, None)
            if waiting is not None and waiting.is_sent:
                self._withdrawn.append(number)
                self._gather()
            # What it raised knows this frame, and the future knows what it raised: a cycle of all that the call holds.
            del waiting, answer

    def _not_wanted(self, answer: "asyncio.Future[_Block]") -> None:
        if answer.done() and not answer.cancelled() and answer.exception() is None:
            self._give_back(answer.result())

    def _give_back(self, block: _Block) -> None:
        """One permit of it, that was not used."""
        block.dropped += 1
        self._dirty[block.id] = block
        self._is_urgent = True
        self._schedule()

    # The line to the pool

    def _schedule(self) -> None:
        """At the end of this turn of the loop, so that all that comes in one turn goes together."""
        if not self._is_scheduled and not self._is_closed:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _gather(self) -> None:
        """In a moment, with what else comes until then: where calls wait anyway, a few trips a second are enough."""
        if self._gathering is None and not self._is_closed:
            self._gathering = asyncio.get_running_loop().call_later(GATHER_S, self._gathered)

    def _gathered(self) -> None:
        self._gathering = None
        self._is_urgent = True
        self._schedule()

    def _keep_beating(self) -> None:
        if self._beat is None and not self._is_closed:
            self._beat = asyncio.get_running_loop().call_later(BEAT_S, self._on_beat)

    def _on_beat(self) -> None:
        self._beat = None
        now = self._clock()
        for model in self._stocks:
            self._drop_stock(model, lambda block: now >= block.dies_at)
        if self._dirty or self._told or now - self._session.asked_at >= HEARTBEAT_S:
            self._is_urgent = True
            self._schedule()
        if self._blocks:
            self._keep_beating()

    def _dispatch(self) -> None:
        self._is_scheduled = False
        session = self._session
        # A session begins with one call, so that nothing overtakes what the process still has.
        while session.calls < (CALLS_MAX if session.incarnation else 1):
            now = self._clock()
            is_fetching = self._waiting and not session.calls
            is_beginning = not session.incarnation and (self._blocks or self._waiting)
            if not (self._is_urgent or is_fetching or is_beginning or self._wants(now) or self._has_first()):
                break
            ask = self._pack(session, now, wait_s=FETCH_S)
            session.calls += 1
            task = asyncio.get_running_loop().create_task(self._call(session, ask, now))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _has_first(self) -> bool:
        """Somebody to send, and nothing that goes soon anyway."""
        return bool(self._unsent or self._withdrawn) and self._gathering is None

    def _wants(self, now: float) -> list[tuple[str, _Stock]]:
        return [
            (model, stock)
            for model, stock in self._stocks.items()
            if not stock.is_asked and now >= stock.ask_again_at and 2 * stock.left < _ahead_now(stock, now)
        ]

    def _pack(self, session: _Session, now: float, wait_s: float) -> Ask:
        requests: list[Request] = []
        while self._unsent and len(requests) < REQUESTS_MAX:
            number = self._unsent.popleft()
            waiting = self._waiting.get(number)
            if waiting is not None:
                waiting.is_sent = True
                wish, left_s = waiting.wish, max(0.0, waiting.deadline - now)
                requests.append((number, wish.model, wish.user, wish.priority, wish.tokens_max, left_s))
        advance: list[Advance] = []
        for model, stock in self._wants(now):
            stock.is_asked = True
            advance.append((model, _ahead_now(stock, now) - stock.left, stock.tokens_top))
        told: list[Told] = [(key_id, model, outcome, now - at) for key_id, model, outcome, at in self._told]
        told.extend((*name, outcome, now - at) for name, (outcome, at) in self._limits.items())
        ask = Ask(
            session=session.name,
            incarnation=session.incarnation,
            was="" if session.incarnation else session.was,
            held=() if session.incarnation else [_held(block) for block in self._blocks.values()],
            requests=requests,
            withdrawn=self._withdrawn,
            returns=[_return(block, now) for block in self._dirty.values()],
            told=told,
            advance=advance,
            used=[(*name, calls) for name, calls in self._used.items()],
            wait_s=wait_s,
        )
        self._withdrawn = []
        self._told = []
        self._limits = {}
        self._used = Counter()
        self._dirty = {}
        self._is_urgent = False
        session.asked_at = now
        return ask

    async def _call(self, session: _Session, ask: Ask, asked_at: float) -> None:
        try:
            async with asyncio.timeout(CALL_S_MAX):
                answer = await self._exchange(ask)
        except Exception as error:
            session.calls -= 1
            self._tell_again(ask, asked_at)
            if session is self._session:
                await self._begin_again(session, error)
            return
        session.calls -= 1
        is_ours = session is self._session
        if not is_ours or not answer.accepted or session.incarnation not in ("", answer.incarnation):
            self._tell_again(ask, asked_at)
            if is_ours:
                await self._begin_again(session, None)
            return
        session.incarnation = answer.incarnation
        self._retry_s = RETRY_S
        self._forget_closed(ask.returns)
        self._take_in(answer, ask, asked_at)
        self._dispatch_if_needed()

    def _dispatch_if_needed(self) -> None:
        if self._waiting or self._is_urgent or self._has_first():
            self._schedule()

    def _take_in(self, answer: Answer, ask: Ask, asked_at: float) -> None:
        keys = {key.key_id: key for key in answer.keys}
        for grant in answer.grants:
            key = keys.get(grant[2])
            if key is None:
                continue
            block = _block(grant, key, asked_at)
            self._blocks[block.id] = block
            if grant[1]:
                self._hand_over(grant[1], block)
            else:
                stock = self._stocks.get(block.model) or self._new_stock(block.model, asked_at)
                stock.put(block)
                stock.ahead = AHEAD_UNLIMITED if block.is_long_lived else 1
        for number, error in answer.refusals:
            waiting = self._waiting.pop(number, None)
            if waiting is not None and not waiting.answer.done():
                waiting.answer.set_exception(error)
        met = {grant[3] for grant in answer.grants if not grant[1]}
        for model, _, _ in ask.advance:
            stock = self._stocks[model]
            stock.is_asked = False
            if model in met:
                stock.scarce_s = SCARCE_S
                stock.ask_again_at = 0.0
            else:
                stock.ask_again_at = self._clock() + stock.scarce_s
                stock.scarce_s = min(2 * stock.scarce_s, SCARCE_S_MAX)
        if self._blocks:
            self._keep_beating()

    def _hand_over(self, number: int, block: _Block) -> None:
        block.left = 0
        waiting = self._waiting.pop(number, None)
        if waiting is None or waiting.answer.done():
            self._give_back(block)
            return
        if stock := self._stocks.get(block.model):
            stock.has_used(block.key.key_id)
        waiting.answer.set_result(block)

    def _forget_closed(self, returns: Iterable[Return]) -> None:
        for id, over, _, dropped, _ in returns:
            block = self._blocks.get(id)
            if block is not None and over + dropped >= block.permits:
                del self._blocks[id]

    def _tell_again(self, ask: Ask, asked_at: float) -> None:
        """Nobody knows whether the call was heard: everything in it may be repeated."""
        for model, _, _ in ask.advance:
            self._stocks[model].is_asked = False
        for line in ask.returns:
            block = self._blocks.get(line[0])
            if block is not None:
                self._dirty[block.id] = block
        for key_id, model, outcome, age_s in ask.told:
            if outcome.kind in ("rate_limited", "key_refused"):
                self._told.append((key_id, model, outcome, asked_at - age_s))

    async def _begin_again(self, session: _Session, error: Exception | None) -> None:
        """The pool restarts, or forgot us: what was asked is asked again, and it hears what we have."""
        self._session = _Session(was=session.name)
        self._session.asked_at = self._clock()
        if error is not None and isinstance(error, MasterbuilderError) and not isinstance(error, WorkLostError):
            for waiting in self._waiting.values():
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
        elif error is not None:
            log.info("the key pool of %s is asked again: %r", self._provider, error)
        self._withdrawn = []
        for waiting in self._waiting.values():
            waiting.is_sent = False
        self._unsent = deque(number for number, waiting in self._waiting.items() if not waiting.answer.done())
        if error is not None:
            self._session.calls += 1  # Holds back the next call until we have waited a little.
            begun = self._session
            await asyncio.sleep(self._retry_s)
            self._retry_s = min(2 * self._retry_s, RETRY_S_MAX)
            begun.calls -= 1
        self._schedule()


def _ahead(stock: _Stock) -> int:
    """How many permits shall be in stock, by what the last second or two used."""
    return min(BLOCK_MAX, max(stock.used, stock.used_before) * stock.ahead)


def _ahead_now(stock: _Stock, now: float) -> int:
    return _ahead(stock) if int(now) - stock.second <= 1 else 0


def _block(grant: Grant, key: ProviderKey, asked_at: float) -> _Block:
    id, wish, _, model, permits, tokens_each, ttl_s, is_pressing = grant
    return _Block(
        id=id,
        key=key,
        model=model,
        permits=permits,
        tokens_each=tokens_each,
        dies_at=asked_at + ttl_s,
        is_long_lived=ttl_s > TTL_S,
        is_pressing=bool(wish) and is_pressing,
        left=permits,
    )


def _held(block: _Block) -> Held:
    used = block.over, block.tokens, block.dropped
    return block.id, block.key.key_id, block.model, block.permits, block.tokens_each, *used


def _return(block: _Block, now: float) -> Return:
    return block.id, block.over, block.tokens, block.dropped, max(0.0, now - block.arrived_by) if block.over else 0.0

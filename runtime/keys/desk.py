"""The pool's side of the call path to it: processes bring what they want and what became of it, and fetch permits.

As with an entity's host (`runtime.routing.desk`): a call between processes costs a millisecond whatever it carries, so
it carries all it can, and a call that waits returns as soon as there is anything for its process.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

from runtime.errors import MasterbuilderError, StoreUnavailableError
from runtime.ids import UserId
from runtime.keys.keys import KeyOutcome, Priority, ProviderKey, Wish
from runtime.keys.log import PoolLog
from runtime.keys.pool import Block, Held, Pool

log = logging.getLogger(__name__)

DEAD_S = 20.0
"""A process that did not call for so long is gone. One that holds permits calls far more often."""
SWEEP_EVERY_S = 5.0
TICK_S_MIN = 0.002

Request = tuple[int, str, UserId, Priority, int, float]
"""(id, model, user, priority, tokens_max, seconds it may wait)"""
Return = tuple[int, int, int, int, float]
"""(block, calls over, tokens they used, permits dropped - each in all so far -, seconds since the last can have
arrived)"""
Told = tuple[str, str, KeyOutcome, float]
"""(key, model, how a call ended, seconds since)"""
Advance = tuple[str, int, int]
"""(model, permits wanted before anybody asks, tokens each)"""
Grant = tuple[int, int, str, str, int, int, float, bool]
"""(block, request it answers or 0, key, model, permits, tokens each or 0 for as many as they like, seconds to live,
whether somebody may be waiting for the end of its calls)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One call of a process."""

    session: str
    incarnation: str
    """The pool's process that has answered the session before; empty while none has."""
    was: str = ""
    """Of a session that begins: the one that the process goes on from."""
    held: Sequence[Held] = ()
    """Of a session that begins: what the process still has, of whichever pool."""
    requests: Sequence[Request] = ()
    withdrawn: Sequence[int] = ()
    returns: Sequence[Return] = ()
    told: Sequence[Told] = ()
    advance: Sequence[Advance] = ()
    used: Sequence[tuple[str, UserId, int]] = ()
    """(model, user, calls) that permits in advance went to."""
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    incarnation: str
    accepted: bool
    """False: this process does not know the session, and did nothing."""
    grants: Sequence[Grant] = ()
    refusals: Sequence[tuple[int, MasterbuilderError]] = ()
    keys: Sequence[ProviderKey] = ()
    """Those of the grants."""


class KeyDesk:
    """One tray a session. Nothing leaves before the log has it. Begin it with `turn`. Used from one event loop."""

    def __init__(self, pool: Pool, log: PoolLog, incarnation: str, clock: Callable[[], float]) -> None:
        self._pool = pool
        self._log = log
        self._incarnation = incarnation
        self._clock = clock
        self._trays: dict[str, _Tray] = {}
        self._orphans = dict.fromkeys(pool.sessions, clock())
        """Sessions of the pool before this one, that nobody has gone on from yet."""
        self._timer: asyncio.TimerHandle | None = None
        self._swept_at = clock()

    async def exchange(self, ask: Ask) -> Answer:
        tray = self._trays.get(ask.session)
        if ask.incarnation not in ("", self._incarnation) or (tray is None and ask.incarnation):
            return Answer(incarnation=self._incarnation, accepted=False)
        if tray is None:
            tray = self._trays[ask.session] = _Tray()
        tray.calls += 1
        try:
            self._take_in(ask, tray)
            self.turn()
            self._give_in_advance(ask, tray)
            if not tray.is_ready and not ask.advance and self._pool.waits(ask.session):
                await tray.something(ask.wait_s)
        finally:
            tray.calls -= 1
            tray.left_at = self._clock()
        self._log.flush()
        return self._answer(tray)

    def turn(self) -> None:
        """Gives what can be given, and sees that it is called again in time."""
        now = self._clock()
        if now - self._swept_at >= SWEEP_EVERY_S:
            self._sweep(now)
        grants, refusals = self._pool.tick(now)
        for block in grants:
            tray = self._trays.get(block.session)
            if tray is None:
                self._pool.returned(block.id, 0, 0, block.permits, now)
            else:
                tray.put_grant(block)
        for waiter, error in refusals:
            if waiter.session in self._trays:
                self._trays[waiter.session].put_refusal(waiter.id, error)
        try:
            self._log.flush()
        except StoreUnavailableError as error:
            log.warning("%s: it is tried again", error)
        self._log.shorten(self._pool)
        self._wind(now)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _take_in(self, ask: Ask, tray: "_Tray") -> None:
        now, pool = self._clock(), self._pool
        if ask.was or ask.held:
            self._trays.pop(ask.was, None)
            self._orphans.pop(ask.was, None)
            pool.resume(ask.was, ask.session, ask.held, now)
        for id, over, tokens, dropped, age_s in ask.returns:
            pool.returned(id, over, tokens, dropped, now - age_s)
        for key_id, model, outcome, age_s in ask.told:
            pool.told(key_id, model, outcome, now, age_s)
        for model, user, calls in ask.used:
            pool.used(model, user, calls, now)
        for id in ask.withdrawn:
            pool.withdraw(ask.session, id)
        for id, model, user, priority, tokens_max, wait_s in ask.requests:
            wish = Wish(provider=pool.provider, model=model, user=user, priority=priority, tokens_max=tokens_max)
            try:
                pool.ask(ask.session, id, wish, wait_s, now)
            except MasterbuilderError as error:
                tray.put_refusal(id, error)

    def _give_in_advance(self, ask: Ask, tray: "_Tray") -> None:
        """After those who wait have got theirs."""
        for model, permits, tokens_each in ask.advance:
            for block in self._pool.take(ask.session, model, permits, tokens_each, self._clock()):
                tray.put_grant(block)

    def _answer(self, tray: "_Tray") -> Answer:
        grants, tray.grants = tray.grants, []
        refusals, tray.refusals = tray.refusals, []
        keys = {block.key_id: self._pool.key(block.key_id) for block in grants}
        return Answer(
            incarnation=self._incarnation,
            accepted=True,
            grants=[_grant(block) for block in grants],
            refusals=refusals,
            keys=[key for key in keys.values() if key is not None],
        )

    def _wind(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wait_s = self._pool.next_change(now) - now
        if self._trays or self._orphans:
            wait_s = min(wait_s, SWEEP_EVERY_S)
        if wait_s < inf:
            self._timer = asyncio.get_running_loop().call_later(max(wait_s, TICK_S_MIN), self.turn)

    def _sweep(self, now: float) -> None:
        self._swept_at = now
        for session in [name for name, tray in self._trays.items() if not tray.calls and now - tray.left_at > DEAD_S]:
            del self._trays[session]
            self._pool.leave(session, now)
        for session in [name for name, since in self._orphans.items() if now - since > DEAD_S]:
            del self._orphans[session]
            self._pool.leave(session, now)


class _Tray:
    """What waits to be fetched by one session."""

    def __init__(self) -> None:
        self.grants: list[Block] = []
        self.refusals: list[tuple[int, MasterbuilderError]] = []
        self.calls = 0
        self.left_at = 0.0
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_ready(self) -> bool:
        return bool(self.grants or self.refusals)

    def put_grant(self, block: Block) -> None:
        self.grants.append(block)
        self._wake()

    def put_refusal(self, id: int, error: MasterbuilderError) -> None:
        self.refusals.append((id, error))
        self._wake()

    async def something(self, wait_s: float) -> None:
        """Returns when there is something, or a newer call waits for it, or `wait_s` is over."""
        self._wake()
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = loop.call_later(wait_s, _set, waiter)
        try:
            await waiter
        finally:
            timer.cancel()

    def _wake(self) -> None:
        if self._waiter is not None:
            _set(self._waiter)


def _set(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


def _grant(block: Block) -> Grant:
    tokens_each = 0 if block.is_roomy else block.tokens_each
    of = block.key_id, block.model
    return block.id, block.wish, *of, block.permits, tokens_each, block.ttl_s, block.is_pressing

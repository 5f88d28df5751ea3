"""Credit for the calls of one process without a message a call: drawn in advance, spooled, and settled in batches."""

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from runtime.errors import (
    CeilingReachedError,
    ConflictError,
    DailyCapError,
    MasterbuilderError,
    NotEnoughCreditsError,
    OverloadedError,
    StoreUnavailableError,
    UnavailableError,
)
from runtime.ids import CallId
from runtime.ledger.escrows import charge_of
from runtime.ledger.money import Tariff
from runtime.ledger.port import Draw, EscrowCall, EscrowId, Hold, Ledger, Meter, Payer, Return, Settlement
from runtime.ledger.postings import bound_of
from runtime.ledger.settling import settle_what_can
from runtime.ledger.spool import Segment, Spool

log = logging.getLogger(__name__)

BATCH_CALLS_MAX = 500
BATCHES_MAX = 2
"""Under way at once."""
SETTLE_EVERY_S = 0.2
"""Nobody waits for it, and a batch costs the ledger as much as 50 calls of it."""
TEND_EVERY_S = 0.5
"""How often escrows are trimmed and the ledger hears of a process that settles nothing."""
LEASE_S = 20.0
"""Without an answer of the ledger for so long an escrow may be ending there, so nothing more is held against it."""
IDLE_S = 3.0
"""After so long without a call a payer's escrow is given back."""
RETRY_S = 0.2
RETRY_S_MAX = 5.0
DRAW_AHEAD = 2
"""An escrow is for what waits now and this many times what was held in about the last second."""
UNSETTLED_MAX = 20_000


class Purse:
    """Implements `Credit` for one process over a `Ledger` and the process's own `Spool`. Used from one event loop.

    Calls with a run go to the ledger one by one, as exact holds. For the others a hold waits only when the payer's
    escrow has no room, and a metering is done when the spool has it. Near a cap the ledger grants no more than the one
    call needs, so what is refused here would be refused there. A call whose usage never comes is settled as a loss
    after `call_s_max`, which must be longer than any call.
    """

    def __init__(
        self,
        ledger: Ledger,
        spool: Spool,
        tariff: Tariff,
        *,
        call_s_max: float,
        batch_calls_max: int = BATCH_CALLS_MAX,
        clock: Callable[[], float] = time.monotonic,
        utc_now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._ledger = ledger
        self._spool = spool
        self._tariff = tariff
        self._call_s_max = call_s_max
        self._batch_calls_max = batch_calls_max
        self._clock = clock
        self._utc_now = utc_now
        self._accounts: dict[Payer, _Account] = {}
        self._calls: dict[CallId, _Call] = {}
        """From hold until the ledger has booked it, oldest first."""
        self._over: deque[_Call] = deque()
        """Waiting to be settled."""
        self._returns: dict[EscrowId, Return] = {}
        """The newest of each escrow that the ledger has not confirmed."""
        self._escrows: dict[EscrowId, _Escrow] = {}
        self._batches: set[asyncio.Task[None]] = set()
        self._draws: dict[asyncio.Task[None], _Account] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._is_closing = False
        self._has_drawn = False
        self._heard_s = clock()
        """When the last message that the ledger answered was sent."""

    async def hold(self, hold: Hold) -> None:
        if hold.run is not None:
            await self._ledger.hold(hold)
            return
        if self._is_repeated(hold):
            return
        bound = self._tariff.credits_for(bound_of(hold))
        payer = hold.payer
        account = self._accounts.get(payer)
        if account is None:
            account = self._accounts[payer] = _Account(payer)
            if self._keeper is None:
                self._keeper = asyncio.get_running_loop().create_task(self._keep())
        account.use(bound, self._clock())
        while (escrow := self._with_room(account, bound)) is None:
            await self._draw_more(account, bound)
            if self._is_repeated(hold):
                return
        self._begin(escrow, hold, bound)

    async def meter(self, meter: Meter) -> None:
        call = self._calls.get(meter.call)
        if call is None:
            await self._ledger.meter(meter)
            return
        if call.is_over:
            return
        charge = charge_of(call.hold, meter, self._tariff).charge_ucredits
        try:
            self._spool.end(call.segment, meter)
        except StoreUnavailableError:
            await self._finish(call, meter, charge)
        else:
            self._end(call, meter, charge)

    async def close(self, timeout_s: float = 10.0) -> None:
        """Settles and gives back everything; calls without usage are losses. May be repeated.

        What the ledger does not take in time stays in the spool, for whoever finds it.
        """
        self._is_closing = True
        for call in list(self._calls.values()):
            if not call.is_over:
                self._end(call, None, 0)
        with suppress(TimeoutError, MasterbuilderError):
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*self._draws, return_exceptions=True)
                while self._over or self._batches:
                    self._settle()
                    await asyncio.wait(self._batches)
                if self._has_drawn:
                    name = f"{self._spool.process}/end"
                    await self._ledger.settle(Settlement(batch=name, process=self._spool.process, process_ended=True))
                    self._accounts.clear()
                    self._returns.clear()
                    self._has_drawn = False
        tasks = [*self._batches, *self._draws, *([self._keeper] if self._keeper else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._spool.close()

    def _is_repeated(self, hold: Hold) -> bool:
        """Raises ConflictError when the call's id is another's, or it is over; OverloadedError, UnavailableError."""
        known = self._calls.get(hold.call)
        if known is not None:
            if known.hold.payer != hold.payer or known.hold.model != hold.model or known.is_over:
                raise ConflictError(f"{hold.call} is the id of another call.", "Use a new id.")
            return True
        if self._is_closing:
            raise UnavailableError("This process is stopping.", "Try again in a moment.")
        if len(self._calls) >= UNSETTLED_MAX:
            raise OverloadedError("The ledger has not settled the calls of this process yet.")
        return False

    def _begin(self, escrow: "_Escrow", hold: Hold, bound: int) -> None:
        held_at = self._utc_now()
        segment = self._spool.begin(escrow.name, hold, held_at)
        self._calls[hold.call] = _Call(escrow, hold, bound, held_at, self._clock(), segment)
        escrow.reserved += bound
        escrow.calls += 1

    def _end(self, call: "_Call", meter: Meter | None, charge: int) -> None:
        call.is_over = True
        call.meter = meter
        call.escrow.reserved -= call.bound
        call.escrow.charged += charge
        self._over.append(call)
        if len(self._over) >= self._batch_calls_max:
            self._settle()

    async def _finish(self, call: "_Call", meter: Meter, charge: int) -> None:
        """Where the spool cannot keep the usage, the ledger must have it before anybody is told."""
        call.booked = asyncio.get_running_loop().create_future()
        self._end(call, meter, charge)
        self._settle()
        await call.booked

    def _with_room(self, account: "_Account", bound: int) -> "_Escrow | None":
        escrow = account.current
        if escrow is None or escrow.free < bound or self._clock() - self._heard_s > LEASE_S:
            return None
        # A call counts on its own day, so yesterday's escrow is for none of today's.
        return escrow if escrow.day == self._utc_now().toordinal() else None

    async def _draw_more(self, account: "_Account", bound: int) -> None:
        """Raises NotEnoughCreditsError, CeilingReachedError, DailyCapError, UnavailableError."""
        account.waiting += bound
        try:
            async with account.drawing:
                if self._with_room(account, bound) is None:
                    # What was drawn must be known here whatever becomes of the caller.
                    task = asyncio.get_running_loop().create_task(self._draw(account, bound))
                    self._draws[task] = account
                    task.add_done_callback(self._forget_draw)
                    await asyncio.shield(task)
        finally:
            account.waiting -= bound

    async def _draw(self, account: "_Account", bound: int) -> None:
        sent_s = self._clock()
        if sent_s - self._heard_s > LEASE_S:
            for known in list(self._escrows.values()):
                self._give_back(known)
        for known in account.escrows:
            self._give_back(known)
        # The ledger asks other processes only: what this one holds of the same wallet comes from here.
        same = [known for known in self._escrows.values() if known.account.payer.user == account.payer.user]
        returns = tuple(self._returns[known.name] for known in same if known.name in self._returns)
        draw = Draw(
            escrow=EscrowId(f"e-{secrets.token_hex(8)}"),
            process=self._spool.process,
            payer=account.payer,
            wanted_ucredits=max(account.waiting, bound) + DRAW_AHEAD * account.used(sent_s),
            min_ucredits=bound,
            returns=returns,
        )
        self._has_drawn = True
        day = self._utc_now().toordinal()
        try:
            granted = (await self._ledger.draw(draw)).granted_ucredits
        except (NotEnoughCreditsError, CeilingReachedError, DailyCapError) as refusal:
            of_provider = isinstance(refusal, DailyCapError) and refusal.scope == "provider"
            idle = [
                known
                for known in same
                if known.free > 0 and (not of_provider or known.account.payer.provider == account.payer.provider)
            ]
            if not idle:
                raise
            for known in idle:
                self._give_back(known)
            await self._draw(account, bound)
            return
        except UnavailableError:
            # It may have been drawn all the same.
            self._returns[draw.escrow] = Return(escrow=draw.escrow, granted_ucredits=0, ends=True)
            raise
        self._heard_s = max(self._heard_s, sent_s)
        self._confirm(returns)
        escrow = _Escrow(draw.escrow, account, granted, day)
        account.escrows.append(escrow)
        self._escrows[escrow.name] = escrow

    def _forget_draw(self, task: asyncio.Task[None]) -> None:
        del self._draws[task]
        if not task.cancelled():
            task.exception()  # Whoever waited has raised it.

    async def _keep(self) -> None:
        """Settles what is over, gives back what is not needed, and tells the ledger that the process lives."""
        tended_s = self._clock()
        while self._accounts or self._calls or self._returns:
            await asyncio.sleep(SETTLE_EVERY_S)
            now_s = self._clock()
            try:
                if now_s - tended_s >= TEND_EVERY_S:
                    tended_s = now_s
                    self._tend(now_s)
                    if self._escrows and not self._batches and not self._over and not self._returns:
                        self._send([])
                self._settle()
            except Exception:  # A bug here must not stop what settles the calls of everybody.
                log.exception("the purse was not tended")
        self._keeper = None

    def _tend(self, now_s: float) -> None:
        for call in self._calls.values():
            if now_s - call.began_s < self._call_s_max:
                break
            if not call.is_over:
                log.warning("the usage of %s was never told: it is a loss", call.hold.call)
                self._end(call, None, 0)
        for account in list(self._accounts.values()):
            is_idle = account.is_idle(now_s)
            for escrow in list(account.escrows):
                if not escrow.calls and (is_idle or escrow is not account.current):
                    self._end_escrow(escrow)
                elif is_idle or escrow is not account.current or now_s - self._heard_s > LEASE_S:
                    self._give_back(escrow)
                elif escrow.free > 2 * DRAW_AHEAD * account.used(now_s):
                    self._give_back(escrow, keep=DRAW_AHEAD * account.used(now_s))
            if not account.escrows and not account.waiting and account not in self._draws.values():
                del self._accounts[account.payer]

    def _give_back(self, escrow: "_Escrow", keep: int = 0) -> None:
        """All that no call of it needs, but for `keep`."""
        back = escrow.free - keep
        if back > 0:
            escrow.granted -= back
            self._returns[escrow.name] = Return(escrow=escrow.name, granted_ucredits=escrow.granted)

    def _end_escrow(self, escrow: "_Escrow") -> None:
        escrow.granted = escrow.charged
        self._returns[escrow.name] = Return(escrow=escrow.name, granted_ucredits=escrow.granted, ends=True)
        escrow.account.escrows.remove(escrow)
        del self._escrows[escrow.name]

    def _settle(self) -> None:
        while (self._over or self._returns) and len(self._batches) < BATCHES_MAX:
            batch = [self._over.popleft() for _ in range(min(self._batch_calls_max, len(self._over)))]
            if not batch and self._batches:
                return  # The returns may be on their way already.
            self._send(batch)

    def _send(self, calls: "list[_Call]") -> None:
        settlement = Settlement(
            batch=f"b-{secrets.token_hex(8)}",
            process=self._spool.process,
            calls=tuple(
                EscrowCall(escrow=call.escrow.name, hold=call.hold, meter=call.meter, held_at=call.held_at)
                for call in calls
            ),
            returns=tuple(self._returns.values()),
        )
        task = asyncio.get_running_loop().create_task(self._carry(settlement, calls))
        self._batches.add(task)
        task.add_done_callback(self._carried)

    def _carried(self, batch: asyncio.Task[None]) -> None:
        self._batches.discard(batch)
        if len(self._over) >= self._batch_calls_max and not self._is_closing:
            self._settle()

    async def _carry(self, settlement: Settlement, calls: "list[_Call]") -> None:
        pause_s = RETRY_S
        while True:
            sent_s = self._clock()
            try:
                recalled = await settle_what_can(self._ledger, settlement)
                break
            except UnavailableError as error:
                log.warning("%d calls are not settled yet: %s", len(calls), error)
            except Exception:
                log.exception("%d calls are not settled yet", len(calls))
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_S_MAX)
        self._heard_s = max(self._heard_s, sent_s)
        self._confirm(settlement.returns)
        for call in calls:
            self._spool.settled(call.segment)
            call.escrow.calls -= 1
            del self._calls[call.hold.call]
            if call.booked is not None and not call.booked.done():
                call.booked.set_result(None)
        for name in recalled:
            if escrow := self._escrows.get(name):
                self._give_back(escrow)
        if recalled:
            self._settle()

    def _confirm(self, returns: tuple[Return, ...]) -> None:
        for given in returns:
            if self._returns.get(given.escrow) == given:
                del self._returns[given.escrow]


class _Escrow:
    """`granted` is what the ledger holds for it at least; `charged` what its calls used, settled or not."""

    __slots__ = ("account", "calls", "charged", "day", "granted", "name", "reserved")

    def __init__(self, name: EscrowId, account: "_Account", granted: int, day: int) -> None:
        self.name = name
        self.account = account
        self.granted = granted
        self.day = day
        """It was drawn on, as an ordinal."""
        self.charged = 0
        self.reserved = 0
        """By calls that are under way."""
        self.calls = 0
        """Under it that are not settled."""

    @property
    def free(self) -> int:
        return self.granted - self.charged - self.reserved


class _Account:
    """One payer's escrows in this process: calls are held against the last of them."""

    __slots__ = ("_used", "_used_s", "drawing", "escrows", "payer", "waiting")

    def __init__(self, payer: Payer) -> None:
        self.payer = payer
        self.escrows: list[_Escrow] = []
        self.drawing = asyncio.Lock()
        self.waiting = 0
        """Bounds of the calls that wait for room."""
        self._used = 0.0
        self._used_s = 0.0

    @property
    def current(self) -> _Escrow | None:
        return self.escrows[-1] if self.escrows else None

    def use(self, bound: int, now_s: float) -> None:
        self._used = self._used * 0.5 ** (now_s - self._used_s) + bound
        self._used_s = now_s

    def used(self, now_s: float) -> int:
        """Bounds of recent calls: each counts half of what it did a second before."""
        return int(self._used * 0.5 ** (now_s - self._used_s))

    def is_idle(self, now_s: float) -> bool:
        return not self.waiting and now_s - self._used_s > IDLE_S


class _Call:
    __slots__ = ("began_s", "booked", "bound", "escrow", "held_at", "hold", "is_over", "meter", "segment")

    def __init__(
        self, escrow: _Escrow, hold: Hold, bound: int, held_at: datetime, began_s: float, segment: Segment
    ) -> None:
        self.escrow = escrow
        self.hold = hold
        self.bound = bound
        self.held_at = held_at
        self.began_s = began_s
        self.segment = segment
        self.meter: Meter | None = None
        self.is_over = False
        self.booked: asyncio.Future[None] | None = None
        """Set where somebody waits for the ledger."""

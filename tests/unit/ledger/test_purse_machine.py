"""Random calls through two processes' purses on one wallet, with lost answers, silence, deaths and recalls: whatever
happens, every call whose usage was told is charged once, nothing else is, and the books add up."""

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from runtime.errors import ConflictError, RefusedError, UnavailableError
from runtime.ids import CallId, ProjectId, UserId
from runtime.ledger import purse as purses
from runtime.ledger.books import Books
from runtime.ledger.money import Price, Tariff
from runtime.ledger.port import Draw, Escrow, EscrowId, Hold, Meter, NewToken, Settlement, TokenTerms
from runtime.ledger.purse import Purse
from runtime.ledger.settling import settle_orphans
from runtime.ledger.spool import Spool
from runtime.store.blobs import Blobs
from runtime.store.database import Database

USER = UserId("u")
TOKEN = "a" * 64
GRANT = 1_000_000
BUDGET = GRANT // 2
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
PRICE = Price(pricing_id="p", input_udollars_per_mtok=10**6, output_udollars_per_mtok=10**6)
PER_TOKEN = 150
PLACES = st.integers(0, 1)


class Line:
    """To the books, for one process: a message may not arrive, or its answer may be lost."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.faults: list[str] = []

    async def draw(self, draw: Draw) -> Escrow:
        return await self._send(self.books.draw(draw))

    async def settle(self, settlement: Settlement) -> Sequence[EscrowId]:
        return await self._send(self.books.settle(settlement))

    async def meter(self, meter: Meter) -> None:
        await self.books.meter(meter)

    async def _send(self, message: Any) -> Any:
        fault = self.faults.pop() if self.faults else ""
        if fault == "lost before":
            message.close()
            raise UnavailableError(fault)
        answer = await message
        if fault == "lost after":
            raise UnavailableError(fault)
        return answer


class PurseMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="purse-machine-"))
        self.database = Database(self.folder, bytes(range(32)))
        self.database.open()
        self.books = Books(
            database=self.database,
            blobs=Blobs(self.database),
            tariff=Tariff(),
            initial_free_ucredits=GRANT,
            identity_salt=b"salt",
            clock=lambda: NOON,
            recall_wait_s=0.0,
        )
        self.now_s = 1_000.0
        self.processes = 0
        self.next_call = 0
        self.bounds: dict[CallId, int] = {}
        self.under_way: list[dict[CallId, int]] = [{}, {}]
        self.told: dict[CallId, int] = {}
        self.lines: list[Line] = []
        self.purses: list[Purse] = []

    @initialize()
    def begin(self) -> None:
        terms = TokenTerms(budget_ucredits=BUDGET)
        token = NewToken(token_sha256=TOKEN, user=USER, kind="user", label="", terms=terms)
        self.run(self.books.add_token(token))
        for _ in range(2):
            self.lines.append(Line(self.books))
            self.purses.append(self.a_purse(len(self.purses)))

    @rule(place=PLACES, tokens=st.lists(st.integers(0, 3_000), min_size=1, max_size=6), with_token=st.booleans())
    def hold(self, place: int, tokens: list[int], with_token: bool) -> None:
        holds = [self.a_hold(count, TOKEN if with_token else "") for count in tokens]
        outcomes = self.run(self.hold_all(place, holds))
        for hold, outcome in zip(holds, outcomes, strict=True):
            if outcome is None:
                self.under_way[place][hold.call] = hold.input_tokens_max
            else:
                assert isinstance(outcome, RefusedError | UnavailableError), repr(outcome)
                assert not isinstance(outcome, ConflictError)

    @rule(place=PLACES, share=st.integers(0, 120), free=st.sampled_from([None, "provider_failed", "unserved"]),
          times=st.integers(1, 2))  # fmt: skip
    def meter(self, place: int, share: int, free: str | None, times: int) -> None:
        if not self.under_way[place]:
            return
        call, bound = self.under_way[place].popitem()
        used = bound * share // 100
        meter = Meter(call=call, input_tokens=used, output_tokens=0, response_time_ms=1, key_id="k")
        if free is not None:
            meter = replace(meter, **{free: True})
        for _ in range(times):
            self.run(self.purses[place].meter(meter))
        self.told[call] = 0 if free is not None else min(used, bound)

    @rule(place=PLACES, faults=st.lists(st.sampled_from(["lost before", "lost after"]), max_size=3))
    def break_line(self, place: int, faults: list[str]) -> None:
        self.lines[place].faults = faults

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 30.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.now_s += seconds
        for purse in self.purses:
            self.run(self.tend(purse))

    @rule(place=PLACES)
    def die(self, place: int) -> None:
        self.run(stopped(self.purses[place]))
        for segment in self.purses[place]._spool._segments:
            segment.close()
        self.start_again(place)

    @rule(place=PLACES)
    def stop(self, place: int) -> None:
        self.lines[place].faults = []
        self.run(self.purses[place].close())
        self.start_again(place)

    @rule()
    def sweep(self) -> None:
        self.run(settle_orphans(self.folder, self.books))

    @rule()
    def expire(self) -> None:
        """Of both, as if neither had been heard of."""
        self.run(self.books.expire_escrows(0.0))

    @invariant()
    def nothing_is_overdrawn(self) -> None:
        if self.purses:
            balance = self.run(self.books.balance(USER))
            assert balance.free_ucredits >= 0
            assert balance.held_ucredits >= 0
            (row,) = self.run(self.books.tokens(USER))
            assert row.spent_ucredits <= BUDGET

    def teardown(self) -> None:
        for place, line in enumerate(self.lines):
            line.faults = []
            self.run(self.purses[place].close())
        self.run(settle_orphans(self.folder, self.books))
        self.run(self.books.expire_escrows(0.0))  # Of a process that died before its first line.
        assert self.run(self.books.mismatches()) == []
        if self.purses:
            self.check_charges()
        self.database.close()
        self.loop.close()
        shutil.rmtree(self.folder)

    def check_charges(self) -> None:
        query = "SELECT call, charge_ucredits::HUGEINT, loss_pusd::HUGEINT, outcome FROM escrow_calls"
        rows = self.run(self.database.read(lambda connection: connection.execute(query).fetchall()))
        booked = {call: (charge, loss, outcome) for call, charge, loss, outcome in rows}
        balance = self.run(self.books.balance(USER))
        assert balance.held_ucredits == 0
        assert balance.balance_ucredits == GRANT - sum(charge for charge, _, _ in booked.values())
        for call, tokens in self.told.items():
            charge, loss, outcome = booked[call]
            assert outcome != "interrupted_unknown"
            assert charge == tokens * PER_TOKEN or (self.was_late and charge < tokens * PER_TOKEN and loss > 0)
        for call in booked.keys() - self.told.keys():
            assert booked[call][0] == 0

    was_late = True
    """Expiry may let others take what an escrow held for calls under way: the platform then bears the difference."""

    def start_again(self, place: int) -> None:
        self.under_way[place] = {}
        self.purses[place] = self.a_purse(place)

    def a_purse(self, place: int) -> Purse:
        self.processes += 1
        line: Any = self.lines[place]
        return Purse(
            line,
            Spool(self.folder, f"p{self.processes}", segment_bytes_max=500),
            Tariff(),
            call_s_max=20.0,
            clock=lambda: self.now_s,
            utc_now=lambda: NOON,
        )

    def a_hold(self, tokens: int, token_sha256: str) -> Hold:
        self.next_call += 1
        return Hold(
            call=CallId(f"gw-{self.next_call}"),
            user=USER,
            run=None,
            task_type="chat",
            provider="openai",
            model="m",
            input_tokens_max=tokens,
            output_tokens_max=0,
            price=PRICE,
            project=ProjectId("p") if tokens % 2 else None,
            token_sha256=token_sha256,
        )

    async def hold_all(self, place: int, holds: list[Hold]) -> list[BaseException | None]:
        return await asyncio.gather(*(self.purses[place].hold(hold) for hold in holds), return_exceptions=True)

    async def tend(self, purse: Purse) -> None:
        purse._tend(self.now_s)
        purse._settle()
        if purse._batches:
            await asyncio.wait(purse._batches)
        for place, calls in enumerate(self.under_way):
            self.under_way[place] = {
                call: bound
                for call, bound in calls.items()
                if self.purses[place] is not purse or (call in purse._calls and not purse._calls[call].is_over)
            }

    def run(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)


async def stopped(purse: Purse) -> None:
    tasks = [*purse._batches, *purse._draws, *([purse._keeper] if purse._keeper else [])]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purses, "RETRY_S", 0.0001)
    monkeypatch.setattr(purses, "RETRY_S_MAX", 0.001)


def run_machine(machine: type[PurseMachine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=10, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_purses__charge_every_told_call_once() -> None:
    run_machine(PurseMachine)


def test_purses_without_expiry__are_paid_for_every_told_call_in_full() -> None:
    class Punctual(PurseMachine):
        was_late = False

        def expire(self) -> None: ...

    run_machine(Punctual)

"""Credit that is held without a message a call: never more than there is, and nothing lost."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from runtime.config import Secrets, Settings
from runtime.entity.journal import Append, BeginRun, Claim, Moves
from runtime.errors import (
    BadInputError,
    CeilingReachedError,
    ConflictError,
    DailyCapError,
    NotEnoughCreditsError,
    StoreUnavailableError,
    UnavailableError,
)
from runtime.ids import CallId, EntityId, ProjectId, RunId, UserId, partition_of
from runtime.ledger import purse as purses
from runtime.ledger.caps import Caps
from runtime.ledger.money import Price, Tariff
from runtime.ledger.port import Draw, Escrow, EscrowId, Hold, Meter, NewToken, Settlement, TokenTerms
from runtime.ledger.purse import Purse
from runtime.ledger.settling import settle_orphans
from runtime.ledger.spool import FOLDER, Spool
from runtime.store.store import Store
from runtime.testing.memory_ledger import MemoryLedger

USER = UserId("u")
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
GRANT = 10**9
PRICE = Price(pricing_id="mini-1", input_udollars_per_mtok=10**6, output_udollars_per_mtok=10**6)
"""A token costs 150 microcredits."""
BOUND = 1_000 * 150


def a_hold(call: str = "gw-1", tokens: int = 1_000, **changes: Any) -> Hold:
    hold = Hold(
        call=CallId(call),
        user=USER,
        run=None,
        task_type="chat",
        provider="openai",
        model="mini",
        input_tokens_max=tokens,
        output_tokens_max=0,
        price=PRICE,
    )
    return replace(hold, **changes)


def a_meter(call: str = "gw-1", tokens: int = 10, **changes: Any) -> Meter:
    meter = Meter(call=CallId(call), input_tokens=tokens, output_tokens=0, response_time_ms=1, key_id="k")
    return replace(meter, **changes)


class Wire(MemoryLedger):
    """A ledger at the end of a line: counts messages, and may fail before or after it did what it was asked."""

    def __init__(self, grant: int = GRANT) -> None:
        super().__init__(Tariff(), grant, lambda: NOON)
        self.draws: list[Draw] = []
        self.settlements: list[Settlement] = []
        self.lost_answers = 0
        self.deaf = False
        self.recalls: tuple[EscrowId, ...] = ()

    async def draw(self, draw: Draw) -> Escrow:
        self.draws.append(draw)
        if self.deaf:
            raise UnavailableError("not now")
        return await super().draw(draw)

    async def settle(self, settlement: Settlement) -> Sequence[EscrowId]:
        self.settlements.append(settlement)
        if self.deaf:
            raise UnavailableError("not now")
        await super().settle(settlement)
        if self.lost_answers:
            self.lost_answers -= 1
            raise UnavailableError("the answer was lost")
        return self.recalls


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def wire() -> Wire:
    wire = Wire()
    await wire.open_wallet(USER, is_admin=False)
    return wire


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purses, "SETTLE_EVERY_S", 0.001)
    monkeypatch.setattr(purses, "RETRY_S", 0.001)


def a_purse(ledger: Any, folder: Path, clock: Clock | None = None, process: str = "p1") -> Purse:
    times = {} if clock is None else {"clock": clock}
    return Purse(ledger, Spool(folder, process), Tariff(), call_s_max=600, utc_now=lambda: NOON, **times)


@pytest.fixture
async def purse(wire: Wire, tmp_path: Path, clock: Clock) -> AsyncIterator[Purse]:
    made = a_purse(wire, tmp_path, clock)
    yield made
    await made.close()
    assert list((tmp_path / FOLDER).glob("*")) == []


async def until_settled(purse: Purse, but: int = 0) -> None:
    """Until no more than so many calls are under way or unsettled, and everything given back has arrived."""
    async with asyncio.timeout(60):
        while len(purse._calls) > but or purse._returns:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def die(purse: Purse) -> None:
    """As kill -9 does: nothing more is sent, the locks fall."""
    tasks = [*purse._batches, *purse._draws, *([purse._keeper] if purse._keeper else [])]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for segment in purse._spool._segments:
        segment.close()


async def test_calls__are_charged_what_they_used_with_few_messages(purse: Purse, wire: Wire) -> None:
    for number in range(300):
        await purse.hold(a_hold(f"gw-{number}"))
        await purse.meter(a_meter(f"gw-{number}"))
    assert len(wire.draws) < 5
    await purse.close()
    balance = await wire.balance(USER)
    assert (balance.balance_ucredits, balance.held_ucredits) == (GRANT - 300 * 10 * 150, 0)


async def test_call_with_a_run__has_its_own_hold_at_the_ledger(purse: Purse, wire: Wire) -> None:
    run = RunId("r")
    wire.move_runs([BeginRun(run=run, user=USER, project=ProjectId("p"), task="T", attempt=1)], (), ())
    await purse.hold(a_hold(run=run))
    assert (await wire.balance(USER)).held_ucredits == BOUND
    await purse.meter(a_meter())
    assert (await wire.balance(USER)).held_ucredits == 10 * 150
    assert wire.draws == []


async def test_calls_at_once__take_all_there_is_and_not_one_more(tmp_path: Path) -> None:
    fits = 37
    wire = Wire(fits * BOUND + BOUND - 1)
    await wire.open_wallet(USER, is_admin=False)
    purse = a_purse(wire, tmp_path)
    holds = [purse.hold(a_hold(f"gw-{number}")) for number in range(60)]
    outcomes = await asyncio.gather(*holds, return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == fits
    assert {type(outcome) for outcome in outcomes if outcome} == {NotEnoughCreditsError}
    served = [number for number, outcome in enumerate(outcomes) if outcome is None]
    for number in served:
        await purse.meter(a_meter(f"gw-{number}"))
    for number in range(100, 130):
        await purse.hold(a_hold(f"gw-{number}"))
    await purse.close()
    assert (await wire.balance(USER)).balance_ucredits == fits * BOUND + BOUND - 1 - fits * 10 * 150


async def test_refusal__names_the_cap_that_is_short(purse: Purse, wire: Wire) -> None:
    token = "a" * 64
    terms = TokenTerms(budget_ucredits=BOUND)
    await wire.add_token(NewToken(token_sha256=token, user=USER, kind="user", label="", terms=terms))
    await purse.hold(a_hold("gw-1", token_sha256=token))
    with pytest.raises(CeilingReachedError):
        await purse.hold(a_hold("gw-2", token_sha256=token))
    await purse.hold(a_hold("gw-2"))
    await purse.meter(a_meter("gw-1", 10))
    with pytest.raises(CeilingReachedError):
        await purse.hold(a_hold("gw-3", token_sha256=token))
    await purse.hold(a_hold("gw-3", 990, token_sha256=token))


async def test_free_model__is_called_with_an_empty_wallet(purse: Purse, wire: Wire) -> None:
    free = Price(pricing_id="free", input_udollars_per_mtok=0, output_udollars_per_mtok=0)
    await purse.hold(a_hold(user=UserId("poor"), price=free))
    await purse.meter(a_meter())
    await until_settled(purse)
    assert wire._booked[CallId("gw-1")].charge.outcome == "ok"


async def test_repeated_hold_and_meter__change_nothing(purse: Purse, wire: Wire) -> None:
    await asyncio.gather(*(purse.hold(a_hold()) for _ in range(5)))
    for other in (a_hold(user=UserId("other")), a_hold(model="other")):
        with pytest.raises(ConflictError):
            await purse.hold(other)
    for tokens in (10, 20):
        await purse.meter(a_meter(tokens=tokens))
    await until_settled(purse)
    await purse.meter(a_meter(tokens=30))
    assert (await wire.balance(USER)).balance_ucredits == GRANT - 1_500


async def test_absurd_counts__are_refused_before_anything_is_written(purse: Purse, tmp_path: Path) -> None:
    with pytest.raises(BadInputError):
        await purse.hold(a_hold(tokens=-1))
    await purse.hold(a_hold())
    with pytest.raises(BadInputError):
        await purse.meter(a_meter(tokens=-1))
    await purse.meter(a_meter())


async def test_provider_that_failed__costs_nobody_and_usage_above_the_bound_is_not_charged(
    purse: Purse, wire: Wire
) -> None:
    await purse.hold(a_hold("gw-1"))
    await purse.hold(a_hold("gw-2"))
    await purse.meter(a_meter("gw-1", 10, provider_failed=True))
    await purse.meter(a_meter("gw-2", 5_000))
    await until_settled(purse)
    assert (await wire.balance(USER)).balance_ucredits == GRANT - BOUND


async def test_escrow__is_given_back_when_nobody_calls_any_more(purse: Purse, wire: Wire, clock: Clock) -> None:
    await purse.hold(a_hold("gw-1"))
    await purse.hold(a_hold("gw-2"))
    await purse.meter(a_meter("gw-1"))
    clock.now_s += purses.IDLE_S + 1
    purse._tend(clock.now_s)
    await until_settled(purse, but=1)
    assert (await wire.balance(USER)).held_ucredits == BOUND
    await purse.meter(a_meter("gw-2"))
    await until_settled(purse)
    purse._tend(clock.now_s)
    await until_settled(purse)
    assert (await wire.balance(USER)).held_ucredits == 0
    assert purse._accounts == {}


async def test_surplus__is_given_back_while_calls_go_on(purse: Purse, wire: Wire, clock: Clock) -> None:
    for number in range(100):
        await purse.hold(a_hold(f"gw-{number}"))
    for number in range(100):
        await purse.meter(a_meter(f"gw-{number}"))
    await until_settled(purse)
    clock.now_s += 2.9
    purse._tend(clock.now_s)
    await until_settled(purse)
    assert 0 < (await wire.balance(USER)).held_ucredits < 30 * BOUND


async def test_call_whose_usage_never_comes__is_a_loss_in_the_end(purse: Purse, wire: Wire, clock: Clock) -> None:
    await purse.hold(a_hold(project=ProjectId("p")))
    clock.now_s += 599
    purse._tend(clock.now_s)
    assert "gw-1" in purse._calls
    clock.now_s += 2
    purse._tend(clock.now_s)
    await until_settled(purse)
    (row,) = (await wire.receipt(ProjectId("p"))).losses
    assert (row.outcome, row.credits_ucredits, row.cost_pusd) == ("interrupted_unknown", 0, 1_000 * 10**6)
    await purse.meter(a_meter())


async def test_settlement_whose_answer_is_lost__is_repeated_and_charges_once(purse: Purse, wire: Wire) -> None:
    wire.lost_answers = 3
    await purse.hold(a_hold())
    await purse.meter(a_meter())
    await until_settled(purse)
    assert (await wire.balance(USER)).balance_ucredits == GRANT - 1_500
    assert len({settlement.batch for settlement in wire.settlements if settlement.calls}) == 1


async def test_call_the_ledger_refuses__holds_up_no_other(
    purse: Purse, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = wire.settle

    async def picky(settlement: Settlement) -> Sequence[EscrowId]:
        if any(call.hold.call == "gw-3" for call in settlement.calls):
            raise BadInputError("this one never")
        return await settle(settlement)

    monkeypatch.setattr(wire, "settle", picky)
    for number in range(7):
        await purse.hold(a_hold(f"gw-{number}"))
    for number in range(7):
        await purse.meter(a_meter(f"gw-{number}"))
    await until_settled(purse)
    assert (await wire.balance(USER)).balance_ucredits == GRANT - 6 * 1_500


async def test_process_the_ledger_did_not_hear_of__draws_anew(
    purse: Purse, wire: Wire, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purses, "SETTLE_EVERY_S", 1_000)
    await purse.hold(a_hold("gw-1"))
    await purse.hold(a_hold("gw-2"))
    assert len(wire.draws) == 1
    wire.deaf = True
    clock.now_s += purses.LEASE_S + 1
    with pytest.raises(UnavailableError):
        await purse.hold(a_hold("gw-3"))
    wire.deaf = False
    await purse.hold(a_hold("gw-3"))
    assert wire.draws[-1].returns[0].granted_ucredits == 2 * BOUND
    assert purse._calls[CallId("gw-3")].escrow.name == wire.draws[-1].escrow


async def test_escrow_whose_answer_was_lost__is_given_back(
    purse: Purse, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = wire.draw

    async def unheard(asked: Draw) -> Escrow:
        await draw(asked)
        raise UnavailableError("the answer was lost")

    with monkeypatch.context() as patched:
        patched.setattr(wire, "draw", unheard)
        with pytest.raises(UnavailableError):
            await purse.hold(a_hold())
    assert (await wire.balance(USER)).held_ucredits > 0
    await until_settled(purse)
    assert (await wire.balance(USER)).held_ucredits == 0


async def test_caller_that_is_cancelled__leaves_no_escrow_behind(
    purse: Purse, wire: Wire, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, go_on = wire.draw, asyncio.Event()

    async def slow(asked: Draw) -> Escrow:
        await go_on.wait()
        return await draw(asked)

    monkeypatch.setattr(wire, "draw", slow)
    caller = asyncio.create_task(purse.hold(a_hold()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    purse._tend(clock.now_s)
    go_on.set()
    await asyncio.gather(*purse._draws)
    assert (await wire.balance(USER)).held_ucredits > 0
    clock.now_s += purses.IDLE_S + 1
    purse._tend(clock.now_s)
    await until_settled(purse)
    assert (await wire.balance(USER)).held_ucredits == 0


async def test_escrow_that_is_asked_back__is_given_back_but_for_what_calls_need(purse: Purse, wire: Wire) -> None:
    await purse.hold(a_hold("gw-1"))
    await purse.hold(a_hold("gw-2"))
    wire.recalls = (wire.draws[0].escrow, EscrowId("of another"))
    await purse.meter(a_meter("gw-1"))
    await until_settled(purse, but=1)
    assert (await wire.balance(USER)).held_ucredits == BOUND


async def test_usage_the_spool_cannot_keep__is_told_to_the_ledger_first(
    purse: Purse, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    await purse.hold(a_hold())

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        await purse.meter(a_meter())
        assert (await wire.balance(USER)).balance_ucredits == GRANT - 1_500
        with pytest.raises(StoreUnavailableError):
            await purse.hold(a_hold("gw-2"))
    await purse.hold(a_hold("gw-2"))


async def test_closing__refuses_new_calls_and_books_unfinished_ones_as_losses(purse: Purse, wire: Wire) -> None:
    await purse.hold(a_hold("gw-1"))
    await purse.hold(a_hold("gw-2"))
    await purse.meter(a_meter("gw-2"))
    await purse.close()
    await purse.close()
    with pytest.raises(UnavailableError):
        await purse.hold(a_hold("gw-3"))
    balance = await wire.balance(USER)
    assert (balance.balance_ucredits, balance.held_ucredits) == (GRANT - 1_500, 0)
    assert wire._booked[CallId("gw-1")].charge.outcome == "interrupted_unknown"


async def test_closing_while_the_ledger_is_silent__leaves_the_calls_to_whoever_finds_them(
    wire: Wire, tmp_path: Path
) -> None:
    purse = a_purse(wire, tmp_path)
    await purse.hold(a_hold())
    await purse.meter(a_meter())
    wire.deaf = True
    await purse.close(timeout_s=0.01)
    wire.deaf = False
    assert await settle_orphans(tmp_path, wire) == 1
    balance = await wire.balance(USER)
    assert (balance.balance_ucredits, balance.held_ucredits) == (GRANT - 1_500, 0)


@pytest.mark.parametrize("settled_before", [False, True])
async def test_process_that_dies__loses_no_usage_and_charges_none_twice(
    wire: Wire, tmp_path: Path, settled_before: bool
) -> None:
    purse = a_purse(wire, tmp_path)
    wire.deaf = not settled_before
    wire.deaf = False
    for number in range(10):
        await purse.hold(a_hold(f"gw-{number}"))
    wire.deaf = not settled_before
    for number in range(9):
        await purse.meter(a_meter(f"gw-{number}"))
    if settled_before:
        await until_settled(purse, but=1)
    await die(purse)
    wire.deaf = False
    assert await settle_orphans(tmp_path, wire) == 10
    balance = await wire.balance(USER)
    assert (balance.balance_ucredits, balance.held_ucredits) == (GRANT - 9 * 1_500, 0)
    assert wire._booked[CallId("gw-9")].charge.outcome == "interrupted_unknown"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    made = Store(Settings(data_dir=tmp_path, initial_free_credits=1), Secrets.load(tmp_path, {}))
    await made.open()
    await made.books.open_wallet(USER, is_admin=False)
    entity = EntityId("project:p1")
    await made.journal.claim(Claim(host="h", incarnation="i", partitions={partition_of(entity): 0}))
    begin = BeginRun(run=RunId("r1"), user=USER, project=ProjectId("p1"), task="T-001", attempt=1)
    moves = Moves(begin=[begin])
    await made.journal.append(
        Append(entity=entity, owner=USER, epoch=1, expected_seq=0, events=(), open=True, head={}, moves=moves)
    )
    yield made
    assert await made.check() == []
    await made.close()


async def test_builds_hold__gets_what_purses_hold_in_advance(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purses, "TEND_EVERY_S", 0.01)
    wallet = (await store.books.balance(USER)).free_ucredits
    owners = [a_purse(store.books, tmp_path, process=name) for name in ("x", "y")]
    for number, purse in enumerate(owners):
        await purse.hold(a_hold(f"gw-{number}", 100))
        await purse.meter(a_meter(f"gw-{number}"))
    assert (await store.books.balance(USER)).held_ucredits > 2 * 100 * 150
    rest = (wallet - 2 * 1_500) // 150
    await store.books.hold(a_hold("exact", rest, run=RunId("r1")))
    with pytest.raises(NotEnoughCreditsError):
        await store.books.hold(a_hold("more", 1_000, run=RunId("r1")))
    for purse in owners:
        await purse.close()
    assert (await store.books.balance(USER)).held_ucredits == rest * 150


async def test_hold_that_nothing_can_pay__is_refused_in_its_time_whatever_others_give_back(store: Store) -> None:
    store.books._recall.wait_s = 0.05

    async def give_back() -> None:
        while True:
            store.books._recall.given("another", ())
            await asyncio.sleep(0)

    giving = asyncio.create_task(give_back())
    async with asyncio.timeout(10.0):
        with pytest.raises(NotEnoughCreditsError):
            await store.books.hold(a_hold("more", 10_000_000, run=RunId("r1")))
    giving.cancel()


async def test_escrow_of_another_process__is_asked_back_for_a_draw_too(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purses, "TEND_EVERY_S", 0.01)
    wallet = (await store.books.balance(USER)).free_ucredits
    idle, busy = (a_purse(store.books, tmp_path, process=name) for name in ("x", "y"))
    await idle.hold(a_hold("gw-1", wallet // 150))
    await idle.meter(a_meter("gw-1"))
    await busy.hold(a_hold("gw-2", (wallet - 1_500) // 150))
    for purse in (idle, busy):
        await purse.close()


async def test_hold_that_nothing_can_help__is_refused_at_once(store: Store, tmp_path: Path) -> None:
    purse = a_purse(store.books, tmp_path)
    await purse.hold(a_hold("gw-1", 100))
    store.books._recall.wait_s = 600.0
    async with asyncio.timeout(60):
        with pytest.raises(NotEnoughCreditsError):
            await store.books.hold(a_hold("huge", 10**6, run=RunId("r1")))
    await purse.close()


async def test_escrows_of_a_silent_process__expire_and_its_late_usage_is_charged(store: Store, tmp_path: Path) -> None:
    purse = a_purse(store.books, tmp_path)
    await purse.hold(a_hold("gw-1", 100))
    assert await store.books.expire_escrows(60.0) == 0
    assert await store.books.expire_escrows(0.0) == 1
    wallet = await store.books.balance(USER)
    assert wallet.held_ucredits == 0
    await purse.meter(a_meter("gw-1", 100))
    await purse.close()
    assert (await store.books.balance(USER)).balance_ucredits == wallet.balance_ucredits - 100 * 150


async def test_next_providers_call__finds_what_an_idle_escrow_of_the_last_one_holds(tmp_path: Path) -> None:
    ledger = MemoryLedger(Tariff(), GRANT)
    await ledger.open_wallet(USER, is_admin=False)
    ledger.set_ceiling(ProjectId("p"), 1_500 * 150)
    purse = a_purse(ledger, tmp_path)
    await purse.hold(a_hold("one", project=ProjectId("p"), provider="claude"))
    await purse.meter(a_meter("one", provider_failed=True))
    await purse.hold(a_hold("two", project=ProjectId("p"), provider="openai"))
    await purse.meter(a_meter("two"))
    await purse.close()


async def test_refusal_under_a_cap_of_the_day__leaves_nothing_to_give_back(tmp_path: Path) -> None:
    ledger = MemoryLedger(Tariff(), GRANT, caps=Caps(platform_ucredits=1))
    await ledger.open_wallet(USER, is_admin=False)
    purse = a_purse(ledger, tmp_path)
    for number in range(3):
        with pytest.raises(DailyCapError):
            await purse.hold(a_hold(f"c{number}"))
    assert not purse._returns
    await purse.close()

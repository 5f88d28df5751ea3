"""What every ledger does, in memory or on disk. Each test holds for both."""

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runtime.entity.journal import Append, BeginRun, Claim, Journal, Moves
from runtime.errors import CeilingReachedError, ConflictError, NotEnoughCreditsError, NotFoundError
from runtime.ids import CallId, EntityId, ProjectId, RunId, UserId, partition_of
from runtime.ledger.books import Books
from runtime.ledger.money import Price, Tariff
from runtime.ledger.port import Hold, Identity, Ledger, Meter, NewToken, SealedKey
from runtime.store.blobs import Blobs
from runtime.store.database import Database
from runtime.store.journal import StoreJournal
from runtime.testing.memory_journal import MemoryJournal
from runtime.testing.memory_ledger import MemoryLedger

USER = UserId("telegram:7")
PROJECT = ProjectId("p1")
ENTITY = EntityId("project:p1")
RUN = RunId("project:p1/task.T-001#1")
CREDIT = 10**6
GRANT = 1_000 * CREDIT
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
PRICE = Price(pricing_id="mini-1", input_udollars_per_mtok=10**6, output_udollars_per_mtok=10**6)
"""1 USD per million tokens each way: with the default tariff a token costs 150 microcredits."""


@dataclass
class World:
    """A ledger, the journal that shares its transactions, and a clock to turn."""

    ledger: Ledger
    journal: Journal
    now: datetime = NOON
    seq: int = 0

    async def append(self, **moves: Any) -> None:
        append = Append(
            entity=ENTITY,
            owner=USER,
            epoch=1,
            expected_seq=self.seq,
            events=(),
            open=True,
            head={},
            moves=Moves(**moves),
        )
        await self.journal.append(append)


@pytest.fixture(params=["memory", "duckdb"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    clock = lambda: made.now  # noqa: E731
    if request.param == "memory":
        ledger = MemoryLedger(Tariff(), GRANT, clock)
        made = World(ledger, MemoryJournal(ledger, clock))
        database = None
    else:
        database = Database(tmp_path, bytes(range(32)))
        await asyncio.to_thread(database.open)
        books = Books(
            database=database,
            blobs=Blobs(database),
            tariff=Tariff(),
            initial_free_ucredits=GRANT,
            identity_salt=b"salt",
            clock=clock,
        )
        made = World(books, StoreJournal(database, clock))
    await made.journal.claim(Claim(host="h", incarnation="i1", partitions={partition_of(ENTITY): 0}))
    await made.ledger.open_wallet(USER, is_admin=False)
    yield made
    assert await made.ledger.mismatches() == []
    if database is not None:
        await asyncio.to_thread(database.close)


def a_run(run: RunId = RUN, task: str = "T-001") -> BeginRun:
    return BeginRun(run=run, user=USER, project=PROJECT, task=task, attempt=1)


def a_hold(call: str = "c1", tokens: int = 1_000, run: RunId | None = RUN, price: Price = PRICE) -> Hold:
    return Hold(
        call=CallId(call),
        user=USER,
        run=run,
        task_type="coding",
        provider="openai",
        model="mini",
        input_tokens_max=tokens,
        output_tokens_max=0,
        price=price,
    )


def a_meter(call: str = "c1", tokens: int = 400, failed: bool = False) -> Meter:
    return Meter(
        call=CallId(call), input_tokens=tokens, output_tokens=0, response_time_ms=5, key_id="k", provider_failed=failed
    )


async def test_wallet__is_granted_once_however_often_it_is_opened(world: World) -> None:
    again = await asyncio.gather(*(world.ledger.open_wallet(USER, is_admin=False) for _ in range(5)))
    assert {balance.balance_ucredits for balance in again} == {GRANT}


async def test_unknown_user__has_nothing(world: World) -> None:
    assert (await world.ledger.balance(UserId("nobody"))).free_ucredits == 0
    with pytest.raises(NotEnoughCreditsError):
        await world.ledger.hold(replace(a_hold(run=None), user=UserId("nobody")))


async def test_hold__reserves_and_meter_releases_the_rest(world: World) -> None:
    await world.append(begin=[a_run()])

    await world.ledger.hold(a_hold(tokens=1_000))
    assert (await world.ledger.balance(USER)).held_ucredits == 150_000

    await world.ledger.meter(a_meter(tokens=400))
    balance = await world.ledger.balance(USER)
    assert (balance.balance_ucredits, balance.held_ucredits) == (GRANT, 60_000)
    (row,) = (await world.ledger.receipt(PROJECT)).pending
    assert (row.state, row.credits_ucredits, row.cost_pusd) == ("metered", 60_000, 400 * 10**6)


async def test_settling_a_run__charges_its_metered_calls_once(world: World) -> None:
    await world.append(begin=[a_run()])
    await world.ledger.hold(a_hold())
    await world.ledger.meter(a_meter(tokens=400))

    await world.append(settle=[RUN])
    await world.append(settle=[RUN])

    balance = await world.ledger.balance(USER)
    assert (balance.balance_ucredits, balance.held_ucredits) == (GRANT - 60_000, 0)
    receipt = await world.ledger.receipt(PROJECT)
    (row,) = receipt.charged
    assert (row.task, row.attempt, row.state, row.outcome) == ("T-001", 1, "settled", "ok")
    assert (row.at, row.input_tokens) == (NOON, 400)
    assert (receipt.total_ucredits, receipt.total_cost_pusd) == (60_000, 400 * 10**6)
    assert not receipt.losses
    assert not receipt.pending


async def test_settling_a_run__loses_calls_whose_usage_is_unknown(world: World) -> None:
    await world.append(begin=[a_run()])
    await world.ledger.hold(a_hold(tokens=1_000))

    await world.append(settle=[RUN])

    assert (await world.ledger.balance(USER)).free_ucredits == GRANT
    (row,) = (await world.ledger.receipt(PROJECT)).losses
    assert (row.outcome, row.credits_ucredits, row.cost_pusd) == ("interrupted_unknown", 0, 1_000 * 10**6)


async def test_abandoning_a_run__costs_the_user_nothing(world: World) -> None:
    await world.append(begin=[a_run()])
    await world.ledger.hold(a_hold("known"))
    await world.ledger.hold(a_hold("unknown"))
    await world.ledger.meter(a_meter("known", 400))

    await world.append(abandon=[RUN])
    await world.append(abandon=[RUN])

    balance = await world.ledger.balance(USER)
    assert (balance.balance_ucredits, balance.held_ucredits) == (GRANT, 0)
    receipt = await world.ledger.receipt(PROJECT)
    assert not receipt.charged
    assert {row.call: (row.outcome, row.cost_pusd) for row in receipt.losses} == {
        "known": ("interrupted", 400 * 10**6),
        "unknown": ("interrupted_unknown", 1_000 * 10**6),
    }


@pytest.mark.parametrize("tokens", [0, 400, 1_000, 5_000])
async def test_usage_after_a_loss__replaces_the_estimate(world: World, tokens: int) -> None:
    await world.append(begin=[a_run()])
    await world.ledger.hold(a_hold())
    await world.append(abandon=[RUN])

    await world.ledger.meter(a_meter(tokens=tokens))
    await world.ledger.meter(a_meter(tokens=77))

    (row,) = (await world.ledger.receipt(PROJECT)).losses
    assert (row.outcome, row.cost_pusd, row.input_tokens) == ("interrupted", tokens * 10**6, tokens)
    assert (await world.ledger.balance(USER)).free_ucredits == GRANT


async def test_usage_above_the_hold__is_charged_up_to_the_hold_and_the_rest_is_a_visible_loss(world: World) -> None:
    await world.append(begin=[a_run()])
    await world.ledger.hold(a_hold(tokens=1_000))
    await world.ledger.meter(a_meter(tokens=1_300))
    await world.append(settle=[RUN])

    receipt = await world.ledger.receipt(PROJECT)
    (charged,), (excess,) = receipt.charged, receipt.losses
    assert (charged.credits_ucredits, charged.cost_pusd, charged.input_tokens) == (150_000, 1_000 * 10**6, 1_300)
    assert (excess.outcome, excess.credits_ucredits, excess.cost_pusd) == ("above_hold", 0, 300 * 10**6)
    assert (await world.ledger.balance(USER)).balance_ucredits == GRANT - 150_000


async def test_call_whose_provider_failed__costs_nobody(world: World) -> None:
    await world.append(begin=[a_run()])
    await world.ledger.hold(a_hold())
    await world.ledger.meter(a_meter(tokens=400, failed=True))
    assert (await world.ledger.balance(USER)).free_ucredits == GRANT

    await world.append(settle=[RUN])
    receipt = await world.ledger.receipt(PROJECT)
    assert not receipt.charged
    (row,) = receipt.losses
    assert (row.outcome, row.cost_pusd, row.credits_ucredits, row.input_tokens) == ("provider_failed", 0, 0, 0)


async def test_call_without_a_run__is_charged_at_once(world: World) -> None:
    await world.ledger.hold(a_hold(run=None))
    await world.ledger.meter(a_meter(tokens=400))
    balance = await world.ledger.balance(USER)
    assert (balance.balance_ucredits, balance.held_ucredits) == (GRANT - 60_000, 0)


async def test_repeating_a_hold_or_a_meter__changes_nothing(world: World) -> None:
    await world.append(begin=[a_run()])
    for run in (RUN, None):
        call = f"c-{run}"
        await asyncio.gather(*(world.ledger.hold(a_hold(call, run=run)) for _ in range(3)))
        await asyncio.gather(*(world.ledger.meter(a_meter(call, 400)) for _ in range(3)))
        await world.ledger.hold(a_hold(call, run=run))
    balance = await world.ledger.balance(USER)
    assert (balance.balance_ucredits, balance.held_ucredits) == (GRANT - 60_000, 60_000)


async def test_call_id_of_another_call__is_refused(world: World) -> None:
    await world.append(begin=[a_run()])
    await world.ledger.hold(a_hold("c1"))
    with pytest.raises(ConflictError):
        await world.ledger.hold(a_hold("c1", run=None))


async def test_run_that_is_over__pays_for_nothing_more(world: World) -> None:
    other = RunId("project:p1/plan#1")
    with pytest.raises(ConflictError):
        await world.ledger.hold(a_hold())
    await world.append(begin=[a_run(), a_run(other)])
    await world.ledger.hold(a_hold("before", run=other))
    await world.append(settle=[RUN], abandon=[other])
    for call, run in itertools.product(("before", "after"), (RUN, other)):
        with pytest.raises(ConflictError):
            await world.ledger.hold(a_hold(call, run=run))
    assert (await world.ledger.balance(USER)).held_ucredits == 0


async def test_run_that_ended_one_way__cannot_end_the_other(world: World) -> None:
    await world.append(begin=[a_run()])
    await world.append(settle=[RUN])
    for change in ({"abandon": [RUN]}, {"begin": [a_run()]}):
        with pytest.raises(ConflictError):
            await world.append(**change)
    with pytest.raises(NotFoundError):
        await world.append(settle=[RunId("never begun")])


async def test_unknown_call__cannot_be_metered(world: World) -> None:
    with pytest.raises(NotFoundError):
        await world.ledger.meter(a_meter("never held"))


async def test_hold_over_the_wallet__is_refused_and_holds_nothing(world: World) -> None:
    whole = GRANT // 150
    with pytest.raises(NotEnoughCreditsError):
        await world.ledger.hold(a_hold(tokens=whole + 1, run=None))
    assert (await world.ledger.balance(USER)).held_ucredits == 0
    await world.ledger.hold(a_hold(tokens=whole, run=None))


async def test_ceiling__counts_what_is_held_metered_and_charged_but_not_what_was_lost(world: World) -> None:
    second = RunId("project:p1/task.T-001#2")
    await world.append(begin=[a_run(), a_run(second)], ceiling_ucredits=1_000 * 150)

    await world.ledger.hold(a_hold("c1", 900))
    with pytest.raises(CeilingReachedError):
        await world.ledger.hold(a_hold("c2", 101))
    await world.ledger.meter(a_meter("c1", 400))
    await world.ledger.hold(a_hold("c2", 600))
    await world.append(settle=[RUN])
    with pytest.raises(CeilingReachedError):
        await world.ledger.hold(a_hold("c3", 601, run=second))
    await world.ledger.hold(a_hold("c3", 600, run=second))
    with pytest.raises(CeilingReachedError):
        await world.ledger.hold(a_hold("c4", 1, run=second))

    await world.append(ceiling_ucredits=2_000 * 150)
    await world.ledger.hold(a_hold("c4", 1_000, run=second))


async def test_parallel_holds__never_overdraw(world: World) -> None:
    fits = 37
    await world.append(begin=[a_run()])
    tokens = GRANT // 150 // fits
    outcomes = await asyncio.gather(
        *(world.ledger.hold(a_hold(f"c{i}", tokens, run=RUN if i % 2 else None)) for i in range(400)),
        return_exceptions=True,
    )
    assert sum(outcome is None for outcome in outcomes) == fits
    assert all(isinstance(outcome, NotEnoughCreditsError) for outcome in outcomes if outcome is not None)
    balance = await world.ledger.balance(USER)
    assert balance.held_ucredits == fits * tokens * 150
    assert balance.free_ucredits >= 0


async def test_free_model__is_called_with_an_empty_wallet(world: World) -> None:
    free = Price(pricing_id="free", input_udollars_per_mtok=0, output_udollars_per_mtok=0)
    poor = replace(a_hold(run=None, price=free), user=UserId("poor"))
    await world.ledger.hold(poor)
    await world.ledger.meter(a_meter())
    assert (await world.ledger.balance(UserId("poor"))).balance_ucredits == 0


@pytest.mark.parametrize(
    ("tokens_in", "tokens_out", "price_in", "price_out", "cost_pusd", "charge_ucredits"),
    [
        (120_000, 30_000, 1_250_000, 10_000_000, 450_000_000_000, 67_500_000),
        (1_000_000, 0, 3_000_000, 15_000_000, 3_000_000_000_000, 450_000_000),
        (2_000, 500, 140_000, 280_000, 420_000_000, 63_000),
        (100, 0, 140_000, 280_000, 14_000_000, 2_100),
    ],
)
async def test_worked_examples_of_the_specification(
    world: World, tokens_in: int, tokens_out: int, price_in: int, price_out: int, cost_pusd: int, charge_ucredits: int
) -> None:
    price = Price(pricing_id="x", input_udollars_per_mtok=price_in, output_udollars_per_mtok=price_out)
    await world.append(begin=[a_run()])
    await world.ledger.hold(replace(a_hold(tokens=tokens_in, price=price), output_tokens_max=tokens_out))
    await world.ledger.meter(replace(a_meter(tokens=tokens_in), output_tokens=tokens_out))
    await world.append(settle=[RUN])
    receipt = await world.ledger.receipt(PROJECT)
    assert (receipt.total_cost_pusd, receipt.total_ucredits) == (cost_pusd, charge_ucredits)
    assert (await world.ledger.balance(USER)).balance_ucredits == GRANT - charge_ucredits


async def test_token__says_who_it_is_until_it_is_revoked_or_expires(world: World) -> None:
    digest, dying = (hashlib.sha256(text).hexdigest() for text in (b"a", b"b"))
    admin = UserId("local-admin")
    await world.ledger.open_wallet(admin, is_admin=True)
    await world.ledger.add_token(NewToken(token_sha256=digest, user=admin, kind="user", label="mine"))
    expires = NewToken(
        token_sha256=dying, user=admin, kind="user", label="", expires_at=NOON + timedelta(microseconds=1)
    )
    await world.ledger.add_token(expires)
    assert await world.ledger.authenticate(digest) == Identity(user=admin, is_admin=True, kind="user")
    assert await world.ledger.authenticate(dying) is not None
    assert await world.ledger.authenticate("0" * 64) is None

    world.now += timedelta(microseconds=1)
    await world.ledger.revoke_token(digest)
    await world.ledger.add_token(NewToken(token_sha256=digest, user=admin, kind="user", label="mine"))
    assert await world.ledger.authenticate(digest) is None
    assert await world.ledger.authenticate(dying) is None


async def test_task_token__is_good_while_its_run_is_open_and_never_an_admins(world: World) -> None:
    digest = hashlib.sha256(b"t").hexdigest()
    await world.ledger.open_wallet(USER, is_admin=True)
    await world.ledger.add_token(NewToken(token_sha256=digest, user=USER, kind="task", label="", run=RUN))
    assert await world.ledger.authenticate(digest) is None
    await world.append(begin=[a_run()])
    assert await world.ledger.authenticate(digest) == Identity(user=USER, is_admin=False, kind="task", run=RUN)
    await world.append(settle=[RUN])
    assert await world.ledger.authenticate(digest) is None


async def test_keys__are_those_of_the_last_replacement(world: World) -> None:
    first, second = (SealedKey(key_id=name, provider="openai", label=name, sealed=b"\0" + b"s") for name in ("a", "b"))
    other = SealedKey(key_id="a", provider="groq", label="g", sealed=b"t")
    await world.ledger.replace_keys([first, other])
    await world.ledger.replace_keys([second, other])
    assert await world.ledger.keys("openai") == [second]
    again = replace(first, sealed=b"sealed anew")
    await world.ledger.replace_keys([again])
    assert await world.ledger.keys("openai") == [again]
    assert await world.ledger.keys("groq") == []


async def test_blob__comes_back_under_the_id_of_its_content(world: World) -> None:
    first, again = await asyncio.gather(world.ledger.put_blob(b"zip"), world.ledger.put_blob(b"zip"))
    assert first == again == hashlib.sha256(b"zip").hexdigest()
    assert await world.ledger.get_blob(first) == b"zip"
    for unknown in ("0" * 64, "../../etc/passwd"):
        with pytest.raises(NotFoundError):
            await world.ledger.get_blob(unknown)  # type: ignore[arg-type]

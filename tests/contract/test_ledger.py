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
from runtime.errors import BadInputError, CeilingReachedError, ConflictError, NotEnoughCreditsError, NotFoundError
from runtime.ids import CallId, EntityId, ProjectId, RunId, UserId, partition_of
from runtime.ledger.books import Books
from runtime.ledger.money import Price, Tariff
from runtime.ledger.port import (
    Balance,
    Draw,
    EscrowCall,
    EscrowId,
    Hold,
    Identity,
    Ledger,
    Meter,
    ModelRow,
    NewToken,
    Payer,
    Return,
    SealedKey,
    Settlement,
    Spent,
    TokenTerms,
)
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
            recall_wait_s=0.0,
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


def a_meter(
    call: str = "c1", tokens: int = 400, failed: bool = False, estimated: bool = False, unserved: bool = False
) -> Meter:
    return Meter(
        call=CallId(call),
        input_tokens=tokens,
        output_tokens=0,
        response_time_ms=5,
        key_id="k",
        provider_failed=failed,
        estimated=estimated,
        unserved=unserved,
    )


TOKEN = hashlib.sha256(b"token").hexdigest()
E1, E2 = EscrowId("e1"), EscrowId("e2")
WALLET = Payer(USER)


def a_draw(wanted: int, least: int = 0, escrow: EscrowId = E1, payer: Payer = WALLET, **changes: Any) -> Draw:
    return Draw(
        escrow=escrow, process="p", payer=payer, wanted_ucredits=max(wanted, least), min_ucredits=least, **changes
    )


def used(call: str, tokens: int | None, *, escrow: EscrowId = E1, bound: int = 1_000, **changes: Any) -> EscrowCall:
    """A call of so many tokens, each 150 microcredits; None for one whose usage nobody knows."""
    meter = a_meter(call, tokens, **changes) if tokens is not None else None
    return EscrowCall(escrow=escrow, hold=a_hold(call, bound, run=None), meter=meter, held_at=NOON)


def settlement(batch: str, *calls: EscrowCall, **changes: Any) -> Settlement:
    return Settlement(batch=batch, process="p", calls=calls, **changes)


def a_key(name: str) -> SealedKey:
    return SealedKey(key_id=name, provider="openai", label="environment", sealed=b"\0s")


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
    for call in ("known", "guessed", "unknown"):
        await world.ledger.hold(a_hold(call))
    await world.ledger.meter(a_meter("known", 400))
    await world.ledger.meter(a_meter("guessed", 300, estimated=True))

    await world.append(abandon=[RUN])
    await world.append(abandon=[RUN])

    balance = await world.ledger.balance(USER)
    assert (balance.balance_ucredits, balance.held_ucredits) == (GRANT, 0)
    receipt = await world.ledger.receipt(PROJECT)
    assert not receipt.charged
    assert {row.call: (row.outcome, row.cost_pusd) for row in receipt.losses} == {
        "known": ("interrupted", 400 * 10**6),
        "guessed": ("interrupted_estimated", 300 * 10**6),
        "unknown": ("interrupted_unknown", 1_000 * 10**6),
    }


@pytest.mark.parametrize("tokens", [0, 400, 1_000, 5_000])
@pytest.mark.parametrize("estimated", [False, True])
async def test_usage_after_a_loss__replaces_the_bound(world: World, tokens: int, estimated: bool) -> None:
    await world.append(begin=[a_run()])
    await world.ledger.hold(a_hold())
    await world.append(abandon=[RUN])

    await world.ledger.meter(a_meter(tokens=tokens, estimated=estimated))
    await world.ledger.meter(a_meter(tokens=77))

    (row,) = (await world.ledger.receipt(PROJECT)).losses
    outcome = "interrupted_estimated" if estimated else "interrupted"
    assert (row.outcome, row.cost_pusd, row.input_tokens) == (outcome, tokens * 10**6, tokens)
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


@pytest.mark.parametrize("run", [RUN, None])
@pytest.mark.parametrize("tokens", [0, 400, 1_300])
async def test_call_of_whose_answer_nobody_got_anything__costs_the_platform_what_it_used(
    world: World, run: RunId | None, tokens: int
) -> None:
    await world.append(begin=[a_run()])
    await world.ledger.hold(replace(a_hold(run=run), project=PROJECT))
    for _ in range(2):
        await world.ledger.meter(a_meter(tokens=tokens, estimated=True, unserved=True))
    await world.ledger.meter(a_meter(tokens=7))
    assert await world.ledger.balance(USER) == Balance(balance_ucredits=GRANT, held_ucredits=0)

    await world.append(settle=[RUN])
    receipt = await world.ledger.receipt(PROJECT)
    (row,) = receipt.losses
    assert (row.outcome, row.cost_pusd, row.input_tokens) == ("interrupted_estimated", tokens * 10**6, tokens)
    assert (receipt.charged, receipt.total_ucredits, row.credits_ucredits) == ([], 0, 0)
    assert await world.ledger.balance(USER) == Balance(balance_ucredits=GRANT, held_ucredits=0)


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
    identity = Identity(user=admin, is_admin=True, kind="user", role="ADMIN", token_sha256=digest)
    assert await world.ledger.authenticate(digest) == identity
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
    identity = Identity(user=USER, is_admin=False, kind="task", run=RUN, role="ADMIN", token_sha256=digest)
    assert await world.ledger.authenticate(digest) == identity
    await world.append(settle=[RUN])
    assert await world.ledger.authenticate(digest) is None


async def test_task_token__of_a_demo_user_calls_what_a_build_needs(world: World) -> None:
    """The role rules what somebody calls themselves; a build's models are the operator's choice."""
    digest, own = hashlib.sha256(b"t").hexdigest(), hashlib.sha256(b"own").hexdigest()
    await world.ledger.open_wallet(USER, is_admin=False)
    await world.append(begin=[a_run()])
    await world.ledger.add_token(NewToken(token_sha256=digest, user=USER, kind="task", label="", run=RUN))
    await world.ledger.add_token(NewToken(token_sha256=own, user=USER, kind="user", label=""))
    task, person = await world.ledger.authenticate(digest), await world.ledger.authenticate(own)
    assert task is not None
    assert person is not None
    assert (task.role, person.role) == ("FULL_ACCESS", "DEMO")


async def test_task_token__of_an_append_is_there_with_its_run_or_not_at_all(world: World) -> None:
    good, late = (
        NewToken(token_sha256=hashlib.sha256(text).hexdigest(), user=USER, kind="task", label="T-001/1", run=RUN)
        for text in (b"a", b"b")
    )
    await world.append(begin=[a_run()], tokens=[good])
    identity = await world.ledger.authenticate(good.token_sha256)
    assert identity is not None
    assert (identity.kind, identity.run) == ("task", RUN)
    assert [token.label for token in await world.ledger.tokens(USER)] == ["T-001/1"]

    with pytest.raises(NotFoundError):
        await world.append(settle=[RunId("unknown")], tokens=[late])
    assert await world.ledger.authenticate(late.token_sha256) is None
    await world.append(settle=[RUN])
    assert await world.ledger.authenticate(good.token_sha256) is None


@pytest.mark.parametrize(
    "wrong",
    [{"token_sha256": "x"}, {"kind": "user", "run": None}, {"terms": TokenTerms(budget_ucredits=1)}],
    ids=["hash", "kind", "budget"],
)
async def test_append__takes_no_token_but_a_tasks(world: World, wrong: dict[str, Any]) -> None:
    token = NewToken(token_sha256="0" * 64, user=USER, kind="task", label="", run=RUN)
    with pytest.raises(BadInputError):
        await world.append(begin=[a_run()], tokens=[replace(token, **wrong)])
    assert await world.ledger.tokens(USER) == []


async def test_keys__are_those_of_the_last_replacement(world: World) -> None:
    first, second = (a_key(name) for name in ("a", "b"))
    other = replace(first, provider="groq", sealed=b"t")
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


async def test_escrow__is_a_small_share_of_what_is_free_unless_one_call_needs_more(world: World) -> None:
    small = await world.ledger.draw(a_draw(wanted=5 * CREDIT))
    large = await world.ledger.draw(a_draw(wanted=GRANT, escrow=E2))
    assert (small.granted_ucredits, large.granted_ucredits) == (5 * CREDIT, (GRANT - 5 * CREDIT) // 8)
    whole = (await world.ledger.balance(USER)).free_ucredits
    needed = await world.ledger.draw(a_draw(wanted=whole, least=whole, escrow=EscrowId("e3")))
    assert needed.granted_ucredits == whole
    with pytest.raises(NotEnoughCreditsError):
        await world.ledger.draw(a_draw(wanted=1, least=1, escrow=EscrowId("e4")))
    assert await world.ledger.balance(USER) == Balance(balance_ucredits=GRANT, held_ucredits=GRANT)


async def test_draw__repeated_is_the_same_escrow_and_another_id_of_a_payer_is_refused(world: World) -> None:
    first, again = await asyncio.gather(*(world.ledger.draw(a_draw(wanted=CREDIT)) for _ in range(2)))
    assert first == again
    assert (await world.ledger.balance(USER)).held_ucredits == CREDIT
    with pytest.raises(ConflictError):
        await world.ledger.draw(a_draw(wanted=CREDIT, payer=Payer(UserId("other"))))
    await world.ledger.settle(settlement("b", returns=(Return(escrow=E1, granted_ucredits=0, ends=True),)))
    with pytest.raises(ConflictError):
        await world.ledger.draw(a_draw(wanted=CREDIT))


async def test_settling__charges_the_escrow_and_keeps_the_rest_of_it_held(world: World) -> None:
    await world.ledger.draw(a_draw(wanted=CREDIT))
    await world.ledger.settle(
        settlement("b1", used("c1", 400), used("c2", 100), used("c3", None), used("c4", 5, failed=True))
    )
    balance = await world.ledger.balance(USER)
    assert (balance.balance_ucredits, balance.held_ucredits) == (GRANT - 75_000, CREDIT - 75_000)


async def test_call_under_an_escrow__is_charged_once_in_whatever_batch_it_comes(world: World) -> None:
    await world.ledger.draw(a_draw(wanted=CREDIT))
    first = settlement("b1", used("c1", 400), used("c2", 100))
    await asyncio.gather(*(world.ledger.settle(first) for _ in range(3)))
    await world.ledger.settle(settlement("b2", used("c2", 100), used("c3", 10), used("c3", 10)))
    await world.ledger.meter(a_meter("c1", 400))
    assert (await world.ledger.balance(USER)).balance_ucredits == GRANT - 510 * 150


async def test_usage_above_a_calls_own_bound__is_the_platforms_loss_and_shows_in_the_receipt(world: World) -> None:
    payer = Payer(USER, PROJECT)
    await world.ledger.draw(a_draw(wanted=CREDIT, payer=payer))
    await world.ledger.settle(
        settlement(
            "b1",
            used("above", 1_300),
            used("unknown", None),
            used("guessed", 7, estimated=True),
            used("failed", 9, failed=True),
            used("left", 11, estimated=True, unserved=True),
        )
    )
    receipt = await world.ledger.receipt(PROJECT)
    charged = {row.call: (row.outcome, row.credits_ucredits, row.cost_pusd) for row in receipt.charged}
    assert charged == {
        "above": ("ok", 150_000, 1_000 * 10**6),
        "guessed": ("estimated", 7 * 150, 7 * 10**6),
    }
    losses = {(row.call, row.outcome): (row.credits_ucredits, row.cost_pusd) for row in receipt.losses}
    assert losses == {
        ("above", "above_hold"): (0, 300 * 10**6),
        ("unknown", "interrupted_unknown"): (0, 1_000 * 10**6),
        ("failed", "provider_failed"): (0, 0),
        ("left", "interrupted_estimated"): (0, 11 * 10**6),
    }
    assert receipt.total_ucredits == 150_000 + 7 * 150
    sums = Spent(total_ucredits=150_000 + 7 * 150, total_cost_pusd=1_007 * 10**6, refunded_ucredits=0)
    assert await world.ledger.spent(PROJECT) == sums


async def test_return__gives_back_once_and_never_what_was_used(world: World) -> None:
    await world.ledger.draw(a_draw(wanted=CREDIT))
    lower = Return(escrow=E1, granted_ucredits=CREDIT // 2)
    for batch in ("b1", "b2"):
        await world.ledger.settle(settlement(batch, used("c1", 1_000), returns=(lower,)))
    assert (await world.ledger.balance(USER)).held_ucredits == CREDIT // 2 - 150_000
    await world.ledger.settle(settlement("b3", returns=(Return(escrow=E1, granted_ucredits=0),)))
    await world.ledger.settle(settlement("b4", returns=(lower, Return(escrow=EscrowId("unknown"), granted_ucredits=0))))
    balance = await world.ledger.balance(USER)
    assert (balance.balance_ucredits, balance.held_ucredits) == (GRANT - 150_000, 0)


async def test_settlement_after_its_escrow_ended__charges_the_wallet_and_loses_what_that_cannot_give(
    world: World,
) -> None:
    payer = Payer(USER, PROJECT)
    await world.ledger.draw(a_draw(wanted=CREDIT, payer=payer))
    await world.ledger.settle(settlement("end", process_ended=True))
    assert (await world.ledger.balance(USER)).held_ucredits == 0
    free_tokens = 100
    await world.ledger.hold(a_hold("all", GRANT // 150 - free_tokens, run=None))
    rest = (await world.ledger.balance(USER)).free_ucredits - free_tokens * 150
    await world.ledger.settle(settlement("b1", used("c1", 60), used("c2", 60), used("c3", 60)))
    assert (await world.ledger.balance(USER)).free_ucredits == 0
    receipt = await world.ledger.receipt(PROJECT)
    paid = {row.call: row.credits_ucredits for row in receipt.charged}
    assert paid == {"c1": 60 * 150, "c2": 40 * 150 + rest, "c3": 0}
    cost = sum(row.cost_pusd for row in receipt.charged) + sum(row.cost_pusd for row in receipt.losses)
    assert cost == 3 * 60 * 10**6


async def test_settlement_of_an_escrow_nobody_drew__is_charged_to_the_calls_own_payer(world: World) -> None:
    await world.ledger.settle(settlement("b1", used("c1", 60, escrow=EscrowId("lost with a backup"))))
    assert await world.ledger.balance(USER) == Balance(balance_ucredits=GRANT - 60 * 150, held_ucredits=0)


async def test_draw__counts_under_the_ceiling_and_the_budget_until_it_is_given_back(world: World) -> None:
    await world.ledger.add_token(
        NewToken(token_sha256=TOKEN, user=USER, kind="user", label="", terms=TokenTerms(budget_ucredits=200_000))
    )
    await world.append(begin=[a_run()], ceiling_ucredits=150_000)
    both = Payer(USER, PROJECT, TOKEN)
    assert (await world.ledger.draw(a_draw(wanted=GRANT, payer=both))).granted_ucredits == 150_000 // 8
    await world.ledger.settle(settlement("b0", returns=(Return(escrow=E1, granted_ucredits=0),)))
    await world.ledger.draw(a_draw(0, 150_000, E2, both))
    for refused in (both, Payer(USER, PROJECT)):
        with pytest.raises(CeilingReachedError):
            await world.ledger.draw(a_draw(0, 1, EscrowId("x"), refused))
    with pytest.raises(CeilingReachedError):
        await world.ledger.hold(a_hold(tokens=1))
    with pytest.raises(CeilingReachedError):
        await world.ledger.hold(replace(a_hold("x", tokens=334, run=None), token_sha256=TOKEN))
    await world.ledger.settle(settlement("b1", used("c1", 1_000, escrow=E2)))
    await world.ledger.hold(replace(a_hold("fits", tokens=333, run=None), token_sha256=TOKEN))
    with pytest.raises(CeilingReachedError):
        await world.ledger.draw(a_draw(0, 51, EscrowId("y"), Payer(USER, None, TOKEN)))
    await world.ledger.meter(a_meter("fits", 1))
    (row,) = await world.ledger.tokens(USER)
    assert (row.token_id, row.spent_ucredits, row.terms.budget_ucredits) == (TOKEN[:12], 150_150, 200_000)


async def test_draw__takes_what_is_returned_with_it_first_and_a_refused_one_changes_nothing(world: World) -> None:
    everything = a_draw(GRANT, GRANT)
    await world.ledger.draw(everything)
    back = (Return(escrow=E1, granted_ucredits=GRANT // 2),)
    with pytest.raises(NotEnoughCreditsError):
        await world.ledger.draw(a_draw(0, GRANT // 2 + 1, E2, returns=back))
    assert (await world.ledger.balance(USER)).free_ucredits == 0
    await world.ledger.draw(a_draw(0, GRANT // 2, E2, returns=back))
    assert (await world.ledger.balance(USER)).free_ucredits == 0


async def test_token_with_terms__carries_them_and_administers_nothing(world: World) -> None:
    admin = UserId("local-admin")
    await world.ledger.open_wallet(admin, is_admin=True)
    terms = TokenTerms(models=("openai/*", "eco"), budget_ucredits=5, requests_per_minute=60)
    token = NewToken(
        token_sha256=TOKEN, user=admin, kind="user", label="", terms=terms, expires_at=NOON + timedelta(days=1)
    )
    await world.ledger.add_token(token)
    assert await world.ledger.authenticate(TOKEN) == Identity(
        user=admin,
        is_admin=False,
        kind="user",
        role="ADMIN",
        token_sha256=TOKEN,
        terms=terms,
        expires_at=token.expires_at,
    )


async def test_projects_token__names_its_project_and_registers_its_user(world: World) -> None:
    new = UserId("new")
    await world.ledger.add_token(NewToken(token_sha256=TOKEN, user=new, kind="project", label="l", project=PROJECT))
    identity = await world.ledger.authenticate(TOKEN)
    assert identity == Identity(
        user=new, is_admin=False, kind="project", role="DEMO", project=PROJECT, token_sha256=TOKEN
    )
    assert (await world.ledger.balance(new)).free_ucredits == GRANT
    await world.ledger.set_role(new, "FULL_ACCESS")
    await world.ledger.open_wallet(new, is_admin=False)
    identity = await world.ledger.authenticate(TOKEN)
    assert identity is not None
    assert identity.role == "FULL_ACCESS"
    with pytest.raises(NotFoundError):
        await world.ledger.set_role(UserId("nobody"), "ADMIN")


async def test_token__is_listed_and_revoked_by_its_id(world: World) -> None:
    other = hashlib.sha256(b"other").hexdigest()
    await world.ledger.add_token(NewToken(token_sha256=TOKEN, user=USER, kind="user", label="mine"))
    world.now += timedelta(seconds=1)
    await world.ledger.add_token(NewToken(token_sha256=other, user=UserId("b"), kind="user", label="theirs"))
    assert [row.label for row in await world.ledger.tokens(None)] == ["theirs", "mine"]
    for wrong in ("", TOKEN[:11], TOKEN[:13], "%"):
        await world.ledger.revoke_token(wrong)
    assert await world.ledger.authenticate(TOKEN) is not None
    await world.ledger.revoke_token(TOKEN[:12])
    (row,) = await world.ledger.tokens(USER)
    assert (row.token_id, row.created_at, row.revoked_at) == (TOKEN[:12], NOON, world.now)
    assert await world.ledger.authenticate(TOKEN) is None
    assert await world.ledger.authenticate(other) is not None


async def test_keys_an_operator_added__stay_whatever_the_environment_says(world: World) -> None:
    own = replace(a_key("own"), label="mine", limits='{"rpm": 5}', expires_at=datetime(2027, 1, 31, tzinfo=UTC))
    await world.ledger.add_key(own)
    assert await world.ledger.keys("openai") == [own]
    await world.ledger.replace_keys([a_key("env")])
    assert await world.ledger.set_key_disabled("env", True)
    assert not await world.ledger.set_key_disabled("unknown", True)
    await world.ledger.replace_keys([a_key("env"), replace(own, label="environment", sealed=b"new", expires_at=None)])
    assert await world.ledger.keys("openai") == [replace(own, sealed=b"new", expires_at=None)]
    await world.ledger.replace_keys([])
    known = {key.key_id: (key.label, key.active, key.disabled) for key in await world.ledger.all_keys()}
    assert known == {"env": ("environment", False, True), "own": ("mine", True, False)}
    await world.ledger.reseal_keys([replace(own, sealed=b"resealed"), a_key("gone")], "aa", "bb")
    assert [key.sealed for key in await world.ledger.keys("openai")] == [b"resealed"]
    (rotation,) = await world.ledger.key_rotations()
    assert (rotation.keys, rotation.old_master, rotation.new_master) == (2, "aa", "bb")


async def test_key_uses__count_both_kinds_of_calls(world: World) -> None:
    await world.ledger.hold(a_hold(run=None))
    await world.ledger.meter(a_meter())
    await world.ledger.draw(a_draw(wanted=CREDIT))
    await world.ledger.settle(settlement("b", used("c2", 1), used("c3", 1, failed=True), used("c4", None)))
    (use,) = await world.ledger.key_uses()
    assert (use.key_id, use.calls) == ("k", 3)


async def test_models__are_replaced_by_provider_name_and_date(world: World) -> None:
    row = ModelRow(provider="openai", model="mini", effective_from=NOON, price=PRICE, body="{}")
    later = replace(row, effective_from=NOON + timedelta(days=1), price=replace(PRICE, pricing_id="mini-2"))
    await world.ledger.set_models([later, row])
    await world.ledger.set_models([replace(row, body='{"notes": "x"}')])
    assert await world.ledger.models() == [replace(row, body='{"notes": "x"}'), later]
    cheaper = replace(PRICE, input_udollars_per_mtok=1)
    with pytest.raises(ConflictError):
        await world.ledger.set_models([replace(later, body="changed"), replace(row, price=cheaper)])
    assert await world.ledger.models() == [replace(row, body='{"notes": "x"}'), later]


async def test_estimated_usage__is_charged_and_says_so(world: World) -> None:
    await world.append(begin=[a_run()])
    await world.ledger.hold(a_hold())
    await world.ledger.meter(a_meter(estimated=True))
    await world.append(settle=[RUN])
    (row,) = (await world.ledger.receipt(PROJECT)).charged
    assert (row.outcome, row.credits_ucredits) == ("estimated", 60_000)

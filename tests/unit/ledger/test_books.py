"""What only the books on disk do: detect tampering, expire holds, keep prices, show views."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from runtime.config import Secrets, Settings
from runtime.entity.journal import Append, BeginRun, Claim, Moves
from runtime.errors import AccountStoppedError, BadInputError, ConflictError, DailyCapError, NotEnoughCreditsError
from runtime.ids import CallId, EntityId, ProjectId, RunId, UserId, partition_of
from runtime.ledger import postings
from runtime.ledger.caps import Rules
from runtime.ledger.money import Price
from runtime.ledger.port import (
    Adjustment,
    CallRefund,
    Draw,
    EscrowCall,
    EscrowId,
    Hold,
    Meter,
    NewToken,
    Payer,
    Purchase,
    Repayment,
    Return,
    Settlement,
    StarsPayment,
    TokenTerms,
)
from runtime.ledger.records import PriceRow
from runtime.store.database import Database
from runtime.store.queries import sql as statement
from runtime.store.store import Store

USER = UserId("u")
PROJECT = ProjectId("p1")
ENTITY = EntityId("project:p1")
RUN = RunId("r1")
TOKEN = "a" * 64
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
PRICE = Price(pricing_id="mini-1", input_udollars_per_mtok=140_000, output_udollars_per_mtok=280_000)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    made = Store(Settings(data_dir=tmp_path), Secrets.load(tmp_path, {}), lambda: NOON)
    await made.open()
    await made.books.open_wallet(USER, is_admin=False)
    await made.journal.claim(Claim(host="h", incarnation="i", partitions={partition_of(ENTITY): 0}))
    yield made
    await made.close()


def a_hold(call: str, run: RunId | None = None) -> Hold:
    return Hold(
        call=CallId(call),
        user=USER,
        run=run,
        task_type="chat",
        provider="deepseek",
        model="chat",
        input_tokens_max=10_000,
        output_tokens_max=2_000,
        price=PRICE,
    )


def a_meter(call: str) -> Meter:
    return Meter(call=CallId(call), input_tokens=2_000, output_tokens=500, response_time_ms=9, key_id="key-1")


def an_escrow_call(call: str) -> EscrowCall:
    return EscrowCall(escrow=EscrowId("e1"), hold=a_hold(call), meter=a_meter(call), held_at=NOON)


def stars_payment(charge: str, stars: int = 500) -> StarsPayment:
    return StarsPayment(
        telegram_charge_id=charge, provider_charge_id="", user=USER, product="full_access_monthly", stars=stars,
        currency="XTR", at=NOON,
    )  # fmt: skip


async def sql(store: Store, *statements: str) -> list[tuple[object, ...]]:
    """Past every rule, as an intruder or a bug would."""
    return await store.books._database.read(
        lambda connection: [row for text in statements for row in connection.execute(text).fetchall()]
    )


async def a_busy_ledger(store: Store) -> None:
    begin = BeginRun(run=RUN, user=USER, project=PROJECT, task="T-001", attempt=1)
    append = Append(entity=ENTITY, owner=USER, epoch=1, expected_seq=0, events=(), open=True, head={})
    await store.journal.append(replace(append, moves=Moves(begin=[begin])))
    for call in ("settled", "lost"):
        await store.books.hold(a_hold(call, RUN))
    await store.books.meter(a_meter("settled"))
    await store.journal.append(replace(append, moves=Moves(settle=[RUN])))
    await store.books.hold(a_hold("held"))
    payer = Payer(USER, PROJECT, TOKEN)
    await store.books.draw(
        Draw(escrow=EscrowId("e1"), process="x", payer=payer, wanted_ucredits=10**6, min_ucredits=500_000)
    )
    await store.books.settle(
        Settlement(
            batch="b1",
            process="x",
            calls=(an_escrow_call("e-charged"), replace(an_escrow_call("e-lost"), meter=None)),
            returns=(Return(escrow=EscrowId("e1"), granted_ucredits=400_000),),
        )
    )
    books = store.books
    await books.refund_call(CallRefund(call=CallId("settled"), reason="a gap", made_by=USER))
    await books.adjust(Adjustment(id="a1", user=USER, amount_ucredits=3, reason="a gift", made_by=USER))
    await books.purchase(
        Purchase(
            provider="shop", external_id="x1", user=USER, product="credits", ucredits=5, paid_pusd=7, currency="USD",
            amount_minor=1,
        )
    )  # fmt: skip
    await books.repay(Repayment(provider="shop", external_id="x1", reason="why"))
    for charge, stars in (("kept", 500), ("back", 500), ("odd", 1)):
        await books.fulfil(stars_payment(charge, stars))
    await books.refund_stars("back", "why", USER)
    assert await store.books.mismatches() == []


async def test_balance__is_of_one_moment(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    database = store.books._database
    read, numbers = database.read, itertools.count()

    async def read_and_hold(act: Any) -> Any:
        answer = await read(act)
        await store.books.hold(a_hold(f"meanwhile-{next(numbers)}"))
        return answer

    monkeypatch.setattr(database, "read", read_and_hold)
    balances = [await store.books.balance(USER) for _ in range(3)]
    assert {balance.balance_ucredits for balance in balances} == {100 * 10**6}


async def test_account_that_does_not_add_up__is_stopped_and_others_are_not(store: Store) -> None:
    await a_busy_ledger(store)
    other = UserId("other")
    await store.books.open_wallet(other, is_admin=False)
    assert await store.books.reconcile() == []
    await sql(store, "UPDATE transfers SET amount = amount + 1 WHERE transfer_id = 'held/hold'")
    found = await store.books.reconcile()
    assert {mismatch.user for mismatch in found if mismatch.user} == {USER}
    await store.books.reconcile()
    (stop,) = await store.books.stopped_accounts()
    assert stop.user == USER
    with pytest.raises(AccountStoppedError):
        await store.books.hold(a_hold("after"))
    await store.books.hold(replace(a_hold("of another"), user=other))


async def test_stopped_account__is_asked_for_its_escrows_back_and_stays_stopped_over_a_restart(store: Store) -> None:
    payer = Payer(USER)
    await store.books.draw(
        Draw(escrow=EscrowId("e1"), process="x", payer=payer, wanted_ucredits=10**6, min_ucredits=10**6)
    )
    await store.books.stop_account(USER, "why")
    assert await store.books.settle(Settlement(batch="", process="x")) == ("e1",)
    await store.close()
    await store.open()
    with pytest.raises(AccountStoppedError):
        await store.books.hold(a_hold("after"))


async def test_low_balance__is_told_once_for_each_crossing(store: Store) -> None:
    low = 20 * 10**6

    async def change(number: int, credits: int) -> None:
        changed = Adjustment(id=f"n{number}", user=USER, amount_ucredits=credits * 10**6, reason="why", made_by=USER)
        await store.books.adjust(changed)

    assert await store.books.note_low_balances(low) == 0
    await change(1, -80)
    assert await store.books.note_low_balances(low) == 0
    await change(2, -1)
    assert [await store.books.note_low_balances(low) for _ in range(3)] == [1, 0, 0]
    await change(3, -5)
    assert await store.books.note_low_balances(low) == 0
    await change(4, 10)
    assert await store.books.note_low_balances(low) == 0
    (notice,) = await store.books.notices(USER)
    assert (notice.kind, notice.text[:19]) == ("low_balance", "19.00 credits are l")


async def test_notice__that_a_door_told_is_not_waiting_to_be_told_any_more(store: Store) -> None:
    await store.books.note_low_balances(1_000 * 10**6)
    (notice,) = await store.books.untold_notices(USER)
    await store.books.mark_told(USER, notice.at - timedelta(seconds=1))
    await store.books.mark_told(UserId("another"), notice.at)
    assert await store.books.untold_notices(USER) == [notice]
    for _ in range(2):
        await store.books.mark_told(USER, notice.at)
        assert await store.books.untold_notices(USER) == []
    assert await store.books.notices(USER) == [notice]


@pytest.mark.parametrize(
    ("tampering", "subject"),
    [
        ("UPDATE accounts SET balance = balance + 1 WHERE account = 'user:u'", "credit"),
        ("UPDATE accounts SET balance = balance + 1 WHERE account = 'user:u'", "user:u"),
        ("DELETE FROM accounts WHERE account = 'platform:losses'", "platform:losses"),
        ("DELETE FROM transfers WHERE transfer_id = 'settled/charge'", "settled"),
        ("DELETE FROM transfers WHERE transfer_id = 'lost/loss'", "lost"),
        ("UPDATE transfers SET amount = amount + 1 WHERE transfer_id = 'held/hold'", "user:u/held"),
        ("UPDATE call_usages SET cost_pusd = 0 WHERE call = 'settled'", "settled"),
        ("UPDATE budgets SET committed_ucredits = 0", "p1"),
        ("UPDATE budgets SET committed_ucredits = 0", f"token:{TOKEN}"),
        ("UPDATE escrow_grants SET granted_ucredits = granted_ucredits + 1", "e1"),
        ("UPDATE escrow_grants SET ended_at = now(), charged_ucredits = granted_ucredits", "user:u/held"),
        ("UPDATE escrow_grants SET ended_at = now()", "e1"),
        ("DELETE FROM escrow_grants", "e-charged"),
        ("DELETE FROM settled_calls WHERE call = 'e-charged'", "e1"),
        ("DELETE FROM settled_calls WHERE call = 'e-lost'", "b1"),
        ("UPDATE settled_calls SET cost_pusd = cost_pusd + 1 WHERE call = 'e-charged'", "b1"),
        ("UPDATE settled_calls SET loss_pusd = loss_pusd - 1 WHERE call = 'e-lost'", "b1"),
        ("DELETE FROM transfers WHERE transfer_id = 'e1/b1/charge'", "e1"),
        ("DELETE FROM transfers WHERE transfer_id = 'b1/deepseek/loss'", "b1"),
        ("UPDATE settled_calls SET call = 'held' WHERE call = 'e-lost'", "held"),
        ("DELETE FROM call_ends WHERE call = 'settled'", "settled"),
        ("DELETE FROM call_holds WHERE call = 'held'", "user:u/held"),
        ("DELETE FROM call_refunds", "settled"),
        ("UPDATE call_refunds SET amount_ucredits = 1", "settled"),
        ("DELETE FROM purchases", "purchase/shop/x1/purchase"),
        ("DELETE FROM purchases", "kept"),
        ("DELETE FROM star_payments WHERE charge_id = 'kept'", "telegram/kept"),
        ("UPDATE star_payments SET stars = 501 WHERE charge_id = 'kept'", "kept"),
        ("UPDATE star_payments SET ucredits = 1 WHERE charge_id = 'odd'", "odd"),
        ("UPDATE star_refunds SET taken_ucredits = 1", "back"),
        ("DELETE FROM repayments WHERE purchase = 'telegram/back'", "back"),
        ("DELETE FROM subscription_periods WHERE purchase = 'telegram/kept'", "kept"),
        ("UPDATE subscription_periods SET ends_at = ends_at + INTERVAL 1 SECOND", "telegram/kept"),
        ("UPDATE subscription_periods SET ends_at = starts_at + INTERVAL 31 DAY", "telegram/back"),
        ("UPDATE subscription_periods SET user_id = 'thief'", "telegram/kept"),
        ("UPDATE repayments SET taken_ucredits = 1", "purchase/shop/x1/repayment"),
        ("UPDATE adjustments SET amount_ucredits = 2 * amount_ucredits", "adjustment/a1/adjustment"),
        ("DELETE FROM transfers WHERE transfer_id = 'settled/refund'", "settled"),
        (
            "UPDATE accounts SET balance = balance - 100000000 WHERE account = 'user:u';"
            "UPDATE accounts SET balance = balance + 100000000 WHERE account = 'platform:promotions'",
            "user:u",
        ),
    ],
)
async def test_sum_that_was_tampered_with__is_reported(store: Store, tampering: str, subject: str) -> None:
    await a_busy_ledger(store)
    await sql(store, tampering)
    assert subject in {mismatch.subject for mismatch in await store.books.mismatches()}


async def test_grant__is_given_once_even_after_the_user_was_deleted(store: Store) -> None:
    await store.books.hold(a_hold("c"))
    await store.books.meter(a_meter("c"))
    left = (await store.books.balance(USER)).balance_ucredits
    await sql(store, "DELETE FROM users")
    await store.close()
    await store.open()
    assert (await store.books.open_wallet(USER, is_admin=False)).balance_ucredits == left == 100 * 10**6 - 63_000
    assert "u" not in {identity for (identity,) in await sql(store, "SELECT identity_sha256 FROM grants")}


async def test_hold_without_a_run_whose_process_died__expires_as_a_loss(tmp_path: Path) -> None:
    times = [NOON]
    store = Store(Settings(data_dir=tmp_path), Secrets.load(tmp_path, {}), lambda: times[-1])
    await store.open()
    await store.books.open_wallet(USER, is_admin=False)
    for call in ("dead", "metered"):
        await store.books.hold(a_hold(call))
    await store.books.meter(a_meter("metered"))
    times.append(NOON + timedelta(minutes=10))
    await store.books.hold(a_hold("young"))

    deadline = NOON + timedelta(minutes=5)
    assert await store.books.expire_holds(deadline) == ["dead"]
    assert await store.books.expire_holds(deadline) == []
    balance = await store.books.balance(USER)
    assert balance.balance_ucredits == 100 * 10**6 - 63_000
    losses = "SELECT balance::HUGEINT FROM accounts WHERE account = 'platform:losses'"
    assert await sql(store, losses) == [(-1_960_000_000,)]

    await store.books.meter(a_meter("dead"))
    assert await sql(store, losses) == [(-420_000_000,)]
    with pytest.raises(ConflictError):
        await store.books.hold(a_hold("dead"))
    assert await store.books.mismatches() == []
    await store.close()


async def test_call_of_whose_answer_nobody_got_anything__is_owed_to_its_provider_by_the_platform(store: Store) -> None:
    await store.books.hold(a_hold("own"))
    await store.books.meter(replace(a_meter("own"), unserved=True))
    drawn = an_escrow_call("drawn")
    drawn = replace(drawn, meter=replace(a_meter("drawn"), unserved=True))
    await store.books.settle(Settlement(batch="b", process="p", calls=(drawn,)))

    accounts = "SELECT account, balance::HUGEINT FROM accounts WHERE unit = 'usd' AND balance != 0 ORDER BY account"
    assert await sql(store, accounts) == [("platform:losses", -840_000_000), ("provider:deepseek", 840_000_000)]
    assert (await store.books.balance(USER)).free_ucredits == 100 * 10**6
    assert await store.books.mismatches() == []


async def test_views__show_the_specifications_tables_exactly(store: Store) -> None:
    await store.books.hold(a_hold("c1"))
    await store.books.meter(a_meter("c1"))
    rows = await sql(
        store,
        "SELECT transaction_type, credits_amount, real_cost_associated_usd FROM credit_transactions ORDER BY id DESC",
    )
    assert sorted(rows) == [
        ("initial_grant", Decimal("100.000000"), None),
        ("usage_deduction", Decimal("-0.063000"), Decimal("0.000420000000")),
    ]
    ((total,),) = await sql(store, "SELECT sum(credits_amount) FROM credit_transactions WHERE user_id = 'u'")
    assert total * 10**6 == (await store.books.balance(USER)).balance_ucredits
    query = "SELECT request_id, pricing_id, model_name, input_tokens_used, actual_cost_usd, outcome FROM api_key_usage"
    assert await sql(store, query) == [("c1", "mini-1", "chat", 2_000, Decimal("0.000420000000"), "ok")]
    assert await sql(store, "SELECT count(*) FROM usage_ledger") == [(1,)]


async def test_views__show_calls_under_an_escrow_like_any_other(store: Store) -> None:
    await a_busy_ledger(store)
    query = "SELECT request_id, project_id, actual_cost_usd, outcome FROM api_key_usage WHERE request_id LIKE 'e-%'"
    assert sorted(await sql(store, query)) == [
        ("e-charged", "p1", Decimal("0.000420000000"), "ok"),
        ("e-lost", "p1", Decimal("0.001960000000"), "interrupted_unknown"),
    ]
    query = (
        "SELECT credits_amount, real_cost_associated_usd FROM credit_transactions WHERE api_key_usage_id = 'e-charged'"
    )
    assert await sql(store, query) == [(Decimal("-0.063000"), Decimal("0.000420000000"))]
    ((total,),) = await sql(store, "SELECT sum(credits_amount) FROM credit_transactions WHERE user_id = 'u'")
    assert total * 10**6 == (await store.books.balance(USER)).balance_ucredits


async def test_escrows__are_what_they_were_after_a_restart(store: Store) -> None:
    await a_busy_ledger(store)
    balance, tokens = await store.books.balance(USER), await store.books.tokens(USER)
    await store.close()
    await store.open()
    assert (await store.books.balance(USER), await store.books.tokens(USER)) == (balance, tokens)
    draw = Draw(
        escrow=EscrowId("e1"), process="x", payer=Payer(USER, PROJECT, TOKEN), wanted_ucredits=10**8, min_ucredits=10**8
    )
    assert (await store.books.draw(draw)).granted_ucredits == 400_000
    repeated = Settlement(batch="b1", process="x", calls=(an_escrow_call("e-charged"), an_escrow_call("e-new")))
    await store.books.settle(replace(repeated, batch="b2"))
    assert (await store.books.balance(USER)).balance_ucredits == balance.balance_ucredits - 63_000
    assert await store.books.mismatches() == []


async def test_escrow_of_the_same_id_in_one_group__is_drawn_once(store: Store) -> None:
    draw = Draw(escrow=EscrowId("e"), process="x", payer=Payer(USER), wanted_ucredits=10**6, min_ucredits=1)
    granted = await asyncio.gather(*(store.books.draw(draw) for _ in range(50)))
    assert {escrow.granted_ucredits for escrow in granted} == {10**6}
    assert (await store.books.balance(USER)).held_ucredits == 10**6


async def test_settlements_at_once__that_share_calls_charge_each_once(store: Store) -> None:
    draw = Draw(escrow=EscrowId("e1"), process="x", payer=Payer(USER), wanted_ucredits=10**7, min_ucredits=10**7)
    await store.books.draw(draw)
    batches = [
        Settlement(batch=f"b{n}", process="x", calls=tuple(an_escrow_call(f"c{m}") for m in range(n, n + 20)))
        for n in range(30)
    ]
    await asyncio.gather(*(store.books.settle(batch) for batch in batches), store.books.hold(a_hold("another")))
    assert (await store.books.balance(USER)).balance_ucredits == 100 * 10**6 - 49 * 63_000
    assert await store.books.mismatches() == []


async def test_prices__keep_their_history_and_an_id_never_changes_its_meaning(store: Store) -> None:
    old = PriceRow(pricing_id="m@1", provider="x", model="m", input_udollars_per_mtok=10, output_udollars_per_mtok=20)
    new = replace(old, pricing_id="m@2", input_udollars_per_mtok=5)
    await store.books.set_prices([old])
    await store.books.set_prices([new])
    await store.books.set_prices([new])
    with pytest.raises(ConflictError):
        await store.books.set_prices([replace(old, output_udollars_per_mtok=21)])
    rows = await sql(store, "SELECT pricing_id, is_active FROM model_pricing ORDER BY pricing_id")
    assert rows == [("m@1", False), ("m@2", True)]


async def test_refusal__names_what_is_needed_what_is_free_and_what_to_do(store: Store) -> None:
    with pytest.raises(NotEnoughCreditsError) as refusal:
        await store.books.hold(replace(a_hold("c"), input_tokens_max=10**9))
    assert "21000.084 credits and 100.00 are free" in str(refusal.value)
    assert "Ask the operator for credits" in refusal.value.next_step
    assert refusal.value.charged == "The call was not made and not charged."


async def test_refusal_and_warning__name_what_is_sold_while_payments_are_on(tmp_path: Path) -> None:
    store = Store(Settings(data_dir=tmp_path, payments_enabled=True), Secrets.load(tmp_path, {}), lambda: NOON)
    await store.open()
    await store.books.open_wallet(USER, is_admin=False)
    with pytest.raises(NotEnoughCreditsError) as refusal:
        await store.books.hold(replace(a_hold("c"), input_tokens_max=10**9))
    await store.books.note_low_balances(1_000 * 10**6)
    (notice,) = await store.books.notices(USER)
    for text in (refusal.value.next_step, notice.text):
        assert "Buy credits: GET /api/v1/products lists them." in text
        assert "operator" not in text
    await store.close()


@pytest.mark.parametrize("user", ["", "a/held", "/"])
async def test_user_id_that_could_name_another_account__is_refused(store: Store, user: str) -> None:
    with pytest.raises(BadInputError):
        await store.books.open_wallet(UserId(user), is_admin=False)
    with pytest.raises(BadInputError):
        await store.books.hold(replace(a_hold("c"), user=UserId(user)))


async def test_absurd_counts__are_refused(store: Store) -> None:
    for tokens in (-1, 10**12 + 1):
        with pytest.raises(BadInputError):
            await store.books.hold(replace(a_hold("c"), output_tokens_max=tokens))
        with pytest.raises(BadInputError):
            await store.books.meter(replace(a_meter("c"), output_tokens=tokens))


async def test_token_that_is_malformed__is_refused(store: Store) -> None:
    good = NewToken(token_sha256="a" * 64, user=USER, kind="user", label="")
    for bad in (
        replace(good, token_sha256="mb-secret"),
        replace(good, kind="task"),
        replace(good, run=RUN),
        replace(good, kind="project"),
        replace(good, project=PROJECT),
        replace(good, terms=TokenTerms(budget_ucredits=-1)),
        replace(good, terms=TokenTerms(requests_per_minute=0)),
    ):
        with pytest.raises(BadInputError):
            await store.books.add_token(bad)


async def test_hold_repeated_after_a_restart__is_not_refused_for_want_of_what_it_holds_itself(store: Store) -> None:
    begin = BeginRun(run=RUN, user=USER, project=PROJECT, task="T-001", attempt=1)
    append = Append(entity=ENTITY, owner=USER, epoch=1, expected_seq=0, events=(), open=True, head={})
    await store.journal.append(replace(append, moves=Moves(begin=[begin], ceiling_ucredits=400_000)))
    whole_ceiling, whole_wallet = a_hold("c1", RUN), replace(a_hold("c2"), input_tokens_max=4_740_000)
    for hold in (whole_ceiling, whole_wallet):
        await store.books.hold(hold)
    before = await store.books.balance(USER)
    assert before.free_ucredits < 500_000
    await store.close()
    await store.open()
    for hold in (whole_ceiling, whole_wallet):
        await store.books.hold(hold)
    assert await store.books.balance(USER) == before
    with pytest.raises(ConflictError):
        await store.books.hold(replace(whole_wallet, model="another"))


async def test_holds_repeated_after_a_restart__are_found_in_one_more_try(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = ([a_hold(f"{name}{number}") for number in range(8)] for name in ("old", "new"))
    await asyncio.gather(*map(store.books.hold, old))
    before = await store.books.balance(USER)
    await store.close()
    await store.open()
    tries, commit = [], Database._commit

    def counted(database: Database, group: list[Any], **how: Any) -> list[Any]:
        tries.append(len(group))
        return commit(database, group, **how)

    monkeypatch.setattr(Database, "_commit", counted)
    await asyncio.gather(*map(store.books.hold, [*old, *new]))
    assert (await store.books.balance(USER)).held_ucredits == 2 * before.held_ucredits
    assert 16 < sum(tries) <= 2 * 16, "one more try of each group that holds repeats, and no halves"
    assert not await store.check()


async def test_call_id_used_before_a_restart__is_no_other_call_after_it(store: Store) -> None:
    await store.books.hold(a_hold("c1"))
    await store.close()
    await store.open()
    with pytest.raises(ConflictError):
        await store.books.hold(replace(a_hold("c1"), model="another"))
    await store.books.hold(a_hold("c1"))
    assert await store.books.mismatches() == []


async def test_hundreds_at_once__leave_exact_books(store: Store) -> None:
    async def one(number: int) -> None:
        await store.books.hold(a_hold(f"c{number}"))
        await store.books.meter(a_meter(f"c{number}"))

    await asyncio.gather(*(one(number) for number in range(300)))
    balance = await store.books.balance(USER)
    assert (balance.balance_ucredits, balance.held_ucredits) == (100 * 10**6 - 300 * 63_000, 0)
    assert await store.books.mismatches() == []


async def a_capped_store_that_was_restarted(folder: Path) -> tuple[Store, Rules]:
    """With one call held under the platform's cap, of which memory knows nothing."""
    settings = Settings(data_dir=folder, platform_daily_usd_cap=Decimal("0.00196"))
    rules = Rules(tariff=settings.tariff, caps=settings.caps)
    made = Store(settings, Secrets.load(folder, {}), lambda: NOON)
    await made.open()
    await made.books.open_wallet(USER, is_admin=False)
    await made.books.hold(a_hold("first"))
    await made.close()
    await made.open()
    return made, rules


async def test_cap_of_a_day__knows_what_its_own_group_gave_back_before_anybody_asked(tmp_path: Path) -> None:
    made, rules = await a_capped_store_that_was_restarted(tmp_path)
    answers = await made.books._database.write_many(
        [
            lambda tx: postings.meter(tx, a_meter("first"), rules.tariff, NOON),
            lambda tx: postings.hold(tx, replace(a_hold("second"), input_tokens_max=7_000), rules, NOON),
            lambda tx: postings.hold(tx, a_hold("third"), rules, NOON),
        ]
    )
    assert answers[:2] == [None, None]
    assert isinstance(answers[2], DailyCapError)
    assert (await made.books.spending(USER)).spent_ucredits == rules.tariff.credits_for(
        PRICE.cost_pusd(2_000, 500) + PRICE.cost_pusd(7_000, 2_000)
    )
    await made.close()


async def test_cap_of_a_day__keeps_its_sum_when_who_asked_first_in_a_group_was_refused(tmp_path: Path) -> None:
    made, rules = await a_capped_store_that_was_restarted(tmp_path)
    answers = await made.books._database.write_many(
        [
            lambda tx: postings.meter(tx, a_meter("first"), rules.tariff, NOON),
            lambda tx: postings.hold(tx, replace(a_hold("too large"), input_tokens_max=20_000), rules, NOON),
        ]
    )
    assert answers[0] is None
    assert isinstance(answers[1], DailyCapError)
    await made.books.hold(replace(a_hold("fits"), input_tokens_max=7_000))
    await made.close()


@pytest.mark.parametrize(("zone", "day"), [("America/New_York", "2026-03-08"), ("Europe/Berlin", "2026-10-25")])
async def test_day__has_24_hours_of_utc_wherever_the_machine_stands(tmp_path: Path, zone: str, day: str) -> None:
    now = datetime.fromisoformat(f"{day}T23:30:00+00:00")
    made = Store(Settings(data_dir=tmp_path), Secrets.load(tmp_path, {}), lambda: now)
    await made.open()
    await made.books.open_wallet(USER, is_admin=False)
    await made.books.hold(a_hold("late in the day"))
    rows = await made.books._database.read(
        lambda connection: [
            connection.execute(f"SET TimeZone = '{zone}'"),
            connection.execute(statement("select_day"), {"key": f"day:{day}/platform"}).fetchone(),
        ]
    )
    assert rows[1] == ((await made.books.balance(USER)).held_ucredits,)
    await made.close()


async def test_released_account__stays_so_while_nothing_else_is_found(store: Store) -> None:
    await a_busy_ledger(store)
    await sql(store, "UPDATE purchases SET ucredits = 6")
    assert {mismatch.user for mismatch in await store.books.reconcile()} == {USER}
    assert await store.books.release_account(USER)
    await store.books.reconcile()
    assert not await store.books.stopped_accounts()
    await sql(store, "UPDATE adjustments SET amount_ucredits = 9")
    await store.books.reconcile()
    assert len(await store.books.stopped_accounts()) == 1

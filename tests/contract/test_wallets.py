"""What fills a wallet, what is given back, and the caps of a day: the same in memory and on disk."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from runtime.errors import (
    AccountStoppedError,
    BadInputError,
    CeilingReachedError,
    ConflictError,
    DailyCapError,
    NotEnoughCreditsError,
    NotFoundError,
)
from runtime.ids import CallId, ProjectId, UserId
from runtime.ledger.caps import Caps
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
    TokenTerms,
)
from tests.contract.ledgers import CREDIT, GRANT, KINDS, NOON, World, a_world

USER, FRIEND, ADMIN = UserId("telegram:7"), UserId("telegram:8"), UserId("root")
CAPS = Caps(user_ucredits=20 * CREDIT, platform_ucredits=60 * CREDIT, providers_ucredits={"claude": 10 * CREDIT})
PRICE = Price(pricing_id="p", input_udollars_per_mtok=10**6, output_udollars_per_mtok=10**6)


def tokens(credits: float) -> int:
    """At 1 USD a million tokens, without a markup, and a credit of a cent."""
    return round(credits * CREDIT) // 100


@pytest.fixture(params=KINDS)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(request.param, tmp_path, CAPS) as made:
        for user in (USER, FRIEND):
            await made.ledger.open_wallet(user, is_admin=False)
        await made.ledger.open_wallet(ADMIN, is_admin=True)
        yield made


def hold(call: str, credits: float, user: UserId = USER, provider: str = "openai", project: str | None = None) -> Hold:
    return Hold(
        call=CallId(call),
        user=user,
        run=None,
        task_type="chat",
        provider=provider,
        model="m",
        input_tokens_max=tokens(credits),
        output_tokens_max=0,
        price=PRICE,
        project=ProjectId(project) if project else None,
    )


def meter(call: str, credits: float) -> Meter:
    return Meter(
        call=CallId(call), input_tokens=tokens(credits), output_tokens=0, response_time_ms=5, key_id="k"
    )  # fmt: skip


def a_purchase(external_id: str = "x1", user: UserId = USER, credits: int = 500, **changes: object) -> Purchase:
    made = Purchase(
        provider="shop",
        external_id=external_id,
        user=user,
        product="credits_500",
        ucredits=credits * CREDIT,
        paid_pusd=4 * 10**12,
        currency="USD",
        amount_minor=400,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def an_adjustment(id: str = "a1", credits: int = 5, user: UserId = USER, reason: str = "a gift") -> Adjustment:
    return Adjustment(id=id, user=user, amount_ucredits=credits * CREDIT, reason=reason, made_by=ADMIN)


async def balance(world: World, user: UserId = USER) -> float:
    return (await world.ledger.balance(user)).balance_ucredits / CREDIT


async def test_payment__is_credited_once_however_often_it_is_confirmed(world: World) -> None:
    credited = await asyncio.gather(*(world.ledger.purchase(a_purchase()) for _ in range(5)))
    assert sorted(credited) == [False] * 4 + [True]
    assert await balance(world) == 600


async def test_payment__with_other_figures_under_the_same_id_is_refused(world: World) -> None:
    await world.ledger.purchase(a_purchase())
    with pytest.raises(ConflictError):
        await world.ledger.purchase(a_purchase(credits=501))
    with pytest.raises(ConflictError):
        await world.ledger.purchase(a_purchase(user=FRIEND))
    assert await balance(world) == 600


async def test_payment__of_nobody_is_refused(world: World) -> None:
    with pytest.raises(NotFoundError):
        await world.ledger.purchase(a_purchase(user=UserId("nobody")))


async def test_repayment__takes_credits_back_as_far_as_they_are_there(world: World) -> None:
    await world.ledger.purchase(a_purchase())
    await world.ledger.adjust(an_adjustment(credits=-300))
    repayment = Repayment(provider="shop", external_id="x1", reason="changed their mind")
    assert await world.ledger.repay(repayment) == 300 * CREDIT
    assert await world.ledger.repay(repayment) == 300 * CREDIT
    assert await balance(world) == 0
    with pytest.raises(NotFoundError):
        await world.ledger.repay(replace(repayment, external_id="x2"))


async def test_inviter__gets_the_bonus_at_the_first_purchase_only(world: World) -> None:
    await world.ledger.set_inviter(USER, FRIEND)
    await world.ledger.set_inviter(USER, FRIEND)
    assert await balance(world, FRIEND) == 100
    await world.ledger.purchase(a_purchase("x1"))
    await world.ledger.purchase(a_purchase("x2"))
    assert await balance(world, FRIEND) == 150


async def test_inviter__is_somebody_else_and_said_before_the_first_purchase(world: World) -> None:
    with pytest.raises(BadInputError):
        await world.ledger.set_inviter(USER, USER)
    with pytest.raises(NotFoundError):
        await world.ledger.set_inviter(USER, UserId("nobody"))
    await world.ledger.purchase(a_purchase())
    with pytest.raises(ConflictError):
        await world.ledger.set_inviter(USER, FRIEND)


async def test_adjustment__gives_or_takes_once_and_never_below_what_is_free(world: World) -> None:
    for _ in range(2):
        assert (await world.ledger.adjust(an_adjustment())).balance_ucredits == 105 * CREDIT
    with pytest.raises(ConflictError):
        await world.ledger.adjust(an_adjustment(credits=6))
    await world.ledger.hold(hold("c1", 15))
    with pytest.raises(NotEnoughCreditsError):
        await world.ledger.adjust(an_adjustment("a2", credits=-91))
    await world.ledger.adjust(an_adjustment("a2", credits=-90))
    assert (await world.ledger.balance(USER)).free_ucredits == 0


async def test_call__is_refunded_once_and_only_if_it_was_charged(world: World) -> None:
    await world.ledger.hold(hold("c1", 10, project="p1"))
    refund = CallRefund(call=CallId("c1"), reason="a known gap", made_by=ADMIN)
    with pytest.raises(NotFoundError):
        await world.ledger.refund_call(refund)
    await world.ledger.meter(meter("c1", 4))
    assert await balance(world) == 96
    charged = 100 * CREDIT - (await world.ledger.balance(USER)).balance_ucredits
    assert [await world.ledger.refund_call(refund) for _ in range(2)] == [charged, charged]
    assert await balance(world) == 100
    receipt = await world.ledger.receipt(ProjectId("p1"))
    assert (receipt.total_ucredits, receipt.refunded_ucredits, receipt.net_ucredits) == (charged, charged, 0)
    assert [(row.call, row.reason) for row in receipt.refunds] == [("c1", "a known gap")]


async def test_cap_of_a_user__binds_full_access_in_what_they_call_themselves(world: World) -> None:
    await world.ledger.set_role(USER, "FULL_ACCESS")
    await world.ledger.hold(hold("c1", 15))
    with pytest.raises(DailyCapError) as capped:
        await world.ledger.hold(hold("c2", 6))
    assert capped.value.retry_after_s == pytest.approx(12 * 3600) or capped.value.retry_after_s == 1.0
    await world.ledger.hold(hold("of a build", 6, project="p1"))
    await world.ledger.set_role(FRIEND, "DEMO")
    await world.ledger.hold(hold("c3", 21, user=FRIEND))
    await world.ledger.meter(meter("c1", 5))
    await world.ledger.hold(hold("c2", 6))
    spending = await world.ledger.spending(USER)
    assert spending.cap_ucredits == 20 * CREDIT
    assert spending.spent_ucredits == 11 * CREDIT


async def test_caps__begin_anew_at_midnight_and_what_was_held_before_counts_before(world: World) -> None:
    await world.ledger.hold(hold("c1", 10, provider="claude"))
    with pytest.raises(DailyCapError):
        await world.ledger.hold(hold("c2", 1, provider="claude"))
    world.now += timedelta(hours=13)
    await world.ledger.meter(meter("c1", 1))
    await world.ledger.hold(hold("c2", 10, provider="claude"))
    with pytest.raises(DailyCapError):
        await world.ledger.hold(hold("c3", 1, provider="claude"))


async def test_cap_of_the_platform__binds_all_users_together(world: World) -> None:
    for number, user in enumerate((USER, FRIEND, ADMIN)):
        await world.ledger.hold(hold(f"c{number}", 19, user=user))
    with pytest.raises(DailyCapError):
        await world.ledger.hold(hold("one more", 4, user=ADMIN))
    await world.ledger.hold(hold("a small one", 2, user=ADMIN))


async def test_caps__hold_under_any_number_of_callers(world: World) -> None:
    made = await asyncio.gather(
        *(world.ledger.hold(hold(f"c{n}", 1, provider="claude")) for n in range(64)), return_exceptions=True
    )
    assert sum(each is None for each in made) == 10
    assert all(each is None or isinstance(each, DailyCapError) for each in made)


async def test_escrow__is_drawn_under_the_cap_of_its_provider_and_counts_on_its_day(world: World) -> None:
    payer = Payer(USER, None, "", "claude")
    draw = Draw(escrow=EscrowId("e1"), process="p", payer=payer, wanted_ucredits=8 * CREDIT, min_ucredits=8 * CREDIT)
    await world.ledger.draw(draw)
    with pytest.raises(DailyCapError):
        await world.ledger.draw(replace(draw, escrow=EscrowId("e2"), min_ucredits=3 * CREDIT))
    world.now += timedelta(hours=13)
    await world.ledger.draw(replace(draw, escrow=EscrowId("e3"), wanted_ucredits=10 * CREDIT, min_ucredits=10 * CREDIT))
    ended = [Return(escrow=EscrowId(name), granted_ucredits=0, ends=True) for name in ("e1", "e3")]
    await world.ledger.settle(Settlement(batch="b1", process="p", returns=tuple(ended)))


async def test_account_that_is_stopped__spends_nothing_until_it_is_released(world: World) -> None:
    await world.ledger.hold(hold("c1", 2))
    await world.ledger.stop_account(USER, "does not add up")
    await world.ledger.stop_account(USER, "again")
    with pytest.raises(AccountStoppedError):
        await world.ledger.hold(hold("c2", 1))
    with pytest.raises(AccountStoppedError):
        await world.ledger.draw(
            Draw(escrow=EscrowId("e1"), process="p", payer=Payer(USER), wanted_ucredits=1, min_ucredits=1)
        )
    await world.ledger.meter(meter("c1", 1))
    assert await balance(world) == 99
    assert [each.user for each in await world.ledger.stopped_accounts()] == [USER]
    assert await world.ledger.release_account(USER)
    assert not await world.ledger.release_account(USER)
    assert not await world.ledger.stopped_accounts()
    await world.ledger.hold(hold("c2", 1))


async def test_pictures__add_their_price_to_bound_and_cost(world: World) -> None:
    price = replace(PRICE, image_udollars=2_500)
    shown = replace(hold("c1", 1, project="p1"), images=3, price=price)
    await world.ledger.hold(shown)
    assert (await world.ledger.balance(USER)).held_ucredits == CREDIT + 750_000
    await world.ledger.meter(meter("c1", 0.5))
    (row,) = (await world.ledger.receipt(ProjectId("p1"))).charged
    assert (row.cost_pusd, row.credits_ucredits) == (5 * 10**9 + 7_500 * 10**6, 1_250_000)
    escrow = EscrowId("e1")
    await world.ledger.draw(
        Draw(escrow=escrow, process="p", payer=Payer(USER), wanted_ucredits=2 * CREDIT, min_ucredits=2 * CREDIT)
    )
    call = EscrowCall(escrow=escrow, hold=replace(shown, call=CallId("c2")), meter=meter("c2", 0.5), held_at=NOON)
    await world.ledger.settle(Settlement(batch="b1", process="p", calls=(call,), process_ended=True))
    assert (await world.ledger.balance(USER)).balance_ucredits == GRANT - 2 * 1_250_000


async def test_statement__tells_every_movement_newest_first(world: World) -> None:
    world.now += timedelta(seconds=1)
    await world.ledger.purchase(a_purchase())
    world.now += timedelta(seconds=1)
    await world.ledger.adjust(an_adjustment())
    world.now += timedelta(seconds=1)
    moves = await world.ledger.statement(USER, None, 2)
    assert [(move.type, move.amount_ucredits, move.text) for move in moves] == [
        ("manual_adjustment", 5 * CREDIT, "a gift"),
        ("purchase", 500 * CREDIT, "credits_500"),
    ]
    older = await world.ledger.statement(USER, moves[0].id, 1)
    assert [move.external_id for move in older] == ["x1"]
    assert not await world.ledger.statement(USER, "never seen", 1)


async def test_statement__of_one_moment_is_read_to_its_end_page_by_page(world: World) -> None:
    world.now += timedelta(seconds=1)
    for number in range(7):
        await world.ledger.adjust(an_adjustment(f"a{number}"))
    seen: list[str] = []
    while len(seen) < 7:
        page = await world.ledger.statement(USER, seen[-1] if seen else None, 2)
        assert page
        seen += [move.id for move in page]
    assert sorted(name for name in seen if name.startswith("adjustment")) == [
        f"adjustment/a{number}/adjustment" for number in range(7)
    ]


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501])
async def test_adjustment__needs_a_reason(world: World, reason: str) -> None:
    with pytest.raises(BadInputError):
        await world.ledger.adjust(an_adjustment(reason=reason))


@pytest.mark.parametrize("credits", [0, 10**13])
async def test_adjustment__is_of_a_possible_amount(world: World, credits: int) -> None:
    with pytest.raises(BadInputError):
        await world.ledger.adjust(an_adjustment(credits=credits))


async def test_refusal__says_how_much_would_have_fitted_and_that_much_fits(world: World) -> None:
    ledger = world.ledger
    with pytest.raises(DailyCapError) as of_platform:
        await ledger.hold(hold("platform", 61, ADMIN))
    assert of_platform.value.left_ucredits == 60 * CREDIT
    await ledger.adjust(Adjustment(id="a", user=ADMIN, amount_ucredits=-60 * CREDIT, reason="why", made_by=ADMIN))
    with pytest.raises(NotEnoughCreditsError) as of_wallet:
        await ledger.hold(hold("wallet", 41, ADMIN))
    assert of_wallet.value.left_ucredits == 40 * CREDIT
    await ledger.set_role(USER, "FULL_ACCESS")
    await ledger.hold(hold("before", 5))
    with pytest.raises(DailyCapError) as of_user:
        await ledger.hold(hold("user", 16))
    with pytest.raises(DailyCapError) as of_provider:
        await ledger.hold(hold("provider", 11, FRIEND, "claude"))
    await ledger.add_token(
        NewToken(
            token_sha256="a" * 64, user=FRIEND, kind="user", label="", terms=TokenTerms(budget_ucredits=3 * CREDIT)
        )
    )
    with pytest.raises(CeilingReachedError) as of_token:
        await ledger.hold(replace(hold("token", 4, FRIEND), token_sha256="a" * 64))
    left = [refusal.value.left_ucredits for refusal in (of_user, of_provider, of_token)]
    assert left == [15 * CREDIT, 10 * CREDIT, 3 * CREDIT]
    await ledger.hold(hold("user", 15))
    await ledger.hold(hold("provider", 10, FRIEND, "claude"))
    await ledger.hold(replace(hold("token", 3, FRIEND), token_sha256="a" * 64))

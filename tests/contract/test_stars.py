"""Payments with Stars, and what is paid for by the day: the same in memory and on disk."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from runtime.accounts.port import AccountChange, By
from runtime.errors import (
    BadInputError,
    ConflictError,
    DailyCapError,
    ForbiddenError,
    MasterbuilderError,
    NotFoundError,
)
from runtime.ids import LOCAL_ADMIN, CallId, UserId
from runtime.ledger.caps import Caps
from runtime.ledger.money import Price
from runtime.ledger.port import (
    Adjustment,
    Hold,
    NewOrder,
    NewToken,
    OrderId,
    OrderRefund,
    Payment,
    Purchase,
    StarsCheckout,
    StarsPayment,
)
from runtime.payments.products import PRODUCTS
from tests.contract.ledgers import CREDIT, KINDS, NOON, World, a_world

USER, FRIEND, ADMIN = UserId("telegram:7"), UserId("telegram:8"), UserId("root")
MONTH = timedelta(days=30)
SECOND = timedelta(seconds=1)
TOKEN = "a" * 64


@pytest.fixture(params=KINDS)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(request.param, tmp_path, Caps(user_ucredits=20 * CREDIT)) as made:
        for user in (USER, FRIEND):
            await made.ledger.open_wallet(user, is_admin=False)
        await made.ledger.open_wallet(ADMIN, is_admin=True)
        await made.ledger.add_token(NewToken(token_sha256=TOKEN, user=USER, kind="user", label=""))
        yield made


def paid(charge: str = "ch-1", product: str = "full_access_monthly", **changes: object) -> StarsPayment:
    made = StarsPayment(
        telegram_charge_id=charge,
        provider_charge_id=f"{charge}-p",
        user=USER,
        product=product,
        stars=PRODUCTS[product].stars if product in PRODUCTS else 50,
        currency="XTR",
        at=NOON,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def checkout(**changes: object) -> StarsCheckout:
    asked = StarsCheckout(user=USER, product="credits_100", stars=50, currency="XTR")
    return replace(asked, **changes)  # type: ignore[arg-type]


async def credits(world: World, user: UserId = USER) -> float:
    return (await world.ledger.balance(user)).balance_ucredits / CREDIT


async def role(world: World, user: UserId = USER) -> str:
    person = await world.ledger.person(user)
    assert person is not None
    return person.role


async def expires_at(world: World, user: UserId = USER) -> timedelta | None:
    """After noon."""
    found = await world.ledger.subscription(user)
    return found.expires_at - NOON if found is not None else None


async def statuses(world: World, user: UserId = USER) -> list[str]:
    return [line.status for line in await world.ledger.payments_of(user)]


async def test_checkout__of_what_is_sold_at_its_price_is_accepted_and_changes_nothing(world: World) -> None:
    for product in PRODUCTS.values():
        await world.ledger.check_checkout(checkout(product=product.id, stars=product.stars))
    assert await world.ledger.payments_of(USER) == []
    assert await credits(world) == 100


@pytest.mark.parametrize(
    ("changes", "refusal", "told"),
    [
        ({"product": "credits_7"}, NotFoundError, "no product 'credits_7'"),
        ({"product": "?credits_100"}, NotFoundError, "no product"),
        ({"stars": 49}, BadInputError, "costs 50 Stars, not 49"),
        ({"stars": 51}, BadInputError, "costs 50 Stars, not 51"),
        ({"currency": "USD"}, BadInputError, "paid in Stars (XTR), not in 'USD'"),
        ({"user": UserId("nobody")}, NotFoundError, "not registered"),
    ],
)
async def test_checkout__that_does_not_fit_is_refused_in_words_for_the_payer(
    world: World, changes: dict[str, object], refusal: type[MasterbuilderError], told: str
) -> None:
    with pytest.raises(refusal) as refused:
        await world.ledger.check_checkout(checkout(**changes))
    assert told in refused.value.message
    assert refused.value.charged == "No Stars were taken."


async def test_checkout__of_somebody_who_asked_to_be_erased_is_refused(world: World) -> None:
    await world.ledger.delete_person(USER, 100 * CREDIT)
    with pytest.raises(ConflictError):
        await world.ledger.check_checkout(checkout())


async def test_checkout__of_somebody_who_is_banned_is_refused(world: World) -> None:
    await world.ledger.change_account(AccountChange(user=USER, banned=True), By(user=LOCAL_ADMIN))
    with pytest.raises(ForbiddenError) as refused:
        await world.ledger.check_checkout(checkout())
    assert refused.value.charged == "No Stars were taken."


async def test_payment__for_a_month_gives_role_credits_and_thirty_days(world: World) -> None:
    booked = await world.ledger.fulfil(paid())
    assert (booked.status, booked.ucredits, booked.days) == ("completed", 1_000 * CREDIT, 30)
    assert (await credits(world), await role(world), await expires_at(world)) == (1_100, "FULL_ACCESS", MONTH)
    (line,) = await world.ledger.payments_of(USER)
    assert (line.provider, line.external_id, line.amount_minor, line.currency) == ("telegram", "ch-1", 500, "XTR")
    assert (line.status, line.expires_at) == ("completed", NOON + MONTH)


async def test_payment__for_credits_changes_no_role(world: World) -> None:
    await world.ledger.fulfil(paid(product="credits_500"))
    assert (await credits(world), await role(world), await expires_at(world)) == (600, "DEMO", None)


async def test_payment__that_is_told_again_counts_once_also_at_the_same_time(world: World) -> None:
    booked = await asyncio.gather(*(world.ledger.fulfil(paid()) for _ in range(20)))
    world.now += SECOND
    booked.append(await world.ledger.fulfil(paid(at=NOON + SECOND)))
    assert {each.status for each in booked} == {"completed"}
    assert len(set(booked)) == 1
    assert (await credits(world), await expires_at(world)) == (1_100, MONTH)
    assert await statuses(world) == ["completed"]


async def test_payment__before_the_end_extends_from_the_end_and_after_it_begins_anew(world: World) -> None:
    await world.ledger.fulfil(paid("ch-1"))
    world.now = NOON + timedelta(days=10)
    await world.ledger.fulfil(paid("ch-2"))
    assert await expires_at(world) == 2 * MONTH
    world.now = NOON + timedelta(days=70)
    assert await role(world) == "DEMO"
    await world.ledger.fulfil(paid("ch-3"))
    assert (await expires_at(world), await role(world)) == (timedelta(days=100), "FULL_ACCESS")


async def test_payments__at_the_same_time_all_count(world: World) -> None:
    await world.ledger.set_inviter(USER, FRIEND)
    await asyncio.gather(*(world.ledger.fulfil(paid(f"ch-{number}")) for number in range(5)))
    assert (await credits(world), await expires_at(world)) == (5_100, 5 * MONTH)
    assert await credits(world, FRIEND) == 150


@pytest.mark.parametrize(
    ("changes", "failure"),
    [
        ({"stars": 499}, "costs 500 Stars, not 499"),
        ({"currency": "EUR"}, "not in 'EUR'"),
        ({"product": "gone_since"}, "no product"),
        ({"user": UserId("nobody")}, "not registered"),
    ],
)
async def test_payment__that_was_taken_and_cannot_be_credited_is_booked_as_failed(
    world: World, changes: dict[str, object], failure: str
) -> None:
    payment = paid(**changes)
    booked = [await world.ledger.fulfil(payment) for _ in range(2)]
    assert booked[0] == booked[1]
    assert (booked[0].status, booked[0].ucredits, booked[0].days) == ("failed", 0, 0)
    assert failure in booked[0].failure
    (line,) = await world.ledger.payments_of(payment.user)
    assert (line.status, line.amount_minor, line.failure) == ("failed", payment.stars, booked[0].failure)
    assert (await credits(world), await expires_at(world)) == (100, None)


async def test_payment__of_somebody_who_asked_to_be_erased_is_booked_as_failed(world: World) -> None:
    await world.ledger.delete_person(USER, 100 * CREDIT)
    assert (await world.ledger.fulfil(paid())).status == "failed"
    assert await statuses(world) == ["failed"]


async def test_charge__that_comes_back_with_other_figures_is_refused(world: World) -> None:
    await world.ledger.fulfil(paid())
    for changes in ({"product": "credits_100", "stars": 50}, {"stars": 1}, {"currency": "USD"}):
        with pytest.raises(ConflictError):
            await world.ledger.fulfil(paid(**changes))
    assert await statuses(world) == ["completed"]


@pytest.mark.parametrize(
    "changes", [{"charge": ""}, {"charge": "c" * 256}, {"charge": "a b"}, {"stars": -1}, {"stars": 10**10}]
)
async def test_payment__that_telegram_cannot_have_said_is_refused(world: World, changes: dict[str, object]) -> None:
    with pytest.raises(BadInputError):
        await world.ledger.fulfil(paid(**changes))  # type: ignore[arg-type]
    assert await world.ledger.payments_of(USER) == []


async def test_payment__that_is_a_first_one_brings_the_inviter_a_bonus_once(world: World) -> None:
    await world.ledger.set_inviter(USER, FRIEND)
    await world.ledger.fulfil(paid("ch-0", stars=1))
    assert await credits(world, FRIEND) == 100
    for charge in ("ch-1", "ch-1", "ch-2"):
        await world.ledger.fulfil(paid(charge, product="credits_100"))
    assert await credits(world, FRIEND) == 150


async def test_role__is_demo_again_from_the_end_on(world: World) -> None:
    await world.ledger.fulfil(paid())
    for moment, expected in ((MONTH - SECOND, "FULL_ACCESS"), (MONTH, "DEMO"), (MONTH + SECOND, "DEMO")):
        world.now = NOON + moment
        identity = await world.ledger.authenticate(TOKEN)
        assert identity is not None
        assert identity.role == await role(world) == expected
        assert identity.role_until == (NOON + MONTH if expected == "FULL_ACCESS" else None)


async def test_role__of_an_admin_or_by_an_operator_has_no_end(world: World) -> None:
    await world.ledger.set_role(USER, "FULL_ACCESS")
    for user in (USER, ADMIN):
        await world.ledger.fulfil(paid(f"of-{user}", user=user))
    assert (await role(world), await role(world, ADMIN)) == ("FULL_ACCESS", "ADMIN")
    identity = await world.ledger.authenticate(TOKEN)
    assert identity is not None
    assert identity.role_until is None
    world.now = NOON + 2 * MONTH
    assert (await role(world), await role(world, ADMIN)) == ("FULL_ACCESS", "ADMIN")


async def test_cap_of_a_day__is_that_of_the_role_that_is_paid_for(world: World) -> None:
    """FULL_ACCESS has a cap of 20 credits a day here, DEMO has none: what DEMO may do is counted in calls."""
    await world.ledger.fulfil(paid())
    assert (await world.ledger.spending(USER)).cap_ucredits == 20 * CREDIT
    price = Price(pricing_id="p", input_udollars_per_mtok=10**6, output_udollars_per_mtok=10**6)
    hold = Hold(
        call=CallId("c1"), user=USER, run=None, task_type="chat", provider="openai", model="m",
        input_tokens_max=21 * 10_000, output_tokens_max=0, price=price,
    )  # fmt: skip
    with pytest.raises(DailyCapError):
        await world.ledger.hold(hold)
    world.now = NOON + MONTH
    assert (await world.ledger.spending(USER)).cap_ucredits is None
    await world.ledger.hold(hold)


async def test_refund__takes_credits_and_days_back_once(world: World) -> None:
    await world.ledger.fulfil(paid())
    world.now += timedelta(days=3)
    first = await world.ledger.refund_stars("ch-1", "changed their mind", ADMIN)
    assert (first.user, first.stars, first.taken_ucredits) == (USER, 500, 1_000 * CREDIT)
    assert (first.taken, first.told_at) == (timedelta(days=27), None)
    assert (await credits(world), await role(world), await expires_at(world)) == (100, "DEMO", timedelta(days=3))
    world.now += SECOND
    assert await world.ledger.refund_stars("ch-1", "another reason", USER) == first
    assert (await world.ledger.fulfil(paid())).status == "refunded"
    assert await statuses(world) == ["refunded"]
    assert await credits(world) == 100


async def test_refunds__at_the_same_time_are_one(world: World) -> None:
    await world.ledger.fulfil(paid())
    refunds = await asyncio.gather(*(world.ledger.refund_stars("ch-1", "why", ADMIN) for _ in range(10)))
    assert len(set(refunds)) == 1
    assert (await credits(world), await expires_at(world)) == (100, timedelta(0))


async def test_refund__takes_only_what_is_free(world: World) -> None:
    await world.ledger.fulfil(paid())
    spent = Adjustment(id="a", user=USER, amount_ucredits=-700 * CREDIT, reason="spent", made_by=ADMIN)
    await world.ledger.adjust(spent)
    assert (await world.ledger.refund_stars("ch-1", "why", ADMIN)).taken_ucredits == 400 * CREDIT
    assert await credits(world) == 0


async def test_refund__of_the_first_of_two_leaves_the_second_whole(world: World) -> None:
    for charge in ("ch-1", "ch-2"):
        await world.ledger.fulfil(paid(charge))
    world.now += timedelta(days=10)
    assert (await world.ledger.refund_stars("ch-1", "why", ADMIN)).taken == timedelta(days=20)
    assert await expires_at(world) == timedelta(days=40)
    assert (await world.ledger.refund_stars("ch-2", "why", ADMIN)).taken == timedelta(days=30)
    assert (await expires_at(world), await role(world)) == (timedelta(days=10), "DEMO")


async def test_refund__of_a_month_that_is_over_takes_no_day_of_another(world: World) -> None:
    await world.ledger.fulfil(paid("ch-1"))
    world.now += timedelta(days=40)
    await world.ledger.fulfil(paid("ch-2"))
    assert (await world.ledger.refund_stars("ch-1", "why", ADMIN)).taken == timedelta(0)
    assert (await expires_at(world), await role(world)) == (timedelta(days=70), "FULL_ACCESS")


async def test_refund__is_of_a_failed_payment_too_and_of_nothing_else(world: World) -> None:
    await world.ledger.fulfil(paid(stars=1))
    refund = await world.ledger.refund_stars("ch-1", "paid the wrong amount", ADMIN)
    assert (refund.stars, refund.taken_ucredits, refund.taken) == (1, 0, timedelta(0))
    assert await statuses(world) == ["refunded"]
    with pytest.raises(NotFoundError):
        await world.ledger.refund_stars("ch-2", "why", ADMIN)
    with pytest.raises(BadInputError):
        await world.ledger.refund_stars("ch-1", " ", ADMIN)


async def test_refund__is_to_be_told_to_telegram_until_it_was(world: World) -> None:
    for charge in ("ch-1", "ch-2"):
        await world.ledger.fulfil(paid(charge))
        with pytest.raises(NotFoundError):
            await world.ledger.star_refund_told(charge)
        await world.ledger.refund_stars(charge, "why", ADMIN)
        world.now += SECOND
    assert [refund.telegram_charge_id for refund in await world.ledger.untold_star_refunds()] == ["ch-1", "ch-2"]
    for _ in range(2):
        await world.ledger.star_refund_told("ch-1")
        assert [refund.telegram_charge_id for refund in await world.ledger.untold_star_refunds()] == ["ch-2"]
    told = await world.ledger.refund_stars("ch-1", "why", ADMIN)
    assert told.told_at == world.now


async def test_order__at_another_provider_brings_days_too_and_its_refund_takes_them(world: World) -> None:
    product = PRODUCTS["full_access_monthly"]
    order = NewOrder(
        id=OrderId("o1"), user=USER, provider="shop", product=product.id, ucredits=product.ucredits,
        amount_minor=product.usd_cents, currency="USD", paid_pusd=product.worth_pusd, days=product.days,
    )  # fmt: skip
    await world.ledger.open_order(order)
    assert await statuses(world) == ["pending"]
    payment = Payment(
        order=order.id, provider="shop", external_id="x1", product=product.id, amount_minor=1_000, currency="USD"
    )
    for _ in range(2):
        await world.ledger.complete_order(payment)
    assert (await role(world), await expires_at(world), await credits(world)) == ("FULL_ACCESS", MONTH, 1_100)
    refund = OrderRefund(
        order=order.id, provider="shop", external_id="x1", amount_minor=1_000, currency="USD", reason="why"
    )
    for _ in range(2):
        await world.ledger.refund_order(refund)
    assert (await role(world), await expires_at(world), await credits(world)) == ("DEMO", timedelta(0), 100)
    assert await statuses(world) == ["refunded"]


async def test_purchase__with_other_days_under_the_same_id_is_refused(world: World) -> None:
    made = Purchase(
        provider="shop", external_id="x1", user=USER, product="month", ucredits=CREDIT, paid_pusd=1, currency="USD",
        amount_minor=1, days=30,
    )  # fmt: skip
    assert await world.ledger.purchase(made)
    with pytest.raises(ConflictError):
        await world.ledger.purchase(replace(made, days=31))
    assert await expires_at(world) == MONTH
    papers = await world.ledger.papers(USER)
    assert [bought.purchase.days for bought in papers.purchases] == [30]


async def test_papers__hold_every_payment_with_stars(world: World) -> None:
    await world.ledger.fulfil(paid("ch-1"))
    await world.ledger.fulfil(paid("ch-2", stars=1))
    await world.ledger.fulfil(paid("ch-3", user=FRIEND))
    refund = await world.ledger.refund_stars("ch-1", "why", ADMIN)
    papers = await world.ledger.papers(USER)
    assert sorted((each.paid.telegram_charge_id, each.status) for each in papers.stars) == [
        ("ch-1", "refunded"), ("ch-2", "failed"),
    ]  # fmt: skip
    assert [each.refund for each in papers.stars if each.refund] == [refund]

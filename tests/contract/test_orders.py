"""Orders of credits and the payments that complete them: the same in memory and on disk."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import BadInputError, ConflictError, NotFoundError, TooManyRequestsError, UnavailableError
from runtime.ids import CallId, UserId
from runtime.ledger import orders, wallets
from runtime.ledger.money import Price
from runtime.ledger.port import Hold, NewOrder, OrderId, OrderRefund, Payment, Purchase
from runtime.store import queries
from tests.contract.ledgers import CREDIT, KINDS, NOON, World, a_world, on_disk

USER, FRIEND = UserId("telegram:7"), UserId("telegram:8")
ORDER = OrderId("o1")


@pytest.fixture(params=KINDS)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(request.param, tmp_path) as made:
        for user in (USER, FRIEND):
            await made.ledger.open_wallet(user, is_admin=False)
        yield made


@pytest.fixture
async def disk(tmp_path: Path) -> AsyncIterator[World]:
    made = await on_disk(tmp_path, lambda: NOON)
    await made.ledger.open_wallet(USER, is_admin=False)
    yield made
    assert made.database is not None
    await asyncio.to_thread(made.database.close)


def an_order(id: str = ORDER, user: UserId = USER, **changes: Any) -> NewOrder:
    made = NewOrder(
        id=OrderId(id),
        user=user,
        provider="shop",
        product="credits_500",
        ucredits=500 * CREDIT,
        amount_minor=400,
        currency="USD",
        paid_pusd=4 * 10**12,
    )
    return replace(made, **changes)


def a_payment(external_id: str = "x1", order: str = ORDER, **changes: Any) -> Payment:
    made = Payment(
        order=OrderId(order),
        provider="shop",
        external_id=external_id,
        product="credits_500",
        amount_minor=400,
        currency="USD",
    )
    return replace(made, **changes)


def a_refund(external_id: str = "x1", **changes: Any) -> OrderRefund:
    return replace(
        OrderRefund(
            order=ORDER,
            provider="shop",
            external_id=external_id,
            amount_minor=400,
            currency="USD",
            reason="asked for",
        ),
        **changes,
    )


async def balance(world: World, user: UserId = USER) -> float:
    return (await world.ledger.balance(user)).balance_ucredits / CREDIT


async def state(world: World, order: str = ORDER) -> tuple[str, str | None]:
    found = await world.ledger.order(OrderId(order))
    assert found is not None
    return found.state, found.external_id


async def test_order__is_pending_until_it_is_paid_and_costs_nothing(world: World) -> None:
    made = await world.ledger.open_order(an_order())
    assert (made.state, made.external_id, made.completed_at, made.created_at) == ("pending", None, None, NOON)
    assert await world.ledger.order(ORDER) == made
    assert await world.ledger.order(OrderId("another")) is None
    assert await balance(world) == 100


async def test_payment__completes_its_order_and_credits_it(world: World) -> None:
    made = await world.ledger.open_order(an_order())
    world.now += timedelta(minutes=3)
    done = await world.ledger.complete_order(a_payment())
    assert done == replace(made, state="completed", external_id="x1", completed_at=world.now)
    assert await world.ledger.order(ORDER) == done
    assert await balance(world) == 600
    (bought, *_) = await world.ledger.statement(USER, None, 1)
    assert (bought.type, bought.external_id, bought.text) == ("purchase", "x1", "credits_500")


async def test_confirmation_that_comes_again__answers_the_same_and_credits_once(world: World) -> None:
    await world.ledger.open_order(an_order())
    first = await world.ledger.complete_order(a_payment())
    world.now += timedelta(days=1)
    answers = await asyncio.gather(*(world.ledger.complete_order(a_payment()) for _ in range(8)))
    assert answers == [first] * 8
    assert await balance(world) == 600


async def test_confirmations_at_the_same_time__credit_once(world: World) -> None:
    await world.ledger.open_order(an_order())
    answers = await asyncio.gather(*(world.ledger.complete_order(a_payment()) for _ in range(16)))
    assert {answer.state for answer in answers} == {"completed"}
    assert await balance(world) == 600


async def test_first_order__brings_the_inviter_the_bonus_once(world: World) -> None:
    await world.ledger.set_inviter(USER, FRIEND)
    for number in (1, 2):
        await world.ledger.open_order(an_order(f"o{number}"))
        await world.ledger.complete_order(a_payment(f"x{number}", f"o{number}"))
    assert await balance(world, FRIEND) == 150


@pytest.mark.parametrize(
    "changes",
    [
        {"amount_minor": 399},
        {"amount_minor": 401},
        {"amount_minor": 1},
        {"currency": "EUR"},
        {"currency": "usd"},
        {"product": "credits_1000"},
        {"user": FRIEND},
    ],
)
async def test_payment_that_is_not_what_was_ordered__is_refused(world: World, changes: dict[str, Any]) -> None:
    await world.ledger.open_order(an_order())
    with pytest.raises(ConflictError) as refused:
        await world.ledger.complete_order(a_payment(**changes))
    assert refused.value.charged == "No credits were booked."
    assert await state(world) == ("pending", None)
    assert (await balance(world), await balance(world, FRIEND)) == (100, 100)
    assert (await world.ledger.complete_order(a_payment(user=USER))).state == "completed"


async def test_other_figures_for_an_order_that_is_paid__are_refused_too(world: World) -> None:
    await world.ledger.open_order(an_order())
    await world.ledger.complete_order(a_payment())
    with pytest.raises(ConflictError):
        await world.ledger.complete_order(a_payment(amount_minor=1))


@pytest.mark.parametrize("unknown", [{"order": OrderId("o9")}, {"provider": "another"}])
async def test_payment_for_an_unknown_order__is_refused(world: World, unknown: dict[str, Any]) -> None:
    await world.ledger.open_order(an_order())
    with pytest.raises(NotFoundError):
        await world.ledger.complete_order(replace(a_payment(), **unknown))
    assert await balance(world) == 100


async def test_second_payment_of_an_order__is_refused(world: World) -> None:
    await world.ledger.open_order(an_order())
    await world.ledger.complete_order(a_payment("x1"))
    with pytest.raises(ConflictError, match="another payment"):
        await world.ledger.complete_order(a_payment("x2"))
    assert await state(world) == ("completed", "x1")
    assert await balance(world) == 600


async def test_one_payment__pays_one_order(world: World) -> None:
    await world.ledger.open_order(an_order("o1"))
    await world.ledger.open_order(an_order("o2"))
    payments = (a_payment("x1", "o1"), a_payment("x1", "o2"))
    answers = await asyncio.gather(*map(world.ledger.complete_order, payments), return_exceptions=True)
    assert [type(answer).__name__ for answer in answers] == ["Order", "ConflictError"]
    assert await state(world, "o2") == ("pending", None)
    assert await balance(world) == 600


async def test_order_whose_credit_fails__stays_pending_and_can_be_paid(world: World) -> None:
    await world.ledger.open_order(an_order())
    other = Purchase(
        provider="shop", external_id="x1", user=FRIEND, product="credits_500", ucredits=500 * CREDIT,
        paid_pusd=4 * 10**12, currency="USD", amount_minor=400,
    )  # fmt: skip
    await world.ledger.purchase(other)
    with pytest.raises(ConflictError):
        await world.ledger.complete_order(a_payment("x1"))
    assert await state(world) == ("pending", None)
    assert await balance(world) == 100
    await world.ledger.complete_order(a_payment("x2"))
    assert await balance(world) == 600


async def test_order_that_is_repeated__is_the_same_order_at_its_first_price(world: World) -> None:
    made = await world.ledger.open_order(an_order())
    assert await world.ledger.open_order(an_order(amount_minor=500)) == made
    done = await world.ledger.complete_order(a_payment())
    assert await world.ledger.open_order(an_order()) == done


@pytest.mark.parametrize("changes", [{"user": FRIEND}, {"product": "credits_100"}, {"provider": "another"}])
async def test_id_of_another_order__is_refused(world: World, changes: dict[str, Any]) -> None:
    await world.ledger.open_order(an_order())
    with pytest.raises(ConflictError):
        await world.ledger.open_order(an_order(**changes))


async def test_order_of_an_unknown_user__is_refused(world: World) -> None:
    with pytest.raises(NotFoundError):
        await world.ledger.open_order(an_order(user=UserId("nobody")))


@pytest.mark.parametrize("changes", [{"ucredits": 0}, {"amount_minor": 0}, {"amount_minor": -1}])
async def test_order_of_nothing__is_refused(world: World, changes: dict[str, Any]) -> None:
    with pytest.raises(BadInputError):
        await world.ledger.open_order(an_order(**changes))


async def test_orders_of_a_day__are_bounded_for_each_user(world: World) -> None:
    for number in range(orders.ORDERS_A_DAY_MAX):
        await world.ledger.open_order(an_order(f"o{number}"))
    with pytest.raises(TooManyRequestsError):
        await world.ledger.open_order(an_order("one more"))
    await world.ledger.open_order(an_order("o0"))
    await world.ledger.open_order(an_order("a friend's", user=FRIEND))
    world.now += timedelta(days=1)
    await world.ledger.open_order(an_order("one more"))


async def test_refund__takes_the_credits_back_once(world: World) -> None:
    await world.ledger.open_order(an_order())
    await world.ledger.complete_order(a_payment())
    assert [await world.ledger.refund_order(a_refund()) for _ in range(2)] == [500 * CREDIT] * 2
    assert await state(world) == ("refunded", "x1")
    assert await balance(world) == 100
    assert (await world.ledger.complete_order(a_payment())).state == "refunded"
    assert await balance(world) == 100


async def test_refund__leaves_what_is_held_and_never_overdraws(world: World) -> None:
    await world.ledger.open_order(an_order())
    await world.ledger.complete_order(a_payment())
    price = Price(pricing_id="p", input_udollars_per_mtok=10**6, output_udollars_per_mtok=10**6)
    held = Hold(
        call=CallId("c1"), user=USER, run=None, task_type="chat", provider="openai", model="m",
        input_tokens_max=5_900_000, output_tokens_max=0, price=price,
    )  # fmt: skip
    await world.ledger.hold(held)
    assert await world.ledger.refund_order(a_refund()) == 10 * CREDIT
    left = await world.ledger.balance(USER)
    assert (left.free_ucredits, left.held_ucredits) == (0, 590 * CREDIT)


async def test_refund_of_what_was_not_paid__is_refused(world: World) -> None:
    await world.ledger.open_order(an_order())
    with pytest.raises(ConflictError):
        await world.ledger.refund_order(a_refund())
    await world.ledger.complete_order(a_payment())
    with pytest.raises(ConflictError):
        await world.ledger.refund_order(a_refund("x2"))
    with pytest.raises(NotFoundError):
        await world.ledger.refund_order(a_refund(provider="another"))
    assert await balance(world) == 600


async def test_failed_order__may_still_be_paid_and_a_paid_one_does_not_fail(world: World) -> None:
    await world.ledger.open_order(an_order())
    assert (await world.ledger.fail_order(ORDER, "shop")).state == "failed"
    assert (await world.ledger.fail_order(ORDER, "shop")).state == "failed"
    with pytest.raises(NotFoundError):
        await world.ledger.fail_order(ORDER, "another")
    assert (await world.ledger.complete_order(a_payment())).state == "completed"
    assert (await world.ledger.fail_order(ORDER, "shop")).state == "completed"
    assert await balance(world) == 600


async def test_credit_and_order__are_one_transaction_whichever_of_them_fails(
    disk: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("cut off here")

    await disk.ledger.open_order(an_order())
    for module, name in ((wallets, "post"), (orders, "_change")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, broken)
            with pytest.raises(RuntimeError):
                await disk.ledger.complete_order(a_payment())
        assert await state(disk) == ("pending", None)
        assert await balance(disk) == 100
        assert await disk.ledger.mismatches() == []
    await disk.ledger.complete_order(a_payment())
    assert await balance(disk) == 600


async def test_what_reaches_the_disk_together__is_credited_once_too(disk: World) -> None:
    assert disk.database is not None
    for number in (1, 2):
        await disk.ledger.open_order(an_order(f"o{number}"))
    payments = (a_payment("x1", "o1"), a_payment("x1", "o1"), a_payment("x1", "o2"))
    answers = await disk.database.write_many(
        [lambda tx, paid=paid: orders.complete_order(tx, paid, 0, NOON) for paid in payments]  # type: ignore[misc]
    )
    first, again, other = answers
    assert first == again
    assert type(other) is ConflictError
    assert await balance(disk) == 600


async def test_refund_that_reaches_the_disk_with_its_payment__is_to_be_sent_again(disk: World) -> None:
    assert disk.database is not None
    await disk.ledger.open_order(an_order())
    answers = await disk.database.write_many(
        [
            lambda tx: orders.complete_order(tx, a_payment(), 0, NOON).state,
            lambda tx: str(orders.refund_order(tx, a_refund(), NOON)),
        ]
    )
    assert answers[0] == "completed"
    assert type(answers[1]) is UnavailableError
    assert await disk.ledger.refund_order(a_refund()) == 500 * CREDIT
    assert await balance(disk) == 100


async def test_order__is_on_disk_when_it_is_answered(disk: World, tmp_path: Path) -> None:
    await disk.ledger.open_order(an_order())
    done = await disk.ledger.complete_order(a_payment())
    assert disk.database is not None
    await asyncio.to_thread(disk.database.close)
    again = await on_disk(tmp_path, lambda: NOON)
    disk.database = again.database
    assert await again.ledger.order(ORDER) == done
    assert await again.ledger.complete_order(a_payment()) == done
    assert await balance(again) == 600


@pytest.mark.parametrize(
    ("tampering", "told"),
    [
        ("UPDATE payment_orders SET external_id = 'x9'", "not booked as it was ordered"),
        ("UPDATE payment_orders SET ucredits = ucredits + 1", "not booked as it was ordered"),
        ("UPDATE payment_orders SET user_id = 'another'", "not booked as it was ordered"),
        ("UPDATE payment_orders SET state = 'refunded'", "nothing was repaid"),
    ],
)
async def test_order_that_its_payment_contradicts__is_a_mismatch(
    disk: World, monkeypatch: pytest.MonkeyPatch, tampering: str, told: str
) -> None:
    await disk.ledger.open_order(an_order())
    await disk.ledger.complete_order(a_payment())
    assert disk.database is not None
    monkeypatch.setitem(queries._statements(), tampering, tampering)
    await disk.database.write(lambda tx: tx.execute(tampering))
    (found,) = await disk.ledger.mismatches()
    assert found.subject == ORDER
    assert told in found.text


@pytest.mark.parametrize("changes", [{"amount_minor": 50}, {"currency": "EUR"}])
async def test_refund_of_a_part__is_left_to_the_operator_and_takes_nothing(
    world: World, changes: dict[str, Any]
) -> None:
    await world.ledger.open_order(an_order())
    await world.ledger.complete_order(a_payment())
    before = await world.ledger.balance(USER)
    with pytest.raises(ConflictError):
        await world.ledger.refund_order(a_refund(**changes))
    assert await world.ledger.balance(USER) == before
    assert await state(world) == ("completed", "x1")

"""A person's e-mail, papers and calls, and what a wish to be erased ends at once: the same in memory and on disk."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from runtime.errors import (
    AccountStoppedError,
    BadInputError,
    ConflictError,
    MasterbuilderError,
    NotFoundError,
)
from runtime.ids import LOCAL_ADMIN, CallId, ProjectId, UserId
from runtime.ledger.money import Price
from runtime.ledger.port import (
    Adjustment,
    CallRefund,
    Draw,
    EscrowCall,
    EscrowId,
    Hold,
    Meter,
    NewOrder,
    NewToken,
    OrderId,
    Payer,
    Purchase,
    Repayment,
    Return,
    Settlement,
)
from tests.contract.ledgers import CREDIT, GRANT, KINDS, NOON, World, a_world

ANN, BOB = UserId("telegram:7"), UserId("telegram:8")
PRICE = Price(pricing_id="p", input_udollars_per_mtok=10**6, output_udollars_per_mtok=10**6)
TOKEN = "a" * 64


@pytest.fixture(params=KINDS)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(request.param, tmp_path) as made:
        for user in (ANN, BOB):
            await made.ledger.open_wallet(user, is_admin=False)
        await made.ledger.add_token(NewToken(token_sha256=TOKEN, user=ANN, kind="user", label="laptop"))
        yield made


def hold(call: str, credits: int = 4, user: UserId = ANN, project: str | None = None) -> Hold:
    return Hold(
        call=CallId(call),
        user=user,
        run=None,
        task_type="chat",
        provider="openai",
        model="m",
        input_tokens_max=credits * CREDIT // 100,
        output_tokens_max=0,
        price=PRICE,
        project=ProjectId(project) if project else None,
    )


def meter(call: str, credits: int = 4) -> Meter:
    tokens = credits * CREDIT // 100
    return Meter(call=CallId(call), input_tokens=tokens, output_tokens=0, response_time_ms=5, key_id="k")


def a_purchase(external_id: str = "x1", user: UserId = ANN) -> Purchase:
    return Purchase(
        provider="shop",
        external_id=external_id,
        user=user,
        product="credits_500",
        ucredits=500 * CREDIT,
        paid_pusd=5 * 10**12,
        currency="USD",
        amount_minor=500,
    )


def an_order(name: str = "ord-1", user: UserId = ANN) -> NewOrder:
    return NewOrder(
        id=OrderId(name),
        user=user,
        provider="shop",
        product="credits_500",
        ucredits=500 * CREDIT,
        amount_minor=500,
        currency="USD",
        paid_pusd=5 * 10**12,
    )


def a_draw(escrow: str = "e1", credits: int = 10, user: UserId = ANN) -> Draw:
    return Draw(
        escrow=EscrowId(escrow),
        process="p1",
        payer=Payer(user),
        wanted_ucredits=credits * CREDIT,
        min_ucredits=credits * CREDIT,
    )


async def test_person__is_who_they_are_and_since_when(world: World) -> None:
    world.now += timedelta(days=1)
    person = await world.ledger.person(ANN)
    assert person is not None
    assert (person.user, person.is_admin, person.role, person.email) == (ANN, False, "DEMO", "")
    assert person.erasure_asked_at is None
    assert await world.ledger.person(UserId("nobody")) is None


async def test_email__is_kept_shown_changed_and_removed(world: World) -> None:
    for said, kept in (
        (" ann@example.org ", "ann@example.org"),
        ("a.b+c@mail.example.co", "a.b+c@mail.example.co"),
        ("", ""),
    ):
        await world.ledger.set_email(ANN, said)
        person = await world.ledger.person(ANN)
        assert person is not None
        assert person.email == kept
    other = await world.ledger.person(BOB)
    assert other is not None
    assert other.email == ""


@pytest.mark.parametrize(
    "said", ["ann", "ann@", "@example.org", "ann@example", "a b@example.org", "a@b@c.org", "ann@example.org\n<x>@b.c",
             "Ann <ann@example.org>", "a" * 250 + "@b.org", "ann@exam\x00ple.org"],
)  # fmt: skip
async def test_email_that_cannot_be_one__is_refused_and_changes_nothing(world: World, said: str) -> None:
    await world.ledger.set_email(ANN, "ann@example.org")
    with pytest.raises(BadInputError):
        await world.ledger.set_email(ANN, said)
    person = await world.ledger.person(ANN)
    assert person is not None
    assert person.email == "ann@example.org"


async def test_email_of_nobody__is_refused(world: World) -> None:
    with pytest.raises(NotFoundError):
        await world.ledger.set_email(UserId("nobody"), "a@b.org")


async def test_papers__are_ones_own_orders_and_purchases(world: World) -> None:
    await world.ledger.open_order(an_order())
    await world.ledger.open_order(an_order("ord-2", BOB))
    await world.ledger.purchase(a_purchase())
    await world.ledger.purchase(a_purchase("x2", BOB))
    await world.ledger.repay(Repayment(provider="shop", external_id="x1", reason="changed my mind"))
    papers = await world.ledger.papers(ANN)
    assert [order.id for order in papers.orders] == ["ord-1"]
    assert [(each.purchase, each.repaid_ucredits) for each in papers.purchases] == [(a_purchase(), 500 * CREDIT)]
    assert papers.purchases[0].at == NOON


async def test_calls__are_ones_own_page_by_page_whichever_way_they_were_held(world: World) -> None:
    for name in ("g1", "g3"):
        await world.ledger.hold(hold(name, project="p"))
        await world.ledger.meter(meter(name))
    await world.ledger.hold(hold("g9", user=BOB))
    await world.ledger.draw(a_draw())
    booked = EscrowCall(escrow=EscrowId("e1"), hold=hold("g2"), meter=meter("g2", 3), held_at=NOON)
    await world.ledger.settle(Settlement(batch="b1", process="p1", calls=(booked,)))
    first = await world.ledger.calls_of(ANN, None, 2)
    rest = await world.ledger.calls_of(ANN, first[-1].row.call, 2)
    assert [(each.row.call, each.project, each.row.credits_ucredits) for each in [*first, *rest]] == [
        ("g1", "p", 4 * CREDIT), ("g2", None, 3 * CREDIT), ("g3", "p", 4 * CREDIT),
    ]  # fmt: skip


async def test_deletion__needs_a_yes_to_every_credit_that_is_lost(world: World) -> None:
    await world.ledger.hold(hold("g1"))
    for agreed in (0, GRANT - 1):
        with pytest.raises(ConflictError, match="forfeited"):
            await world.ledger.delete_person(ANN, agreed)
    assert await world.ledger.authenticate(TOKEN) is not None
    assert (await world.ledger.balance(ANN)).balance_ucredits == GRANT
    deletion = await world.ledger.delete_person(ANN, GRANT)
    assert (deletion.user, deletion.forfeited_ucredits) == (ANN, GRANT)
    assert deletion.due_at - deletion.asked_at == timedelta(hours=24)


async def test_deletion__asked_again_answers_the_same(world: World) -> None:
    first = await world.ledger.delete_person(ANN, GRANT)
    world.now += timedelta(hours=1)
    both = await asyncio.gather(world.ledger.delete_person(ANN, 0), world.ledger.delete_person(ANN, 0))
    assert list(both) == [first, first]
    person = await world.ledger.person(ANN)
    assert person is not None
    assert person.erasure_asked_at == first.asked_at


async def test_deletion_of_nobody_and_of_the_installations_operator__is_refused(world: World) -> None:
    with pytest.raises(NotFoundError):
        await world.ledger.delete_person(UserId("nobody"), GRANT)
    await world.ledger.open_wallet(LOCAL_ADMIN, is_admin=True)
    with pytest.raises(ConflictError):
        await world.ledger.delete_person(LOCAL_ADMIN, GRANT)


async def test_deletion__ends_tokens_and_spending_at_once(world: World) -> None:
    await world.ledger.hold(hold("g1"))
    await world.ledger.draw(a_draw())
    await world.ledger.delete_person(ANN, GRANT)
    assert await world.ledger.authenticate(TOKEN) is None
    balance = await world.ledger.balance(ANN)
    assert (balance.free_ucredits, balance.held_ucredits) == (0, 14 * CREDIT)
    for spend in (world.ledger.hold(hold("g2")), world.ledger.draw(a_draw("e2"))):
        with pytest.raises(AccountStoppedError):
            await spend
    free = replace(hold("g3"), price=replace(PRICE, input_udollars_per_mtok=0))
    with pytest.raises(AccountStoppedError):
        await world.ledger.hold(free)


async def test_call_under_way__is_still_settled_from_what_it_held(world: World) -> None:
    await world.ledger.hold(hold("g1"))
    await world.ledger.draw(a_draw())
    await world.ledger.delete_person(ANN, GRANT)
    await world.ledger.meter(meter("g1", 3))
    booked = EscrowCall(escrow=EscrowId("e1"), hold=hold("g2"), meter=meter("g2", 2), held_at=NOON)
    ended = Return(escrow=EscrowId("e1"), granted_ucredits=2 * CREDIT, ends=True)
    await world.ledger.settle(Settlement(batch="b1", process="p1", calls=(booked,), returns=(ended,)))
    balance = await world.ledger.balance(ANN)
    assert (balance.balance_ucredits, balance.held_ucredits) == (9 * CREDIT, 0)
    charged = {each.row.call: each.row.credits_ucredits for each in await world.ledger.calls_of(ANN, None, 10)}
    assert charged == {"g1": 3 * CREDIT, "g2": 2 * CREDIT}


async def test_account_that_is_to_be_erased__takes_nothing_and_is_not_opened_again(world: World) -> None:
    await world.ledger.hold(hold("g1"))
    await world.ledger.meter(meter("g1"))
    await world.ledger.delete_person(ANN, GRANT)
    ledger = world.ledger
    gift = Adjustment(id="a", user=ANN, amount_ucredits=CREDIT, reason="sorry", made_by=BOB)
    for give in (
        ledger.adjust(gift),
        ledger.purchase(a_purchase()),
        ledger.refund_call(CallRefund(call=CallId("g1"), reason="sorry", made_by=BOB)),
        ledger.open_wallet(ANN, is_admin=False),
        ledger.add_token(NewToken(token_sha256="b" * 64, user=ANN, kind="user", label="")),
        ledger.set_role(ANN, "FULL_ACCESS"),
        ledger.set_email(ANN, "ann@example.org"),
        ledger.set_inviter(BOB, ANN),
    ):
        with pytest.raises(ConflictError):
            await give
    assert (await ledger.balance(ANN)).balance_ucredits == 0


async def test_account_that_is_to_be_erased__is_not_released_by_an_operator(world: World) -> None:
    await world.ledger.stop_account(ANN, "it does not add up")
    await world.ledger.delete_person(ANN, GRANT)
    with pytest.raises(MasterbuilderError):
        await world.ledger.release_account(ANN)
    with pytest.raises(AccountStoppedError):
        await world.ledger.hold(hold("g1"))

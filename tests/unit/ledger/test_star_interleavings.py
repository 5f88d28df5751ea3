"""Payments with Stars, repeats and refunds in any order, many of them in one group of writes, over restarts: credits
and days are what plain arithmetic says, and the books add up."""

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.errors import ConflictError, NotFoundError, UnavailableError
from runtime.ids import UserId
from runtime.ledger.books import Books
from runtime.ledger.port import StarPayment, StarsPayment, StarsRefund
from runtime.payments.products import PRODUCTS
from runtime.store.schema import DATABASE
from tests.contract.ledgers import CREDIT, NOON, World, on_disk
from tests.unit.ledger.hourglass import Hourglass
from tests.unit.ledger.test_ledger_machine import MEMORY, empty_database

USER = UserId("u")
EXAMPLES = 25
CHARGES = 6

charges = st.integers(0, CHARGES - 1).map("ch-{}".format)
paying = st.tuples(st.just("pay"), charges, st.sampled_from(sorted(PRODUCTS)), st.integers(0, 5))
refunding = st.tuples(st.just("refund"), charges)
telling = st.tuples(st.just("tell"), charges)
together = st.lists(paying | paying | refunding | telling, min_size=1, max_size=8)
"""What is sent at once."""
steps = st.lists(together | st.integers(0, 40) | st.just("restart"), max_size=8)


class Arithmetic:
    """What must be there, from what the ledger answered to each message, in the order of the messages."""

    def __init__(self) -> None:
        self.glass = Hourglass()
        self.credits = 100
        self.known: dict[str, tuple[str, int, bool]] = {}
        """Charge -> product, Stars, and whether it is paid back."""

    def hears(self, message: Sequence[Any], answer: Any) -> None:
        if message[0] == "pay":
            _, charge, name, odd = message
            product = PRODUCTS[name]
            stars = product.stars - (odd == 0)
            if charge in self.known:
                if self.known[charge][:2] != (name, stars):
                    assert isinstance(answer, ConflictError)
                    return
            else:
                self.known[charge] = (name, stars, False)
                if odd:
                    self.credits += product.credits
                    if product.days:
                        self.glass.buy(charge, product.days)
            assert isinstance(answer, StarPayment)
            expected = "completed" if odd else "failed"
            assert answer.status == ("refunded" if self.known[charge][2] else expected)
        elif message[0] == "refund":
            self._hears_of_refund(message[1], answer)
        else:
            is_booked = message[1] in self.known and self.known[message[1]][2]
            assert (answer is None) if is_booked else isinstance(answer, NotFoundError)

    def _hears_of_refund(self, charge: str, answer: Any) -> None:
        if charge not in self.known:
            assert isinstance(answer, NotFoundError)
            return
        if isinstance(answer, UnavailableError):
            return  # The payment is of the same group of writes.
        assert isinstance(answer, StarsRefund)
        name, stars, is_refunded = self.known[charge]
        if is_refunded:
            return
        self.known[charge] = (name, stars, True)
        is_good = stars == PRODUCTS[name].stars
        assert answer.taken_ucredits == (PRODUCTS[name].ucredits if is_good else 0)
        assert answer.taken == self.glass.refund(charge)
        self.credits -= PRODUCTS[name].credits if is_good else 0


@given(steps)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_credits_and_days__are_what_was_paid_and_not_paid_back(told: list[Any]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="stars-", dir=MEMORY if MEMORY.is_dir() else None))
    (folder / DATABASE).write_bytes(empty_database())
    try:
        asyncio.run(played(folder, told))
    finally:
        shutil.rmtree(folder)


async def played(folder: Path, told: list[Any]) -> None:
    now = NOON
    expected = Arithmetic()

    async def opened() -> World:
        world = await on_disk(folder, lambda: now)
        await world.ledger.open_wallet(USER, is_admin=False)
        return world

    world = await opened()
    for step in told:
        if step == "restart":
            assert world.database is not None
            await asyncio.to_thread(world.database.close)
            world = await opened()
        elif isinstance(step, int):
            now += timedelta(days=step)
            expected.glass.wait(timedelta(days=step))
        else:
            answers = await asyncio.gather(*(sent(world.ledger, each) for each in step), return_exceptions=True)
            for message, answer in zip(step, answers, strict=True):
                expected.hears(message, answer)
        assert (await world.ledger.balance(USER)).balance_ucredits == expected.credits * CREDIT
        person = await world.ledger.person(USER)
        assert person is not None
        ends_at = person.subscription.expires_at if person.subscription is not None else now
        assert max(timedelta(), ends_at - now) == expected.glass.left
        assert person.role == ("FULL_ACCESS" if expected.glass.left else "DEMO")
    assert await world.ledger.mismatches() == []
    assert world.database is not None
    await asyncio.to_thread(world.database.close)


async def sent(ledger: Any, message: Sequence[Any]) -> Any:
    assert isinstance(ledger, Books)
    if message[0] == "refund":
        return await ledger.refund_stars(message[1], "why", USER)
    if message[0] == "tell":
        return await ledger.star_refund_told(message[1])
    _, charge, name, odd = message
    return await ledger.fulfil(
        StarsPayment(
            telegram_charge_id=charge, provider_charge_id="", user=USER, product=name,
            stars=PRODUCTS[name].stars - (odd == 0), currency="XTR", at=NOON,
        )
    )  # fmt: skip

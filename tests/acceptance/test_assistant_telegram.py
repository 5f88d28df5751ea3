"""Lines 49-54, 56, 84 (in the chat), 106, 107, 110 and 112 of spec/assistant.md §30, as met in the chat.

Stars are paid at the stand-in for Telegram, which asks before it takes them and tells of them as Telegram does.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cluster.simulator.telegram.faults import Fault
from cluster.simulator.telegram.person import Person
from cluster.simulator.telegram.seen import SeenMessage
from runtime.errors import UnavailableError
from runtime.ledger.port import StarPayment, StarsPayment
from runtime.telegram import chat, following
from runtime.telegram.commands import menus
from tests.acceptance.phone import ADMIN, Phone, open_phone, soon

pytestmark = pytest.mark.asyncio(loop_scope="module")
SELLING = ("buy", "subscribe", "paysupport", "refund")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def phone(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Phone]:
    async with open_phone(tmp_path_factory.mktemp("phone"), payments_enabled=True) as phone:
        yield phone


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def admin(phone: Phone) -> Person:
    return await phone.person("Root", id=ADMIN)


async def invoice(person: Person, product: str) -> SeenMessage:
    await person.says(f"/buy {product}")
    return await person.hears(lambda message: message.invoice is not None)


async def buys(person: Person, product: str) -> SeenMessage:
    """What the person is told of it."""
    paid = await person.pays(on=await invoice(person, product))
    assert paid.paid, paid.why
    return await person.hears("Thank you!")


async def payment_update(phone: Phone, person: Person) -> Mapping[str, Any]:
    """The newest update that tells of this person's payment."""
    return next(
        update
        for update in reversed(await phone.control.updates())
        if update["wire"].get("message", {}).get("successful_payment")
        and update["wire"]["message"]["chat"]["id"] == person.chat_id
    )


async def charge_of(phone: Phone, person: Person) -> str:
    update = await payment_update(phone, person)
    return str(update["wire"]["message"]["successful_payment"]["telegram_payment_charge_id"])


async def credits_of(phone: Phone, person: Person) -> int:
    return (await phone.balance(person)).balance_ucredits // 1_000_000


async def days_left(phone: Phone, person: Person) -> float:
    subscription = await phone.store.books.subscription(await phone.user(person))
    assert subscription is not None
    now = phone.store_now()
    return (subscription.expires_at - now) / timedelta(days=1)


async def role(phone: Phone, person: Person) -> str:
    account = await phone.store.books.account_of(person.id)
    assert account is not None
    return account.role


async def test_49__buying_yields_an_invoice_in_stars(phone: Phone) -> None:
    ada = await phone.welcomed()
    seen = await invoice(ada, "credits_100")
    assert seen.invoice is not None
    assert (seen.invoice.total_amount, seen.invoice.currency) == (50, "XTR")
    call = (await phone.control.calls("sendInvoice"))[-1]
    assert call["parameters"]["payload"] == "product:credits_100"
    await ada.says("/buy nothing")
    assert "100 credits: 50 ⭐" in (await ada.hears("There is no product “nothing”.")).labels
    await ada.presses("100 credits: 50 ⭐")
    await ada.hears(lambda message: message.invoice is not None and message.id > seen.id)


async def test_50__a_checkout_is_refused_unless_it_is_what_is_sold(phone: Phone) -> None:
    ada = await phone.welcomed()
    bill = await invoice(ada, "credits_100")
    refused = await ada.pays(on=bill, amount=49)
    assert not refused.paid
    assert "costs 50 Stars, not 49" in refused.why
    query = {
        "id": "forged", "from": {"id": ada.id, "is_bot": False, "first_name": "Ada"}, "currency": "XTR",
        "total_amount": 50, "invoice_payload": "product:everything",
    }  # fmt: skip
    sent = (await phone.control.calls())[-1]["number"]
    await phone.control.inject({"pre_checkout_query": query})

    async def is_answered() -> bool:
        return bool(await phone.control.calls("answerPreCheckoutQuery", after=sent))

    await soon(is_answered, 10.0)
    (answer,) = await phone.control.calls("answerPreCheckoutQuery", after=sent)
    assert str(answer["parameters"]["ok"]).lower() == "false"
    assert "There is no product" in answer["parameters"]["error_message"]
    assert await credits_of(phone, ada) == 100
    paid = await ada.pays(on=bill)
    assert paid.paid, paid.why


async def test_51_53_54__full_access_lasts_thirty_days_is_extended_and_ends(phone: Phone) -> None:
    ada = await phone.welcomed()
    assert await role(phone, ada) == "DEMO"
    told = await buys(ada, "full_access_monthly")
    assert "1,000.00 credits were added" in told.text
    assert "Full access until" in told.text
    assert await role(phone, ada) == "FULL_ACCESS"
    assert await credits_of(phone, ada) == 1_100
    assert 29.9 < await days_left(phone, ada) <= 30
    await buys(ada, "full_access_monthly")
    assert 59.9 < await days_left(phone, ada) <= 60
    subscription = await phone.store.books.subscription(await phone.user(ada))
    assert subscription is not None
    try:
        phone.world.store_ahead = subscription.expires_at - phone.store_now() - timedelta(seconds=60)
        assert await role(phone, ada) == "FULL_ACCESS"
        phone.world.store_ahead += timedelta(seconds=61)
        assert await role(phone, ada) == "DEMO"
    finally:
        phone.world.store_ahead = timedelta()


async def test_52__a_charge_that_is_told_twice_counts_once(phone: Phone) -> None:
    ada = await phone.welcomed()
    await buys(ada, "credits_100")
    update = await payment_update(phone, ada)
    await phone.control.deliver_again(update["update_id"])
    again = {name: value for name, value in update["wire"].items() if name != "update_id"}
    await phone.control.inject(again)
    await ada.hears("Thank you!")
    assert await credits_of(phone, ada) == 200
    movements = await phone.store.books.statement(await phone.user(ada), None, 20)
    assert [each.type for each in movements].count("purchase") == 1


async def test_52__nobody_is_thanked_before_the_ledger_has_it_however_long_that_takes(
    phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await phone.welcomed()
    fulfil, tries = phone.store.books.fulfil, []
    monkeypatch.setattr(chat, "PAUSES_S", (0.01,))

    async def away(payment: StarsPayment) -> StarPayment:
        tries.append(payment)
        if len(tries) <= chat.TRIES_MAX + 4:
            assert not [each for each in await ada.sees() if "Thank you" in each.text]
            raise UnavailableError("The ledger does not answer.")
        return await fulfil(payment)

    monkeypatch.setattr(phone.store.books, "fulfil", away)
    await buys(ada, "credits_100")
    assert len(tries) == chat.TRIES_MAX + 5
    assert await credits_of(phone, ada) == 200
    assert not [each for each in await ada.sees() if "did not work" in each.text]


async def test_52__a_payment_that_cannot_be_booked_is_told_with_its_charge(
    phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await phone.welcomed()

    async def broken(payment: StarsPayment) -> StarPayment:
        raise ZeroDivisionError

    monkeypatch.setattr(phone.store.books, "fulfil", broken)
    paid = await ada.pays(on=await invoice(ada, "credits_100"))
    told = await ada.hears("Your payment arrived, but it could not be booked")
    assert paid.charge_id in told.text


async def test_55__a_refund_takes_credits_and_days_back(phone: Phone, admin: Person) -> None:
    ada = await phone.welcomed()
    await buys(ada, "full_access_monthly")
    charge = await charge_of(phone, ada)
    await ada.says(f"/refund {charge}")
    await ada.hears("is for administrators")
    await admin.says(f"/refund {charge} wanted something else")
    await admin.hears("Stars go back; 1,000.00 credits were taken back.")
    assert await credits_of(phone, ada) == 100
    assert await role(phone, ada) == "DEMO"
    assert [each.telegram_charge_id for each in await phone.store.books.untold_star_refunds()] == [charge]
    await ada.says("/paysupport")
    assert charge in (await ada.hears("Your payments")).text


async def test_56_112__where_nothing_is_sold_there_are_no_commands_for_it(tmp_path: Path) -> None:
    async with open_phone(tmp_path) as silent:
        ada = await silent.welcomed()
        for name in ("buy", "subscribe", "paysupport"):
            await ada.says(f"/{name} credits_100")
            told = await ada.hears(f"I do not know /{name}.")
            assert not {f"/{each}" for each in SELLING} & set(told.text.partition("I know:")[2].split())
        await ada.says("/help")
        helped = await ada.hears("What I can do")
        assert not [name for name in SELLING if f"/{name}" in helped.text]
        await ada.says("/credits")
        assert (await ada.hears("Ask the operator for credits.")).labels == ()
        await silent.presses_unseen(ada, "buy::credits_100")
        sent = 0

        async def is_refused() -> bool:
            return "This button is not known here." in await silent.answers(sent)

        await soon(is_refused)
        assert await silent.control.calls("sendInvoice") == []
        for menu in menus(silent.world.settings, [ADMIN]):
            commands = menu["commands"]
            assert isinstance(commands, list)
            assert not {each["command"] for each in commands} & set(SELLING)


async def test_84__a_file_gets_a_text_however_large_it_is(phone: Phone) -> None:
    ada = await phone.welcomed()
    for size_bytes in (10, 21 * 10**6):
        await ada.sends_document("notes.pdf", b"%PDF", size_bytes=size_bytes)
        told = await ada.hears("I cannot take files here. Please write it as a text.")
        assert "/new begins a project." in told.text


async def test_106__markup_that_telegram_refuses_arrives_as_plain_text(phone: Phone) -> None:
    ada = await phone.welcomed("<Ada> & Co")
    for said, heard in (("/help", "What I can do"), ("/feedback", "/feedback 5 It does what I wanted")):
        await phone.control.order_fault(Fault(kind="markup_refused", method="sendMessage", chat_id=ada.chat_id))
        await ada.says(said)
        told = await ada.hears(heard)
        assert not [each for each in told.entities if each["type"] in ("bold", "code")]
        assert not re.search("<b>|</|&lt;|&amp;", told.text)
    await phone.control.order_fault(Fault(kind="markup_refused", method="sendMessage", chat_id=ada.chat_id))
    await ada.says("/start")
    await ada.hears("Hello <Ada> & Co!")


async def test_107__a_message_is_edited_once_a_second_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "SHOW_EVERY_S", 0.0)
    async with open_phone(tmp_path, in_chat_s=None) as phone:
        ada = await phone.welcomed()
        await phone.begun(ada, "tasks=2 phases=2 width=1 delay_ms=900")
        await ada.hears("is finished", 60.0)
        await asyncio.sleep(1.5)
        at_s = [call["at_s"] for call in await phone.control.calls("editMessageText")]
        assert len(at_s) >= 2
        assert min(later - earlier for earlier, later in pairwise(at_s)) >= 1.0
        assert not await phone.control.excesses()


async def test_110__help_shows_an_administrators_commands_to_administrators_alone(phone: Phone, admin: Person) -> None:
    ada = await phone.welcomed()
    await ada.says("/help")
    assert "/ban" not in (await ada.hears("What I can do")).text
    await admin.says("/help")
    assert "/ban" in (await admin.hears("For administrators")).text
    by_chat = {
        str(menu["scope"]): {each["command"] for each in commands}
        for menu in menus(phone.world.settings, [ADMIN])
        if isinstance(commands := menu["commands"], list)
    }
    assert "ban" not in by_chat["{'type': 'default'}"]
    assert "ban" in by_chat[f"{{'type': 'chat', 'chat_id': {ADMIN}}}"]

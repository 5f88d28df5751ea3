import asyncio

import pytest
from telegram import LabeledPrice, Update
from telegram.error import BadRequest
from telegram.ext import ExtBot

from cluster.simulator.telegram.client import StandInClient

Bot = ExtBot[None]


async def invoice(bot: Bot, chat_id: int, stars: int = 50) -> int:
    sent = await bot.send_invoice(
        chat_id, "100 credits", "For builds.", "product:credits_100", "XTR", [LabeledPrice("Credits", stars)]
    )  # fmt: skip
    return sent.message_id


async def next_update(bot: Bot) -> Update:
    (update,) = await bot.get_updates(timeout=2)
    await bot.get_updates(offset=update.update_id + 1)
    return update


async def test_payment__is_asked_answered_and_told(bot: Bot, control: StandInClient, ada: int) -> None:
    await invoice(bot, ada)
    seen = (await control.messages(ada)).messages[-1]
    assert seen.invoice is not None
    assert (seen.invoice.total_amount, seen.labels, seen.buttons[0].pays) == (50, ("Pay 50 XTR",), True)

    paying = asyncio.create_task(control.pay(ada, ada))
    asked = (await next_update(bot)).pre_checkout_query
    assert asked is not None
    assert (asked.from_user.id, asked.currency, asked.total_amount) == (ada, "XTR", 50)
    assert asked.invoice_payload == "product:credits_100"
    await asked.answer(ok=True)

    paid = await paying
    message = (await next_update(bot)).message
    assert message is not None
    assert message.successful_payment is not None
    assert paid.paid
    assert message.successful_payment.telegram_payment_charge_id == paid.charge_id
    assert (await control.messages(ada)).messages[-1].kind == "payment"


async def test_payment__that_the_bot_turns_down_says_why(bot: Bot, control: StandInClient, ada: int) -> None:
    await invoice(bot, ada)
    paying = asyncio.create_task(control.pay(ada, ada, amount=1))
    asked = (await next_update(bot)).pre_checkout_query
    assert asked is not None
    assert asked.total_amount == 1

    await asked.answer(ok=False, error_message="The price has changed.")

    assert (await paying).why == "The price has changed."
    assert await bot.get_updates() == ()


async def test_payment__is_cancelled_when_the_answer_is_late(bot: Bot, control: StandInClient, ada: int) -> None:
    await invoice(bot, ada)

    paid = await control.pay(ada, ada)

    assert (paid.paid, "in time" in paid.why) == (False, True)
    asked = (await next_update(bot)).pre_checkout_query
    assert asked is not None
    with pytest.raises(BadRequest, match="Query is too old and response timeout expired or query id is invalid"):
        await asked.answer(ok=True)
    assert await bot.get_updates() == ()


async def test_payment__through_a_link_is_the_same(bot: Bot, control: StandInClient, ada: int) -> None:
    link = await bot.create_invoice_link("Credits", "For builds.", "p", "XTR", [LabeledPrice("Credits", 7)])
    paying = asyncio.create_task(control.pay(ada, ada, link=link))
    asked = (await next_update(bot)).pre_checkout_query
    assert asked is not None

    await asked.answer(ok=True)

    assert (await paying).paid
    assert asked.total_amount == 7


async def test_refund__comes_once(bot: Bot, control: StandInClient, ada: int) -> None:
    await invoice(bot, ada)
    paying = asyncio.create_task(control.pay(ada, ada))
    await (await next_update(bot)).pre_checkout_query.answer(ok=True)  # type: ignore[union-attr]
    charge_id = (await paying).charge_id
    await next_update(bot)

    with pytest.raises(BadRequest, match="Charge_not_found"):
        await bot.refund_star_payment(ada + 1, charge_id)
    assert await bot.refund_star_payment(ada, charge_id)

    message = (await next_update(bot)).message
    assert message is not None
    assert message.refunded_payment is not None
    assert message.refunded_payment.telegram_payment_charge_id == charge_id
    with pytest.raises(BadRequest, match="Charge_already_refunded"):
        await bot.refund_star_payment(ada, charge_id)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"title": "t" * 33}, "Invoice_title_invalid"),
        ({"description": ""}, "Invoice_description_invalid"),
        ({"payload": "p" * 129}, "Invoice_payload_invalid"),
        ({"currency": "stars"}, "Currency_invalid"),
        ({"provider_token": "123:live"}, "Stars_provider_token_not_empty"),
        ({"currency": "EUR"}, "Payment_provider_invalid"),
        ({"prices": [LabeledPrice("a", 1), LabeledPrice("b", 1)]}, "Stars_invoice_invalid"),
        ({"prices": [LabeledPrice("a", 0)]}, "Currency_total_amount_invalid"),
    ],
)
async def test_invoice__is_checked(bot: Bot, ada: int, changed: dict[str, object], why: str) -> None:
    good = {"title": "t", "description": "d", "payload": "p", "currency": "XTR", "prices": [LabeledPrice("a", 1)]}
    with pytest.raises(BadRequest, match=why):
        await bot.send_invoice(ada, **{**good, **changed})  # type: ignore[arg-type]

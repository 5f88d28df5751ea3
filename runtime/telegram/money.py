"""Credits on the phone: what is there, what can be bought with Stars, and what Telegram asks before and after."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime

from runtime.errors import MasterbuilderError, QuarantinedError, UnavailableError
from runtime.ids import user_entity
from runtime.ledger.port import Balance, StarsCheckout, StarsPayment
from runtime.payments.products import PRODUCTS, Product
from runtime.payments.stars import CURRENCY, payload_of, product_named
from runtime.session.session import ToppedUp
from runtime.telegram.buttons import Press, press
from runtime.telegram.calls import Button, Call
from runtime.telegram.formatting import escape
from runtime.telegram.talk import Talk
from runtime.telegram.updates import PreCheckout, SuccessfulPayment

MOVEMENTS_SHOWN = 8
PAYMENTS_SHOWN = 10
TITLE_MAX = 32
"""Source: Telegram Bot API, `sendInvoice`."""

log = logging.getLogger(__name__)


async def credits(talk: Talk, rest: str) -> None:
    """Balance, the last movements, and what can be bought. Source: spec/builder.md §4."""
    say, ledger = talk.say, talk.desk.ledger
    balance = await ledger.balance(talk.user)
    movements = await ledger.statement(talk.user, None, MOVEMENTS_SHOWN)
    lines = [say("💳 <b>{credits} credits</b>", credits=say.credits(balance.free_ucredits))]
    if balance.held_ucredits:
        lines.append(say("{held} more are held for work under way.", held=say.credits(balance.held_ucredits)))
    kinds = _kinds(talk)
    for each in movements:
        kind = kinds.get(each.type, each.type)
        sign = "+" if each.amount_ucredits > 0 else ""
        lines.append(f"<code>{sign}{say.credits(each.amount_ucredits)}</code> {kind}, {say.date(each.at)}")
    subscription = await ledger.subscription(talk.user)
    if subscription is not None and subscription.expires_at > datetime.now(UTC):
        lines.append(say("⭐ Full access until {day}.", day=say.date(subscription.expires_at)))
    notices = await ledger.untold_notices(talk.user)
    if notices:
        lines += [f"🔔 {escape(each.text)}" for each in notices if each.kind != "low_balance"]
        await ledger.mark_told(talk.user, notices[-1].at)
    lines.append(_more(talk))
    talk.tell("\n".join(lines), _shop(talk))


def offer(talk: Talk, balance: Balance, *, too_few: bool) -> None:
    """The purchase prompt. Source: spec/builder.md §2, DESIGN §11, Purchases off."""
    say = talk.say
    lines = []
    if too_few:
        lines.append(
            say.count(
                "💳 A project needs at least {n} free credit; you have {free}.",
                "💳 A project needs at least {n} free credits; you have {free}.",
                talk.desk.settings.min_credits_to_start,
                free=say.credits(balance.free_ucredits),
            )
        )
    lines.append(_more(talk))
    talk.tell("\n".join(lines), _shop(talk))


async def buy(talk: Talk, rest: str) -> None:
    """`/buy credits_100`: an invoice."""
    say = talk.say
    if not rest:
        names = "\n".join(f"/buy {product.id}" for product in PRODUCTS.values())
        talk.tell(say("Choose what to buy:") + f"\n{names}", _shop(talk))
        return
    product = PRODUCTS.get(rest)
    if product is None:
        talk.tell(say("There is no product “{name}”.", name=escape(rest[:60])), _shop(talk))
        return
    _invoice(talk, product)


async def subscribe(talk: Talk, rest: str) -> None:
    say = talk.say
    product = PRODUCTS["full_access_monthly"]
    text = say(
        "⭐ <b>{access}</b>: {credits}, all providers and higher limits. A running subscription is extended from its "
        "end.",
        access=_label(talk, product),
        credits=_credits(talk, product),
    )
    talk.tell(text, _shop(talk))


async def paysupport(talk: Talk, rest: str) -> None:
    """Source: Telegram Bot API, "Payments for Digital Goods": every bot that sells must answer it."""
    say = talk.say
    payments = (await talk.desk.ledger.payments_of(talk.user))[:PAYMENTS_SHOWN]
    lines = [say("🧾 <b>Your payments</b>")]
    lines += [
        f"{say.date(each.at)}: {escape(each.product)}, {each.amount_minor} {escape(each.currency)}, {each.status}"
        + (f"\n<code>{escape(each.external_id)}</code>" if each.external_id else "")
        for each in payments
    ]
    if not payments:
        lines.append(say("There are none."))
    lines.append(
        say(
            "Is something wrong with one of them? Write to whoever runs this service and name the payment; it can be "
            "given back. Telegram's own support cannot help with purchases here."
        )
    )
    talk.tell("\n".join(lines))


async def check_out(talk: Talk, query: PreCheckout) -> None:
    """Telegram waits ten seconds for it, and takes nothing before."""
    say = talk.say
    checkout = StarsCheckout(
        user=talk.user,
        product=product_named(query.invoice_payload),
        stars=query.total_amount,
        currency=query.currency,
    )
    answer: dict[str, object] = {"pre_checkout_query_id": query.id, "ok": True}
    try:
        await talk.desk.ledger.check_checkout(checkout)
    except UnavailableError:
        why = say("This cannot be paid at this moment. Nothing was charged; try it again in a minute.")
        answer |= {"ok": False, "error_message": why}
    except MasterbuilderError as error:
        log.warning("a checkout of %s was refused: %s", talk.user, error.code)
        answer |= {"ok": False, "error_message": error.message}
    talk.urgent.append(Call(method="answerPreCheckoutQuery", data=answer))


async def paid(talk: Talk, payment: SuccessfulPayment, paid_at: datetime) -> None:
    """Says so only when it is in the ledger. A repeat says it again and books nothing."""
    say = talk.say
    booked = await talk.desk.ledger.fulfil(
        StarsPayment(
            telegram_charge_id=payment.telegram_payment_charge_id,
            provider_charge_id=payment.provider_payment_charge_id,
            user=talk.user,
            product=product_named(payment.invoice_payload),
            stars=payment.total_amount,
            currency=payment.currency,
            at=paid_at,
        )
    )
    if booked.failure:
        talk.tell(
            say(
                "⚠️ Your payment arrived, but it does not fit what was sold: {why} Whoever runs this service knows, and "
                "gives it back. /paysupport",
                why=escape(booked.failure),
            )
        )
        return
    await _top_up(talk)
    balance = await talk.desk.ledger.balance(talk.user)
    lines = [
        say(
            "✅ Thank you! {credits} credits were added; you have {balance}.",
            credits=say.credits(booked.ucredits),
            balance=say.credits(balance.free_ucredits),
        )
    ]
    subscription = await talk.desk.ledger.subscription(talk.user)
    if booked.days and subscription is not None:
        lines.append(say("⭐ Full access until {day}.", day=say.date(subscription.expires_at)))
    talk.tell("\n".join(lines))


async def _top_up(talk: Talk) -> None:
    """Builds that wait for credits go on. Raises UnavailableError: then the whole update is answered again."""
    try:
        await talk.desk.entities.ask(user_entity(talk.user), ToppedUp())
    except QuarantinedError as error:
        log.warning("the projects of %s were not told of new credits: %s", talk.user, error.message)


async def credits_pressed(talk: Talk, pressed: Press) -> None:
    """In private alone, whoever pressed it."""
    say = talk.say
    if not talk.in_private:
        talk.toast(say("Ask for this in a private chat with me."), alert=True)
        return
    await credits(talk, "")


async def buy_pressed(talk: Talk, pressed: Press) -> None:
    say = talk.say
    product = PRODUCTS.get(pressed.about)
    if product is None or not talk.desk.settings.payments_enabled:
        talk.toast(say("This button is not known here."), alert=True)
        return
    _invoice(talk, product)


def _invoice(talk: Talk, product: Product) -> None:
    """Source: spec/assistant.md §15: currency XTR, no provider token, one price line."""
    label = _label(talk, product)
    data = talk.where.data | {
        "title": label[:TITLE_MAX],
        "description": f"{label} + {_credits(talk, product)}" if product.days else label,
        "payload": payload_of(product),
        "provider_token": "",
        "currency": CURRENCY,
        "prices": [{"label": label, "amount": product.stars}],
    }
    talk.calls.append(Call(method="sendInvoice", data=data))


def _shop(talk: Talk) -> list[list[Button]]:
    if not talk.desk.settings.payments_enabled:
        return []
    return [[(f"{_label(talk, each)}: {each.stars} ⭐", press("buy", about=each.id))] for each in PRODUCTS.values()]


def _more(talk: Talk) -> str:
    say = talk.say
    return (
        say("Buy more with Telegram Stars:")
        if talk.desk.settings.payments_enabled
        else say("Ask the operator for credits.")
    )


def _label(talk: Talk, product: Product) -> str:
    """At most 32 characters. Source: Telegram Bot API, `sendInvoice`, of a title."""
    say = talk.say
    if product.days:
        return say.count("Full access for {n} day", "Full access for {n} days", product.days)
    return _credits(talk, product)


def _credits(talk: Talk, product: Product) -> str:
    say = talk.say
    return say.count("{n} credit", "{n} credits", product.credits)


def _kinds(talk: Talk) -> Mapping[str, str]:
    say = talk.say
    return {
        "initial_grant": say("welcome gift"),
        "purchase": say("purchase"),
        "usage_deduction": say("use"),
        "refund": say("refund"),
        "manual_adjustment": say("from the operator"),
        "referral_bonus": say("thanks for inviting somebody"),
    }


PRESSED: Mapping[str, Callable[[Talk, Press], Awaitable[None]]] = {"credits": credits_pressed, "buy": buy_pressed}

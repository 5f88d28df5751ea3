"""Invoices, and what happens when a person pays one: the question, the bot's answer within ten seconds, the payment.

Source: https://core.telegram.org/bots/payments-stars
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from cluster.simulator.telegram.chats import Account, Chat, World
from cluster.simulator.telegram.keyboard import buttons_of, check_markup
from cluster.simulator.telegram.parameters import Parameters
from cluster.simulator.telegram.refusal import QUERY_TOO_OLD, bad_request
from cluster.simulator.telegram.seen import Paid
from cluster.simulator.telegram.sending import Sending
from cluster.simulator.telegram.updates import Updates

PRE_CHECKOUT_S = 10.0
STARS = "XTR"
_TITLE_MAX, _DESCRIPTION_MAX, _PAYLOAD_BYTES_MAX = 32, 255, 128
_AMOUNT_MAX = 1_000_000_000
_PAY_BUTTON = "Pay {amount} {currency}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice:
    title: str
    description: str
    payload: str
    currency: str
    total_amount: int

    def wire(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "description": self.description,
            "start_parameter": "",
            "currency": self.currency,
            "total_amount": self.total_amount,
        }


@dataclass(slots=True, kw_only=True)
class Charge:
    id: str
    person_id: int
    invoice: Invoice
    amount: int
    refunded: bool = False


class Payments:
    """`answer_s`: how long the bot has for its answer before the payment is cancelled."""

    def __init__(self, world: World, updates: Updates, sending: Sending, *, answer_s: float = PRE_CHECKOUT_S) -> None:
        self._world = world
        self._updates = updates
        self._sending = sending
        self._answer_s = answer_s
        self._on_messages: dict[tuple[int, int], Invoice] = {}
        self._links: dict[str, Invoice] = {}
        self._questions: dict[str, asyncio.Future[str]] = {}
        self.charges: dict[str, Charge] = {}
        self._numbers = count(1)

    def send_invoice(self, asked: Parameters) -> dict[str, Any]:
        invoice = _read_invoice(asked)
        markup = check_markup(asked.json("reply_markup"))
        if markup and not any(button.get("pay") for button in buttons_of(markup)):
            raise bad_request("REPLY_MARKUP_BUY_EMPTY")
        if not markup:
            text = _PAY_BUTTON.format(amount=invoice.total_amount, currency=invoice.currency)
            asked.values["reply_markup"] = {"inline_keyboard": [[{"text": text, "pay": True}]]}
        message = self._sending.post(asked, {"invoice": invoice.wire()})
        self._on_messages[message.chat.id, message.id] = invoice
        return message.wire()

    def create_invoice_link(self, asked: Parameters) -> str:
        invoice = _read_invoice(asked)
        link = f"https://t.me/$invoice{next(self._numbers):08d}"
        self._links[link] = invoice
        return link

    def answer(self, asked: Parameters) -> bool:
        question = self._questions.pop(asked.text("pre_checkout_query_id"), None)
        if question is None or question.done():
            raise bad_request(QUERY_TOO_OLD)
        why = "" if asked.boolean("ok") else asked.text("error_message")
        if not asked.boolean("ok") and not why:
            raise bad_request("ERROR_MESSAGE_EMPTY")
        question.set_result(why)
        return True

    def refund(self, asked: Parameters) -> bool:
        charge = self.charges.get(asked.text("telegram_payment_charge_id"))
        if charge is None or charge.person_id != asked.integer("user_id") or charge.invoice.currency != STARS:
            raise bad_request("CHARGE_NOT_FOUND")
        return self.refund_charge(charge.id)

    def refund_charge(self, charge_id: str) -> bool:
        """As the bot or Telegram itself does it. Raises TelegramRefusal."""
        charge = self.charges.get(charge_id)
        if charge is None:
            raise bad_request("CHARGE_NOT_FOUND")
        if charge.refunded:
            raise bad_request("CHARGE_ALREADY_REFUNDED")
        charge.refunded = True
        chat = self._world.chats[charge.person_id]
        told = _told(charge.invoice, charge.amount) | {"telegram_payment_charge_id": charge.id}
        message = self._world.post(chat, self._world.account(charge.person_id), {"refunded_payment": told})
        self._updates.add("message", message.wire(), chat.id)
        return True

    def invoice(self, chat: Chat, message_id: int | None, link: str) -> Invoice:
        """That of a message, or of a link. Raises TelegramRefusal."""
        found = self._links.get(link) if link else self._on_messages.get((chat.id, message_id or 0))
        if found is None:
            raise bad_request("there is no invoice")
        return found

    async def pay(self, chat: Chat, person: Account, invoice: Invoice, amount: int | None = None) -> Paid:
        """Ends when the payment did. `amount`: what is paid in the place of the invoice's total, as a client that was
        tampered with would."""
        total = invoice.total_amount if amount is None else amount
        number = next(self._numbers)
        question_id = f"{person.id}{number:08d}"
        question = asyncio.get_running_loop().create_future()
        self._questions[question_id] = question
        told = _told(invoice, total)
        self._updates.add("pre_checkout_query", {"id": question_id, "from": person.wire(), **told}, person.id)
        try:
            async with asyncio.timeout(self._answer_s):
                why = await question
        except TimeoutError:
            return Paid(paid=False, why="The bot did not answer in time; the payment was cancelled.")
        finally:
            self._questions.pop(question_id, None)
        if why:
            return Paid(paid=False, why=why)
        charge = Charge(id=f"stx{number:08d}", person_id=person.id, invoice=invoice, amount=total)
        self.charges[charge.id] = charge
        paid = told | {"telegram_payment_charge_id": charge.id, "provider_payment_charge_id": f"prv{number:08d}"}
        message = self._world.post(chat, person, {"successful_payment": paid})
        self._updates.add("message", message.wire(), chat.id)
        return Paid(paid=True, charge_id=charge.id)


def _told(invoice: Invoice, amount: int) -> dict[str, Any]:
    return {"currency": invoice.currency, "total_amount": amount, "invoice_payload": invoice.payload}


def _read_invoice(asked: Parameters) -> Invoice:
    title, description, payload = asked.text("title"), asked.text("description"), asked.text("payload")
    currency, prices = asked.text("currency"), asked.mappings("prices")
    if not 1 <= len(title) <= _TITLE_MAX:
        raise bad_request("INVOICE_TITLE_INVALID")
    if not 1 <= len(description) <= _DESCRIPTION_MAX:
        raise bad_request("INVOICE_DESCRIPTION_INVALID")
    if not 1 <= len(payload.encode()) <= _PAYLOAD_BYTES_MAX:
        raise bad_request("INVOICE_PAYLOAD_INVALID")
    if len(currency) != 3 or not currency.isupper():
        raise bad_request("CURRENCY_INVALID")
    if currency == STARS and asked.text("provider_token"):
        raise bad_request("STARS_PROVIDER_TOKEN_NOT_EMPTY")
    if currency != STARS and not asked.text("provider_token"):
        raise bad_request("PAYMENT_PROVIDER_INVALID")
    if not prices or (currency == STARS and len(prices) != 1):
        raise bad_request("STARS_INVOICE_INVALID" if currency == STARS else "INVOICE_PRICES_EMPTY")
    total = sum(_amount(price) for price in prices)
    if not 1 <= total <= _AMOUNT_MAX:
        raise bad_request("CURRENCY_TOTAL_AMOUNT_INVALID")
    return Invoice(title=title, description=description, payload=payload, currency=currency, total_amount=total)


def _amount(price: Mapping[str, Any]) -> int:
    amount = price.get("amount")
    if not isinstance(amount, int) or isinstance(amount, bool) or not price.get("label"):
        raise bad_request("can't parse labeled price")
    return amount

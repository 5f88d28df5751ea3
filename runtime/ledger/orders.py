"""Orders of credits: what a user is going to pay for, and the one payment that completes it.

    pending -> completed -> refunded
       v           ^
     failed -------'        a payment that was tried again after it failed

Like `wallets` they run inside a write of the store: an order is completed and its credits reach the wallet in one
transaction, so after a crash both are there or neither. Source: spec/builder.md §9.7, spec/assistant.md §15.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from runtime.errors import ConflictError, NotFoundError, TooManyRequestsError, UnavailableError
from runtime.ledger.caps import USERS
from runtime.ledger.port import NewOrder, Order, OrderId, OrderRefund, Payment, Purchase, Repayment
from runtime.ledger.records import at_us
from runtime.ledger.wallets import check_amount, purchase, repay
from runtime.store.transaction import Kind, Transaction

ORDERS_A_DAY_MAX = 100
"""Of one user: an order costs nothing, so nothing else bounds how many rows they fill."""
NOT_CREDITED = "No credits were booked."
LOOK = "Compare it with the order in the provider's console."
_COLUMNS = list(Order.__dataclass_fields__)[:-2]


def order_of(row: tuple[Any, ...]) -> Order:
    """Reads the columns of `select_order`."""
    *values, created_us, completed_us = row
    completed_at = at_us(completed_us) if completed_us is not None else None
    return Order(**dict(zip(_COLUMNS, values, strict=True)), created_at=at_us(created_us), completed_at=completed_at)


ORDERS: Kind[Order] = Kind(
    name="order", query="select_order", read=lambda rows: order_of(rows[0]) if rows else None
)  # fmt: skip


def open_order(tx: Transaction, asked: NewOrder, now: datetime) -> Order:
    """Repeating an id is the same order, at the price it was first made with.

    Raises ConflictError for the id of another order, NotFoundError for an unknown user, TooManyRequestsError,
    BadInputError.
    """
    known = tx.get(ORDERS, asked.id)
    if known is not None:
        check_repeat(known, asked)
        return known
    check_amount(asked.ucredits)
    check_amount(asked.amount_minor)
    if tx.get(USERS, asked.user) is None:
        raise NotFoundError(f"There is no user {asked.user}.", "Issue a token for them first.")
    since = now - timedelta(days=1)
    ((made,),) = tx.committed("count_orders", {"user_id": asked.user, "since": since})
    if made >= ORDERS_A_DAY_MAX:
        raise too_many_orders()
    order = made_of(asked, now)
    tx.insert("payment_orders", order)
    tx.keep(ORDERS, order.id, order)
    return order


def complete_order(tx: Transaction, paid: Payment, referral_ucredits: int, now: datetime) -> Order:
    """Credits what was ordered, once for ever. Saying the same again answers the same order as it stands.

    Raises NotFoundError for an order that this provider does not have, ConflictError where the payment is not the
    order's or paid another one; nothing is credited then.
    """
    order = known_order(tx.get(ORDERS, paid.order), paid.order, paid.provider)
    check_payment(order, paid)
    if order.state in ("completed", "refunded"):
        return order
    if not purchase(tx, purchase_of(order, paid.external_id), referral_ucredits, now):
        raise paid_another(paid.external_id)
    return _change(tx, replace(order, state="completed", external_id=paid.external_id, completed_at=now))


def refund_order(tx: Transaction, asked: OrderRefund, now: datetime) -> int:
    """Takes the order's credits back as far as they are free; how many. Twice is once. Raises NotFoundError,
    ConflictError for an order that this payment did not pay, BadInputError."""
    order = known_order(tx.get(ORDERS, asked.order), asked.order, asked.provider)
    check_refund(order, asked)
    repayment = Repayment(provider=asked.provider, external_id=asked.external_id, reason=asked.reason)
    if not tx.committed("select_purchase", {"key": repayment.purchase_id}):
        raise UnavailableError("The payment is being booked at this moment.", "Send it again.")
    taken = repay(tx, repayment, now)
    _change(tx, replace(order, state="refunded"))
    return taken


def fail_order(tx: Transaction, order: OrderId, provider: str) -> Order:
    """That it was not paid; one that was paid stays as it is. Raises NotFoundError."""
    known = known_order(tx.get(ORDERS, order), order, provider)
    return _change(tx, replace(known, state="failed")) if known.state == "pending" else known


def made_of(asked: NewOrder, now: datetime) -> Order:
    return Order(
        id=asked.id,
        user=asked.user,
        provider=asked.provider,
        product=asked.product,
        ucredits=asked.ucredits,
        amount_minor=asked.amount_minor,
        currency=asked.currency,
        paid_pusd=asked.paid_pusd,
        days=asked.days,
        state="pending",
        external_id=None,
        created_at=now,
        completed_at=None,
    )


def purchase_of(order: Order, external_id: str) -> Purchase:
    return Purchase(
        provider=order.provider,
        external_id=external_id,
        user=order.user,
        product=order.product,
        ucredits=order.ucredits,
        paid_pusd=order.paid_pusd,
        currency=order.currency,
        amount_minor=order.amount_minor,
        days=order.days,
    )


def known_order(order: Order | None, id: OrderId, provider: str) -> Order:
    """Raises NotFoundError, for an order of another provider alike."""
    if order is None or order.provider != provider:
        raise NotFoundError(f"{provider} has no order {id} here.", LOOK, NOT_CREDITED)
    return order


def check_repeat(known: Order, asked: NewOrder) -> None:
    if (known.user, known.provider, known.product) != (asked.user, asked.provider, asked.product):
        raise ConflictError(f"{asked.id} is the id of another order.", "Use a new Idempotency-Key.")


def check_payment(order: Order, paid: Payment) -> None:
    """Raises ConflictError unless user, product, amount and currency are the order's, and no other payment paid it."""
    told = (paid.user, paid.product, paid.amount_minor, paid.currency)
    ordered = (order.user if paid.user is not None else None, order.product, order.amount_minor, order.currency)
    if told != ordered:
        raise ConflictError(
            f"The payment {paid.external_id} is not what the order {order.id} asks for: "
            f"{order.product} for {order.amount_minor} {order.currency}.",
            LOOK,
            NOT_CREDITED,
        )
    if order.external_id not in (None, paid.external_id):
        raise ConflictError(
            f"The order {order.id} was paid by another payment already.",
            f"Pay back {paid.external_id} in the provider's console.",
            NOT_CREDITED,
        )


def check_refund(order: Order, asked: OrderRefund) -> None:
    if order.state not in ("completed", "refunded") or order.external_id != asked.external_id:
        raise ConflictError(
            f"The order {order.id} was not paid by {asked.external_id}.", LOOK, "No credits were taken back."
        )
    if (asked.amount_minor, asked.currency) != (order.amount_minor, order.currency):
        raise ConflictError(
            f"{asked.amount_minor} {asked.currency} of the {order.amount_minor} {order.currency} that were paid for "
            f"{order.id} went back: only a whole payment is taken back by itself.",
            "Take the credits by hand: `masterbuilder credits take`.",
            "No credits were taken back.",
        )


def paid_another(external_id: str) -> ConflictError:
    return ConflictError(f"The payment {external_id} was credited for something else already.", LOOK, NOT_CREDITED)


def too_many_orders() -> TooManyRequestsError:
    return TooManyRequestsError(
        f"You made {ORDERS_A_DAY_MAX} orders within a day, and no more are taken.",
        "Pay one of them, or try again tomorrow.",
        retry_after_s=3_600.0,
    )


def _change(tx: Transaction, order: Order) -> Order:
    tx.update("payment_orders", order.id, order)
    tx.keep(ORDERS, order.id, order)
    return order

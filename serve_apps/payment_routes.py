"""The part of the HTTP door that sells credits: what there is, orders, the webhooks that say what was paid, and what
the bot says was paid with Telegram's Stars.

A webhook is believed for its signature alone. The ledger completes an order and credits it in one transaction, so a
confirmation may come twice, late or to another replica, and one that was cut off is repeated by its provider. While
PAYMENTS_ENABLED is false nothing of this is here.
"""

import asyncio
import hashlib
import json
import logging
import os
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, assert_never

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, StrictInt, StringConstraints

from runtime.errors import (
    ConflictError,
    MasterbuilderError,
    NotFoundError,
    PaymentError,
    QuarantinedError,
    UnavailableError,
)
from runtime.ids import UserId
from runtime.ledger.money import credits_exact
from runtime.ledger.port import NewOrder, Order, OrderId, OrderRefund, Payment, PaymentLine, StarsPayment
from runtime.ledger.stars import CHARACTERS_MAX
from runtime.payments.port import Confirmation
from runtime.payments.products import PRODUCTS, more_credits, product_of
from runtime.payments.providers import Payments
from runtime.payments.secrets import PaymentSecrets
from runtime.payments.stars import CURRENCY, payload_of, product_named
from runtime.payments.terms import parse_providers
from serve_apps.auth import Admin, TheSystem, User, check_bot
from serve_apps.bodies import Body, Words, idempotency_key, read_body, read_bytes
from serve_apps.system import System
from serve_apps.wallet_routes import topped_up

BODY_BYTES_MAX = 64 << 10
ORDER = re.compile(r"ord-[0-9a-f]{32}")
CREDITED = "The payment is credited."
logger = logging.getLogger("masterbuilder.http")


async def payments_of(system: TheSystem) -> Payments:
    """Raises NotFoundError while payments are off."""
    settings = system.settings
    if not settings.payments_enabled:
        raise NotFoundError("Credits are not sold here.", more_credits(False))
    return Payments(
        parse_providers(settings.payment_providers_json), PaymentSecrets(settings.data_dir, os.environ)
    )  # fmt: skip


ThePayments = Annotated[Payments, Depends(payments_of)]
router = APIRouter(prefix="/api/v1", dependencies=[Depends(payments_of)])
"""Whether payments are on comes before everything else: while they are off no address tells that it could be one."""


class OrderBody(Body):
    product: Annotated[Words, StringConstraints(max_length=100)]


class CompleteBody(Body):
    """What Telegram says of a payment, by its own names, and whose it is."""

    user: Annotated[Words, StringConstraints(max_length=200, pattern=r"^[^/\s]+$")]
    telegram_payment_charge_id: Annotated[Words, StringConstraints(max_length=CHARACTERS_MAX)]
    provider_payment_charge_id: Annotated[str, StringConstraints(max_length=CHARACTERS_MAX)] = ""
    invoice_payload: Annotated[str, StringConstraints(max_length=200)]
    total_amount: StrictInt
    currency: Annotated[Words, StringConstraints(max_length=10)]
    paid_at: AwareDatetime | None = None
    """When Telegram took it; now where it is not given."""


class StarsRefundBody(Body):
    charge_id: Annotated[Words, StringConstraints(max_length=CHARACTERS_MAX)]
    reason: Annotated[Words, StringConstraints(max_length=500)]


@router.get("/products")
async def products(payments: ThePayments, user: User) -> JSONResponse:
    """What can be bought, and at which providers."""
    return JSONResponse({"products": _products(), "providers": list(payments.ids)})


@router.get("/payments/products")
async def star_products(user: User) -> JSONResponse:
    """What can be paid with Stars, and what an invoice for it says."""
    told = [{**each, "currency": CURRENCY, "payload": payload_of(PRODUCTS[each["id"]])} for each in _products()]
    return JSONResponse({"products": told})


@router.post("/payments/complete", dependencies=[Depends(check_bot)])
async def complete(request: Request, system: TheSystem) -> JSONResponse:
    """The bot says that Stars were taken. It may say so again: a charge counts once.

    Raises PaymentError where they bought nothing; that is on record then, and the operator is alerted.
    """
    body = await read_body(request, CompleteBody, BODY_BYTES_MAX)
    payment = await system.ledger.fulfil(
        StarsPayment(
            telegram_charge_id=body.telegram_payment_charge_id,
            provider_charge_id=body.provider_payment_charge_id,
            user=UserId(body.user),
            product=product_named(body.invoice_payload),
            stars=body.total_amount,
            currency=body.currency,
            at=body.paid_at or datetime.now(UTC),
        )
    )
    if payment.status == "failed":
        _log("payment_failed", payment=payment.paid.telegram_charge_id, reason=payment.failure)
        raise PaymentError(
            f"The payment {payment.paid.telegram_charge_id} was taken and nothing could be credited: {payment.failure}",
            "The operator is alerted and gives the Stars back.",
            f"{payment.paid.stars} {payment.paid.currency} were taken.",
        )
    if payment.status == "completed":
        await _tell(system, payment.paid.user)
    subscription = await system.ledger.subscription(payment.paid.user)
    return JSONResponse(
        {
            "telegram_payment_charge_id": payment.paid.telegram_charge_id,
            "user": payment.paid.user,
            "product": payment.paid.product,
            "status": payment.status,
            "credits": credits_exact(payment.ucredits),
            "days": payment.days,
            "expires_at": subscription.expires_at.isoformat() if subscription is not None else None,
        }
    )


@router.get("/payments/history")
async def history(system: TheSystem, user: User) -> JSONResponse:
    """One's own payments and orders, newest first, also those that failed or were paid back."""
    return JSONResponse({"payments": [_line(each) for each in await system.ledger.payments_of(user.user)]})


@router.post("/admin/payments/refunds")
async def refund_stars(request: Request, system: TheSystem, admin: Admin) -> JSONResponse:
    """Takes back what a payment with Stars bought, once for ever. Telegram is asked next, by whoever speaks with it:
    `telegram` says for what, and `told` whether that was done."""
    body = await read_body(request, StarsRefundBody, BODY_BYTES_MAX)
    refund = await system.ledger.refund_stars(body.charge_id, body.reason, admin.user)
    return JSONResponse(
        {
            "charge_id": refund.telegram_charge_id,
            "user": refund.user,
            "stars": refund.stars,
            "taken_credits": credits_exact(refund.taken_ucredits),
            "taken_days": round(refund.taken / timedelta(days=1), 3),
            "telegram": {"method": "refundStarPayment", "telegram_payment_charge_id": refund.telegram_charge_id},
            "told": refund.told_at is not None,
        }
    )


@router.post("/payments/{provider}/orders")
async def open_order(
    provider: str, request: Request, system: TheSystem, payments: ThePayments, user: User
) -> JSONResponse:
    """Answers where to pay. With an Idempotency-Key a repeat is the same order."""
    service = await asyncio.to_thread(payments.provider, provider)
    product = product_of((await read_body(request, OrderBody, BODY_BYTES_MAX)).product)
    order = await system.ledger.open_order(
        NewOrder(
            id=_order_id(user.user, idempotency_key(request, "order")),
            user=user.user,
            provider=service.id,
            product=product.id,
            ucredits=product.ucredits,
            amount_minor=product.amount_minor(service.currency),
            currency=service.currency,
            paid_pusd=product.worth_pusd,
            days=product.days,
        )
    )
    is_to_pay = order.state in ("pending", "failed")
    checkout_url = (await service.create(order)).url if is_to_pay else None
    return JSONResponse({**_told(order), "checkout_url": checkout_url}, 201)


@router.get("/payments/orders/{order}")
async def show_order(order: str, system: TheSystem, user: User) -> JSONResponse:
    """An order of one's own; another's is as one that is not there."""
    found = await system.ledger.order(OrderId(order)) if ORDER.fullmatch(order) else None
    if found is None or found.user != user.user:
        raise NotFoundError("You have no order with this id.", "It stands in the answer that made the order.")
    return JSONResponse(_told(found))


@router.post("/payments/{provider}/webhook")
async def webhook(provider: str, request: Request, system: TheSystem, payments: ThePayments) -> JSONResponse:
    """`credited` says that the order's credits are in the wallet, now or since an earlier confirmation."""
    service = await asyncio.to_thread(payments.provider, provider)
    body = await read_bytes(request, BODY_BYTES_MAX)
    told = service.confirmation(request.headers, body)
    if told is None:
        return JSONResponse({"credited": False})
    try:
        order = await _book(system, service.id, told)
    except (ConflictError, NotFoundError) as error:
        _log("payment_refused", provider=service.id, order=told.order, payment=told.external_id, reason=error.message)
        raise
    credited = told.event == "paid" and order is not None and order.state == "completed"
    if credited and order is not None:
        await _tell(system, order.user)
    return JSONResponse({"credited": credited})


async def _book(system: System, provider: str, told: Confirmation) -> Order | None:
    """The order as it is then, where it matters."""
    match told.event:
        case "paid":
            paid = Payment(
                order=told.order,
                provider=provider,
                external_id=told.external_id,
                product=told.product,
                amount_minor=told.amount_minor,
                currency=told.currency,
                user=told.user,
            )
            return await system.ledger.complete_order(paid)
        case "failed":
            return await system.ledger.fail_order(told.order, provider)
        case "refunded":
            refund = OrderRefund(
                order=told.order,
                provider=provider,
                external_id=told.external_id,
                amount_minor=told.amount_minor,
                currency=told.currency,
                reason=told.reason,
            )
            await system.ledger.refund_order(refund)
            return None
        case _:
            assert_never(told.event)


async def _tell(system: System, user: UserId) -> None:
    """Once more with every repeat of a confirmation. Raises UnavailableError where a repeat may reach the session."""
    try:
        await topped_up(system, user)
    except QuarantinedError as error:
        _log("top_up_untold", user=user, reason=error.message)
    except UnavailableError as error:
        raise UnavailableError(
            f"What waits for these credits could not be told: {error.message}", "Send it again.", CREDITED
        ) from error
    except MasterbuilderError as error:
        _log("top_up_untold", user=user, reason=error.message)


def _products() -> list[dict[str, Any]]:
    return [
        {
            "id": each.id,
            "credits": each.credits,
            "days": each.days,
            "price_usd_cents": each.usd_cents,
            "price_stars": each.stars,
        }
        for each in PRODUCTS.values()
    ]


def _line(line: PaymentLine) -> dict[str, Any]:
    return {
        "provider": line.provider,
        "external_id": line.external_id,
        "product": line.product,
        "credits": credits_exact(line.ucredits),
        "days": line.days,
        "amount_minor": line.amount_minor,
        "currency": line.currency,
        "status": line.status,
        "failure": line.failure or None,
        "at": line.at.isoformat(),
        "expires_at": line.expires_at.isoformat() if line.expires_at is not None else None,
    }


def _order_id(user: UserId, key: str) -> OrderId:
    """The same for the same user and key."""
    digest = hashlib.sha256(f"{user} {key}".encode()).hexdigest()
    return OrderId(f"ord-{digest[:32]}")


def _told(order: Order) -> dict[str, Any]:
    return {
        "order": order.id,
        "state": order.state,
        "provider": order.provider,
        "product": order.product,
        "credits": credits_exact(order.ucredits),
        "amount_minor": order.amount_minor,
        "currency": order.currency,
        "external_id": order.external_id,
        "created_at": order.created_at.isoformat(),
        "completed_at": order.completed_at.isoformat() if order.completed_at else None,
    }


def _log(event: str, **facts: str) -> None:
    logger.warning(json.dumps({"at": datetime.now(UTC).isoformat(), "event": event, **facts}))

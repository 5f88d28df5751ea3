"""The part of the HTTP door that sells credits: what there is, orders, and the webhooks that say what was paid.

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
from datetime import UTC, datetime
from typing import Annotated, Any, assert_never

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import StringConstraints

from runtime.errors import ConflictError, MasterbuilderError, NotFoundError, QuarantinedError, UnavailableError
from runtime.ids import UserId
from runtime.ledger.money import credits_exact
from runtime.ledger.port import NewOrder, Order, OrderId, OrderRefund, Payment
from runtime.payments.port import Confirmation
from runtime.payments.products import PRODUCTS, more_credits, product_of
from runtime.payments.providers import Payments
from runtime.payments.secrets import PaymentSecrets
from runtime.payments.terms import parse_providers
from serve_apps.auth import TheSystem, User
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


@router.get("/products")
async def products(payments: ThePayments, user: User) -> JSONResponse:
    """What can be bought, and at which providers."""
    told = [
        {"id": each.id, "credits": each.credits, "price_usd_cents": each.usd_cents, "price_stars": each.stars}
        for each in PRODUCTS.values()
    ]
    return JSONResponse({"products": told, "providers": list(payments.ids)})


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

"""Plays a payment provider: the hosted page, and the signed webhook after it, with its faults.

GET /pay shows the page that an order's checkout address opens; POST /pay/confirm with the same query and `fault` sends
what the provider would, and answers what the service said to each delivery.
"""

import html
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Any
from urllib.parse import urlencode

from aiohttp import ClientError, ClientSession, ClientTimeout, web

from cluster.environment import PAYMENT_SECRET_VARIABLE
from cluster.simulator.refusal import Refusal
from runtime.payments.signed import CHECKOUT_FIELDS, TOLERANCE_S, checkout_signature, parse_secret, webhook_header

DELIVERY_S_MAX = 30.0
FAULTS: Mapping[str, str] = {
    "": "Pay",
    "twice": "Pay, and confirm it twice",
    "late": "Pay, and confirm it with an old signature",
    "wrong_signature": "Pay, and sign the confirmation wrongly",
    "wrong_amount": "Pay less than was asked",
    "failed": "Fail",
    "refunded": "Pay it back",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentSetup:
    """`webhook_url` is the service's: `http://127.0.0.1:8000/api/v1/payments/<provider>/webhook`."""

    webhook_url: str
    secret: bytes = field(repr=False)


def payment_setup(webhook_url: str | None, environment: Mapping[str, str]) -> PaymentSetup | None:
    """None without an address. Raises BadInputError for a secret that is none."""
    if not webhook_url:
        return None
    return PaymentSetup(
        webhook_url=webhook_url,
        secret=parse_secret(environment.get(PAYMENT_SECRET_VARIABLE, ""), PAYMENT_SECRET_VARIABLE),
    )  # fmt: skip


class PaymentPage:
    def __init__(self, setup: PaymentSetup) -> None:
        self._setup = setup

    def add_to(self, application: web.Application) -> None:
        application.router.add_get("/pay", self._show)
        application.router.add_post("/pay/confirm", self._confirm)

    async def _show(self, request: web.Request) -> web.Response:
        order = self._order(request)
        text = html.escape(f"{order['product']}: {order['amount_minor']} {order['currency']} (smallest unit)")
        buttons = "".join(
            f'<form method="post" action="/pay/confirm?{html.escape(urlencode({**request.query, "fault": fault}))}">'
            f"<button>{label}</button></form>"
            for fault, label in FAULTS.items()
        )
        page = f"<!doctype html><title>Simulated payment</title><h1>Simulated payment</h1><p>{text}</p>{buttons}"
        return web.Response(text=page, content_type="text/html")

    async def _confirm(self, request: web.Request) -> web.Response:
        order, fault = self._order(request), request.query.get("fault", "")
        if fault not in FAULTS:
            raise Refusal(400, f"fault is one of: {', '.join(filter(None, FAULTS))}.", param="fault")
        body, headers = self._webhook(order, fault)
        deliveries = [await self._deliver(body, headers) for _ in range(2 if fault == "twice" else 1)]
        return web.json_response({"deliveries": deliveries})

    def _order(self, request: web.Request) -> dict[str, str]:
        """What the checkout address says. Raises Refusal where its signature does not fit."""
        order = {name: request.query.get(name, "") for name in CHECKOUT_FIELDS}
        signature = request.query.get("signature", "")
        expected = checkout_signature(self._setup.secret, order)
        if not compare_digest(expected.encode(), signature.encode()):
            raise Refusal(403, "The signature of this payment address does not fit.", param="signature")
        return order

    def _webhook(self, order: Mapping[str, str], fault: str) -> tuple[bytes, dict[str, str]]:
        event = fault if fault in ("failed", "refunded") else "paid"
        amount_minor = int(order["amount_minor"]) - (fault == "wrong_amount")
        # The same order is the same payment, however often its page is used.
        external_id = f"sim-{uuid.uuid5(uuid.NAMESPACE_URL, order['order'])}"
        told = {**order, "event": event, "external_id": external_id, "amount_minor": amount_minor}
        body = json.dumps(told).encode()
        signed_at_s = int(time.time()) - (2 * TOLERANCE_S if fault == "late" else 0)
        secret = b"not the secret" if fault == "wrong_signature" else self._setup.secret
        return body, {"Content-Type": "application/json", "X-Signature": webhook_header(secret, signed_at_s, body)}

    async def _deliver(self, body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        try:
            async with (
                ClientSession(timeout=ClientTimeout(total=DELIVERY_S_MAX)) as client,
                client.post(self._setup.webhook_url, data=body, headers=headers) as answer,
            ):
                return {"status": answer.status, "body": await answer.text()}
        except (ClientError, TimeoutError) as error:
            return {"status": None, "body": f"The service did not answer: {type(error).__name__}."}

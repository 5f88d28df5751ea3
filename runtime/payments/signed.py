"""A provider with a hosted payment page, spoken to by signed addresses and signed webhooks.

The page is opened with the order in its query and `signature`, the HMAC-SHA256 of that query. What became of the
order is posted to us as JSON, under a header

    X-Signature: t=<seconds since 1970>,v1=<hex of HMAC-SHA256 over "<t>.<body>">

Several `v1` may be given, as while the other side changes its secret. Source: RFC 2104; the header is Stripe's scheme
(https://docs.stripe.com/webhooks#verify-manually), which many providers share.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Literal
from urllib.parse import urlencode, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runtime.errors import BadInputError, NotAuthenticatedError
from runtime.ids import UserId
from runtime.ledger.port import Order, OrderId
from runtime.payments.port import Checkout, Confirmation
from runtime.payments.products import Currency
from runtime.validation import problems

HEADER = "x-signature"
HEADER_CHARACTERS_MAX = 1_000
TOLERANCE_S = 300
SECRET_CHARACTERS_MIN = 32
CHECKOUT_FIELDS = ("order", "product", "amount_minor", "currency")
NOT_CREDITED = "No credits were booked."
_SIGN = "Sign `<t>.<body>` with HMAC-SHA256 and the agreed secret, and send it as `X-Signature: t=...,v1=...`."
_PLACEHOLDER = re.compile(
    r"change.?me|placeholder|example|your.?secret|replace.?me|^(.{1,8})\1+$|^<.*>$", re.IGNORECASE
)
_TIME = re.compile(r"t=([0-9]{1,12})")
_MAC = re.compile(r"v1=([0-9a-f]{64})")


class SignedPage:
    """Implements `runtime.payments.port.PaymentProvider`. `clock` tells seconds since 1970."""

    currency: Currency = "USD"

    def __init__(self, *, id: str, page_url: str, secret: bytes, clock: Callable[[], float]) -> None:
        self.id = id
        self._page_url = page_url
        self._secret = secret
        self._clock = clock

    def __repr__(self) -> str:
        return f"SignedPage({self.id})"

    async def create(self, order: Order) -> Checkout:
        """Asks nobody: the address says it all."""
        fields = {
            "order": order.id,
            "product": order.product,
            "amount_minor": str(order.amount_minor),
            "currency": order.currency,
        }
        signed = urlencode({**fields, "signature": checkout_signature(self._secret, fields)})
        return Checkout(url=f"{self._page_url}{'&' if urlsplit(self._page_url).query else '?'}{signed}")

    def confirmation(self, headers: Mapping[str, str], body: bytes) -> Confirmation | None:
        self._authenticate(headers.get(HEADER, ""), body)
        try:
            event = _Event.model_validate_json(body)
            if event.event not in ("paid", "failed", "refunded"):
                return None
            told = _Told.model_validate_json(body)
        except ValidationError as error:
            where, what = problems(error)[0]
            raise BadInputError(
                f"The webhook does not fit: {where or 'it'}: {what}.", "Correct it and send it again.", NOT_CREDITED
            ) from None
        return Confirmation(
            event=told.event,
            order=OrderId(told.order),
            external_id=told.external_id,
            product=told.product,
            amount_minor=told.amount_minor,
            currency=told.currency,
            user=None if told.user is None else UserId(told.user),
            reason=told.reason.strip() or told.event,
        )

    def _authenticate(self, header: str, body: bytes) -> None:
        """Raises NotAuthenticatedError. That a signature is stale is told only to who could make it."""
        if not header:
            raise NotAuthenticatedError("The webhook is not signed.", _SIGN, NOT_CREDITED)
        parts = [part.strip() for part in header[:HEADER_CHARACTERS_MAX].split(",")]
        times = [found[1] for part in parts if (found := _TIME.fullmatch(part))]
        macs = [found[1] for part in parts if (found := _MAC.fullmatch(part))]
        if len(header) > HEADER_CHARACTERS_MAX or len(times) != 1 or not macs:
            raise NotAuthenticatedError("The webhook's signature is malformed.", _SIGN, NOT_CREDITED)
        expected = webhook_mac(self._secret, times[0], body)
        if not any(hmac.compare_digest(expected, mac) for mac in macs):
            raise NotAuthenticatedError("The webhook's signature does not fit.", _SIGN, NOT_CREDITED)
        if abs(self._clock() - int(times[0])) > TOLERANCE_S:
            raise NotAuthenticatedError(
                f"The webhook was not signed within {TOLERANCE_S} seconds.", "Sign it anew and send it.", NOT_CREDITED
            )


class _Event(BaseModel):
    """What every webhook tells; more may be there."""

    model_config = ConfigDict(extra="ignore", strict=True)

    event: Annotated[str, Field(max_length=100)]


class _Told(_Event):
    event: Literal["paid", "failed", "refunded"]
    order: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,200}$")]
    external_id: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,200}$")]
    product: Annotated[str, Field(min_length=1, max_length=100)]
    amount_minor: Annotated[int, Field(ge=0, le=10**15)]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    user: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    reason: Annotated[str, Field(max_length=500)] = ""


def webhook_mac(secret: bytes, time_s: str, body: bytes) -> str:
    return hmac.new(secret, time_s.encode() + b"." + body, hashlib.sha256).hexdigest()


def webhook_header(secret: bytes, time_s: int, body: bytes) -> str:
    """What the provider sends as X-Signature."""
    return f"t={time_s},v1={webhook_mac(secret, str(time_s), body)}"


def checkout_signature(secret: bytes, fields: Mapping[str, str]) -> str:
    """Of CHECKOUT_FIELDS, in their order. What is signed begins with a word, a webhook with a number, so that neither
    signature passes for the other."""
    query = urlencode([(name, fields[name]) for name in CHECKOUT_FIELDS])
    return hmac.new(secret, b"checkout." + query.encode(), hashlib.sha256).hexdigest()


def parse_secret(text: str, name: str) -> bytes:
    """Raises BadInputError, without showing it, for one that is short or a placeholder."""
    secret = text.strip()
    if len(secret) < SECRET_CHARACTERS_MIN or len(set(secret)) < 8 or _PLACEHOLDER.search(secret):
        raise BadInputError(
            f"{name} is no secret: it must be at least {SECRET_CHARACTERS_MIN} random characters.",
            f"Make one with `openssl rand -hex 32`, give it to the payment page, and `export {name}=...`.",
        )
    return secret.encode()

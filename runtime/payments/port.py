"""What a payment provider must be able to do: show the payer a page of its own, and confirm what was paid there.

No card data ever reaches the product: the page is the provider's. Source: spec/builder.md §9.7.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from runtime.ids import UserId
from runtime.ledger.port import Order, OrderId
from runtime.payments.products import Currency


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """Where the payer pays."""

    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """What became of an order, as its provider vouches for it. It may come late, twice, and in any order."""

    event: Literal["paid", "failed", "refunded"]
    order: OrderId
    external_id: str
    """The provider's own name for the payment, the same in all that is said of it."""
    product: str
    amount_minor: int
    currency: str
    user: UserId | None
    """None where the provider does not tell who paid."""
    reason: str


class PaymentProvider(Protocol):
    @property
    def id(self) -> str:
        """As it stands in its webhook's address."""

    @property
    def currency(self) -> Currency:
        """What it is paid in."""

    async def create(self, order: Order) -> Checkout:
        """Repeating an order is the same checkout, or another of which only one can complete it. Raises
        UnavailableError when the provider does not answer; the order stays pending."""

    def confirmation(self, headers: Mapping[str, str], body: bytes) -> Confirmation | None:
        """Reads a webhook; `headers` by their names in small letters. None for what concerns no order.

        Raises NotAuthenticatedError for a signature that is missing, forged or stale, BadInputError for what is signed
        and makes no sense.
        """

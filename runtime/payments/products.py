"""What can be bought. Source: spec/assistant.md §15; a Star is sold for about two cents."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, assert_never

from runtime.errors import NotFoundError
from runtime.ledger.money import PUSD_PER_USD, UCREDITS_PER_CREDIT

Currency = Literal["USD", "XTR"]
"""XTR are Telegram's Stars."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """`usd_cents` is what it is booked as in the profit report, however it is paid."""

    id: str
    credits: int
    usd_cents: int
    stars: int
    days: int = 0
    """Of the role FULL_ACCESS; 0 for credits alone."""

    @property
    def ucredits(self) -> int:
        return self.credits * UCREDITS_PER_CREDIT

    @property
    def worth_pusd(self) -> int:
        """In picodollars, whatever it is paid in."""
        return self.usd_cents * PUSD_PER_USD // 100

    def amount_minor(self, currency: Currency) -> int:
        """The price in the currency's smallest unit: cents, or whole Stars."""
        match currency:
            case "USD":
                return self.usd_cents
            case "XTR":
                return self.stars
            case _:
                assert_never(currency)


PRODUCTS: Mapping[str, Product] = {
    product.id: product
    for product in (
        Product(id="full_access_monthly", credits=1_000, usd_cents=1_000, stars=500, days=30),
        Product(id="credits_100", credits=100, usd_cents=100, stars=50),
        Product(id="credits_500", credits=500, usd_cents=400, stars=200),
        Product(id="credits_1000", credits=1_000, usd_cents=700, stars=350),
    )
}


def product_of(id: str) -> Product:
    """Raises NotFoundError."""
    if id not in PRODUCTS:
        raise NotFoundError(f"There is no product {id[:60]!r}.", f"Choose one of: {', '.join(PRODUCTS)}.")
    return PRODUCTS[id]


def more_credits(payments_enabled: bool) -> str:
    """What to tell somebody who needs more. Source: DESIGN §11, Purchases off."""
    return "Buy credits: GET /api/v1/products lists them." if payments_enabled else "Ask the operator for credits."

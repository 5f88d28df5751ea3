"""What an invoice in Telegram's Stars says, and how it is read back.

An invoice has currency XTR, an empty provider token, one price line, and the payload `product:<id>`; there is no order
of ours behind it. Source: spec/assistant.md §15; https://core.telegram.org/bots/payments-stars
"""

from runtime.payments.products import Currency, Product

PROVIDER = "telegram"
"""As purchases name it. No provider of an operator may have this id."""
CURRENCY: Currency = "XTR"
_PREFIX = "product:"


def payload_of(product: Product) -> str:
    return f"{_PREFIX}{product.id}"


def product_named(payload: str) -> str:
    """The product's id. A payload that is none of ours is given back behind a question mark: as such no product has it,
    and a payment that was taken for it is still booked, as failed."""
    return payload.removeprefix(_PREFIX) if payload.startswith(_PREFIX) else f"?{payload}"

"""Money in integers.

USD is kept in **picodollars**: a price in micro-dollars per million tokens times a number of tokens is exactly
that many picodollars, so cost never rounds. Credits are kept in **microcredits**. The one rounding, half to even,
is where a cost becomes credits. Source: DESIGN §4, spec/builder.md §9.
"""

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

PUSD_PER_USD = 10**12
PUSD_PER_UDOLLAR = 10**6
UCREDITS_PER_CREDIT = 10**6


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """How USD becomes credits: `markup` as a ratio of two integers, `credit_value_pusd` as the price of 1 credit."""

    credit_value_pusd: int = PUSD_PER_USD // 100
    markup_numerator: int = 3
    markup_denominator: int = 2

    def credits_for(self, cost_pusd: int) -> int:
        """Microcredits to charge for a cost in picodollars, rounded half to even."""
        numerator = cost_pusd * self.markup_numerator * UCREDITS_PER_CREDIT
        return divide_half_even(numerator, self.markup_denominator * self.credit_value_pusd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What one model costs, in micro-dollars per million tokens and per picture that it is shown, beside its tokens."""

    pricing_id: str
    input_udollars_per_mtok: int
    output_udollars_per_mtok: int
    image_udollars: int = 0

    def cost_pusd(self, input_tokens: int, output_tokens: int, images: int = 0) -> int:
        """Exact cost in picodollars."""
        tokens = input_tokens * self.input_udollars_per_mtok + output_tokens * self.output_udollars_per_mtok
        return tokens + images * self.image_udollars * PUSD_PER_UDOLLAR


def divide_half_even(numerator: int, denominator: int) -> int:
    """`numerator / denominator` rounded half to even, for a numerator of either sign, without floats."""
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient % 2 == 1):
        quotient += 1
    return quotient


def usd_text(amount_pusd: int) -> str:
    """Dollars with 6 decimals, as people are shown them: `0.450000`."""
    return str((Decimal(amount_pusd) / PUSD_PER_USD).quantize(Decimal("0.000001"), ROUND_HALF_EVEN))


def credits_exact(amount_ucredits: int) -> str:
    """Credits with as many decimals as they have, at least 2: `0.0021`, `67.50`."""
    sign, amount = ("-", -amount_ucredits) if amount_ucredits < 0 else ("", amount_ucredits)
    whole, part = divmod(amount, UCREDITS_PER_CREDIT)
    return f"{sign}{whole}.{f'{part:06d}'.rstrip('0').ljust(2, '0')}"


def credits_text(amount_ucredits: int) -> str:
    """Credits with 2 decimals, as people are shown them: `67.50`."""
    return str((Decimal(amount_ucredits) / UCREDITS_PER_CREDIT).quantize(Decimal("0.01"), ROUND_HALF_EVEN))

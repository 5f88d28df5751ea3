"""Costs and charges against rational arithmetic: exact, and rounded once. `make nightly` tries ten million."""

import os
import random
from fractions import Fraction

from runtime.ledger.money import PUSD_PER_USD, UCREDITS_PER_CREDIT, Price, Tariff

TRIPLES = 10_000_000 if os.environ.get("NIGHTLY") else 20_000
SCALES = (1, 100, 10_000, 10**6, 10**9)
MARKUPS = ((3, 2), (1, 1), (2, 1), (13, 10), (1, 3), (7, 3), (0, 1))
VALUES_PUSD = (PUSD_PER_USD // 100, PUSD_PER_USD // 1_000, 3_333_333_333, 1)


def test_charges__are_rational_arithmetic_rounded_half_to_even_once() -> None:
    dice = random.Random(5)
    for _ in range(TRIPLES):
        tokens, images = (dice.randrange(dice.choice(SCALES)), dice.randrange(dice.choice(SCALES))), dice.randrange(3)
        prices = dice.randrange(dice.choice(SCALES)), dice.randrange(dice.choice(SCALES)), dice.randrange(10_000)
        markup, value_pusd = dice.choice(MARKUPS), dice.choice(VALUES_PUSD)
        price = Price(
            pricing_id="p",
            input_udollars_per_mtok=prices[0],
            output_udollars_per_mtok=prices[1],
            image_udollars=prices[2],
        )
        tariff = Tariff(credit_value_pusd=value_pusd, markup_numerator=markup[0], markup_denominator=markup[1])
        cost_pusd = price.cost_pusd(*tokens, images)

        per_token = [Fraction(each, 10**6 * 10**6) for each in prices[:2]]
        usd = tokens[0] * per_token[0] + tokens[1] * per_token[1] + images * Fraction(prices[2], 10**6)
        assert Fraction(cost_pusd, PUSD_PER_USD) == usd
        credits = usd / Fraction(value_pusd, PUSD_PER_USD) * Fraction(*markup)
        assert tariff.credits_for(cost_pusd) == round(credits * UCREDITS_PER_CREDIT)

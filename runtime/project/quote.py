"""What a build will about cost, said before it starts."""

from decimal import Decimal

from runtime.catalogue.catalogue import Catalogue
from runtime.config import Settings
from runtime.ledger.money import UCREDITS_PER_CREDIT, Price, Tariff

ARCHITECT_CALLS = 12
"""Interview, requirements, stack, architecture, plan, three documents, README, four verifications."""
CHANGE_CALLS = 6
"""Of the architect for a change: its plan, a verification, the final review, two documents, README."""
ARCHITECT_TOKENS = (4_000, 1_500)
IMPLEMENTER_TOKENS = (6_000, 1_500)
TASKS_LEAST = 6
ATTEMPTS_PER_TASK = (13, 10)
"""Three tasks in ten need a second attempt."""


def quote_ucredits(scope: str, architect: Price, implementer: Price, tariff: Tariff) -> int:
    """Microcredits, rounded up to a whole credit; at least one credit, unless both models are free.

    The number of tasks is guessed from the scope's length: a task for every 25 words, and at least six. The token
    figures are of the same order as the demo's receipt; the ceiling, not the quote, is what protects the user.
    """
    tasks = max(TASKS_LEAST, len(scope.split()) // 25)
    attempts = tasks * ATTEMPTS_PER_TASK[0] // ATTEMPTS_PER_TASK[1]
    architect_calls = ARCHITECT_CALLS + tasks // 5
    return _whole_credits(architect_calls, attempts, architect, implementer, tariff)


def change_quote_ucredits(tasks: int, architect: Price, implementer: Price, tariff: Tariff) -> int:
    """What so many tasks more will about cost, with their verification and the documents that are written again."""
    attempts = -(-tasks * ATTEMPTS_PER_TASK[0] // ATTEMPTS_PER_TASK[1])
    return _whole_credits(CHANGE_CALLS + tasks // 5, attempts, architect, implementer, tariff)


def prices_of(settings: Settings, catalogue: Catalogue) -> tuple[Price, Price]:
    """Of the architect's model and of the implementer's."""
    return _price(settings.architect_model, catalogue), _price(settings.implementer_model, catalogue)


def ceiling_of(quote: int, factor: Decimal) -> int:
    """Where work stops that was quoted at so many microcredits, rounded up."""
    numerator, denominator = factor.as_integer_ratio()
    return -(-quote * numerator // denominator)


def _price(model: str, catalogue: Catalogue) -> Price:
    provider, _, name = model.partition("/")
    return catalogue.price(provider, name)


def _whole_credits(calls: int, attempts: int, architect: Price, implementer: Price, tariff: Tariff) -> int:
    cost = calls * architect.cost_pusd(*ARCHITECT_TOKENS) + attempts * implementer.cost_pusd(*IMPLEMENTER_TOKENS)
    whole = -(-tariff.credits_for(cost) // UCREDITS_PER_CREDIT)
    return whole * UCREDITS_PER_CREDIT

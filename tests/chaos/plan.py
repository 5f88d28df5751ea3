"""What the load sends: message number n of a seed is always the same, so a log of numbers says everything."""

import random
from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from runtime.ids import EntityId
from runtime.testing.probes import Increment, Remind, Transfer, account_entity, counter_entity

COUNTERS = [counter_entity(f"chaos-{number}") for number in range(200)]
ACCOUNTS = [account_entity(f"chaos-{number}") for number in range(40)]
OPENING = 1_000
"""What every account begins with."""

_TRANSFERS, _REMINDERS = 0.25, 0.03
_AMOUNT_MAX = 60
_REMIND_S_MAX = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    number: int
    entity: EntityId
    message: Increment | Transfer | Remind


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What must stand there when every message has had its answer, and only those count that were accepted."""

    totals: dict[EntityId, int]
    reminded: dict[EntityId, int]
    balances: dict[EntityId, int]


def planned(seed: int, number: int) -> Planned:
    dice = random.Random(f"{seed}/{number}")
    key = f"{seed}/{number}"
    kind = dice.random()
    if kind < _TRANSFERS:
        source, target = dice.sample(ACCOUNTS, 2)
        return Planned(
            number=number, entity=source, message=Transfer(key=key, to=target, amount=dice.randint(1, _AMOUNT_MAX))
        )
    # Some counters are asked far more often than others, so that messages wait for each other.
    counter = COUNTERS[int(len(COUNTERS) * dice.random() ** 3)]
    if kind < _TRANSFERS + _REMINDERS:
        remind = Remind(key=key, name=f"r{number}", after_s=dice.uniform(0.0, _REMIND_S_MAX))
        return Planned(number=number, entity=counter, message=remind)
    return Planned(number=number, entity=counter, message=Increment(key=key, amount=dice.randint(1, 9)))


def expected(accepted: Mapping[int, Iterable[int]]) -> Expected:
    """`accepted`: seed -> numbers of the messages that were acknowledged."""
    totals, reminded, moved = Tally[EntityId](), Tally[EntityId](), Tally[EntityId]()
    for each in (planned(seed, number) for seed, numbers in accepted.items() for number in numbers):
        match each.message:
            case Increment(amount=amount):
                totals[each.entity] += amount
            case Remind():
                reminded[each.entity] += 1
            case Transfer(to=to, amount=amount):
                moved[each.entity] -= amount
                moved[to] += amount
    return Expected(
        totals={entity: totals[entity] for entity in COUNTERS},
        reminded={entity: reminded[entity] for entity in COUNTERS},
        balances={entity: OPENING + moved[entity] for entity in ACCOUNTS},
    )

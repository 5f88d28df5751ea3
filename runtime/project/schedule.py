"""Which task comes next. Pure: a plan and what is under way in, an order out."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from runtime.project.schemas import Effort
from runtime.project.todo import Item, Todo

WEIGHTS: Mapping[Effort, int] = {"small": 1, "medium": 2, "large": 3}
"""About how long a task takes beside others."""


class Behind(NamedTuple):
    """What waits for an item; the more, the earlier it is begun."""

    chain: int
    """The efforts of the open items in the longest chain from it, its own included."""
    items: int
    """How many open items there are in all those chains, itself included."""


def behind(items: Sequence[Item]) -> Mapping[str, Behind]:
    """By item id; a closed one counts nothing.

    A chain goes from an item to those that depend on it. Wants a graph without cycles.
    """
    dependents: dict[str, list[Item]] = {item.id: [] for item in items}
    for item in items:
        for needed in item.depends:
            dependents[needed].append(item)
    chains: dict[str, int] = {}
    reached: dict[str, int] = {}
    """Sets of items, as the bits of a number."""
    own_bit = {item.id: 0 if item.closed else 1 << number for number, item in enumerate(items)}

    def settle(item: Item) -> None:
        longest = max((chains[each.id] for each in dependents[item.id]), default=0)
        chains[item.id] = longest + (0 if item.closed else WEIGHTS[item.effort])
        reached[item.id] = own_bit[item.id]
        for each in dependents[item.id]:
            reached[item.id] |= reached[each.id]

    waiting = {item.id: len(dependents[item.id]) for item in items}
    by_id = {item.id: item for item in items}
    ends = [item for item in items if not waiting[item.id]]
    while ends:
        item = ends.pop()
        settle(item)
        for needed in item.depends:
            waiting[needed] -= 1
            if not waiting[needed]:
                ends.append(by_id[needed])
    return {id: Behind(chain, reached[id].bit_count()) for id, chain in chains.items()}


def next_items(plan: Todo, phase: int, busy: Collection[str], soon: Collection[str] = ()) -> Sequence[Item]:
    """The phase's items that can be begun now, with those that wait only for what is closed `soon`.

    The one with the longest remaining chain by the plan's estimates is first, and among equals the one with the most
    items behind it; then the plan's order decides. The whole plan counts: what later phases wait for is begun early. No
    two that own the same file are worked on at once, so that nobody's change meets another's: of two only the first
    is here, and none that owns a file of one that is `busy`.
    """
    weights = behind(plan.items)
    taken = {path for item in plan.items if item.id in busy for path in item.files}
    chosen: list[Item] = []
    for item in sorted(plan.ready(phase, busy, soon), key=lambda item: weights[item.id], reverse=True):
        if taken.isdisjoint(item.files):
            chosen.append(item)
            taken.update(item.files)
    return chosen

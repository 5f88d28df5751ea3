import heapq
import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.project.schedule import behind, next_items
from runtime.project.schemas import Effort
from runtime.project.todo import Item, Todo


def item(
    number: int,
    *depends: int,
    phase: int = 1,
    files: tuple[str, ...] = (),
    done: bool = False,
    effort: Effort = "medium",
) -> Item:
    return Item(
        id=f"T-{number:03}",
        phase=phase,
        title="",
        detail="",
        depends=tuple(f"T-{each:03}" for each in depends),
        files=files or (f"f{number}",),
        requirements=(),
        tests=(),
        done=done,
        effort=effort,
    )


def plan(items: list[Item]) -> Todo:
    return Todo(phases=("one", "two"), items=tuple(items))


@st.composite
def plans(draw: st.DrawFn) -> list[Item]:
    size = draw(st.integers(1, 14))
    return [
        item(
            number,
            *draw(st.sets(st.integers(1, number - 1), max_size=3) if number > 1 else st.just(set())),
            files=(draw(st.sampled_from(["x", "y", ""])) or f"f{number}",),
            effort=draw(st.sampled_from(["small", "medium", "large"])),
        )
        for number in range(1, size + 1)
    ]


def longest(items: list[Item], of: Item) -> int:
    """By definition, slowly."""
    below = [longest(items, each) for each in items if of.id in each.depends]
    return max(below, default=0) + (0 if of.done else {"small": 1, "medium": 2, "large": 3}[of.effort])


def reached(items: list[Item], of: Item) -> set[str]:
    """By definition, slowly."""
    below = [reached(items, each) for each in items if of.id in each.depends]
    return set().union([of.id] if not of.done else [], *below)


@given(plans(), st.sets(st.integers(1, 14)))
@settings(max_examples=60, deadline=None)
def test_behind__is_the_longest_way_through_what_is_open_and_all_ways(items: list[Item], done: set[int]) -> None:
    items = [replace(each, done=int(each.id[2:]) in done) for each in items]
    assert behind(items) == {each.id: (longest(items, each), len(reached(items, each))) for each in items}


@given(plans(), st.integers(1, 4), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_plan__is_worked_off_whole_in_an_order_that_graph_and_files_allow(
    items: list[Item], workers: int, dice: random.Random
) -> None:
    running: list[Item] = []
    while any(not each.done for each in items):
        offered = next_items(plan(items), 1, [each.id for each in running])
        weights = behind(items)
        assert [weights[each.id] for each in offered] == sorted((weights[each.id] for each in offered), reverse=True)
        for each in offered[: workers - len(running)]:
            assert all(next(one for one in items if one.id == id).done for id in each.depends)
            assert all(set(each.files).isdisjoint(other.files) for other in running)
            running.append(each)
        assert running, "open items, and none can be begun"
        ended = running.pop(dice.randrange(len(running)))
        items = [replace(each, done=each.done or each.id == ended.id) for each in items]


def test_later_phase__waits_but_what_it_waits_for_comes_first() -> None:
    items = [item(1), item(2), item(3, 2, phase=2), item(4, 3, phase=2)]
    assert [each.id for each in next_items(plan(items), 1, ())] == ["T-002", "T-001"]


def test_of_equal_chains__the_one_that_more_wait_for_comes_first() -> None:
    items = [item(1), item(2), item(3, 1), item(4, 2), item(5, 2)]
    assert [each.id for each in next_items(plan(items), 1, ())] == ["T-002", "T-001"]


def test_chain__counts_what_its_tasks_are_estimated_at() -> None:
    items = [item(1, effort="small"), item(2, 1, effort="small"), item(3, effort="large"), item(4)]
    assert [each.id for each in next_items(plan(items), 1, ())] == ["T-003", "T-001", "T-004"]


def test_critical_path_first__is_near_the_bound_where_the_plans_order_is_not() -> None:
    """A long chain at the end of the plan, beside many short tasks."""
    items = [
        *(item(number) for number in range(1, 31)),
        *(item(n, *([n - 1] if n > 31 else [])) for n in range(31, 41)),
    ]
    assert makespan(items, workers=4, by_path=True) == 10
    assert makespan(items, workers=4, by_path=False) > 15


def makespan(items: list[Item], workers: int, *, by_path: bool) -> int:
    now = 0
    running: list[tuple[int, str]] = []
    while True:
        busy = [id for _, id in running]
        offered = next_items(plan(items), 1, busy)
        for each in (offered if by_path else sorted(offered, key=lambda each: each.id))[: workers - len(running)]:
            heapq.heappush(running, (now + 1, each.id))
        if not running:
            return now
        now, id = heapq.heappop(running)
        items = [replace(each, done=each.done or each.id == id) for each in items]

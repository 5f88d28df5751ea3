"""The builder's figures, from a build that is made up here: no service runs."""

from datetime import UTC, datetime, timedelta

import pytest

from cluster.simulator.synthetic_build import BuildOrder, parse_build
from cluster.wire import Event
from tests.bench.synthetic_builds import bounds, longest_wait_share, makespan_s, schedule_s, tasks_of

ORDER = parse_build("synthetic build tasks=12 seed=3 delay_ms=500..5000 width=3")


def perfect(order: BuildOrder, wait_s: float) -> list[Event]:
    """Every task begins when all it needs is merged, waits so long for a worker, and is merged at once."""
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    ends: dict[str, float] = {}
    events: list[Event] = []
    for task in order.graph():
        start = max((ends[each] for each in task.depends), default=0.0)
        ends[task.id] = start + wait_s + task.delay_s
        for type, at in (("task.started", start), ("task.checked", ends[task.id]), ("task.merged", ends[task.id])):
            moment = (begun + timedelta(seconds=at)).isoformat()
            events.append(Event(seq=len(events) + 1, type=type, at=moment, data={"task": task.id, "bundle": task.id}))
    return events


def test_build_that_waits_for_nothing__takes_as_long_as_its_critical_path() -> None:
    tasks = tasks_of(ORDER, perfect(ORDER, wait_s=0.0))
    least = bounds(ORDER, tasks, workers=12, cpu_s=1.0, cores=2)
    which, least_s = least.largest
    assert which == "critical path"
    assert least_s == pytest.approx(makespan_s(tasks), abs=0.01)
    assert bounds(ORDER, tasks, workers=1, cpu_s=1.0, cores=2).largest[0] == "work / workers"


def test_schedule_that_costs_nothing__takes_what_is_last_to_be_done() -> None:
    critical_path_s = makespan_s(tasks_of(ORDER, perfect(ORDER, wait_s=0.0)))
    assert schedule_s(ORDER, workers=12) == pytest.approx(critical_path_s, abs=0.01)
    assert schedule_s(ORDER, workers=1) == pytest.approx(sum(task.delay_s for task in ORDER.graph()))
    assert critical_path_s < schedule_s(ORDER, workers=2) < schedule_s(ORDER, workers=1)


def test_build_that_waits_three_times_as_long__is_found() -> None:
    builds = {str(wait): tasks_of(ORDER, perfect(ORDER, wait_s=wait)) for wait in (1.0, 1.0001, 3.0)}
    longest, share = longest_wait_share(builds)
    assert longest == "3.0"
    assert share == pytest.approx(9 / 5, abs=0.01)

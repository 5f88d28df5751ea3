"""The windows: what is counted is what arrived in the 60 s before, never more and never less."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.simulator.limits import Arrival, Limit
from cluster.simulator.refusal import Refusal
from cluster.simulator.traffic import Lane, Traffic, violations

RECORD = Limit(requests_per_minute=5, tokens_per_minute=50, enforce="record")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A call that arrives so long after the one before, and ends after so many later arrivals."""

    pause_s: float
    prompt: int
    completion: int
    ends_after: int


EVENTS = st.lists(
    st.builds(
        Event,
        pause_s=st.sampled_from([0.0, 0.5, 1.0, 20.0, 59.0, 59.5, 60.0, 61.0]),
        prompt=st.integers(0, 30),
        completion=st.integers(0, 30),
        ends_after=st.integers(0, 6),
    ),
    max_size=40,
)


def played(lane: Lane, events: Sequence[Event]) -> list[tuple[float, int, int, bool]]:
    """What every call was: when it arrived, its prompt, its answer, and whether it was let in.

    At each arrival, the lane's window is held against a count by hand over everything known by then.
    """
    now_s = 0.0
    known: list[tuple[float, int, int, bool]] = []
    open_calls: list[tuple[int, int, Arrival]] = []
    for index, event in enumerate(events):
        now_s += event.pause_s
        for due in [each for each in open_calls if each[0] <= index]:
            open_calls.remove(due)
            lane.used(due[2], events[due[1]].completion)
            lane.end(due[2], "served", 200)
            known[due[1]] = (*known[due[1]][:2], events[due[1]].completion, True)
        try:
            arrival = lane.arrive(now_s, None, "", event.prompt)
        except Refusal:
            known.append((now_s, event.prompt, 0, False))
        else:
            known.append((now_s, event.prompt, 0, True))
            open_calls.append((index + event.ends_after, index, arrival))
        in_window = [each for each in known if each[3] and now_s - 60 < each[0] <= now_s]
        assert lane.window.requests == len(in_window)
        assert lane.window.tokens == sum(prompt + completion for _, prompt, completion, _ in in_window)
    for _, index, arrival in open_calls:
        lane.used(arrival, events[index].completion)
        lane.end(arrival, "served", 200)
        known[index] = (*known[index][:2], events[index].completion, True)
    return known


@given(EVENTS)
def test_window__holds_exactly_what_arrived_in_the_60_s_before(events: Sequence[Event]) -> None:
    played(Lane("sim-1", "m", None), events)


@given(EVENTS)
def test_violations__are_those_that_a_count_by_hand_finds(events: Sequence[Event]) -> None:
    lane = Lane("sim-1", "m", RECORD)
    known = played(lane, events)

    by_hand = []
    for index, (at_s, _, _, _) in enumerate(known):
        window = [each for each in known[: index + 1] if each[0] > at_s - 60]
        tokens = sum(prompt + completion for _, prompt, completion, _ in window)
        by_hand += [(at_s, "requests", len(window))] if len(window) > 5 else []
        by_hand += [(at_s, "tokens", tokens)] if tokens > 50 else []

    assert [(each.at_s, each.measure, each.count) for each in violations(lane.arrivals)] == by_hand


@given(EVENTS)
def test_enforced_limit__is_met_by_all_that_was_let_in_and_refuses_nobody_else(events: Sequence[Event]) -> None:
    lane = Lane("sim-1", "m", Limit(requests_per_minute=5, tokens_per_minute=50))
    known = played(lane, events)

    for index, (at_s, prompt, _, let_in) in enumerate(known):
        before = [each for each in known[:index] if each[3] and each[0] > at_s - 60]
        assert not let_in or len(before) < 5
        # Answers that came later count against the window, but could not be known.
        assert let_in or len(before) == 5 or sum(each[1] + each[2] for each in before) + prompt > 50
    refused = [each for each in violations(lane.arrivals) if each.refused]
    assert len(refused) == sum(not let_in for *_, let_in in known)


@given(EVENTS)
def test_refused_call__fits_after_the_time_it_was_told(events: Sequence[Event]) -> None:
    limit = Limit(requests_per_minute=3, tokens_per_minute=40)
    lane = Lane("sim-1", "m", limit)
    now_s = 0.0
    for event in events:
        now_s += event.pause_s
        wait_s = 0.0
        try:
            lane.arrive(now_s, None, "", event.prompt)
        except Refusal as refusal:
            wait_s = refusal.retry_after_s or -1.0
        now_s += wait_s
        lane.window.roll(now_s)
        assert 0 <= wait_s <= 60
        assert not wait_s or lane.window.room_s(now_s, limit, event.prompt) == 0


def test_concurrency__counts_until_a_call_ends() -> None:
    lane = Lane("sim-1", "m", Limit(concurrency=2))
    first, _ = lane.arrive(0, None, "", 1), lane.arrive(0, None, "", 1)

    with pytest.raises(Refusal) as refused:
        lane.arrive(0, "c3", "", 1)
    lane.end(first, "served", 200)
    lane.end(first, "cut", 200)
    lane.arrive(1, None, "", 1)

    assert refused.value.reason == "concurrency"
    assert [(each.measure, each.count, each.call_id) for each in violations(lane.arrivals)] == [
        ("concurrency", 3, "c3")
    ]


def test_limit__that_is_narrower_rules() -> None:
    traffic = Traffic(clock=lambda: 0.0)
    traffic.set_limit(Limit(requests_per_minute=1))
    traffic.set_limit(Limit(key="sim-a*", requests_per_minute=2))
    traffic.set_limit(Limit(key="sim-a1", model="gpt-*", requests_per_minute=3))

    def limit(key: str, model: str = "gpt-4o") -> int | None:
        found = traffic.lane(key, model).limit
        return found and found.requests_per_minute

    assert [limit("sim-b"), limit("sim-a"), limit("sim-a2"), limit("sim-a1"), limit("sim-a1", "o3")] == [1, 2, 2, 3, 2]
    traffic.set_limit(Limit(key="sim-a*", requests_per_minute=9))
    assert limit("sim-a2") == 9
    assert len(traffic.limits()) == 3
    traffic.clear_limits()
    assert limit("sim-a1") is None


def test_report__tells_what_was_used_by_whom_and_when() -> None:
    now_s = 100.0
    traffic = Traffic(clock=lambda: now_s, wall_clock=lambda: 1_000_100.0)
    traffic.set_limit(Limit(requests_per_minute=2))
    lane = traffic.lane("sim-1", "m")
    for at_s, user in ((100.0, "ann"), (110.0, "bob"), (111.0, "ann"), (171.0, "ann")):
        try:
            arrival = lane.arrive(at_s, None, user, 10)
        except Refusal:
            continue
        lane.used(arrival, 5)
        lane.end(arrival, "served", 200)
    traffic.lane("sim-2", "m").arrive(120.0, None, "bob", 10)

    report = traffic.report(traffic.snapshot(), 60.0)

    first, second = report["lanes"]
    assert (first["arrivals"], first["served"], first["refused"], first["tokens"]) == (4, 3, 1, 45)
    assert [(each["at_s"], each["measure"], each["refused"]) for each in first["violations"]] == [
        (1_000_111.0, "requests", True)
    ]
    assert first["used"] == [
        {"bucket": 0, "requests": 2, "served": 2, "tokens": 30},
        {"bucket": 1, "requests": 1, "served": 1, "tokens": 15},
    ]
    assert (second["open"], second["used"][0]["bucket"]) == (1, 0)
    assert report["users"]["ann"] == {"arrivals": 3, "served": 2, "refused": 1, "tokens": 30}
    assert (report["start_s"], report["violations"], report["forgotten"]) == (1_000_100.0, 1, 0)
    assert "sim-1" not in str(report)

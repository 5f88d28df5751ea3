"""The judge's arithmetic: what is a share of what, and what counts as unfair."""

from dataclasses import replace

import pytest

from cluster.simulator.usage import fingerprint
from tests.bench.caller import End, Kind
from tests.bench.limits import judge
from tests.bench.limits.demand import Made
from tests.bench.limits.judge import Served, Span
from tests.bench.limits.plan import KEYS, TIMES_DEMANDED, Key, Plan, make_plan
from tests.bench.limits.weather import Sky

SPAN = Span(begin=1_000.0, end=1_060.0)
KEY = Key(key="sim-a", requests_per_minute=60, tokens_per_minute=None, concurrency=None)
PLAN = Plan(keys=[KEY], rates=[1.0], rests=[], revocations=[])


def report(requests_by_second: dict[int, int], key: Key = KEY, tokens: int = 0) -> dict[str, object]:
    rows = [
        {"bucket": bucket, "requests": count, "served": count, "tokens": count * tokens}
        for bucket, count in requests_by_second.items()
    ]
    return {"start_s": 940.0, "bucket_s": 1.0, "lanes": [{"key": fingerprint(key.key), "used": rows}]}


def made(user: int, kind: Kind, at: float = 1_001.0) -> Made:
    return Made(user=user, end=End(kind=kind, began_at=at, ended_at=at + 1))


def test_use__is_what_arrived_in_the_span_of_what_the_limit_allowed() -> None:
    used = judge.use(PLAN, report({59: 30, 60: 30, 119: 15, 120: 30}), Sky(), SPAN)
    assert used.of_ready == used.of_live == pytest.approx(0.75)


def test_use__leaves_out_the_time_after_a_revocation_and_of_rests() -> None:
    sky = Sky(rests={"sim-a": [(1_005.0, 1_010.0), (1_008.0, 1_015.0)]}, revoked_at={"sim-a": 1_030.0})
    used = judge.use(PLAN, report({60: 15}), sky, SPAN)
    assert used.of_live == pytest.approx(0.5)
    assert used.of_ready == pytest.approx(0.75)


def test_use__goes_by_the_limit_that_binds_most() -> None:
    key = replace(KEY, tokens_per_minute=1_000)
    used = judge.use(replace(PLAN, keys=[key]), report({60: 6}, key, tokens=150), Sky(), SPAN)
    assert used.of_live == pytest.approx(0.9)


def test_use__lets_no_key_make_up_for_another() -> None:
    idle = replace(KEY, key="sim-b")
    assert judge.use(replace(PLAN, keys=[KEY, idle]), report({60: 90}), Sky(), SPAN).of_live == pytest.approx(0.5)


def test_fairness__is_one_for_equals_and_one_nth_for_a_monopoly() -> None:
    assert judge.fairness([7.0, 7.0, 7.0]) == pytest.approx(1.0)
    assert judge.fairness([9.0, 0.0, 0.0]) == pytest.approx(1 / 3)


def test_served__counts_what_began_in_the_span_and_names_users_with_unmet_demand() -> None:
    calls = [made(0, "answered"), made(1, "answered"), made(1, "refused"), made(1, "answered", at=990.0)]
    served = Served.of(calls, SPAN)
    assert served.answered == {0: 1, 1: 1}
    assert served.unmet == [1]


def test_unclear__are_calls_without_an_answer_or_an_error_of_ours() -> None:
    kinds: list[Kind] = ["answered", "refused", "failed", "cut", "unreachable", "wrong"]
    assert [each.end.kind for each in judge.unclear([made(0, kind) for kind in kinds])] == kinds[3:]


def test_plan__is_the_seeds_and_asks_for_five_times_what_there_is() -> None:
    plan = make_plan(3, 180.0)
    assert plan == make_plan(3, 180.0)
    assert len(plan.keys) == KEYS
    assert sum(plan.rates) == pytest.approx(TIMES_DEMANDED * plan.calls_per_s)

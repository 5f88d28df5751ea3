"""Periods that follow each other, whatever is bought and paid back in between."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.ids import UserId
from runtime.ledger.port import Role
from runtime.ledger.roles import effective_role, is_running
from runtime.ledger.subscriptions import Periods, extended, shortened, until
from tests.unit.ledger.hourglass import Hourglass

USER = UserId("u")
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
DAY = timedelta(days=1)

bought = st.tuples(st.just("buy"), st.integers(1, 40))
waited = st.tuples(st.just("wait"), st.integers(0, 50))
paid_back = st.tuples(st.just("refund"), st.integers(0, 12))


@given(st.lists(bought | waited | paid_back, max_size=25))
def test_what_is_left__is_what_was_bought_without_what_was_used_and_paid_back(steps: list[tuple[str, int]]) -> None:
    periods: Periods = ()
    now, glass = NOON, Hourglass()
    for step, number in steps:
        if step == "buy":
            glass.buy(str(len(periods)), number)
            periods = extended(periods, USER, str(len(periods)), number, now)
        elif step == "wait":
            now += number * DAY
            glass.wait(number * DAY)
        else:
            glass.refund(str(number))
            for _ in range(2):
                periods = shortened(periods, str(number), now)
        assert max(timedelta(0), (until(periods) or now) - now) == glass.left
        assert is_running(until(periods), now) == bool(glass.left)
        assert all(each.starts_at <= each.ends_at <= each.starts_at + each.days * DAY for each in periods)
        assert all(one.ends_at <= other.starts_at for one, other in itertools.pairwise(periods))


@pytest.mark.parametrize(
    ("stored", "runs", "expected"),
    [
        ("DEMO", True, "FULL_ACCESS"),
        ("DEMO", False, "DEMO"),
        ("FULL_ACCESS", True, "FULL_ACCESS"),
        ("FULL_ACCESS", False, "FULL_ACCESS"),
        ("ADMIN", True, "ADMIN"),
        ("ADMIN", False, "ADMIN"),
    ],
)
def test_role__is_lifted_by_a_subscription_and_never_lowered_by_its_end(
    stored: Role, runs: bool, expected: Role
) -> None:
    ends_at = NOON + timedelta(microseconds=1) if runs else NOON
    assert effective_role(stored, ends_at, NOON) == expected
    assert effective_role(stored, None, NOON) == stored

"""How a package is announced, and the links to it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from runtime.errors import ExpiredError, ForbiddenError
from runtime.ids import ProjectId
from runtime.project.delivery import UPLOAD_BYTES_MAX, Delivery, delivery_text, goes_by_link
from runtime.project.links import Link, check_link, make_link

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
KEY = b"k" * 32
PROJECT = ProjectId("11111111-1111-4111-8111-111111111111")
DAY = timedelta(hours=24)


def link() -> Link:
    return make_link(KEY, PROJECT, "ab" * 32, NOW, DAY)


def test_delivery_text__says_what_it_is_what_it_cost_and_what_comes_next() -> None:
    text = delivery_text(
        Delivery(
            title="Tracker",
            file_count=31,
            size_bytes=20_480,
            sha256="ab" * 32,
            cost_credits="63.20",
            balance_credits="36.80",
            how_to_fetch="masterbuilder package p1",
            how_to_rate="masterbuilder feedback p1 SCORE",
            gaps=["R-07 budgets"],
        )
    )
    assert text.splitlines() == [
        "Tracker is finished: 31 files, 20.5 kB.",
        "SHA-256 " + "ab" * 32,
        "It cost 63.20 credits; 36.80 credits are left.",
        "Not in it: R-07 budgets",
        "Fetch it: masterbuilder package p1",
        "Say how content you are, from 1 to 5: masterbuilder feedback p1 SCORE",
    ]


def test_package__goes_by_link_when_it_is_above_what_a_bot_may_upload() -> None:
    assert not goes_by_link(UPLOAD_BYTES_MAX)
    assert goes_by_link(UPLOAD_BYTES_MAX + 1)


def test_link__is_good_until_its_moment_and_not_a_second_longer() -> None:
    check_link(KEY, link(), NOW + DAY - timedelta(seconds=1))
    with pytest.raises(ExpiredError, match="expired"):
        check_link(KEY, link(), NOW + DAY)


@pytest.mark.parametrize(
    "changed",
    [
        {"project": ProjectId("22222222-2222-4222-8222-222222222222")},
        {"sha256": "cd" * 32},
        {"expires_s": int(NOW.timestamp()) + 10**7},
        {"signature": "0" * 64},
        {"signature": ""},
        {"signature": "é"},
    ],
)
def test_link__that_was_changed_is_refused_before_its_time_is_looked_at(changed: dict[str, str]) -> None:
    with pytest.raises(ForbiddenError, match="not valid"):
        check_link(KEY, replace(link(), **changed), NOW + 2 * DAY)  # type: ignore[arg-type]


def test_link__of_another_key_is_refused() -> None:
    with pytest.raises(ForbiddenError):
        check_link(b"x" * 32, link(), NOW)

"""What is paid for by the day: periods that follow each other.

    bought while none runs      [now ------- + days]
    bought while one runs       [ ... its end][its end ------- + days]
    paid back                   what is left of that period is taken out, and those behind it come sooner

So what is left of a subscription is always what was bought, without what was used and what was paid back. The first
functions are pure; the others run inside a write of the store. Source: spec/assistant.md §15.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from runtime.ids import UserId
from runtime.ledger.records import at_us
from runtime.store.transaction import Kind, Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """`days` as they were bought; it ends sooner where what was left of it was paid back."""

    purchase: str
    user: UserId
    days: int
    starts_at: datetime
    ends_at: datetime


Periods = tuple[Period, ...]
"""Of one person, in their order."""


def _periods(rows: Sequence[tuple[Any, ...]]) -> Periods | None:
    """Reads the columns of `select_periods`."""
    return tuple(
        Period(purchase=purchase, user=user, days=days, starts_at=at_us(starts_us), ends_at=at_us(ends_us))
        for purchase, user, days, starts_us, ends_us in rows
    ) or None  # fmt: skip


PERIODS: Kind[Periods] = Kind(name="periods", query="select_periods", read=_periods, remembers_absence=True)
"""By the user's id."""


def until(periods: Periods) -> datetime | None:
    """When the last one ends, or ended; None for somebody who never had one."""
    return max((each.ends_at for each in periods), default=None)


def extended(periods: Periods, user: UserId, purchase: str, days: int, now: datetime) -> Periods:
    """With a period more, the last one."""
    ends_at = until(periods)
    starts_at = now if ends_at is None else max(now, ends_at)
    added = Period(
        purchase=purchase, user=user, days=days, starts_at=starts_at, ends_at=starts_at + timedelta(days=days)
    )
    return (*periods, added)


def shortened(periods: Periods, purchase: str, now: datetime) -> Periods:
    """Without what is left of the purchase's period: nothing where it has none, or where that is over."""
    gone = next((each for each in periods if each.purchase == purchase), None)
    if gone is None or gone.ends_at <= now:
        return periods
    left = gone.ends_at - max(now, gone.starts_at)
    return tuple(_without(each, gone, left) for each in periods)


def _without(period: Period, gone: Period, left: timedelta) -> Period:
    if period.purchase == gone.purchase:
        return replace(period, ends_at=period.ends_at - left)
    if period.starts_at >= gone.ends_at:
        return replace(period, starts_at=period.starts_at - left, ends_at=period.ends_at - left)
    return period


def subscribed_until(tx: Transaction, user: UserId) -> datetime | None:
    return until(tx.get(PERIODS, user) or ())


def extend(tx: Transaction, user: UserId, purchase: str, days: int, now: datetime) -> None:
    """For a purchase that is new."""
    periods = extended(tx.get(PERIODS, user) or (), user, purchase, days, now)
    tx.insert("subscription_periods", periods[-1])
    tx.keep(PERIODS, user, periods)


def shorten(tx: Transaction, user: UserId, purchase: str, now: datetime) -> timedelta:
    """Takes back what is left of a purchase; how much that is. Again, it takes nothing."""
    before = tx.get(PERIODS, user) or ()
    after = shortened(before, purchase, now)
    for old, new in zip(before, after, strict=True):
        if old != new:
            tx.update("subscription_periods", new.purchase, new)
    if after:
        tx.keep(PERIODS, user, after)
    return (until(before) or now) - (until(after) or now)

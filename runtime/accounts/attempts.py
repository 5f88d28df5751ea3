"""How often a code may be guessed. Source: spec/assistant.md §14, spec/builder.md §14.

Wrong attempts are counted for a user, never for an address alone: behind a proxy many people share one.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from runtime.errors import TooManyRequestsError

WINDOW = timedelta(minutes=15)
AT_ONE_GUARD_MAX = 5
"""Of one user from one address, within the window."""
AT_ALL_MAX = 10
"""Of one user at anything that is guarded, within a window; then nothing is let through for another."""


class Attempt(NamedTuple):
    guard: str
    """What was guessed at: `unlock`, `bootstrap`, `invite`."""
    address: str
    at: datetime


def check_attempts(wrong: Sequence[Attempt], guard: str, address: str, now: datetime) -> None:
    """`wrong` are a user's last ones, newest first. Raises TooManyRequestsError: then the code was not looked at."""
    here = [each for each in wrong if (each.guard, each.address) == (guard, address)]
    until = [_end_of(here, AT_ONE_GUARD_MAX, here[AT_ONE_GUARD_MAX - 1].at)] if len(here) >= AT_ONE_GUARD_MAX else []
    if len(wrong) >= AT_ALL_MAX:
        until.append(_end_of(wrong, AT_ALL_MAX, wrong[0].at))
    wait_s = (max(until, default=now) - now).total_seconds()
    if wait_s > 0:
        raise TooManyRequestsError(
            "Too many wrong codes.", f"Try again in {max(1, round(wait_s / 60))} min.", retry_after_s=wait_s
        )


def _end_of(wrong: Sequence[Attempt], count: int, counts_from: datetime) -> datetime:
    """When a block ends that `count` attempts within one window began; long ago where they were further apart."""
    together = wrong[0].at - wrong[count - 1].at < WINDOW
    return counts_from + WINDOW if together else wrong[-1].at

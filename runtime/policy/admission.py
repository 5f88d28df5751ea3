"""Who may start a build.

Source: spec/builder.md §9, §14; DESIGN §11: the local admin is exempt from one build at a time, and from
limits of a day.
"""

from datetime import UTC, datetime, time, timedelta

from runtime.errors import ConflictError, NotEnoughCreditsError, TooManyRequestsError
from runtime.ledger.money import UCREDITS_PER_CREDIT, credits_text
from runtime.ledger.port import Balance


def check_wallet(balance: Balance, min_credits_to_start: int, more_credits: str) -> None:
    """Raises NotEnoughCreditsError where the free balance is below MIN_CREDITS_TO_START (in credits)."""
    if balance.free_ucredits < min_credits_to_start * UCREDITS_PER_CREDIT:
        raise NotEnoughCreditsError(
            f"A build needs at least {min_credits_to_start} free credits; "
            f"you have {credits_text(balance.free_ucredits)}.",
            more_credits,
        )


def check_active(active_projects: int, max_active_projects: int, *, is_admin: bool) -> None:
    """Raises ConflictError where the user already has MAX_ACTIVE_PROJECTS_PER_USER unfinished projects."""
    if not is_admin and active_projects >= max_active_projects:
        raise ConflictError(
            f"You already have {active_projects} unfinished project(s); {max_active_projects} at a time are allowed.",
            "Wait for it to finish, or cancel it.",
        )


def check_new_today(ordered_today: int, max_new_projects: int, now: datetime, *, is_admin: bool) -> None:
    """Raises TooManyRequestsError where the user ordered MAX_NEW_PROJECTS_PER_DAY already, whatever became of them."""
    if is_admin or ordered_today < max_new_projects:
        return
    midnight = datetime.combine(now.astimezone(UTC).date() + timedelta(days=1), time(tzinfo=UTC))
    raise TooManyRequestsError(
        f"You began {ordered_today} projects today; {max_new_projects} a day are allowed.",
        "A new day begins at 00:00 UTC.",
        retry_after_s=(midnight - now).total_seconds(),
    )

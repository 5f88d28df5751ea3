"""Who may start a build.

Source: spec/builder.md §9; DESIGN §11: the local admin is exempt from one build at a time.
"""

from runtime.errors import ConflictError, NotEnoughCreditsError
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

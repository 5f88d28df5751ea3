"""Which role somebody has at a moment: the one that is stored, or the one that is paid for by the day.

Nothing else says so: whoever reads a role reads it through here, so that a subscription ends in the moment it ends and
no job has to have run. Source: spec/assistant.md §4.4, §15.
"""

from datetime import datetime

from runtime.ledger.port import Role, Subscription, Tier

TIER: Tier = "FULL_ACCESS"
"""What a subscription gives while it runs."""


def is_running(subscription_until: datetime | None, now: datetime) -> bool:
    """Whoever has a subscription that runs may also chat, whether or not they were unlocked."""
    return subscription_until is not None and now < subscription_until


def effective_role(stored_role: Role, subscription_until: datetime | None, now: datetime) -> Role:
    """An ADMIN stays one, and a FULL_ACCESS that an operator gave does not expire."""
    return TIER if stored_role == "DEMO" and is_running(subscription_until, now) else stored_role


def subscription(until: datetime | None, now: datetime) -> Subscription | None:
    return Subscription(tier=TIER, expires_at=until, is_running=is_running(until, now)) if until is not None else None

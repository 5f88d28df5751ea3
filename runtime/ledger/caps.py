"""What a call must fit under, beside its user's wallet: a project's ceiling, a token's budget, the caps of a day.

Each is a *subject* of which the ledger counts what is committed: held, metered or charged, in microcredits. A call
counts on the day its hold was taken, UTC; one under an escrow on the escrow's day. What is committed in a day is never
written down: it is the sum of what the day's calls hold or were charged, added up when a cap is first asked for and
kept in memory from then on. So a cap that is set at noon holds for the whole day. Refunds give nothing back under a
cap. Source: DESIGN §4, spec/assistant.md §4.3.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from typing import NamedTuple

from runtime.errors import AccountStoppedError, CeilingReachedError, ConflictError, DailyCapError, MasterbuilderError
from runtime.ids import UserId
from runtime.ledger.money import Tariff, credits_exact
from runtime.ledger.port import CapScope, Payer, Role
from runtime.ledger.records import ERASED, Budget, Stop, User
from runtime.ledger.roles import effective_role
from runtime.ledger.subscriptions import subscribed_until
from runtime.store.transaction import Kind, Transaction, first_as

BUDGETS = Kind(name="budget", query="select_budget", read=first_as(Budget), remembers_absence=True)
USERS = Kind(name="user", query="select_user", read=first_as(User), remembers_absence=True)
STOPS = Kind(name="stop", query="select_stop", read=first_as(Stop), remembers_absence=True)
DAYS: Kind[int] = Kind(name="day", query="select_day", read=lambda rows: int(rows[0][0]))
"""What is committed under a subject of a day, as far as somebody asked."""

ASK_THE_OPERATOR = "Ask the operator for credits."
NOT_MADE = "The call was not made and not charged."


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """Of a day, in microcredits; None and what is missing is without a bound.

    `user` binds users of FULL_ACCESS in what they call themselves: builds have ceilings of their own.
    """

    user_ucredits: int | None = None
    platform_ucredits: int | None = None
    providers_ucredits: Mapping[str, int] = field(default_factory=dict)


NO_CAPS = Caps()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the operator set. A change counts for later calls only."""

    tariff: Tariff
    caps: Caps = NO_CAPS
    more_credits: str = ASK_THE_OPERATOR
    """What somebody can do who needs more."""
    payments_enabled: bool = True
    """Whether anything is sold."""


class Bound(NamedTuple):
    """One thing a payer's calls must fit under. `scope` is empty for a ceiling or budget, which no day ends."""

    subject: str
    ceiling_ucredits: int
    left_ucredits: int
    scope: CapScope | None = None


def day_subjects(payer: Payer, at: datetime) -> Mapping[CapScope, str]:
    """Under which days it counts what is held at this moment, by whose cap binds it there."""
    day = f"day:{day_of(at)}"
    found: dict[CapScope, str] = {}
    if payer.project is None:
        found["user"] = spent_on(payer.user, at)
    if payer.provider:
        found["provider"] = f"{day}/provider:{payer.provider}"
    found["platform"] = f"{day}/platform"
    return found


def day_of(at: datetime) -> str:
    return at.astimezone(UTC).date().isoformat()


def spent_on(user: UserId, at: datetime) -> str:
    """The subject that counts a user's own calls of a day."""
    return f"day:{day_of(at)}/user:{user}"


def cap_of(caps: Caps, scope: CapScope, provider: str, role: Role | None) -> int | None:
    """What binds somebody of this role in calls of this provider; None for nothing."""
    match scope:
        case "user":
            return user_cap(caps, role)
        case "provider":
            return caps.providers_ucredits.get(provider)
        case "platform":
            return caps.platform_ucredits


def user_cap(caps: Caps, role: Role | None) -> int | None:
    """Source: spec/assistant.md §4.3: an ADMIN has none, and what DEMO may do is counted in calls."""
    return caps.user_ucredits if role == "FULL_ACCESS" else None


def role_of(tx: Transaction, user: UserId, now: datetime) -> Role | None:
    """None for a user nobody registered."""
    known = tx.get(USERS, user)
    return effective_role(known.role, subscribed_until(tx, user), now) if known is not None else None


def refusal(
    tx: Transaction, payer: Payer, amount_ucredits: int, caps: Caps, now: datetime
) -> MasterbuilderError | None:
    """Why so much more cannot be committed; None when it can. The wallet is looked at elsewhere."""
    stop = tx.get(STOPS, payer.user)
    if stop is not None and stop.reason == ERASED:
        return AccountStoppedError(
            f"{payer.user} asked to be erased: nothing is spent from that account any more.", "", NOT_MADE
        )
    if stop is not None and stop.lifted_at is None:
        return AccountStoppedError(
            f"Paid work of {payer.user} is stopped: its account does not add up.",
            "The operator was told; nothing is lost, and work goes on when it was looked into.",
            NOT_MADE,
        )
    for bound in _bounds(tx, payer, caps, now):
        if amount_ucredits > bound.left_ucredits:
            return _refusal_by(bound, payer, amount_ucredits, now)
    return None


def check_not_erased(tx: Transaction, user: UserId) -> None:
    """Raises ConflictError for somebody who asked to be erased, and for a pseudonym."""
    stop = tx.get(STOPS, user)
    if stop is not None and stop.reason == ERASED:
        raise ConflictError(
            f"{user} asked to be erased: nothing is added to that account any more.",
            "What was paid for it since is to be paid back in the payment provider's console.",
        )


def room(tx: Transaction, payer: Payer, caps: Caps, now: datetime) -> int | None:
    """The most that fits under every bound; None where there is none. May be negative."""
    return min((bound.left_ucredits for bound in _bounds(tx, payer, caps, now)), default=None)


def commit(tx: Transaction, payer: Payer, amount_ucredits: int, held_at: datetime) -> None:
    """Counts what was held at `held_at`; a negative amount is taken off again."""
    if amount_ucredits == 0:
        return
    for subject in payer.budgets:
        budget = budget_of(tx, subject)
        keep_budget(tx, replace(budget, committed_ucredits=budget.committed_ucredits + amount_ucredits))
    for subject in day_subjects(payer, held_at).values():
        known = tx.peek(DAYS, subject)
        if known is not None:
            tx.keep(DAYS, subject, known + amount_ucredits)
        else:
            # The database does not show it before the group is on disk.
            tx.note(subject, tx.noted(subject) + amount_ucredits)


def _asked(tx: Transaction, subject: str) -> int:
    """What is committed under it. While its group noted a change of it, it is kept out of memory: memory would go on
    without that change if this write came to nothing."""
    noted = tx.noted(subject)
    known = tx.peek(DAYS, subject) if noted else tx.get(DAYS, subject)
    if known is not None:
        return known
    return int(tx.committed(DAYS.query, {"key": subject})[0][0]) + noted


def budget_of(tx: Transaction, subject: str) -> Budget:
    known = tx.get(BUDGETS, subject)
    return known or Budget(subject=subject, ceiling_ucredits=None, committed_ucredits=0)


def keep_budget(tx: Transaction, budget: Budget) -> None:
    if tx.get(BUDGETS, budget.subject) is None:
        tx.insert("budgets", budget)
    else:
        tx.update("budgets", budget.subject, budget)
    tx.keep(BUDGETS, budget.subject, budget)


def _bounds(tx: Transaction, payer: Payer, caps: Caps, now: datetime) -> list[Bound]:
    found = []
    for subject in payer.budgets:
        budget = budget_of(tx, subject)
        if (ceiling := budget.ceiling_ucredits) is not None:
            found.append(Bound(subject, ceiling, ceiling - budget.committed_ucredits))
    role = role_of(tx, payer.user, now)
    for scope, subject in day_subjects(payer, now).items():
        cap = cap_of(caps, scope, payer.provider, role)
        if cap is not None:
            found.append(Bound(subject, cap, cap - _asked(tx, subject), scope))
    return found


def _refusal_by(bound: Bound, payer: Payer, amount_ucredits: int, now: datetime) -> MasterbuilderError:
    may_cost = f"This call may cost up to {credits_exact(amount_ucredits)} credits and"
    left_ucredits = max(0, bound.left_ucredits)
    left = credits_exact(left_ucredits)
    ceiling = credits_exact(bound.ceiling_ucredits)
    if bound.scope is None:
        whose, next_step = (
            ("the project's ceiling", "Agree to a higher ceiling to go on.")
            if bound.subject == payer.project
            else ("the token's budget", "Use another token, or have one issued with a larger budget.")
        )
        told = f"{may_cost} {left} are left under {whose} of {ceiling}."
        return CeilingReachedError(told, next_step, NOT_MADE, left_ucredits)
    whose = {"user": "your cap", "platform": "the platform's cap", "provider": f"the cap of {payer.provider}"}[
        bound.scope
    ]
    return DailyCapError(
        f"{may_cost} {left} are left under {whose} of {ceiling} credits a day.",
        "It begins anew at midnight UTC; a shorter answer may still fit." if bound.left_ucredits > 0
        else "It begins anew at midnight UTC.",
        NOT_MADE,
        retry_after_s=_until_midnight_s(now),
        scope=bound.scope,
        left_ucredits=left_ucredits,
    )  # fmt: skip


def _until_midnight_s(now: datetime) -> float:
    utc = now.astimezone(UTC)
    midnight = datetime.combine(utc.date() + timedelta(days=1), time(), UTC)
    return max(1.0, (midnight - utc).total_seconds())

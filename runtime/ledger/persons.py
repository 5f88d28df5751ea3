"""What a person may ask of their own data: an e-mail address, and to be erased.

    credits   forfeited   wallet -> platform:adjustments    once when it is asked for, once when all holds are back

An erasure is asked for, and carried out later: `runtime.store.erasing` says when. In between nothing is spent from the
wallet and nothing comes into it. Then a pseudonym takes the place of the person's id in every row of money, so every
sum stays what it was. Like `wallets` these run inside a write of the store. Source: spec/builder.md §14.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from runtime.entity.journal import Reminder
from runtime.entity.reminders import OWNER_LEFT
from runtime.errors import BadInputError, ConflictError, NotFoundError
from runtime.ids import LOCAL_ADMIN, CallId, EntityId, RunId, UserId, kind_of
from runtime.ledger import escrows, postings
from runtime.ledger.caps import STOPS, USERS
from runtime.ledger.money import credits_exact
from runtime.ledger.port import Deletion, EscrowId, Return
from runtime.ledger.postings import balance_of, held, wallet
from runtime.ledger.records import ERASED, AdjustmentRow, Stop, at_us
from runtime.ledger.wallets import balance, book_adjustment, known_user
from runtime.store.appends import arm
from runtime.store.seal import Seal
from runtime.store.transaction import Kind, Transaction

DUE = timedelta(hours=24)
"""Source: spec/builder.md §14."""
EMAIL_CHARACTERS_MAX = 255
"""Source: spec/builder.md §10."""
_EMAIL = re.compile(r"[^\s@\"<>(),:;\\\[\]]+@[^\s@\"<>(),:;\\\[\]]+\.[^\s@\"<>(),:;\\\[\]]+")
PROJECT = "project"


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """That somebody asked to be erased, from then until their id is replaced."""

    pseudonym: UserId
    user: UserId
    identity_sha256: str
    forfeits_ucredits: int
    asked_at: datetime

    def told(self) -> Deletion:
        return Deletion(
            user=self.user,
            asked_at=self.asked_at,
            due_at=self.asked_at + DUE,
            forfeited_ucredits=self.forfeits_ucredits,
        )


def erasure_of(row: tuple[Any, ...]) -> Erasure:
    """Reads the columns of `select_erasure`."""
    pseudonym, user, identity, forfeits, asked_us = row
    return Erasure(
        pseudonym=pseudonym,
        user=user,
        identity_sha256=identity,
        forfeits_ucredits=forfeits,
        asked_at=at_us(asked_us),
    )


ERASURES: Kind[Erasure] = Kind(
    name="erasure", query="select_erasure", read=lambda rows: erasure_of(rows[0]) if rows else None
)
"""By the person's id, until it is replaced."""

_STATEMENTS = (
    "erase_accounts", "erase_transfers", "erase_referral", "erase_runs", "erase_call_holds", "erase_escrows",
    "erase_reasons_of_repayments", "erase_purchases", "erase_payment_orders", "erase_adjustments",
    "erase_makers_of_adjustments", "erase_call_refunds", "erase_makers_of_call_refunds",
    "erase_reasons_of_star_refunds", "erase_makers_of_star_refunds", "erase_star_payments", "erase_periods",
    "erase_subscription_events", "erase_stops", "erase_alerts",
    "erase_project_statuses", "erase_project_feedback", "erase_purge_log", "erase_user", "erase_inviter",
    "erase_user_account", "erase_invites", "erase_invite_uses", "erase_wrong_attempts", "erase_revoked_logins",
    "erase_login_links", "erase_audit",
    "erase_tokens", "erase_notices", "erase_entries", "erase_entity_reminders", "erase_entities",
)  # fmt: skip


def check_email(email: str) -> str:
    """Without blanks around it; empty for none. Raises BadInputError for what cannot be an address."""
    email = email.strip()
    if email and (len(email) > EMAIL_CHARACTERS_MAX or not email.isprintable() or not _EMAIL.fullmatch(email)):
        raise BadInputError(
            f"That is not an e-mail address of at most {EMAIL_CHARACTERS_MAX} characters.",
            "Write it as name@example.org, or leave it empty to remove it.",
        )
    return email


def set_email(tx: Transaction, user: UserId, email: str, seal: Seal) -> None:
    """Raises NotFoundError, ConflictError for somebody who is being erased, BadInputError."""
    email = check_email(email)
    known_user(tx, user)
    tx.execute("set_email", user_id=user, email=seal.close(email.encode(), email_subject(user)) if email else None)


def email_subject(user: UserId) -> str:
    return f"email {user}"


def ask(tx: Transaction, wish: Erasure, agreed_ucredits: int, seal: Seal, now: datetime) -> Deletion:
    """From the moment this is on disk nothing more is spent. Asking again answers the same.

    Raises NotFoundError, ConflictError where the wallet holds more than was agreed to give up, or for the operator of
    the installation itself.
    """
    user = wish.user
    if (known := tx.get(ERASURES, user)) is not None:
        return known.told()
    if user == LOCAL_ADMIN:
        raise ConflictError(
            f"{user} is the operator of this installation and cannot be erased.",
            "To remove everything, stop the service and delete DATA_DIR.",
        )
    if tx.get(USERS, user) is None:
        raise NotFoundError(f"There is no user {user}.", "See that the id is right.")
    forfeits = balance(tx, user).balance_ucredits
    if forfeits > agreed_ucredits:
        raise not_agreed(user, forfeits)
    wish = replace(wish, forfeits_ucredits=forfeits, asked_at=now)
    tx.insert("erasures", wish)
    tx.keep(ERASURES, user, wish)
    tx.keep(STOPS, user, Stop(user=user, reason=ERASED, lifted_at=None))
    tx.execute("revoke_tokens_of_user", user_id=user, revoked_at=now)
    forfeit(tx, user, wish.pseudonym, now)
    end_projects(tx, user, seal, now)
    return wish.told()


def not_agreed(user: UserId, forfeits_ucredits: int) -> ConflictError:
    credits = credits_exact(forfeits_ucredits)
    return ConflictError(
        f"{user} has {credits} credits, which would be forfeited.",
        f"Agree to it with forfeit_credits of at least {credits}, or use them first.",
    )


def forfeit(tx: Transaction, user: UserId, pseudonym: UserId, now: datetime) -> None:
    """Books what is free as taken; nothing where nothing is."""
    free = balance_of(tx, wallet(user))
    if not free:
        return
    name = f"erasure/{pseudonym}/{secrets.token_hex(8)}"
    book_adjustment(
        tx,
        AdjustmentRow(adjustment=name, user=user, amount_ucredits=-free, reason="forfeited", made_by=user, made_at=now),
    )


def end_projects(tx: Transaction, user: UserId, seal: Seal, now: datetime) -> bool:
    """Has each open project reminded that its owner left, once; True when nothing of theirs is open or reminded."""
    is_quiet = True
    for entity, is_open, is_reminded in tx.committed("entities_of_owner", {"owner": user, "reminder": OWNER_LEFT}):
        is_quiet = is_quiet and not is_open and not is_reminded
        if is_open and not is_reminded and kind_of(entity) == PROJECT:
            arm(tx, EntityId(entity), Reminder(name=OWNER_LEFT, due_at=now), seal)
    return is_quiet


def let_go(tx: Transaction, user: UserId, now: datetime) -> None:
    """Gives up what is still held, as the platform's loss: whoever holds it does not answer."""
    for (run,) in tx.committed("open_runs_of_user", {"user_id": user}):
        postings.abandon_run(tx, RunId(run), now)
    for (call,) in tx.committed("open_calls_of_user", {"user_id": user}):
        postings.expire_hold(tx, CallId(call), now)
    for (escrow,) in tx.committed("open_escrows_of_user", {"key": user}):
        escrows.take_back(tx, Return(escrow=EscrowId(escrow), granted_ucredits=0, ends=True), now)


def has_balance(tx: Transaction, user: UserId) -> bool:
    return bool(balance_of(tx, wallet(user)) or balance_of(tx, held(user)))


def erase(tx: Transaction, user: UserId, pseudonym: UserId, files: Sequence[str], now: datetime) -> None:
    """Replaces the id in every row, of this group too, removes the rest, and notes the files that are to be removed."""
    for statement in _STATEMENTS:
        tx.execute_last(statement, user=user, pseudonym=pseudonym)
    tx.execute_last("add_erasure_files", pseudonym=pseudonym, files=list(files))
    tx.execute_last("note_renamed", pseudonym=pseudonym, at=now)
    tx.forget_all()

"""Accounts in the ledger: registered once, raised by codes, changed by administrators, and what of it is written down.

Like `wallets` these run inside a write of the store. A wrong code is an answer here, not an error: its attempt must
stay. Source: spec/assistant.md §14, DESIGN §11.
"""

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from runtime.accounts.attempts import WINDOW, Attempt, check_attempts
from runtime.accounts.port import (
    INVITE_ID_DIGITS,
    Account,
    AccountChange,
    AuditEntry,
    AuditRow,
    By,
    Invite,
    InviteState,
    NewInvite,
    TelegramIdentity,
)
from runtime.accounts.roles import Role, higher
from runtime.accounts.rules import AccountRules, check_admitted, same_code
from runtime.errors import (
    BadInputError,
    ConflictError,
    ForbiddenError,
    InviteCodeError,
    MasterbuilderError,
    WrongCodeError,
)
from runtime.ids import LOCAL_ADMIN, UserId
from runtime.ledger.caps import USERS, check_not_erased
from runtime.ledger.records import User, at_us
from runtime.ledger.roles import effective_role, is_running
from runtime.ledger.wallets import known_user
from runtime.store.seal import Seal
from runtime.store.transaction import Kind, Transaction, first_as

INVITE_USES_MAX = 10_000
ADMINS_MADE = "administrators made"
"""What a group notes of them: those on disk it cannot see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRow:
    user_id: UserId
    telegram_key: str | None
    profile: bytes | None
    """Sealed: see `close_profile`."""
    authorized: bool
    verified: bool
    banned: bool
    logins: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InviteRow:
    code_hash: str
    role: Role
    uses: int
    uses_left: int
    revoked: bool
    expires_at: datetime | None
    created_by: UserId
    created_at: datetime

    def state(self, now: datetime) -> InviteState:
        if self.revoked:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "open" if self.uses_left else "used"

    def told(self, now: datetime, consumers: Sequence[UserId] = ()) -> Invite:
        return Invite(
            invite_id=self.code_hash[:INVITE_ID_DIGITS],
            role=self.role,
            uses=self.uses,
            uses_left=self.uses_left,
            state=self.state(now),
            made_by=self.created_by,
            made_at=self.created_at,
            expires_at=self.expires_at,
            consumers=consumers,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InviteUse:
    code_hash: str
    user_id: UserId
    used_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongAttempt:
    user_id: UserId
    guard: str
    address: str
    made_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLogRow:
    entry: str
    actor: UserId
    action: str
    target: str
    details: str
    address: str
    made_at: datetime


def invite_of(row: Sequence[Any]) -> InviteRow:
    """Reads the columns of `select_invite`."""
    code_hash, role, uses, left, revoked, expires_us, made_by, made_us = row
    return InviteRow(
        code_hash=code_hash,
        role=role,
        uses=uses,
        uses_left=left,
        revoked=revoked,
        expires_at=None if expires_us is None else at_us(expires_us),
        created_by=made_by,
        created_at=at_us(made_us),
    )


ACCOUNTS = Kind(name="user account", query="select_user_account", read=first_as(AccountRow), remembers_absence=True)
BY_TELEGRAM: Kind[UserId] = Kind(
    name="telegram", query="user_of_telegram", read=lambda rows: rows[0][0] if rows else None, remembers_absence=True
)
INVITES: Kind[InviteRow] = Kind(
    name="invite", query="select_invite", read=lambda rows: invite_of(rows[0]) if rows else None
)
INVITE_USES: Kind[UserId] = Kind(
    name="invite use", query="select_invite_use", read=lambda rows: rows[0][0] if rows else None
)
WRONG: Kind[tuple[Attempt, ...]] = Kind(
    name="wrong attempts",
    query="wrong_attempts",
    read=lambda rows: tuple(Attempt(guard, address, at_us(made_us)) for guard, address, made_us in rows),
)


def new_user_id() -> UserId:
    """Random: it tells nothing of whom it is."""
    return UserId(f"u-{secrets.token_hex(8)}")


def code_hash(code: str) -> str:
    """What the ledger knows an invite's code by: 64 hex digits."""
    return hashlib.sha256(code.strip().encode()).hexdigest()


def close_profile(identity: TelegramIdentity, user: UserId, seal: Seal) -> bytes:
    told = {name: getattr(identity, name) for name in TelegramIdentity.__dataclass_fields__}
    return seal.close(json.dumps(told).encode(), _subject(user))


def open_profile(profile: bytes | None, user: UserId, seal: Seal) -> TelegramIdentity | None:
    return TelegramIdentity(**json.loads(seal.open(profile, _subject(user)))) if profile else None


def account_from(user: User, row: AccountRow, seal: Seal, subscribed_until: datetime | None, now: datetime) -> Account:
    known = open_profile(row.profile, user.user_id, seal)
    return Account(
        user=user.user_id,
        telegram_id=known.telegram_id if known else None,
        username=known.username if known else "",
        first_name=known.first_name if known else "",
        last_name=known.last_name if known else "",
        language_code=known.language_code if known else "",
        role=effective_role(user.role, subscribed_until, now),
        authorized=row.authorized or is_running(subscribed_until, now),
        verified=row.verified,
        banned=row.banned,
        logins=row.logins,
    )


def blank(user: UserId) -> AccountRow:
    """Of somebody of whom nothing is written yet."""
    return AccountRow(
        user_id=user, telegram_key=None, profile=None, authorized=False, verified=False, banned=False, logins=0
    )


def enrol(
    tx: Transaction, user: UserId, telegram_key: str, identity: TelegramIdentity, rules: AccountRules, seal: Seal,
    now: datetime,
) -> None:  # fmt: skip
    """Takes over names, and what the operator's lists say. The user has a wallet already."""
    row = _row(tx, user)
    identity = identity.after(open_profile(row.profile, user, seal))
    row = replace(row, telegram_key=telegram_key, profile=close_profile(identity, user, seal))
    known = tx.get(USERS, user)
    assert known is not None
    if listed := rules.listed(identity.telegram_id):
        role, authorized, verified = listed
        by = By(user=user)
        if role != known.role and higher(role, known.role) == role:
            _set_role(tx, known, role)
            note(tx, AuditEntry(by=by, action="role", target=user, details=_roles(known.role, role, "list")), now)
        row = replace(row, authorized=row.authorized or authorized, verified=row.verified or verified)
    _put(tx, row)


def unlock(
    tx: Transaction, user: UserId, code: str, address: str, rules: AccountRules, now: datetime
) -> MasterbuilderError | None:
    """The refusal that is to be told once what it wrote is on disk; None where the user is authorized now."""
    _check_may_try(tx, user, "unlock", address, now)
    if not same_code(code, rules.unlock_code):
        return _wrong(tx, user, "unlock", address, now)
    if not (row := _row(tx, user)).authorized:
        _put(tx, replace(row, authorized=True))
        note(tx, AuditEntry(by=By(user=user, address=address), action="unlock", target=user), now)
    return None


def bootstrap(
    tx: Transaction, user: UserId, code: str, address: str, rules: AccountRules, now: datetime
) -> MasterbuilderError | None:
    """Like `unlock`."""
    known = _check_may_try(tx, user, "bootstrap", address, now)
    if not known.is_admin and _has_admin(tx):
        raise ForbiddenError(
            "There is an administrator already: this code has done its work.", "Ask them to change your role."
        )
    if not same_code(code, rules.bootstrap_code):
        return _wrong(tx, user, "bootstrap", address, now)
    if not known.is_admin:
        _set_role(tx, known, "ADMIN")
        _put(tx, replace(_row(tx, user), authorized=True, verified=True))
        by = By(user=user, address=address)
        note(tx, AuditEntry(by=by, action="bootstrap", target=user, details=_roles(known.role, "ADMIN", "code")), now)
    return None


def redeem_invite(tx: Transaction, user: UserId, code: str, address: str, now: datetime) -> MasterbuilderError | None:
    """Like `unlock`."""
    known = _check_may_try(tx, user, "invite", address, now)
    sha256 = code_hash(code)
    invite = tx.get(INVITES, sha256)
    if invite is None:
        return _wrong(tx, user, "invite", address, now)
    use = f"{sha256}/{user}"
    if tx.get(INVITE_USES, use) is not None:
        return None
    state = invite.state(now)
    if state != "open":
        raise refused_invite(state)
    _put_invite(tx, replace(invite, uses_left=invite.uses_left - 1))
    tx.insert("invite_uses", InviteUse(code_hash=sha256, user_id=user, used_at=now))
    tx.keep(INVITE_USES, use, user)
    role = higher(known.role, invite.role)
    if role != known.role:
        _set_role(tx, known, role)
    _put(tx, replace(_row(tx, user), authorized=True, verified=True))
    details = {"invite": sha256[:INVITE_ID_DIGITS], **_roles(known.role, role, "invite")}
    note(tx, AuditEntry(by=By(user=user, address=address), action="invite_used", target=user, details=details), now)
    return None


def change(tx: Transaction, asked: AccountChange, by: By, now: datetime) -> None:
    """Raises NotFoundError, ConflictError for the local admin or who is being erased."""
    known = known_user(tx, asked.user)
    check_changeable(asked)
    if asked.role is not None and asked.role != known.role:
        _set_role(tx, known, asked.role)
        details = _roles(known.role, asked.role, "administrator")
        note(tx, AuditEntry(by=by, action="role", target=asked.user, details=details), now)
    row = _row(tx, asked.user)
    flags = {name: getattr(asked, name) for name in ("authorized", "verified", "banned")}
    new = {name: flag for name, flag in flags.items() if flag is not None and flag != getattr(row, name)}
    if not new:
        return
    _put(tx, replace(row, **new))
    if (banned := new.pop("banned", None)) is not None:
        note(tx, AuditEntry(by=by, action="ban" if banned else "unban", target=asked.user), now)
    if new:
        note(tx, AuditEntry(by=by, action="flags", target=asked.user, details=new), now)


def check_changeable(asked: AccountChange) -> None:
    """Raises ConflictError."""
    if asked.user != LOCAL_ADMIN:
        return
    if asked.banned:
        raise ConflictError("The local admin cannot be banned.", "It is whoever runs this installation.")
    if asked.role not in (None, "ADMIN"):
        raise ConflictError("The local admin is always an administrator.", "Change the role of another user.")


def add_invite(tx: Transaction, invite: NewInvite, by: By, now: datetime) -> InviteRow:
    check_invite(invite, now)
    if (known := tx.get(INVITES, invite.code_sha256)) is not None:
        return known
    row = InviteRow(
        code_hash=invite.code_sha256,
        role=invite.role,
        uses=invite.uses,
        uses_left=invite.uses,
        revoked=False,
        expires_at=invite.expires_at,
        created_by=by.user,
        created_at=now,
    )
    tx.insert("invite_codes", row)
    tx.keep(INVITES, invite.code_sha256, row)
    details = {"role": invite.role, "uses": invite.uses}
    note(tx, AuditEntry(by=by, action="invite", target=invite.id, details=details), now)
    return row


def check_invite(invite: NewInvite, now: datetime) -> None:
    """Raises BadInputError."""
    if len(invite.code_sha256) != 64 or not set(invite.code_sha256) <= set("0123456789abcdef"):
        raise BadInputError("An invite is known by its code's SHA-256: 64 hex digits.")
    if invite.role == "ADMIN":
        raise BadInputError("No invite makes an administrator.", "Invite them, then change their role.")
    if not 1 <= invite.uses <= INVITE_USES_MAX:
        raise BadInputError(f"An invite has from 1 to {INVITE_USES_MAX} uses.")
    if invite.expires_at is not None and invite.expires_at <= now:
        raise BadInputError("An invite cannot have expired already.", "Name a later moment.")


def revoke_invite(tx: Transaction, code_sha256: str, by: By, now: datetime) -> None:
    """Its uses are gone. Twice is once."""
    row = tx.get(INVITES, code_sha256)
    if row is not None and not row.revoked:
        _put_invite(tx, replace(row, revoked=True, uses_left=0))
        target = code_sha256[:INVITE_ID_DIGITS]
        note(tx, AuditEntry(by=by, action="invite_revoked", target=target), now)


def end_logins(tx: Transaction, user: UserId) -> None:
    """Raises NotFoundError, ConflictError."""
    known_user(tx, user)
    row = _row(tx, user)
    _put(tx, replace(row, logins=row.logins + 1))


def note(tx: Transaction, entry: AuditEntry, now: datetime) -> None:
    row = AuditLogRow(
        entry=secrets.token_hex(8),
        actor=entry.by.user,
        action=entry.action,
        target=entry.target[:255],
        details=json.dumps(dict(entry.details)),
        address=entry.by.address[:45],
        made_at=now,
    )
    tx.insert("audit_log", row)


def audit_row_of(row: Sequence[Any]) -> AuditRow:
    """Reads the columns of `audit`."""
    entry, actor, action, target, details, address, made_us = row
    return AuditRow(
        id=entry, actor=actor, action=action, target=target, details=json.loads(details), address=address,
        at=at_us(made_us),
    )  # fmt: skip


def refused_invite(state: InviteState) -> InviteCodeError:
    told = {"used": "used up", "expired": "expired", "revoked": "revoked"}[state]
    return InviteCodeError(f"This invite is {told}.", "Ask whoever gave it to you for another.")


def wrong_code(guard: str) -> MasterbuilderError:
    if guard == "invite":
        return InviteCodeError("There is no such invite.", "Copy the whole code, or ask for another.")
    return WrongCodeError("That is not the right code.", "Ask the operator for it.")


def _check_may_try(tx: Transaction, user: UserId, guard: str, address: str, now: datetime) -> User:
    known = known_user(tx, user)
    check_admitted(_row(tx, user).banned)
    wrong = tx.get(WRONG, user)
    check_attempts(wrong or (), guard, address, now)
    return known


def _wrong(tx: Transaction, user: UserId, guard: str, address: str, now: datetime) -> MasterbuilderError:
    before = tx.get(WRONG, user) or ()
    tx.insert("wrong_attempts", WrongAttempt(user_id=user, guard=guard, address=address, made_at=now))
    tx.keep(WRONG, user, (Attempt(guard, address, now), *before)[:20])
    tx.execute("drop_wrong_attempts", before=now - 4 * WINDOW)
    entry = AuditEntry(by=By(user=user, address=address), action=f"{guard}_failed", target=user)
    note(tx, entry, now)
    return wrong_code(guard)


def _has_admin(tx: Transaction) -> bool:
    return bool(tx.noted(ADMINS_MADE) or tx.committed("admins_but", {"local": LOCAL_ADMIN})[0][0])


def _set_role(tx: Transaction, known: User, role: Role) -> None:
    row = replace(known, role=role, is_admin=role == "ADMIN")
    tx.update("users", row.user_id, row)
    tx.keep(USERS, row.user_id, row)
    if row.is_admin:
        tx.note(ADMINS_MADE, tx.noted(ADMINS_MADE) + 1)


def _row(tx: Transaction, user: UserId) -> AccountRow:
    check_not_erased(tx, user)
    return tx.get(ACCOUNTS, user) or blank(user)


def _put(tx: Transaction, row: AccountRow) -> None:
    known = tx.get(ACCOUNTS, row.user_id)
    if known is None:
        tx.insert("user_accounts", row)
    elif known != row:
        tx.update("user_accounts", row.user_id, row)
    tx.keep(ACCOUNTS, row.user_id, row)
    if row.telegram_key is not None:
        tx.keep(BY_TELEGRAM, row.telegram_key, row.user_id)


def _put_invite(tx: Transaction, row: InviteRow) -> None:
    tx.update("invite_codes", row.code_hash, row)
    tx.keep(INVITES, row.code_hash, row)


def _roles(before: Role, after: Role, through: str) -> dict[str, str | int | bool | None]:
    return {"from": before, "to": after, "through": through}


def _subject(user: UserId) -> str:
    return f"account {user}"

"""Accounts in one process: the part of the memory ledger that knows who somebody is."""

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from runtime.accounts.attempts import Attempt, check_attempts
from runtime.accounts.port import (
    Account,
    AccountChange,
    AuditEntry,
    AuditRow,
    By,
    Invite,
    Login,
    NewInvite,
    TelegramIdentity,
)
from runtime.accounts.roles import Role, higher
from runtime.accounts.rules import BANNED, AccountRules, check_admitted, same_code
from runtime.errors import ForbiddenError, MasterbuilderError
from runtime.ids import LOCAL_ADMIN, UserId
from runtime.ledger.accounts import (
    check_changeable,
    check_invite,
    code_hash,
    new_user_id,
    refused_invite,
    wrong_code,
)
from runtime.ledger.port import Balance, Identity
from runtime.ledger.roles import effective_role, is_running


class MemoryAccounts(ABC):
    """Implements `runtime.accounts.port.Accounts`. Nobody is ever erased here but with the process."""

    _clock: Callable[[], datetime]
    _initial_free_ucredits: int
    _admins: dict[UserId, bool]
    _roles: dict[UserId, Role]

    def __init__(self, rules: AccountRules) -> None:
        self._rules = rules
        self._standing: dict[UserId, Account] = {}
        self._wrong: dict[UserId, tuple[Attempt, ...]] = {}
        self._invites: dict[str, Invite] = {}
        self._audit: list[AuditRow] = []
        self._ended_logins: set[str] = set()
        self._links: dict[str, tuple[UserId, datetime]] = {}

    @abstractmethod
    async def open_wallet(self, user: UserId, is_admin: bool) -> Balance: ...

    @abstractmethod
    def _check_known(self, user: UserId) -> None: ...

    async def register(self, identity: TelegramIdentity) -> Account:
        self._rules.check_allowed(identity.telegram_id)
        known = next((each for each in self._standing.values() if each.telegram_id == identity.telegram_id), None)
        user = known.user if known else new_user_id()
        if known is None:
            await self.open_wallet(user, False)
        self._check_known(user)
        fields = {name: getattr(identity, name) for name in TelegramIdentity.__dataclass_fields__}
        before = self._standing_of(user)
        row = replace(before, **{**fields, "language_code": identity.language_code or before.language_code})
        if listed := self._rules.listed(identity.telegram_id):
            role, authorized, verified = listed
            row = replace(row, authorized=row.authorized or authorized, verified=row.verified or verified)
            self._raise_role(user, role, "list", By(user=user), "role")
        self._standing[user] = row
        granted = 0 if known else self._initial_free_ucredits
        return replace(self._seen(user), is_new=known is None, granted_ucredits=granted)

    async def account(self, user: UserId) -> Account | None:
        return self._seen(user) if user in self._roles else None

    async def account_of(self, telegram_id: int) -> Account | None:
        found = [user for user, each in self._standing.items() if each.telegram_id == telegram_id]
        return self._seen(found[0]) if found else None

    async def admins(self) -> Sequence[Account]:
        every = await self.accounts(len(self._roles), 0)
        return [each for each in every if each.role == "ADMIN" and each.telegram_id is not None and not each.banned]

    async def accounts(self, limit: int, offset: int) -> Sequence[Account]:
        return [self._seen(user) for user in self._roles][offset : offset + limit]

    async def unlock(self, user: UserId, code: str, address: str) -> Account:
        self._check_may_try(user, "unlock", address)
        if not same_code(code, self._rules.unlock_code):
            raise self._guessed(user, "unlock", address)
        if not self._standing_of(user).authorized:
            self._standing[user] = replace(self._standing_of(user), authorized=True)
            await self.note(AuditEntry(by=By(user=user, address=address), action="unlock", target=user))
        return self._seen(user)

    async def bootstrap(self, user: UserId, code: str, address: str) -> Account:
        self._check_may_try(user, "bootstrap", address)
        if any(is_admin for each, is_admin in self._admins.items() if each not in (user, LOCAL_ADMIN)):
            raise ForbiddenError("There is an administrator already.")
        if not same_code(code, self._rules.bootstrap_code):
            raise self._guessed(user, "bootstrap", address)
        self._raise_role(user, "ADMIN", "code", By(user=user, address=address), "bootstrap")
        self._standing[user] = replace(self._standing_of(user), authorized=True, verified=True)
        return self._seen(user)

    async def redeem_invite(self, user: UserId, code: str, address: str) -> Account:
        self._check_may_try(user, "invite", address)
        invite = self._invites.get(code_hash(code))
        if invite is None:
            raise self._guessed(user, "invite", address)
        if user not in invite.consumers:
            invite = self._as_now(invite)
            if invite.state != "open":
                raise refused_invite(invite.state)
            consumers = (*invite.consumers, user)
            self._invites[code_hash(code)] = replace(invite, uses_left=invite.uses_left - 1, consumers=consumers)
            before = self._roles[user]
            self._roles[user] = higher(before, invite.role)
            self._standing[user] = replace(self._standing_of(user), authorized=True, verified=True)
            details = {"invite": invite.invite_id, "from": before, "to": self._roles[user], "through": "invite"}
            await self.note(AuditEntry(by=By(user=user, address=address), action="invite_used", target=user,
                                       details=details))  # fmt: skip
        return self._seen(user)

    async def change_account(self, change: AccountChange, by: By) -> Account:
        self._check_known(change.user)
        check_changeable(change)
        before = self._roles[change.user]
        if change.role is not None and change.role != before:
            self._admins[change.user], self._roles[change.user] = change.role == "ADMIN", change.role
            details = {"from": before, "to": change.role, "through": "administrator"}
            await self.note(AuditEntry(by=by, action="role", target=change.user, details=details))
        row = self._standing_of(change.user)
        flags = {name: getattr(change, name) for name in ("authorized", "verified", "banned")}
        new = {name: flag for name, flag in flags.items() if flag is not None and flag != getattr(row, name)}
        self._standing[change.user] = replace(row, **new)
        if (banned := new.pop("banned", None)) is not None:
            await self.note(AuditEntry(by=by, action="ban" if banned else "unban", target=change.user))
        if new:
            await self.note(AuditEntry(by=by, action="flags", target=change.user, details=new))
        return self._seen(change.user)

    async def add_invite(self, invite: NewInvite, by: By) -> Invite:
        check_invite(invite, self._clock())
        if invite.code_sha256 not in self._invites:
            self._invites[invite.code_sha256] = Invite(
                invite_id=invite.id, role=invite.role, uses=invite.uses, uses_left=invite.uses, state="open",
                made_by=by.user, made_at=self._clock(), expires_at=invite.expires_at,
            )  # fmt: skip
            details = {"role": invite.role, "uses": invite.uses}
            await self.note(AuditEntry(by=by, action="invite", target=invite.id, details=details))
        return self._as_now(self._invites[invite.code_sha256])

    async def invites(self) -> Sequence[Invite]:
        return [self._as_now(each) for each in reversed(self._invites.values())]

    async def revoke_invite(self, invite_id: str, by: By) -> bool:
        found = [sha256 for sha256 in self._invites if invite_id and sha256.startswith(invite_id)]
        if len(found) != 1:
            return False
        if self._invites[found[0]].state != "revoked":
            self._invites[found[0]] = replace(self._invites[found[0]], state="revoked", uses_left=0)
            target = self._invites[found[0]].invite_id
            await self.note(AuditEntry(by=by, action="invite_revoked", target=target))
        return True

    async def note(self, entry: AuditEntry) -> None:
        self._audit.insert(
            0,
            AuditRow(
                id=secrets.token_hex(8), actor=entry.by.user, action=entry.action, target=entry.target,
                details=dict(entry.details), address=entry.by.address, at=self._clock(),
            ),
        )  # fmt: skip

    async def audit(self, limit: int, offset: int) -> Sequence[AuditRow]:
        return self._audit[offset : offset + limit]

    async def revoke_login(self, login: Login) -> None:
        self._ended_logins.add(login.id)

    async def revoke_logins(self, user: UserId) -> None:
        self._check_known(user)
        self._standing[user] = replace(self._standing_of(user), logins=self._standing_of(user).logins + 1)

    async def authenticate_login(self, login: Login) -> Identity | None:
        row = self._standing.get(login.user)
        good = row is not None and (row.telegram_id, row.logins) == (login.telegram_id, login.generation)
        if not good or login.id in self._ended_logins:
            return None
        seen = self._seen(login.user)
        return Identity(
            user=seen.user, is_admin=seen.role == "ADMIN", kind="user", role=seen.role, expires_at=login.expires_at,
            refusal=self._refusal(seen.user), authorized=seen.authorized, login=login,
        )  # fmt: skip

    async def add_login_link(self, user: UserId, link_sha256: str, expires_at: datetime) -> None:
        self._check_known(user)
        self._links.setdefault(link_sha256, (user, expires_at))

    async def use_login_link(self, link_sha256: str) -> Account | None:
        user, expires_at = self._links.pop(link_sha256, (None, self._clock()))
        return self._seen(user) if user is not None and expires_at > self._clock() else None

    def _subscribed_until(self, user: UserId) -> datetime | None:
        raise NotImplementedError

    def _refusal(self, user: UserId) -> str:
        row = self._standing_of(user)
        return BANNED if row.banned else "Not on the list." if self._rules.is_refused(row.telegram_id) else ""

    def _standing_of(self, user: UserId) -> Account:
        return self._standing.get(user) or Account(
            user=user, telegram_id=None, username="", first_name="", last_name="", language_code="", role="DEMO",
            authorized=False, verified=False, banned=False,
        )  # fmt: skip

    def _seen(self, user: UserId) -> Account:
        row, ends_at, now = self._standing_of(user), self._subscribed_until(user), self._clock()
        role = effective_role(self._roles[user], ends_at, now)
        return replace(row, role=role, authorized=row.authorized or is_running(ends_at, now))

    def _as_now(self, invite: Invite) -> Invite:
        if invite.state != "revoked" and invite.expires_at is not None and invite.expires_at <= self._clock():
            return replace(invite, state="expired")
        return replace(invite, state="used") if invite.state == "open" and not invite.uses_left else invite

    def _raise_role(self, user: UserId, role: Role, through: str, by: By, action: str) -> None:
        before = self._roles[user]
        after = higher(before, role)
        if after != before:
            self._admins[user], self._roles[user] = after == "ADMIN", after
            self._audit.insert(
                0,
                AuditRow(
                    id=secrets.token_hex(8), actor=by.user, action=action, target=user, address=by.address,
                    details={"from": before, "to": after, "through": through}, at=self._clock(),
                ),
            )  # fmt: skip

    def _check_may_try(self, user: UserId, guard: str, address: str) -> None:
        self._check_known(user)
        check_admitted(self._standing_of(user).banned)
        check_attempts(self._wrong.get(user, ()), guard, address, self._clock())

    def _guessed(self, user: UserId, guard: str, address: str) -> MasterbuilderError:
        self._wrong[user] = (Attempt(guard, address, self._clock()), *self._wrong.get(user, ()))[:20]
        self._audit.insert(
            0,
            AuditRow(
                id=secrets.token_hex(8), actor=user, action=f"{guard}_failed", target=user, details={},
                address=address, at=self._clock(),
            ),
        )  # fmt: skip
        return wrong_code(guard)

"""Accounts on the store. The rules are in `accounts`."""

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

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
from runtime.accounts.rules import BANNED, AccountRules
from runtime.errors import ConflictError, MasterbuilderError
from runtime.ids import UserId
from runtime.ledger import accounts, wallets
from runtime.ledger.accounts import ACCOUNTS, BY_TELEGRAM, AccountRow
from runtime.ledger.caps import USERS
from runtime.ledger.person_book import PersonBook
from runtime.ledger.port import Balance, Identity
from runtime.ledger.postings import balance_of, wallet
from runtime.ledger.records import User, at_us
from runtime.ledger.roles import effective_role, is_running
from runtime.ledger.subscriptions import subscribed_until
from runtime.store.transaction import Kind, Transaction

LINKS: Kind[tuple[UserId, datetime, bool]] = Kind(
    name="login link",
    query="select_login_link",
    read=lambda rows: (rows[0][0], at_us(rows[0][1]), rows[0][2]) if rows else None,
)
"""By the link's SHA-256: whose it is, until when it is good, whether it was used."""
EVERYBODY_MAX = 100_000


class AccountBook(PersonBook):
    _account_rules: AccountRules
    _initial_free_ucredits: int

    async def register(self, identity: TelegramIdentity) -> Account:
        self._account_rules.check_allowed(identity.telegram_id)
        return await self._database.write(lambda tx: self._register(tx, identity))

    async def account(self, user: UserId) -> Account | None:
        found = await self._accounts(user=user)
        return found[0] if found else None

    async def account_of(self, telegram_id: int) -> Account | None:
        rows = await self._rows("user_of_telegram", {"key": self._telegram_key(telegram_id)})
        return await self.account(UserId(rows[0][0])) if rows else None

    async def admins(self) -> Sequence[Account]:
        return await self._accounts(admins=True)

    async def accounts(self, limit: int, offset: int) -> Sequence[Account]:
        return await self._accounts(limit=limit, offset=offset)

    async def unlock(self, user: UserId, code: str, address: str) -> Account:
        rules = self._account_rules
        return await self._guarded(user, lambda tx: accounts.unlock(tx, user, code, address, rules, self._clock()))

    async def bootstrap(self, user: UserId, code: str, address: str) -> Account:
        rules = self._account_rules
        return await self._guarded(user, lambda tx: accounts.bootstrap(tx, user, code, address, rules, self._clock()))

    async def redeem_invite(self, user: UserId, code: str, address: str) -> Account:
        return await self._guarded(user, lambda tx: accounts.redeem_invite(tx, user, code, address, self._clock()))

    async def change_account(self, change: AccountChange, by: By) -> Account:
        def act(tx: Transaction) -> Account:
            accounts.change(tx, change, by, self._clock())
            return self._seen(tx, change.user)

        return await self._database.write(act)

    async def add_invite(self, invite: NewInvite, by: By) -> Invite:
        row = await self._database.write(lambda tx: accounts.add_invite(tx, invite, by, self._clock()))
        return row.told(self._clock())

    async def invites(self) -> Sequence[Invite]:
        now = self._clock()
        rows = await self._rows("invites", {})
        return [accounts.invite_of(row).told(now, tuple(consumers or ())) for *row, consumers in rows]

    async def revoke_invite(self, invite_id: str, by: By) -> bool:
        rows = await self._rows("invites_named", {"invite_id": invite_id}) if invite_id else []
        if len(rows) != 1:
            return False
        await self._database.write(lambda tx: accounts.revoke_invite(tx, rows[0][0], by, self._clock()))
        return True

    async def note(self, entry: AuditEntry) -> None:
        await self._database.write(lambda tx: accounts.note(tx, entry, self._clock()))

    async def audit(self, limit: int, offset: int) -> Sequence[AuditRow]:
        rows = await self._rows("audit", {"limit": limit, "offset": offset})
        return [accounts.audit_row_of(row) for row in rows]

    async def revoke_login(self, login: Login) -> None:
        def act(tx: Transaction) -> None:
            tx.execute("revoke_login", login=login.id, user_id=login.user, expires_at=login.expires_at)
            tx.execute("drop_revoked_logins", before=self._clock())

        await self._database.write(act)

    async def revoke_logins(self, user: UserId) -> None:
        await self._database.write(lambda tx: accounts.end_logins(tx, user))

    async def authenticate_login(self, login: Login) -> Identity | None:
        asked = {
            "user_id": login.user,
            "telegram_key": self._telegram_key(login.telegram_id),
            "generation": login.generation,
            "login": login.id,
        }
        now = self._clock()
        for is_admin, role, user, profile, authorized, banned, until_us in await self._rows("identity_of_login", asked):
            until = at_us(until_us) if until_us is not None else None
            effective = effective_role(role, until, now)
            return Identity(
                user=user,
                is_admin=is_admin,
                kind="user",
                role=effective,
                role_until=until if effective != role else None,
                expires_at=login.expires_at,
                refusal=self._refusal(user, profile, banned),
                authorized=authorized or is_running(until, now),
                login=login,
            )
        return None

    async def add_login_link(self, user: UserId, link_sha256: str, expires_at: datetime) -> None:
        def act(tx: Transaction) -> None:
            wallets.known_user(tx, user)
            tx.execute("add_login_link", link_sha256=link_sha256, user_id=user, expires_at=expires_at)
            tx.execute("drop_login_links", before=self._clock())

        await self._database.write(act)

    async def use_login_link(self, link_sha256: str) -> Account | None:
        def act(tx: Transaction) -> Account | None:
            user, expires_at, is_used = tx.get(LINKS, link_sha256) or (UserId(""), self._clock(), True)
            if is_used or expires_at <= self._clock():
                return None
            tx.execute("use_login_link", link_sha256=link_sha256, used_at=self._clock())
            tx.keep(LINKS, link_sha256, (user, expires_at, True))
            return self._seen(tx, user)

        return await self._database.write(act)

    def _refusal(self, user: UserId, profile: bytes | None, banned: bool) -> str:
        """Why no door lets the user in; empty where they are let in."""
        if banned:
            return BANNED
        known = accounts.open_profile(profile, user, self._database.seal) if self._account_rules.allowed_ids else None
        is_out = known is not None and self._account_rules.is_refused(known.telegram_id)
        return "This installation is open to invited people only, and you are not on its list." if is_out else ""

    def _register(self, tx: Transaction, identity: TelegramIdentity) -> Account:
        key, now = self._telegram_key(identity.telegram_id), self._clock()
        known = tx.get(BY_TELEGRAM, key)
        user = known or accounts.new_user_id()
        granted = 0
        if known is None:
            before = balance_of(tx, wallet(user))
            self._open_known(tx, user, key)
            granted = balance_of(tx, wallet(user)) - before
        accounts.enrol(tx, user, key, identity, self._account_rules, self._database.seal, now)
        seen = self._seen(tx, user)
        return replace(seen, is_new=True, granted_ucredits=granted) if known is None else seen

    def _open_known(self, tx: Transaction, user: UserId, identity_sha256: str) -> Balance:
        return wallets.open_wallet(tx, user, False, identity_sha256, self._initial_free_ucredits, self._clock())

    def _telegram_key(self, telegram_id: int) -> str:
        """What remembers who had a first grant, also when the rest is erased."""
        return hmac.new(self._identity_salt, f"telegram:{telegram_id}".encode(), hashlib.sha256).hexdigest()

    def _seen(self, tx: Transaction, user: UserId) -> Account:
        """As the group sees it so far."""
        known = tx.get(USERS, user)
        if known is None:
            raise ConflictError(f"{user} is not there any more.")
        return accounts.account_from(
            known,
            tx.get(ACCOUNTS, user) or accounts.blank(user),
            self._database.seal,
            subscribed_until(tx, user),
            self._clock(),
        )

    async def _guarded(self, user: UserId, act: Callable[[Transaction], MasterbuilderError | None]) -> Account:
        """Tells a refusal only when what it wrote is on disk."""

        def both(tx: Transaction) -> Account | MasterbuilderError:
            return act(tx) or self._seen(tx, user)

        answer = await self._database.write(both)
        if isinstance(answer, MasterbuilderError):
            raise answer
        return answer

    async def _accounts(
        self, *, user: UserId | None = None, admins: bool = False, limit: int = EVERYBODY_MAX, offset: int = 0
    ) -> list[Account]:
        asked = {"user_id": user, "admins": admins, "limit": limit, "offset": offset}
        now, seal = self._clock(), self._database.seal
        return [
            accounts.account_from(
                User(user_id=name, is_admin=is_admin, role=role),
                AccountRow(
                    user_id=name, telegram_key=key, profile=profile, authorized=authorized, verified=verified,
                    banned=banned, logins=logins,
                ),
                seal,
                at_us(until_us) if until_us is not None else None,
                now,
            )
            for name, is_admin, role, key, profile, authorized, verified, banned, logins, until_us
            in await self._rows("account_lines", asked)
        ]  # fmt: skip

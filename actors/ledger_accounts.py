"""The part of the ledger's handle that is about accounts."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Concatenate, ParamSpec, TypeVar

from runtime.accounts.port import (
    Account,
    AccountChange,
    Accounts,
    AuditEntry,
    AuditRow,
    By,
    Invite,
    Login,
    NewInvite,
    TelegramIdentity,
)
from runtime.ids import UserId

P = ParamSpec("P")
T = TypeVar("T")


class AccountsHandle(ABC):
    """Implements `Accounts` from any process."""

    async def register(self, identity: TelegramIdentity) -> Account:
        return await self._ask(Accounts.register, identity)

    async def account(self, user: UserId) -> Account | None:
        return await self._ask(Accounts.account, user)

    async def account_of(self, telegram_id: int) -> Account | None:
        return await self._ask(Accounts.account_of, telegram_id)

    async def admins(self) -> Sequence[Account]:
        return await self._ask(Accounts.admins)

    async def accounts(self, limit: int, offset: int) -> Sequence[Account]:
        return await self._ask(Accounts.accounts, limit, offset)

    async def unlock(self, user: UserId, code: str, address: str) -> Account:
        return await self._ask(Accounts.unlock, user, code, address)

    async def bootstrap(self, user: UserId, code: str, address: str) -> Account:
        return await self._ask(Accounts.bootstrap, user, code, address)

    async def redeem_invite(self, user: UserId, code: str, address: str) -> Account:
        return await self._ask(Accounts.redeem_invite, user, code, address)

    async def change_account(self, change: AccountChange, by: By) -> Account:
        return await self._ask(Accounts.change_account, change, by)

    async def add_invite(self, invite: NewInvite, by: By) -> Invite:
        return await self._ask(Accounts.add_invite, invite, by)

    async def invites(self) -> Sequence[Invite]:
        return await self._ask(Accounts.invites)

    async def revoke_invite(self, invite_id: str, by: By) -> bool:
        return await self._ask(Accounts.revoke_invite, invite_id, by)

    async def note(self, entry: AuditEntry) -> None:
        await self._ask(Accounts.note, entry)

    async def audit(self, limit: int, offset: int) -> Sequence[AuditRow]:
        return await self._ask(Accounts.audit, limit, offset)

    async def revoke_login(self, login: Login) -> None:
        await self._ask(Accounts.revoke_login, login)

    async def revoke_logins(self, user: UserId) -> None:
        await self._ask(Accounts.revoke_logins, user)

    async def add_login_link(self, user: UserId, link_sha256: str, expires_at: datetime) -> None:
        await self._ask(Accounts.add_login_link, user, link_sha256, expires_at)

    async def use_login_link(self, link_sha256: str) -> Account | None:
        return await self._ask(Accounts.use_login_link, link_sha256)

    @abstractmethod
    async def _ask(self, method: Callable[Concatenate[Any, P], Awaitable[T]], *args: P.args, **_: P.kwargs) -> T:
        """Sends one method of a port, named by its own function."""

"""What the rest of the product asks of the ledger about accounts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal, Protocol, Self

from runtime.accounts.roles import Role
from runtime.ids import UserId

InviteState = Literal["open", "used", "expired", "revoked"]
INVITE_ID_DIGITS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class TelegramIdentity:
    """Who Telegram says somebody is. Only for whoever has proof of it: see `runtime.accounts.proofs`."""

    telegram_id: int
    username: str = ""
    first_name: str = ""
    last_name: str = ""
    language_code: str = ""
    """Empty where nothing was said of it: then what is known stays."""

    def after(self, known: Self | None) -> Self:
        """With what is known of the same person and was not said now."""
        language_code = self.language_code or (known.language_code if known else "")
        return replace(self, language_code=language_code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user as they stand. Without Telegram there is no id and there are no names."""

    user: UserId
    telegram_id: int | None
    username: str
    first_name: str
    last_name: str
    language_code: str
    role: Role
    """The effective one: see `effective_role`."""
    authorized: bool
    """May chat. An ADMIN may without."""
    verified: bool
    banned: bool
    logins: int = 0
    """Which generation of logins is good: see `Login`."""
    is_new: bool = False
    """Registered by this very message."""
    granted_ucredits: int = 0
    """What this very message granted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class By:
    """Who does something that is written down, and from which network address, where there is one."""

    user: UserId
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountChange:
    """What an administrator changes; None stays as it is."""

    user: UserId
    role: Role | None = None
    authorized: bool | None = None
    verified: bool | None = None
    banned: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewInvite:
    """A code of which the ledger knows the SHA-256 only."""

    code_sha256: str
    role: Role
    uses: int
    expires_at: datetime | None = None

    @property
    def id(self) -> str:
        return self.code_sha256[:INVITE_ID_DIGITS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Invite:
    """`invite_id` is the first 12 digits of its SHA-256; `consumers` used it, in that order."""

    invite_id: str
    role: Role
    uses: int
    uses_left: int
    state: InviteState
    made_by: UserId
    made_at: datetime
    expires_at: datetime | None
    consumers: Sequence[UserId] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Something an operator may want to look up. `details` never holds a name, a code or a token."""

    by: By
    action: str
    target: str
    details: Mapping[str, str | int | bool | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    id: str
    actor: UserId
    action: str
    target: str
    details: Mapping[str, str | int | bool | None]
    address: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What a signed token says of itself: it is good while `generation` is the user's and nobody revoked its id."""

    id: str
    user: UserId
    telegram_id: int
    generation: int
    expires_at: datetime


class Accounts(Protocol):
    """A part of `runtime.ledger.port.Ledger`, which is its only writer. Every message may be repeated."""

    async def register(self, identity: TelegramIdentity) -> Account:
        """Makes exactly one user for each Telegram id, with INITIAL_FREE_CREDITS once for ever, and takes over the
        names. Raises ForbiddenError for who is not on ALLOWED_USER_IDS, ConflictError for who is being erased.

        A banned user is answered like any other: see `check_admitted`.
        """

    async def account(self, user: UserId) -> Account | None: ...

    async def account_of(self, telegram_id: int) -> Account | None: ...

    async def admins(self) -> Sequence[Account]:
        """Those with a Telegram id, for whoever alerts them; without the banned."""

    async def accounts(self, limit: int, offset: int) -> Sequence[Account]:
        """Every user, oldest first."""

    async def unlock(self, user: UserId, code: str, address: str) -> Account:
        """Sets `authorized`. Raises WrongCodeError, TooManyRequestsError after too many, NotFoundError, ConflictError,
        ForbiddenError for the banned. A wrong attempt is on disk when it is answered."""

    async def bootstrap(self, user: UserId, code: str, address: str) -> Account:
        """Makes the user ADMIN, authorized and verified, while there is no administrator but the local one.

        Raises like `unlock`, and ForbiddenError once there is one.
        """

    async def redeem_invite(self, user: UserId, code: str, address: str) -> Account:
        """Gives the code's role, where it is higher, authorized and verified. The same user again changes nothing.

        Raises InviteCodeError for a code that is unknown, expired, revoked or used up; else like `unlock`.
        """

    async def change_account(self, change: AccountChange, by: By) -> Account:
        """Raises NotFoundError, ConflictError for the local admin or who is being erased."""

    async def add_invite(self, invite: NewInvite, by: By) -> Invite:
        """Adding twice changes nothing. Raises BadInputError."""

    async def invites(self) -> Sequence[Invite]:
        """Newest first, whatever became of them."""

    async def revoke_invite(self, invite_id: str, by: By) -> bool:
        """False: there is none."""

    async def note(self, entry: AuditEntry) -> None:
        """Writes it into the audit log."""

    async def audit(self, limit: int, offset: int) -> Sequence[AuditRow]:
        """Newest first."""

    async def revoke_login(self, login: Login) -> None: ...

    async def revoke_logins(self, user: UserId) -> None:
        """Every login of the user there ever was. Raises NotFoundError."""

    async def add_login_link(self, user: UserId, link_sha256: str, expires_at: datetime) -> None:
        """A secret that logs its user in, once. Raises NotFoundError, ConflictError."""

    async def use_login_link(self, link_sha256: str) -> Account | None:
        """None for one that is unknown, expired or used."""

"""What the rest of the product asks of the ledger. Every message may be repeated: ids make it safe."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from runtime.ids import BlobId, CallId, ProjectId, RunId, UserId
from runtime.ledger.money import Price

TaskType = Literal[
    "clarification", "planning", "coding", "verification", "review", "readme_generation", "documentation",
    "code_embedding", "estimation", "chat",
]  # fmt: skip
CallState = Literal["held", "metered", "settled", "lost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Asks for the worst case of one call before it is made.

    With `run`, user, project, task and attempt are the run's, and the call is charged when the run settles;
    without, it is charged as soon as it is metered.
    """

    call: CallId
    user: UserId
    run: RunId | None
    task_type: TaskType
    provider: str
    model: str
    input_tokens_max: int
    output_tokens_max: int
    price: Price


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """What the call really used. `provider_failed` voids the hold: the provider served nothing."""

    call: CallId
    input_tokens: int
    output_tokens: int
    response_time_ms: int
    key_id: str
    provider_failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """A wallet, in microcredits: `free` = `balance` - `held`, and neither is ever negative."""

    balance_ucredits: int
    held_ucredits: int

    @property
    def free_ucredits(self) -> int:
        return self.balance_ucredits - self.held_ucredits


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRow:
    """One model call, as a receipt shows it."""

    call: CallId
    run: RunId | None
    task: str
    attempt: int
    task_type: TaskType
    provider: str
    model: str
    state: CallState
    input_tokens: int
    output_tokens: int
    cost_pusd: int
    credits_ucredits: int
    outcome: str
    """`ok`, `provider_failed`, `interrupted` (usage known), or `interrupted_unknown` (cost is the upper bound)."""
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A project's account. `charged` are the user's; `losses` are the platform's and cost the user nothing."""

    project: ProjectId
    charged: Sequence[CallRow]
    losses: Sequence[CallRow]
    pending: Sequence[CallRow]
    total_cost_pusd: int
    total_ucredits: int
    refunded_ucredits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a token speaks for. A task token also carries the run it pays under and may call models only."""

    user: UserId
    is_admin: bool
    kind: Literal["user", "task"]
    run: RunId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """A bearer token, known to the ledger by its SHA-256 only."""

    token_sha256: str
    user: UserId
    kind: Literal["user", "task"]
    label: str
    run: RunId | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedKey:
    """A provider key, encrypted with API_KEY_ENCRYPTION_KEY before it reaches the ledger."""

    key_id: str
    """A fingerprint that names the key without telling it."""
    provider: str
    label: str
    sealed: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """A sum that does not add up."""

    subject: str
    text: str


class Ledger(Protocol):
    """The single writer of money. Implemented by `runtime.ledger.books.Books` and by the Ledger actor's handle."""

    async def open_wallet(self, user: UserId, is_admin: bool) -> Balance:
        """Registers a user and grants INITIAL_FREE_CREDITS, once per person for ever."""

    async def balance(self, user: UserId) -> Balance: ...

    async def hold(self, hold: Hold) -> None:
        """Reserves the worst case. Repeating the same call id is the same hold.

        Raises NotEnoughCreditsError, CeilingReachedError, ConflictError (the run is not open); nothing is held then.
        """

    async def meter(self, meter: Meter) -> None:
        """Records real usage and releases the rest of the hold; a call without a run is charged at once.

        Usage above the hold is the platform's loss. Metering twice changes nothing.
        """

    async def receipt(self, project: ProjectId) -> Receipt: ...

    async def add_token(self, token: NewToken) -> None: ...

    async def revoke_token(self, token_sha256: str) -> None: ...

    async def authenticate(self, token_sha256: str) -> Identity | None:
        """None for an unknown, expired or revoked token, and for a task token whose run is no longer open."""

    async def replace_keys(self, keys: Sequence[SealedKey]) -> None:
        """Makes these the keys that came from the environment: new ones are added, missing ones deactivated."""

    async def keys(self, provider: str) -> Sequence[SealedKey]: ...

    async def put_blob(self, data: bytes) -> BlobId:
        """On disk and fsynced when it returns. The same bytes have the same id."""

    async def get_blob(self, blob: BlobId) -> bytes:
        """Raises NotFoundError."""

    async def mismatches(self) -> Sequence[Mismatch]:
        """Everything that does not add up; empty when the books are right."""

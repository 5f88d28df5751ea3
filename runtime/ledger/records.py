"""The ledger's rows. Amounts are integers: microcredits, or picodollars where the name says so."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from runtime.ids import CallId, ProjectId, RunId, UserId
from runtime.ledger.money import Price
from runtime.ledger.port import CallRow, CallState, EscrowId, Payer, Role, TaskType

Unit = Literal["credit", "usd"]
RunState = Literal["open", "settled", "abandoned"]
Reason = Literal[
    "grant", "purchase", "repayment", "adjustment", "referral", "refund",
    "hold", "release", "charge", "late", "void",
    "cost", "excess", "loss", "correction", "income", "repaid",
]  # fmt: skip
CHARGED = ("ok", "estimated")
"""Outcomes of calls that were served: the others cost the user nothing."""
INTERRUPTED = {"ok": "interrupted", "estimated": "interrupted_estimated", "pending": "interrupted_unknown"}
"""What the outcome of a call becomes when its run is abandoned."""


ERASED = "the account is erased"
"""Why an account is stopped for good: its owner was erased, or asked for it. As `select_stop` says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """`balance` is what was credited minus what was debited."""

    account: str
    unit: Unit
    balance: int


class Transfer(NamedTuple):
    """`amount` (over 0) leaves `debit` and reaches `credit`. Its id is made from the caller's: posted once for ever."""

    transfer_id: str
    unit: Unit
    debit: str
    credit: str
    amount: int
    reason: Reason
    call: CallId | None
    user: UserId | None
    project: ProjectId | None
    made_at: datetime
    escrow: EscrowId | None = None
    batch: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    user_id: UserId
    is_admin: bool
    role: Role
    invited_by: UserId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """That nothing more is spent from a user's wallet, until it is lifted."""

    user: UserId
    reason: str
    lifted_at: int | None
    """Microseconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A ceiling (None: no bound but the wallet) and what is held, metered or settled under it."""

    subject: str
    """A project's id, or `token:<sha256>`."""
    ceiling_ucredits: int | None
    committed_ucredits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    run: RunId
    user: UserId
    project: ProjectId
    task: str
    attempt: int
    state: RunState


@dataclass(frozen=True, slots=True, kw_only=True)
class RunBegin:
    run: RunId
    user: UserId
    project: ProjectId
    task: str
    attempt: int
    begun_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    run: RunId
    state: RunState
    ended_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call as it stands. Until its usage is known, tokens and `cost_pusd` are the bounds that were held.

    `charge_ucredits` is what stays reserved or was charged: the hold, then the real charge, 0 when lost.
    """

    call: CallId
    user: UserId
    run: RunId | None
    project: ProjectId | None
    token_sha256: str
    task: str
    attempt: int
    task_type: TaskType
    provider: str
    model: str
    pricing_id: str
    input_udollars_per_mtok: int
    output_udollars_per_mtok: int
    input_tokens_max: int
    output_tokens_max: int
    bound_pusd: int
    hold_ucredits: int
    state: CallState
    outcome: str
    input_tokens: int
    output_tokens: int
    cost_pusd: int
    charge_ucredits: int
    excess_pusd: int
    """The part of the cost that no credits cover: the platform's, whatever becomes of the call."""
    images: int
    image_udollars: int
    held_at: datetime

    @property
    def payer(self) -> Payer:
        return Payer(self.user, self.project, self.token_sha256, self.provider)

    @property
    def price(self) -> Price:
        return Price(
            pricing_id=self.pricing_id,
            input_udollars_per_mtok=self.input_udollars_per_mtok,
            output_udollars_per_mtok=self.output_udollars_per_mtok,
            image_udollars=self.image_udollars,
        )

    def row(self) -> CallRow:
        return CallRow(
            call=self.call,
            run=self.run,
            task=self.task,
            attempt=self.attempt,
            task_type=self.task_type,
            provider=self.provider,
            model=self.model,
            state=self.state,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cost_pusd=self.cost_pusd,
            credits_ucredits=self.charge_ucredits,
            outcome=self.outcome,
            at=self.held_at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CallUsage:
    call: CallId
    input_tokens: int
    output_tokens: int
    cost_pusd: int
    charge_ucredits: int
    provider_failed: bool
    response_time_ms: int
    key_id: str
    metered_at: datetime
    estimated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnd:
    call: CallId
    state: CallState
    ended_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class EscrowRow:
    """An escrow as it stands: `granted` was taken from the wallet and not given back, `charged` of it was used.

    While it is open its row on disk lags behind in what was charged: the transfers say that.
    """

    escrow: EscrowId
    process: str
    user: UserId
    project: ProjectId | None
    token_sha256: str
    granted_ucredits: int
    charged_ucredits: int
    provider: str
    opened_at: datetime
    ended_at: datetime | None

    @property
    def left_ucredits(self) -> int:
        """What it holds."""
        return self.granted_ucredits - self.charged_ucredits

    @property
    def payer(self) -> Payer:
        return Payer(self.user, self.project, self.token_sha256, self.provider)


class CallTraits(NamedTuple):
    """What many calls under escrows have in common; each combination is one row, under an id made of it."""

    traits: int
    task_type: TaskType
    provider: str
    model: str
    pricing_id: str
    input_udollars_per_mtok: int
    output_udollars_per_mtok: int
    image_udollars: int
    key_id: str
    outcome: str


class SettledCall(NamedTuple):
    """A call under an escrow: with its traits, all that a receipt needs. Written once and never changed. A tuple is
    made in a third of a dataclass's time."""

    call: CallId
    escrow: EscrowId
    batch: str
    traits: int
    input_tokens_max: int
    output_tokens_max: int
    input_tokens: int
    output_tokens: int
    images: int
    cost_pusd: int
    charge_ucredits: int
    loss_pusd: int
    response_time_ms: int
    held_at: datetime
    settled_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    identity_sha256: str
    granted_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PurchaseRow:
    """A confirmed payment. `amount_minor` is what the payer saw, in the smallest unit of `currency`."""

    purchase: str
    """`<provider>/<external id>`"""
    provider: str
    external_id: str
    user: UserId
    product: str
    ucredits: int
    paid_pusd: int
    currency: str
    amount_minor: int
    made_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RepaymentRow:
    """That a purchase was paid back; its credits were taken as far as they were there."""

    purchase: str
    taken_ucredits: int
    reason: str
    made_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StarPaymentRow:
    """A payment that Telegram took; with a `failure` it bought nothing."""

    charge_id: str
    provider_charge_id: str
    user: UserId
    product: str
    stars: int
    currency: str
    ucredits: int
    days: int
    failure: str
    paid_at: datetime
    booked_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StarRefundRow:
    charge_id: str
    taken_ucredits: int
    taken_us: int
    reason: str
    made_by: UserId
    made_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AdjustmentRow:
    adjustment: str
    user: UserId
    amount_ucredits: int
    """Negative for what was taken."""
    reason: str
    made_by: UserId
    made_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRefundRow:
    call: CallId
    user: UserId
    project: ProjectId | None
    amount_ucredits: int
    reason: str
    made_by: UserId
    made_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRow:
    """A model's price in micro-dollars per million tokens and picture, under an id that never means another price."""

    pricing_id: str
    provider: str
    model: str
    input_udollars_per_mtok: int
    output_udollars_per_mtok: int
    image_udollars: int = 0


def call_of(row: tuple[Any, ...]) -> Call:
    """Reads the columns of `select_call`."""
    *values, held_at_us = row
    return Call(**dict(zip(_CALL_COLUMNS, values, strict=True)), held_at=at_us(held_at_us))


def escrow_of(row: tuple[Any, ...]) -> EscrowRow:
    """Reads the columns of `select_escrow`."""
    *values, opened_at_us, ended_at_us = row
    ended_at = at_us(ended_at_us) if ended_at_us is not None else None
    return EscrowRow(
        **dict(zip(_ESCROW_COLUMNS, values, strict=True)), opened_at=at_us(opened_at_us), ended_at=ended_at
    )


def at_us(microseconds: int) -> datetime:
    return _1970 + timedelta(microseconds=microseconds)


_1970 = datetime(1970, 1, 1, tzinfo=UTC)
_CALL_COLUMNS = [name for name in Call.__dataclass_fields__ if name != "held_at"]
_ESCROW_COLUMNS = list(EscrowRow.__dataclass_fields__)[:-2]

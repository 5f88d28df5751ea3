"""What the rest of the product asks of the ledger. Every message may be repeated: ids make it safe."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NamedTuple, NewType, Protocol

from runtime.accounts import roles
from runtime.accounts.port import Accounts, Login
from runtime.ids import BlobId, CallId, ProjectId, RunId, UserId
from runtime.ledger.money import Price

TaskType = Literal[
    "clarification", "planning", "coding", "verification", "review", "readme_generation", "documentation",
    "code_embedding", "estimation", "chat",
]  # fmt: skip
CallState = Literal["held", "metered", "settled", "lost"]
Role = roles.Role
Tier = Literal["FULL_ACCESS"]
"""What can be subscribed to. Source: spec/assistant.md §15."""
TokenKind = Literal["user", "project", "task"]
CapScope = Literal["user", "platform", "provider"]
OrderId = NewType("OrderId", str)
OrderState = Literal["pending", "completed", "refunded", "failed"]
EscrowId = NewType("EscrowId", str)
"""Made by the process that draws it; random."""


class Payer(NamedTuple):
    """What a call must fit under: a wallet and, where there are any, a project's ceiling and a token's budget."""

    user: UserId
    project: ProjectId | None = None
    token_sha256: str = ""
    provider: str = ""
    """Whose cap of the day it must also fit under."""

    @property
    def budgets(self) -> tuple[str, ...]:
        """The subjects of the budgets: a project's id, `token:<sha256>`."""
        token = f"token:{self.token_sha256}" if self.token_sha256 else ""
        return tuple(subject for subject in (self.project, token) if subject)


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
    project: ProjectId | None = None
    """Of a call without a run: whose ceiling it must also fit under."""
    token_sha256: str = ""
    """The token whose budget it must also fit under; empty for none."""
    images: int = 0
    """Pictures that it shows; what they cost is known beforehand."""

    @property
    def payer(self) -> Payer:
        """Of a call without a run."""
        return Payer(self.user, self.project, self.token_sha256, self.provider)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """What the call really used. `provider_failed` voids the hold: the provider served nothing.

    `estimated`: the client left in the middle of a stream and the provider did not say; the figures are ours.
    `unserved`: the client left before anything of the answer came; it pays nothing, and what the call used is the
    platform's loss.
    """

    call: CallId
    input_tokens: int
    output_tokens: int
    response_time_ms: int
    key_id: str
    provider_failed: bool = False
    estimated: bool = False
    unserved: bool = False


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
    """`ok`, `estimated` (charged by our estimate), `provider_failed`, or of a loss `interrupted` (usage known),
    `interrupted_estimated` (our estimate) or `interrupted_unknown` (cost is the upper bound)."""
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """A payment that its provider confirmed. `external_id` is the provider's own name for it."""

    provider: str
    external_id: str
    user: UserId
    product: str
    ucredits: int
    paid_pusd: int
    """Its worth in picodollars."""
    currency: str
    amount_minor: int
    """As the payer saw it, in the currency's smallest unit."""
    days: int = 0
    """Of a subscription."""

    @property
    def id(self) -> str:
        return f"{self.provider}/{self.external_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Repayment:
    """That a payment goes back to its payer, and its credits with it."""

    provider: str
    external_id: str
    reason: str

    @property
    def purchase_id(self) -> str:
        return f"{self.provider}/{self.external_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOrder:
    """What a user is going to pay for, at a provider. `paid_pusd` is what the price is worth in picodollars."""

    id: OrderId
    user: UserId
    provider: str
    product: str
    ucredits: int
    amount_minor: int
    """In the currency's smallest unit."""
    currency: str
    paid_pusd: int
    days: int = 0
    """Of a subscription."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    id: OrderId
    user: UserId
    provider: str
    product: str
    ucredits: int
    amount_minor: int
    currency: str
    paid_pusd: int
    days: int = 0
    state: OrderState
    external_id: str | None
    """The payment that completed it."""
    created_at: datetime
    completed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """That an order was paid, as its provider confirmed it. It must agree with the order in all it tells."""

    order: OrderId
    provider: str
    external_id: str
    product: str
    amount_minor: int
    currency: str
    user: UserId | None = None
    """None where the provider does not tell who paid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRefund:
    """That the payment of an order went back to its payer, whole."""

    order: OrderId
    provider: str
    external_id: str
    amount_minor: int
    currency: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StarsCheckout:
    """What somebody is about to pay with Telegram's Stars: asked before anything is taken.

    `product` is what `runtime.payments.stars.product_named` reads in the invoice's payload.
    """

    user: UserId
    product: str
    stars: int
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StarsPayment:
    """That Telegram took Stars. `telegram_charge_id` is the payment's name for ever."""

    telegram_charge_id: str
    provider_charge_id: str
    """May be empty."""
    user: UserId
    product: str
    """As in `StarsCheckout`."""
    stars: int
    currency: str
    at: datetime
    """When it was taken, as Telegram says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StarsRefund:
    """That Stars go back to their payer. What they bought is taken back already, as far as it was still there.

    Until `told_at` is there Telegram may not have heard of it: whoever can, asks it by `refundStarPayment` of this user
    and charge, and then says so with `star_refund_told`. Telegram refuses a second refund of a charge, so asking again
    is safe.
    """

    telegram_charge_id: str
    user: UserId
    stars: int
    taken_ucredits: int
    taken: timedelta
    """Of the subscription."""
    reason: str
    made_by: UserId
    made_at: datetime
    told_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StarPayment:
    """A payment with Stars as the ledger has it. One that `failed` was taken and gave nothing: `failure` says why, the
    operator is alerted, and `refund_stars` gives it back."""

    paid: StarsPayment
    ucredits: int
    days: int
    failure: str
    booked_at: datetime
    refund: StarsRefund | None = None

    @property
    def status(self) -> OrderState:
        if self.refund is not None:
            return "refunded"
        return "failed" if self.failure else "completed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentLine:
    """A payment or an order, as its payer sees it."""

    provider: str
    external_id: str | None
    """The provider's name for the payment; None while nothing was paid."""
    product: str
    ucredits: int
    days: int
    amount_minor: int
    currency: str
    status: OrderState
    failure: str
    """Why a payment that was taken gave nothing; else empty."""
    at: datetime
    expires_at: datetime | None
    """When the days that it bought end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """It is over from `expires_at` on; `is_running` is of the moment when it was asked for."""

    tier: Tier
    expires_at: datetime
    is_running: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """An operator's change of a wallet: credits given, or, where negative, taken. `id` makes a repeat safe."""

    id: str
    user: UserId
    amount_ucredits: int
    reason: str
    made_by: UserId


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRefund:
    """Gives back what one call was charged."""

    call: CallId
    reason: str
    made_by: UserId


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """A line of a wallet's statement: what changed its balance, as spec/builder.md §9.5 names it.

    `amount_ucredits` is positive for what came in. `call` is the call it paid for or gives back.
    """

    id: str
    type: str
    amount_ucredits: int
    cost_pusd: int | None
    call: CallId | None
    project: ProjectId | None
    external_id: str | None
    text: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What a user called of its own today, and the cap of a day; None where there is none."""

    spent_ucredits: int
    cap_ucredits: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Return:
    """Gives back what an escrow needs no more: from now on no more than `granted_ucredits` of it was ever taken.

    A grant only ever falls, so a return may come late, twice, or behind a later one. `ends`: nothing follows.
    """

    escrow: EscrowId
    granted_ucredits: int
    ends: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Asks for one hold for many calls of one payer, made by one process.

    The ledger grants up to `wanted_ucredits`, less near a cap, and refuses below `min_ucredits`. `returns` come first,
    in the same transaction.
    """

    escrow: EscrowId
    process: str
    payer: Payer
    wanted_ucredits: int
    min_ucredits: int
    returns: tuple[Return, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Escrow:
    escrow: EscrowId
    granted_ucredits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EscrowCall:
    """A call that was made under an escrow and is over. Without `meter` its usage is unknown for ever."""

    escrow: EscrowId
    hold: Hold
    meter: Meter | None
    held_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """Calls of one process that are over, and what it gives back. Empty, it says that the process lives.

    A repeated `batch` holds the same calls. A process that died is settled by whoever finds its spool.
    """

    batch: str
    process: str
    calls: tuple[EscrowCall, ...] = ()
    returns: tuple[Return, ...] = ()
    process_ended: bool = False
    """Everything that the process still holds is given back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundRow:
    """What of a receipt's charges was given back."""

    call: CallId
    task: str
    amount_ucredits: int
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """A project's sums so far: what was charged, what that cost the platform, and what was given back."""

    total_cost_pusd: int
    total_ucredits: int
    refunded_ucredits: int

    @property
    def net_ucredits(self) -> int:
        """What the project really cost its user so far."""
        return self.total_ucredits - self.refunded_ucredits


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt(Spent):
    """A project's account. `charged` are the user's; `losses` are the platform's and cost the user nothing."""

    project: ProjectId
    charged: Sequence[CallRow]
    losses: Sequence[CallRow]
    pending: Sequence[CallRow]
    refunds: Sequence[RefundRow] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTerms:
    """What a token may be used for."""

    models: tuple[str, ...] = ()
    """`provider/model`, `provider/*` or a profile's name; empty for every model."""
    budget_ucredits: int | None = None
    """Over the token's whole life."""
    requests_per_minute: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a token speaks for. A task token also carries the run it pays under and may call models only.

    A project's token calls models on its user's wallet, under the project's ceiling.
    """

    user: UserId
    is_admin: bool
    kind: TokenKind
    run: RunId | None = None
    role: Role = "FULL_ACCESS"
    project: ProjectId | None = None
    token_sha256: str = ""
    terms: TokenTerms = TokenTerms()
    expires_at: datetime | None = None
    refusal: str = ""
    """Why no door lets the user in, whatever the token; empty where they are let in."""
    authorized: bool = False
    """May chat. An ADMIN may without."""
    login: Login | None = None
    """Where it is a login and no token of the ledger's own."""
    role_until: datetime | None = None
    """When the role ends by itself; None where it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """A bearer token, known to the ledger by its SHA-256 only."""

    token_sha256: str
    user: UserId
    kind: TokenKind
    label: str
    run: RunId | None = None
    expires_at: datetime | None = None
    project: ProjectId | None = None
    terms: TokenTerms = TokenTerms()


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """A token as its owner and the operator may see it. `token_id` is the first 12 digits of its SHA-256."""

    token_id: str
    user: UserId
    kind: TokenKind
    label: str
    run: RunId | None
    project: ProjectId | None
    terms: TokenTerms
    spent_ucredits: int
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedKey:
    """A provider key, encrypted with API_KEY_ENCRYPTION_KEY before it reaches the ledger."""

    key_id: str
    """A fingerprint that names the key without telling it."""
    provider: str
    label: str
    """`environment` for one that came from there."""
    sealed: bytes
    active: bool = True
    """False: it came from the environment and is no longer there."""
    disabled: bool = False
    """An operator switched it off; it stays so whatever the environment says."""
    limits: str = ""
    """A JSON object, or empty. Not secret."""
    expires_at: datetime | None = None
    """From then on no call gets it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUse:
    """How often a key was used, over the ledger's whole life."""

    key_id: str
    calls: int
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRotation:
    """That every key was sealed anew. The master keys are named by fingerprints."""

    rotated_at: datetime
    keys: int
    old_master: str
    new_master: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """A row of the catalogue as an admin set it: in force for new calls from `effective_from`, until a later one is."""

    provider: str
    """Canonical, at most 100 characters."""
    model: str
    """At most 255 characters; `*` speaks for every model of the provider."""
    effective_from: datetime
    """Aware, UTC, whole microseconds."""
    price: Price
    body: str
    """A JSON object of at most 4 KiB, which the ledger keeps as it is and never looks into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """A sum that does not add up. `user` is whose account it is about, where it is one's."""

    subject: str
    text: str
    user: UserId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """`kind`: `low_balance`, once for each time the balance falls below LOW_CREDIT_THRESHOLD; `subscription_ending`,
    three days before its end, and `subscription_ended`, once each."""

    kind: str
    text: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppedAccount:
    user: UserId
    reason: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """What is kept of a user beside money and projects."""

    user: UserId
    is_admin: bool
    role: Role
    email: str
    """Empty where there is none."""
    registered_at: datetime
    erasure_asked_at: datetime | None = None
    subscription: Subscription | None = None
    """The last one, also when it is over."""

    @property
    def subscription_tier(self) -> Tier | None:
        """None unless one runs."""
        return self.subscription.tier if self.subscription is not None and self.subscription.is_running else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """That a user asked to be erased, and by when it is done."""

    user: UserId
    asked_at: datetime
    due_at: datetime
    forfeited_ucredits: int
    """What the wallet had: what is held of it may still be charged for calls under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCall:
    project: ProjectId | None
    row: CallRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Bought:
    purchase: Purchase
    at: datetime
    repaid_ucredits: int | None
    """None where it was not paid back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """What the user said of a project: a score from 1 to 5, and maybe why."""

    project: ProjectId
    score: int
    text: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Papers:
    """Orders, purchases, payments with Stars and ratings, oldest first, and every notice, newest first."""

    orders: Sequence[Order]
    purchases: Sequence[Bought]
    notices: Sequence[Notice]
    stars: Sequence[StarPayment] = ()
    ratings: Sequence[Rating] = ()


class Credit(Protocol):
    """Who pays for the calls of one process. A `Ledger` is one; a purse is a faster one."""

    async def hold(self, hold: Hold) -> None:
        """Reserves the worst case. Repeating the same call id is the same hold. Raises like `Ledger.hold`."""

    async def meter(self, meter: Meter) -> None:
        """Records real usage: when it returns, kill -9 of this process cannot lose it."""


class Ledger(Accounts, Protocol):
    """The single writer of money. Implemented by `runtime.ledger.books.Books` and by the Ledger actor's handle."""

    async def open_wallet(self, user: UserId, is_admin: bool) -> Balance:
        """Registers a user and grants INITIAL_FREE_CREDITS, once per person for ever."""

    async def balance(self, user: UserId) -> Balance: ...

    async def adjust(self, adjustment: Adjustment) -> Balance:
        """By its id, once for ever. Raises NotFoundError for an unknown user, NotEnoughCreditsError where more would be
        taken than is free, ConflictError for an id of another adjustment, BadInputError."""

    async def purchase(self, purchase: Purchase) -> bool:
        """Credits a confirmed payment, once for ever by provider and external id; False when it was credited before.

        With a user's first, whoever invited them gets the bonus. Raises NotFoundError, BadInputError, ConflictError for
        a payment that comes back with other figures.
        """

    async def repay(self, repayment: Repayment) -> int:
        """Takes a purchase's credits back as far as they are free; how many, in microcredits. Raises NotFoundError."""

    async def open_order(self, order: NewOrder) -> Order:
        """By its id, once for ever: a repeat is the same order at its first price. Raises ConflictError for the id of
        another order, NotFoundError for an unknown user, TooManyRequestsError, BadInputError."""

    async def order(self, order: OrderId) -> Order | None: ...

    async def complete_order(self, payment: Payment) -> Order:
        """Credits what was ordered and completes the order, in one transaction; a repeat answers the order as it stands
        and credits nothing. Raises NotFoundError, ConflictError for a payment of another amount, currency, product or
        user, for a second payment, and for one that paid something else; nothing is credited then."""

    async def refund_order(self, refund: OrderRefund) -> int:
        """Like `repay`, and the order is refunded from then on. Raises NotFoundError, ConflictError."""

    async def fail_order(self, order: OrderId, provider: str) -> Order:
        """That it was not paid. One that was stays as it is; a failed one may still be paid. Raises NotFoundError."""

    async def check_checkout(self, checkout: StarsCheckout) -> None:
        """Whether this may be paid: asked before Telegram takes anything. Changes nothing, and answers at once.

        Raises NotFoundError, BadInputError, ForbiddenError or ConflictError, whose message may be shown to the payer.
        """

    async def fulfil(self, payment: StarsPayment) -> StarPayment:
        """Books purchase, credits and days in one transaction, once for ever by charge id: a repeat answers the payment
        as it stands. What was paid without being what the product costs, or by nobody we know, is booked as `failed`:
        look at its `status`. Also while payments are off, for it was taken. Raises BadInputError for what cannot be
        Telegram's, ConflictError when the charge id comes back with other figures; nothing is booked then."""

    async def refund_stars(self, charge_id: str, reason: str, made_by: UserId) -> StarsRefund:
        """Takes back credits, as far as they are free, and days that are left; once for ever. It is first booked here,
        then told to Telegram, then `star_refund_told`. Raises NotFoundError, BadInputError."""

    async def untold_star_refunds(self) -> Sequence[StarsRefund]:
        """Those that Telegram is still to be asked for, oldest first."""

    async def star_refund_told(self, charge_id: str) -> None:
        """That Telegram gave the Stars back. Again, it changes nothing."""

    async def payments_of(self, user: UserId) -> Sequence[PaymentLine]:
        """Every payment and order, newest first; the last two hundred."""

    async def subscription(self, user: UserId) -> Subscription | None:
        """The last one, also when it is over; None where there never was one."""

    async def refund_call(self, refund: CallRefund) -> int:
        """Gives back what a call was charged, once for ever; how much. Raises NotFoundError for what was never."""

    async def set_inviter(self, user: UserId, inviter: UserId) -> None:
        """Before the user's first purchase. Raises NotFoundError, ConflictError, BadInputError."""

    async def statement(self, user: UserId, after: str | None, limit: int) -> Sequence[Movement]:
        """Newest first: what changed a balance, after the one with this id; nothing after one that is unknown."""

    async def spending(self, user: UserId) -> Spending: ...

    async def notices(self, user: UserId) -> Sequence[Notice]:
        """What a user is to know, newest first: the last twenty, told or not."""

    async def untold_notices(self, user: UserId) -> Sequence[Notice]:
        """Those that no door has told yet, oldest first, twenty at most: for a door that tells without being asked."""

    async def mark_told(self, user: UserId, until: datetime) -> None:
        """That the user was told everything up to that moment. Again, it changes nothing."""

    async def person(self, user: UserId) -> Person | None:
        """None for a user nobody registered, or who was erased."""

    async def set_email(self, user: UserId, email: str) -> None:
        """Empty removes it. Raises NotFoundError, BadInputError for what cannot be an address, ConflictError."""

    async def papers(self, user: UserId) -> Papers: ...

    async def calls_of(self, user: UserId, after: CallId | None, limit: int) -> Sequence[UserCall]:
        """Every call that was made on the user's wallet, by id, from behind `after`."""

    async def delete_person(self, user: UserId, forfeit_ucredits: int) -> Deletion:
        """Asks for the user to be erased: when it returns that is on disk, their tokens are revoked, and nothing more
        is spent or added. The rest follows by itself. Asking again answers the same.

        Raises NotFoundError, ConflictError where the wallet has more than `forfeit_ucredits`, or for the local admin.
        """

    async def stop_account(self, user: UserId, reason: str) -> None:
        """Nothing more is spent from its wallet until `release_account`; what runs is settled."""

    async def release_account(self, user: UserId) -> bool:
        """False: it was not stopped."""

    async def stopped_accounts(self) -> Sequence[StoppedAccount]: ...

    async def hold(self, hold: Hold) -> None:
        """Reserves the worst case. Repeating the same call id is the same hold.

        Raises NotEnoughCreditsError, CeilingReachedError, ConflictError (the run is not open); nothing is held then.
        """

    async def meter(self, meter: Meter) -> None:
        """Records real usage and releases the rest of the hold; a call without a run is charged at once.

        Usage above the hold is the platform's loss. Metering twice changes nothing.
        """

    async def draw(self, draw: Draw) -> Escrow:
        """Takes credit for many calls. Repeating the same escrow id is the same escrow.

        It lives while its process settles or draws every few seconds. Raises NotEnoughCreditsError,
        CeilingReachedError when not even the minimum fits, ConflictError when it was given up; nothing is taken then.
        """

    async def settle(self, settlement: Settlement) -> Sequence[EscrowId]:
        """Books calls and takes back what is returned; answers which of the process's escrows are asked back.

        A call is booked once for ever, whatever batch it comes in. What was used after its escrow ended is charged to
        the wallet as far as that and the caps allow; the rest is the platform's loss.
        """

    async def receipt(self, project: ProjectId) -> Receipt:
        """Calls under an escrow appear when they are settled."""

    async def spent(self, project: ProjectId) -> Spent:
        """The sums of the receipt, for much less than the receipt: a build is asked for them all the time."""

    async def set_role(self, user: UserId, role: Role) -> None:
        """Raises NotFoundError for a user nobody registered."""

    async def add_token(self, token: NewToken) -> None:
        """A user nobody knew is registered with it. Adding twice changes nothing."""

    async def revoke_token(self, token: str) -> None:
        """By its SHA-256, or by the first 12 digits of it. Revoking twice, or what is not there, changes nothing."""

    async def tokens(self, user: UserId | None) -> Sequence[TokenRow]:
        """Of one user or of all, newest first; also those that expired or were revoked."""

    async def authenticate(self, token_sha256: str) -> Identity | None:
        """None for an unknown, expired or revoked token, and for a task token whose run is no longer open."""

    async def authenticate_login(self, login: Login) -> Identity | None:
        """Whom a login speaks for whose signature is good; None where it was revoked or its user is gone. What counts
        is the role that the user has now."""

    async def replace_keys(self, keys: Sequence[SealedKey]) -> None:
        """Makes these the keys that came from the environment: those missing are no longer active, those given are,
        with what is now sealed, their limits and expiry. Keys under another label stay active, and nobody's `disabled`
        changes.
        """

    async def keys(self, provider: str) -> Sequence[SealedKey]:
        """Those that are active and not disabled."""

    async def all_keys(self) -> Sequence[SealedKey]:
        """Of every provider, by provider and age."""

    async def add_key(self, key: SealedKey) -> None:
        """Adds it, or replaces all that is known of the same provider's same key."""

    async def set_key_disabled(self, key_id: str, disabled: bool) -> bool:
        """False: there is no such key."""

    async def reseal_keys(self, keys: Sequence[SealedKey], old_master: str, new_master: str) -> None:
        """Replaces `sealed` of those that are there, all or none, and records that it was done."""

    async def key_rotations(self) -> Sequence[KeyRotation]:
        """Newest first."""

    async def key_uses(self) -> Sequence[KeyUse]: ...

    async def models(self) -> Sequence[ModelRow]:
        """Every row that was set and not replaced, by provider, model and date."""

    async def set_models(self, rows: Sequence[ModelRow]) -> None:
        """All or none. A row of the same provider, model and date replaces the earlier one.

        Raises ConflictError when a pricing id comes back with other figures.
        """

    async def put_blob(self, data: bytes) -> BlobId:
        """On disk and fsynced when it returns. The same bytes have the same id."""

    async def get_blob(self, blob: BlobId) -> bytes:
        """Raises NotFoundError."""

    async def remove_blob(self, blob: BlobId) -> bool:
        """For whoever knows that nothing else names it. False where it stays for now; True also where it is gone."""

    async def mismatches(self) -> Sequence[Mismatch]:
        """Everything that does not add up; empty when the books are right."""

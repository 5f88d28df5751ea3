"""The ledger as arithmetic: balances are computed from the calls whenever they are asked for.

It says what the real books must answer, in as few rules as possible, and forgets everything with its process.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from runtime.accounts.rules import BANNED, NO_RULES, AccountRules
from runtime.entity.journal import BeginRun
from runtime.errors import (
    AccountStoppedError,
    BadInputError,
    CeilingReachedError,
    ConflictError,
    DailyCapError,
    ForbiddenError,
    MasterbuilderError,
    NotEnoughCreditsError,
    NotFoundError,
)
from runtime.ids import LOCAL_ADMIN, BlobId, CallId, ProjectId, RunId, UserId
from runtime.ledger import orders, stars
from runtime.ledger.caps import NO_CAPS, Caps, cap_of, day_subjects, spent_on, user_cap
from runtime.ledger.escrows import SHARE, Charge, charge_of
from runtime.ledger.money import Price, Tariff
from runtime.ledger.persons import DUE, check_email, not_agreed
from runtime.ledger.port import (
    Adjustment,
    Balance,
    Bought,
    CallRefund,
    CallRow,
    CallState,
    Deletion,
    Draw,
    Escrow,
    EscrowCall,
    EscrowId,
    Hold,
    Identity,
    KeyRotation,
    KeyUse,
    Meter,
    Mismatch,
    ModelRow,
    Movement,
    NewOrder,
    NewToken,
    Notice,
    Order,
    OrderId,
    OrderRefund,
    Papers,
    Payer,
    Payment,
    PaymentLine,
    Person,
    Purchase,
    Receipt,
    RefundRow,
    Repayment,
    Return,
    Role,
    SealedKey,
    Settlement,
    Spending,
    Spent,
    StarPayment,
    StarsCheckout,
    StarsPayment,
    StarsRefund,
    StoppedAccount,
    Subscription,
    TokenRow,
    UserCall,
)
from runtime.ledger.records import CHARGED, INTERRUPTED
from runtime.ledger.roles import effective_role, is_running, subscription
from runtime.ledger.subscriptions import Periods, extended, shortened, until
from runtime.ledger.tokens import TOKEN_ID_DIGITS, check_task_token, check_token, identity_of
from runtime.ledger.wallets import check_amount, check_reason
from runtime.payments.stars import PROVIDER
from runtime.testing.memory_accounts import MemoryAccounts


@dataclass(slots=True, kw_only=True)
class _Call:
    hold: Hold
    user: UserId
    begin: BeginRun | None
    bound_pusd: int
    hold_ucredits: int
    at: datetime
    state: CallState = "held"
    usage: Meter | None = None
    tariff: Tariff | None = None
    """In force when the usage came."""

    @property
    def payer(self) -> Payer:
        project = self.begin.project if self.begin else self.hold.project
        return Payer(self.user, project, self.hold.token_sha256, self.hold.provider)


@dataclass(slots=True, kw_only=True)
class _Escrow:
    draw: Draw
    granted_ucredits: int
    at: datetime
    charged_ucredits: int = 0
    ended: bool = False

    @property
    def left_ucredits(self) -> int:
        return self.granted_ucredits - self.charged_ucredits


@dataclass(frozen=True, slots=True, kw_only=True)
class _Booked:
    call: EscrowCall
    payer: Payer
    charge: Charge
    at: datetime
    """When its escrow was opened."""


class MemoryLedger(MemoryAccounts):
    """Implements `runtime.ledger.port.Ledger` in one process, for tests. Nothing of it is on any disk."""

    def __init__(
        self,
        tariff: Tariff,
        initial_free_ucredits: int,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        caps: Caps = NO_CAPS,
        referral_ucredits: int = 0,
        account_rules: AccountRules = NO_RULES,
        payments_enabled: bool = True,
    ) -> None:
        super().__init__(account_rules)
        self._tariff = tariff
        self._caps = caps
        self._referral_ucredits = referral_ucredits
        self._initial_free_ucredits = initial_free_ucredits
        self._clock = clock
        self._admins: dict[UserId, bool] = {}
        self._roles: dict[UserId, Role] = {}
        self._runs: dict[RunId, BeginRun] = {}
        self._ended: dict[RunId, str] = {}
        self._ceilings: dict[str, int] = {}
        self._calls: dict[CallId, _Call] = {}
        self._escrows: dict[EscrowId, _Escrow] = {}
        self._booked: dict[CallId, _Booked] = {}
        self._tokens: dict[str, tuple[NewToken, datetime]] = {}
        self._revoked: dict[str, datetime] = {}
        self._keys: dict[tuple[str, str], SealedKey] = {}
        self._rotations: list[KeyRotation] = []
        self._prices: dict[str, tuple[str, str, Price]] = {}
        self._models: dict[tuple[str, str, datetime], ModelRow] = {}
        self._blobs: dict[BlobId, bytes] = {}
        self._inviters: dict[UserId, UserId] = {}
        self._purchases: dict[str, Purchase] = {}
        self._repaid: dict[str, int] = {}
        self._orders: dict[OrderId, Order] = {}
        self._adjustments: dict[str, Adjustment] = {}
        self._refunds: dict[CallId, tuple[CallRefund, int, datetime]] = {}
        self._movements: list[tuple[UserId, Movement]] = []
        """But for grants and charges."""
        self._stops: dict[UserId, StoppedAccount] = {}
        self._looked_into: dict[UserId, str] = {}
        """Why an account was stopped that was released since."""
        self._registered: dict[UserId, datetime] = {}
        self._emails: dict[UserId, str] = {}
        self._bought_at: dict[str, datetime] = {}
        self._deletions: dict[UserId, Deletion] = {}
        self._payments_enabled = payments_enabled
        self._periods: dict[UserId, Periods] = {}
        self._stars: dict[str, StarPayment] = {}

    async def open_wallet(self, user: UserId, is_admin: bool) -> Balance:
        self._check_not_erased(user)
        self._registered.setdefault(user, self._clock())
        self._admins[user] = is_admin
        role = self._roles.get(user, "DEMO")
        self._roles[user] = "ADMIN" if is_admin else "DEMO" if role == "ADMIN" else role
        return self._balance(user)

    async def set_role(self, user: UserId, role: Role) -> None:
        self._check_known(user)
        self._roles[user] = role

    async def balance(self, user: UserId) -> Balance:
        return self._balance(user)

    async def adjust(self, adjustment: Adjustment) -> Balance:
        check_amount(abs(adjustment.amount_ucredits))
        check_reason(adjustment.reason)
        self._check_known(adjustment.user)
        known = self._adjustments.get(adjustment.id)
        if known is not None:
            if replace(known, made_by=adjustment.made_by) != adjustment:
                raise ConflictError(f"{adjustment.id} is another adjustment.")
            return self._balance(adjustment.user)
        if -adjustment.amount_ucredits > self._balance(adjustment.user).free_ucredits:
            raise NotEnoughCreditsError("More than is free.")
        self._adjustments[adjustment.id] = adjustment
        name = f"adjustment/{adjustment.id}/adjustment"
        self._move(adjustment.user, name, "manual_adjustment", adjustment.amount_ucredits, adjustment.reason)
        return self._balance(adjustment.user)

    async def purchase(self, purchase: Purchase) -> bool:
        self._check_known(purchase.user)
        known = self._purchases.get(purchase.id)
        if known is not None:
            same = replace(known, currency=purchase.currency, amount_minor=purchase.amount_minor)
            if same != purchase:
                raise ConflictError(f"{purchase.id} was credited with other figures.")
            return False
        is_first = all(each.user != purchase.user for each in self._purchases.values())
        self._purchases[purchase.id] = purchase
        self._bought_at[purchase.id] = self._clock()
        name = f"purchase/{purchase.id}/purchase"
        self._move(purchase.user, name, "purchase", purchase.ucredits, purchase.product, purchase.external_id)
        if purchase.days:
            before, now = self._periods.get(purchase.user, ()), self._clock()
            self._periods[purchase.user] = extended(before, purchase.user, purchase.id, purchase.days, now)
        inviter = self._inviters.get(purchase.user)
        if is_first and inviter is not None and self._referral_ucredits:
            name = f"referral/{purchase.user}/referral"
            self._move(inviter, name, "referral_bonus", self._referral_ucredits, "referral")
        return True

    async def repay(self, repayment: Repayment) -> int:
        made = self._purchases.get(repayment.purchase_id)
        if made is None:
            raise NotFoundError(f"There is no payment {repayment.external_id}.")
        if repayment.purchase_id not in self._repaid:
            taken = min(made.ucredits, self._balance(made.user).free_ucredits)
            self._repaid[repayment.purchase_id] = taken
            if taken:
                name = f"purchase/{made.id}/repayment"
                self._move(made.user, name, "refund", -taken, repayment.reason, made.external_id)
            self._periods[made.user] = shortened(self._periods.get(made.user, ()), made.id, self._clock())
        return self._repaid[repayment.purchase_id]

    async def open_order(self, order: NewOrder) -> Order:
        if order.id in self._orders:
            orders.check_repeat(self._orders[order.id], order)
            return self._orders[order.id]
        check_amount(order.ucredits)
        check_amount(order.amount_minor)
        self._check_known(order.user)
        since = self._clock() - timedelta(days=1)
        made = [each for each in self._orders.values() if each.user == order.user and each.created_at > since]
        if len(made) >= orders.ORDERS_A_DAY_MAX:
            raise orders.too_many_orders()
        self._orders[order.id] = orders.made_of(order, self._clock())
        return self._orders[order.id]

    async def order(self, order: OrderId) -> Order | None:
        return self._orders.get(order)

    async def complete_order(self, payment: Payment) -> Order:
        order = orders.known_order(self._orders.get(payment.order), payment.order, payment.provider)
        orders.check_payment(order, payment)
        if order.state in ("pending", "failed"):
            if not await self.purchase(orders.purchase_of(order, payment.external_id)):
                raise orders.paid_another(payment.external_id)
            order = replace(order, state="completed", external_id=payment.external_id, completed_at=self._clock())
            self._orders[order.id] = order
        return order

    async def refund_order(self, refund: OrderRefund) -> int:
        order = orders.known_order(self._orders.get(refund.order), refund.order, refund.provider)
        orders.check_refund(order, refund)
        repayment = Repayment(provider=refund.provider, external_id=refund.external_id, reason=refund.reason)
        taken = await self.repay(repayment)
        self._orders[order.id] = replace(order, state="refunded")
        return taken

    async def fail_order(self, order: OrderId, provider: str) -> Order:
        known = orders.known_order(self._orders.get(order), order, provider)
        if known.state == "pending":
            self._orders[order] = replace(known, state="failed")
        return self._orders[order]

    async def check_checkout(self, checkout: StarsCheckout) -> None:
        if not self._payments_enabled:
            raise stars.payments_are_off()
        refusal = self._why_not_paid(checkout.product, checkout.stars, checkout.currency, checkout.user)
        if refusal is not None:
            raise refusal

    async def fulfil(self, payment: StarsPayment) -> StarPayment:
        stars.check_payment(payment)
        charge_id = payment.telegram_charge_id
        if charge_id in self._stars:
            return stars.check_repeat(self._stars[charge_id], payment)
        refusal = self._why_not_paid(payment.product, payment.stars, payment.currency, payment.user)
        made = stars.booked(payment, refusal.message if refusal is not None else "", self._clock())
        self._stars[charge_id] = made
        if not made.failure:
            await self.purchase(stars.purchase_of(made))
        return made

    async def refund_stars(self, charge_id: str, reason: str, made_by: UserId) -> StarsRefund:
        check_reason(reason)
        known = self._stars.get(charge_id)
        if known is None:
            raise stars.no_payment(charge_id)
        if known.refund is None:
            taken, before = 0, until(self._periods.get(known.paid.user, ()))
            if not known.failure:
                taken = await self.repay(Repayment(provider=PROVIDER, external_id=charge_id, reason=reason))
            after = until(self._periods.get(known.paid.user, ()))
            left = before - after if before is not None and after is not None else timedelta()
            made = stars.refunded(known, reason, made_by, taken, left, self._clock())
            known = self._stars[charge_id] = replace(known, refund=made)
        assert known.refund is not None
        return known.refund

    async def untold_star_refunds(self) -> Sequence[StarsRefund]:
        refunds = [payment.refund for payment in self._stars.values() if payment.refund is not None]
        untold = [refund for refund in refunds if refund.told_at is None]
        return sorted(untold, key=lambda refund: (refund.made_at, refund.telegram_charge_id))

    async def star_refund_told(self, charge_id: str) -> None:
        known = self._stars.get(charge_id)
        if known is None or known.refund is None:
            raise stars.no_refund(charge_id)
        if known.refund.told_at is None:
            self._stars[charge_id] = replace(known, refund=replace(known.refund, told_at=self._clock()))

    async def payments_of(self, user: UserId) -> Sequence[PaymentLine]:
        ends = {period.purchase: period.ends_at for period in self._periods.get(user, ())}
        lines = [
            PaymentLine(
                provider=PROVIDER, external_id=charge_id, product=payment.paid.product, ucredits=payment.ucredits,
                days=payment.days, amount_minor=payment.paid.stars, currency=payment.paid.currency,
                status=payment.status, failure=payment.failure, at=payment.booked_at,
                expires_at=ends.get(f"{PROVIDER}/{charge_id}"),
            )
            for charge_id, payment in self._stars.items()
            if payment.paid.user == user
        ]  # fmt: skip
        lines += [
            PaymentLine(
                provider=order.provider, external_id=order.external_id, product=order.product, ucredits=order.ucredits,
                days=order.days, amount_minor=order.amount_minor, currency=order.currency, status=order.state,
                failure="", at=order.created_at, expires_at=ends.get(f"{order.provider}/{order.external_id}"),
            )
            for order in self._orders.values()
            if order.user == user
        ]  # fmt: skip
        return sorted(lines, key=lambda line: (-line.at.timestamp(), line.external_id or ""))[:200]

    async def subscription(self, user: UserId) -> Subscription | None:
        return subscription(until(self._periods.get(user, ())), self._clock())

    async def refund_call(self, refund: CallRefund) -> int:
        if refund.call not in self._refunds:
            user, charge = self._charged(refund.call)
            self._check_not_erased(user)
            self._refunds[refund.call] = refund, charge, self._clock()
            self._move(user, f"{refund.call}/refund", "refund", charge, refund.reason, call=refund.call)
        return self._refunds[refund.call][1]

    async def set_inviter(self, user: UserId, inviter: UserId) -> None:
        self._check_known(user)
        self._check_known(inviter)
        if user == inviter:
            raise BadInputError("Nobody invites themselves.")
        if self._inviters.get(user) == inviter:
            return
        if user in self._inviters or any(each.user == user for each in self._purchases.values()):
            raise ConflictError("That is settled already.")
        self._inviters[user] = inviter

    async def statement(self, user: UserId, after: str | None, limit: int) -> Sequence[Movement]:
        """Without grants and charges."""
        mine = [each for whose, each in self._movements if whose == user]
        mine.sort(key=lambda each: (-each.at.timestamp(), each.id))
        names = [each.id for each in mine]
        first = 0 if after is None else names.index(after) + 1 if after in names else len(mine)
        return mine[first : first + limit]

    async def spending(self, user: UserId) -> Spending:
        cap = user_cap(self._caps, self._role(user))
        return Spending(spent_ucredits=self._committed(spent_on(user, self._clock())), cap_ucredits=cap)

    async def notices(self, user: UserId) -> Sequence[Notice]:
        """Nobody watches balances here."""
        return ()

    async def untold_notices(self, user: UserId) -> Sequence[Notice]:
        return ()

    async def mark_told(self, user: UserId, until: datetime) -> None:
        return None

    async def person(self, user: UserId) -> Person | None:
        if user not in self._roles:
            return None
        asked = self._deletions.get(user)
        return Person(
            user=user,
            is_admin=self._admins.get(user, False),
            role=effective_role(self._roles[user], until(self._periods.get(user, ())), self._clock()),
            email=self._emails.get(user, ""),
            registered_at=self._registered[user],
            erasure_asked_at=asked.asked_at if asked else None,
            subscription=await self.subscription(user),
        )

    async def set_email(self, user: UserId, email: str) -> None:
        email = check_email(email)
        self._check_known(user)
        self._emails[user] = email

    async def papers(self, user: UserId) -> Papers:
        bought = [
            Bought(purchase=each, at=self._bought_at[each.id], repaid_ucredits=self._repaid.get(each.id))
            for each in self._purchases.values()
            if each.user == user
        ]
        own = [order for order in self._orders.values() if order.user == user]
        stars = [payment for payment in self._stars.values() if payment.paid.user == user]
        return Papers(orders=own, purchases=bought, notices=(), stars=stars)

    async def calls_of(self, user: UserId, after: CallId | None, limit: int) -> Sequence[UserCall]:
        held = [UserCall(project=call.payer.project, row=self._row(call)) for call in self._calls.values()
                if call.user == user]  # fmt: skip
        booked = [UserCall(project=each.payer.project, row=self._booked_row(each)) for each in self._booked.values()
                  if each.payer.user == user]  # fmt: skip
        found = sorted(held + booked, key=lambda each: each.row.call)
        return [each for each in found if each.row.call > (after or "")][:limit]

    async def delete_person(self, user: UserId, forfeit_ucredits: int) -> Deletion:
        """Asks only: nothing is ever erased here but with the process."""
        if user in self._deletions:
            return self._deletions[user]
        if user == LOCAL_ADMIN:
            raise ConflictError("The local admin cannot be erased.")
        self._check_known(user)
        balance = self._balance(user)
        if balance.balance_ucredits > forfeit_ucredits:
            raise not_agreed(user, balance.balance_ucredits)
        for sha256, (token, _) in self._tokens.items():
            if token.user == user:
                self._revoked.setdefault(sha256, self._clock())
        if balance.free_ucredits:
            self._move(user, "forfeited", "manual_adjustment", -balance.free_ucredits, "forfeited")
        now = self._clock()
        self._deletions[user] = Deletion(
            user=user, asked_at=now, due_at=now + DUE, forfeited_ucredits=balance.balance_ucredits
        )
        return self._deletions[user]

    async def stop_account(self, user: UserId, reason: str) -> None:
        if self._looked_into.get(user) != reason:
            self._stops.setdefault(user, StoppedAccount(user=user, reason=reason, since=self._clock()))

    async def release_account(self, user: UserId) -> bool:
        if user in self._stops:
            self._check_not_erased(user)
        if (stop := self._stops.pop(user, None)) is not None:
            self._looked_into[user] = stop.reason
        return stop is not None

    async def stopped_accounts(self) -> Sequence[StoppedAccount]:
        return list(self._stops.values())

    async def hold(self, hold: Hold) -> None:
        begin = self._open_run(hold.run)
        known = self._calls.get(hold.call)
        if known is not None:
            if (known.hold.run, known.hold.model) != (hold.run, hold.model) or known.state == "lost":
                raise ConflictError(f"{hold.call} is another call or was given up.")
            return
        bound_pusd = hold.price.cost_pusd(hold.input_tokens_max, hold.output_tokens_max, hold.images)
        needed = self._tariff.credits_for(bound_pusd)
        user = begin.user if begin is not None else hold.user
        call = _Call(hold=hold, user=user, begin=begin, bound_pusd=bound_pusd, hold_ucredits=needed, at=self._clock())
        self._check_fits(call.payer, needed)
        self._calls[hold.call] = call

    async def meter(self, meter: Meter) -> None:
        call = self._calls.get(meter.call)
        if call is None and meter.call in self._booked:
            return
        if call is None:
            raise NotFoundError(f"There is no call {meter.call}.")
        if call.usage is not None:
            return
        call.usage, call.tariff = meter, self._tariff
        if call.state == "held" and meter.unserved and not meter.provider_failed:
            call.state = "lost"
        elif call.state == "held":
            call.state = "settled" if call.begin is None or meter.provider_failed else "metered"

    async def draw(self, draw: Draw) -> Escrow:
        known = self._escrows.get(draw.escrow)
        if known is not None:
            if known.ended or (known.draw.process, known.draw.payer) != (draw.process, draw.payer):
                raise ConflictError(f"{draw.escrow} has ended or is another escrow.")
            return Escrow(escrow=draw.escrow, granted_ucredits=known.granted_ucredits)
        before = {given.escrow: replace(self._escrows[given.escrow]) for given in draw.returns}
        for given in draw.returns:
            self._take_back(given)
        try:
            self._check_fits(draw.payer, draw.min_ucredits)
        except MasterbuilderError:
            self._escrows.update(before)
            raise
        wanted = min(draw.wanted_ucredits, self._room(draw.payer, self._clock()) // SHARE)
        granted = max(draw.min_ucredits, wanted)
        self._escrows[draw.escrow] = _Escrow(draw=draw, granted_ucredits=granted, at=self._clock())
        return Escrow(escrow=draw.escrow, granted_ucredits=granted)

    async def settle(self, settlement: Settlement) -> Sequence[EscrowId]:
        """Nothing is ever asked back here: who cannot pay is refused at once."""
        new = {each.hold.call: each for each in settlement.calls if each.hold.call not in self._booked}
        order = list(dict.fromkeys(each.escrow for each in new.values()))
        for each in sorted(new.values(), key=lambda each: order.index(each.escrow)):
            self._book(each)
        for given in settlement.returns:
            self._take_back(given)
        for name, escrow in self._escrows.items():
            if settlement.process_ended and escrow.draw.process == settlement.process:
                self._take_back(Return(escrow=name, granted_ucredits=0, ends=True))
        return ()

    async def spent(self, project: ProjectId) -> Spent:
        receipt = await self.receipt(project)
        return Spent(
            total_cost_pusd=receipt.total_cost_pusd,
            total_ucredits=receipt.total_ucredits,
            refunded_ucredits=receipt.refunded_ucredits,
        )

    async def receipt(self, project: ProjectId) -> Receipt:
        rows = [(self._row(call), self._cost(call) - call.bound_pusd) for call in self._of_project(project)]
        rows += [(self._booked_row(b), b.charge.loss_pusd) for b in self._booked.values() if b.payer.project == project]
        charged = [(row, above) for row, above in rows if row.state == "settled" and row.outcome in CHARGED]
        excess = [(row, max(0, above)) for row, above in charged]
        shown = [_changed(row, cost_pusd=row.cost_pusd - above) for row, above in excess]
        above_hold = [
            _changed(row, cost_pusd=above, credits_ucredits=0, input_tokens=0, output_tokens=0, outcome="above_hold")
            for row, above in excess
            if above
        ]
        lost = [row for row, _ in rows if row.state in ("settled", "lost") and row.outcome not in CHARGED]
        return Receipt(
            project=project,
            charged=shown,
            losses=[*lost, *above_hold],
            pending=[row for row, _ in rows if row.state in ("held", "metered")],
            total_cost_pusd=sum(row.cost_pusd for row in shown),
            total_ucredits=sum(row.credits_ucredits for row in shown),
            refunded_ucredits=sum(self._refunds[row.call][1] for row in shown if row.call in self._refunds),
            refunds=[
                RefundRow(
                    call=row.call, task=row.task, amount_ucredits=amount, reason=refund.reason, at=at
                )
                for row in shown
                if row.call in self._refunds
                for refund, amount, at in [self._refunds[row.call]]
            ],
        )  # fmt: skip

    async def add_token(self, token: NewToken) -> None:
        check_token(token)
        self._check_not_erased(token.user)
        if token.user not in self._admins:
            await self.open_wallet(token.user, is_admin=False)
        if token.token_sha256 not in self._tokens and token.terms.budget_ucredits is not None:
            self._ceilings[f"token:{token.token_sha256}"] = token.terms.budget_ucredits
        self._tokens.setdefault(token.token_sha256, (token, self._clock()))

    async def revoke_token(self, token: str) -> None:
        for sha256 in self._tokens:
            if sha256 == token or sha256[:TOKEN_ID_DIGITS] == token:
                self._revoked.setdefault(sha256, self._clock())

    async def tokens(self, user: UserId | None) -> Sequence[TokenRow]:
        rows = [
            TokenRow(
                token_id=sha256[:TOKEN_ID_DIGITS],
                user=token.user,
                kind=token.kind,
                label=token.label,
                run=token.run,
                project=token.project,
                terms=token.terms,
                spent_ucredits=sum(
                    amount for payer, amount, _ in self._commitments(False) if payer.token_sha256 == sha256
                ),
                created_at=created_at,
                expires_at=token.expires_at,
                revoked_at=self._revoked.get(sha256),
            )
            for sha256, (token, created_at) in sorted(self._tokens.items())
            if user in (None, token.user)
        ]
        return sorted(rows, key=lambda row: row.created_at, reverse=True)

    async def authenticate(self, token_sha256: str) -> Identity | None:
        if token_sha256 not in self._tokens or token_sha256 in self._revoked:
            return None
        token, _ = self._tokens[token_sha256]
        if token.expires_at is not None and token.expires_at <= self._clock():
            return None
        if token.kind == "task" and (token.run not in self._runs or token.run in self._ended):
            return None
        role, is_admin = self._roles.get(token.user, "DEMO"), self._admins.get(token.user, False)
        ends_at = self._subscribed_until(token.user)
        identity = identity_of(token, role=role, is_admin=is_admin, subscription_until=ends_at, now=self._clock())
        may_chat = self._standing_of(token.user).authorized or is_running(ends_at, self._clock())
        return replace(identity, refusal=self._refusal(token.user), authorized=may_chat)

    async def replace_keys(self, keys: Sequence[SealedKey]) -> None:
        for place, key in self._keys.items():
            if key.label == "environment":
                self._keys[place] = replace(key, active=False)
        for key in keys:
            known = self._keys.get((key.provider, key.key_id), replace(key, disabled=False))
            self._keys[key.provider, key.key_id] = replace(
                known, sealed=key.sealed, limits=key.limits, expires_at=key.expires_at, active=True
            )

    async def keys(self, provider: str) -> Sequence[SealedKey]:
        return [key for key in self._keys.values() if key.provider == provider and key.active and not key.disabled]

    async def all_keys(self) -> Sequence[SealedKey]:
        return sorted(self._keys.values(), key=lambda key: key.provider)

    async def add_key(self, key: SealedKey) -> None:
        self._keys[key.provider, key.key_id] = key

    async def set_key_disabled(self, key_id: str, disabled: bool) -> bool:
        found = [place for place in self._keys if place[1] == key_id]
        for place in found:
            self._keys[place] = replace(self._keys[place], disabled=disabled)
        return bool(found)

    async def reseal_keys(self, keys: Sequence[SealedKey], old_master: str, new_master: str) -> None:
        for key in keys:
            if known := self._keys.get((key.provider, key.key_id)):
                self._keys[key.provider, key.key_id] = replace(known, sealed=key.sealed)
        self._rotations.insert(
            0, KeyRotation(rotated_at=self._clock(), keys=len(keys), old_master=old_master, new_master=new_master)
        )

    async def key_rotations(self) -> Sequence[KeyRotation]:
        return list(self._rotations)

    async def key_uses(self) -> Sequence[KeyUse]:
        used = [call.usage.key_id for call in self._calls.values() if call.usage is not None]
        used += [booked.call.meter.key_id for booked in self._booked.values() if booked.call.meter is not None]
        return [
            KeyUse(key_id=key_id, calls=used.count(key_id), last_used_at=self._clock())
            for key_id in sorted({key_id for key_id in used if key_id})
        ]

    async def models(self) -> Sequence[ModelRow]:
        return [self._models[place] for place in sorted(self._models)]

    async def set_models(self, rows: Sequence[ModelRow]) -> None:
        prices = dict(self._prices)
        for row in rows:
            place = (row.provider, row.model, row.price)
            if prices.setdefault(row.price.pricing_id, place) != place:
                raise ConflictError(f"{row.price.pricing_id} is another price already.")
        self._prices = prices
        self._models.update({(row.provider, row.model, row.effective_from): row for row in rows})

    async def put_blob(self, data: bytes) -> BlobId:
        blob = BlobId(hashlib.sha256(data).hexdigest())
        self._blobs[blob] = data
        return blob

    async def get_blob(self, blob: BlobId) -> bytes:
        if blob not in self._blobs:
            raise NotFoundError(f"There is no file {blob}.")
        return self._blobs[blob]

    async def remove_blob(self, blob: BlobId) -> bool:
        self._blobs.pop(blob, None)
        return True

    async def mismatches(self) -> Sequence[Mismatch]:
        """Nothing is stored twice here, so nothing can disagree."""
        return []

    def check_runs(self, begin: Sequence[BeginRun], settle: Sequence[RunId], abandon: Sequence[RunId]) -> None:
        """Raises what `end_runs` would, before anything changes."""
        for run in begin:
            if self._runs.get(run.run, run) != run or run.run in self._ended:
                raise ConflictError(f"{run.run} was begun before.")
        begun = {run.run for run in begin} | self._runs.keys()
        for wanted, runs in (("settled", settle), ("abandoned", abandon)):
            for run_id in runs:
                if run_id not in begun:
                    raise NotFoundError(f"There is no run {run_id}.")
                if self._ended.get(run_id, wanted) != wanted:
                    raise ConflictError(f"{run_id} is {self._ended[run_id]}.")

    def move_runs(self, begin: Sequence[BeginRun], settle: Sequence[RunId], abandon: Sequence[RunId]) -> None:
        """What an append does to its runs, once nothing can refuse it."""
        self._runs.update({run.run: run for run in begin})
        for run in settle:
            self._end(run, "settled")
        for run in abandon:
            self._end(run, "abandoned")

    def check_task_tokens(self, tokens: Sequence[NewToken]) -> None:
        """Raises what an append with them does, before anything changes."""
        for token in tokens:
            check_task_token(token)
            self._check_not_erased(token.user)

    def add_task_tokens(self, tokens: Sequence[NewToken]) -> None:
        for token in tokens:
            self._tokens.setdefault(token.token_sha256, (token, self._clock()))

    def set_ceiling(self, project: ProjectId, ceiling_ucredits: int) -> None:
        self._ceilings[project] = ceiling_ucredits

    def _end(self, run: RunId, state: str) -> None:
        self._ended[run] = state
        for call in self._calls.values():
            if call.hold.run == run and call.state in ("held", "metered"):
                call.state = "settled" if state == "settled" and call.state == "metered" else "lost"

    def _open_run(self, run: RunId | None) -> BeginRun | None:
        if run is None:
            return None
        if run not in self._runs or run in self._ended:
            raise ConflictError(f"The run {run} is not open.")
        return self._runs[run]

    def _of_project(self, project: ProjectId) -> list[_Call]:
        return [call for call in self._calls.values() if call.payer.project == project]

    def _check_fits(self, payer: Payer, needed: int) -> None:
        if payer.user in self._stops or payer.user in self._deletions:
            raise AccountStoppedError(f"{payer.user} is stopped.")
        for subject in payer.budgets:
            if subject in self._ceilings and needed > (left := self._ceilings[subject] - self._committed(subject)):
                told = f"{needed} microcredits do not fit under the ceiling."
                raise CeilingReachedError(told, left_ucredits=max(0, left))
        for subject, cap in self._day_caps(payer, self._clock()).items():
            if needed > (left := cap - self._committed(subject)):
                told = f"{needed} microcredits do not fit under the cap of {subject}."
                raise DailyCapError(told, left_ucredits=max(0, left))
        if needed > (free := self._balance(payer.user).free_ucredits):
            raise NotEnoughCreditsError(f"{needed} microcredits are more than are free.", left_ucredits=free)

    def _room(self, payer: Payer, at: datetime) -> int:
        ceilings = {s: self._ceilings[s] for s in payer.budgets if s in self._ceilings} | self._day_caps(payer, at)
        left = [ceiling - self._committed(subject) for subject, ceiling in ceilings.items()]
        return max(0, min([self._balance(payer.user).free_ucredits, *left]))

    def _day_caps(self, payer: Payer, at: datetime) -> dict[str, int]:
        role = self._role(payer.user)
        found = {}
        for scope, subject in day_subjects(payer, at).items():
            cap = cap_of(self._caps, scope, payer.provider, role)
            if cap is not None:
                found[subject] = cap
        return found

    def _committed(self, subject: str) -> int:
        return sum(
            amount
            for payer, amount, at in self._commitments(True)
            if subject in (*payer.budgets, *day_subjects(payer, at).values())
        )

    def _commitments(self, with_escrows: bool) -> list[tuple[Payer, int, datetime]]:
        """Who pays how much, or may have to, since when."""
        calls = [(call.payer, self._charge(call), call.at) for call in self._calls.values()]
        booked = [(booked.payer, booked.charge.charge_ucredits, booked.at) for booked in self._booked.values()]
        escrows = [(escrow.draw.payer, escrow.left_ucredits, escrow.at) for escrow in self._escrows.values()]
        return calls + booked + (escrows if with_escrows else [])

    def _role(self, user: UserId) -> Role | None:
        stored = self._roles.get(user)
        return effective_role(stored, until(self._periods.get(user, ())), self._clock()) if stored else None

    def _subscribed_until(self, user: UserId) -> datetime | None:
        return until(self._periods.get(user, ()))

    def _why_not_paid(self, product: str, amount: int, currency: str, user: UserId) -> MasterbuilderError | None:
        refusal = stars.refusal_of(product, amount, currency)
        if refusal is None and user not in self._roles:
            return stars.unknown_payer()
        if refusal is None and user in self._deletions:
            return ConflictError("You asked to be erased here.")
        if refusal is None and self._standing_of(user).banned:
            return ForbiddenError(BANNED, charged=stars.NOTHING_TAKEN)
        return refusal

    def _check_known(self, user: UserId) -> None:
        if user not in self._roles:
            raise NotFoundError(f"There is no user {user}.")
        self._check_not_erased(user)

    def _check_not_erased(self, user: UserId) -> None:
        if user in self._deletions:
            raise ConflictError(f"{user} asked to be erased.")

    def _move(
        self,
        user: UserId,
        id: str,
        type: str,
        amount: int,
        text: str,
        external_id: str | None = None,
        call: CallId | None = None,
    ) -> None:
        made = Movement(
            id=id, type=type, amount_ucredits=amount, cost_pusd=None, call=call, project=None, external_id=external_id,
            text=text, at=self._clock(),
        )  # fmt: skip
        self._movements.append((user, made))

    def _charged(self, call: CallId) -> tuple[UserId, int]:
        held, booked = self._calls.get(call), self._booked.get(call)
        if held is not None and held.state == "settled" and _outcome(held) in CHARGED and self._charge(held):
            return held.user, self._charge(held)
        if booked is not None and booked.charge.outcome in CHARGED and booked.charge.charge_ucredits:
            return booked.payer.user, booked.charge.charge_ucredits
        raise NotFoundError(f"{call} was not charged.")

    def _book(self, call: EscrowCall) -> None:
        charge = charge_of(call.hold, call.meter, self._tariff)
        escrow = self._escrows.get(call.escrow)
        if escrow is None:
            unseen = Draw(escrow=call.escrow, process="", payer=call.hold.payer, wanted_ucredits=0, min_ucredits=0)
            escrow = _Escrow(draw=unseen, granted_ucredits=0, ended=True, at=self._clock())
            self._escrows[call.escrow] = escrow
        payer = escrow.draw.payer
        held_part = min(charge.charge_ucredits, escrow.left_ucredits)
        paid = held_part + min(charge.charge_ucredits - held_part, self._room(payer, escrow.at))
        escrow.charged_ucredits += held_part
        if paid < charge.charge_ucredits:
            covered_pusd = (charge.cost_pusd - charge.loss_pusd) * paid // charge.charge_ucredits
            charge = charge._replace(charge_ucredits=paid, loss_pusd=charge.cost_pusd - covered_pusd)
        self._booked[call.hold.call] = _Booked(call=call, payer=payer, charge=charge, at=escrow.at)

    def _take_back(self, given: Return) -> None:
        escrow = self._escrows.get(given.escrow)
        if escrow is not None and not escrow.ended:
            wanted = 0 if given.ends else given.granted_ucredits
            escrow.granted_ucredits = max(escrow.charged_ucredits, min(escrow.granted_ucredits, wanted))
            escrow.ended = given.ends

    def _balance(self, user: UserId) -> Balance:
        calls = [call for call in self._calls.values() if call.user == user]
        escrows = [escrow for escrow in self._escrows.values() if escrow.draw.payer.user == user]
        booked = sum(each.charge.charge_ucredits for each in self._booked.values() if each.payer.user == user)
        charged = sum(self._charge(call) for call in calls if call.state == "settled") + booked
        held = sum(self._charge(call) for call in calls if call.state in ("held", "metered"))
        granted = self._initial_free_ucredits if user in self._admins else 0
        moved = sum(each.amount_ucredits for whose, each in self._movements if whose == user)
        return Balance(
            balance_ucredits=granted - charged + moved,
            held_ucredits=held + sum(escrow.left_ucredits for escrow in escrows),
        )

    def _cost(self, call: _Call) -> int:
        if call.usage is None:
            return call.bound_pusd
        if call.usage.provider_failed:
            return 0
        return call.hold.price.cost_pusd(call.usage.input_tokens, call.usage.output_tokens, call.hold.images)

    def _charge(self, call: _Call) -> int:
        if call.state == "lost":
            return 0
        if call.tariff is None:
            return call.hold_ucredits
        return min(call.hold_ucredits, call.tariff.credits_for(self._cost(call)))

    def _row(self, call: _Call) -> CallRow:
        failed = call.usage is not None and call.usage.provider_failed
        return CallRow(
            call=call.hold.call,
            run=call.hold.run,
            task=call.begin.task if call.begin is not None else "",
            attempt=call.begin.attempt if call.begin is not None else 0,
            task_type=call.hold.task_type,
            provider=call.hold.provider,
            model=call.hold.model,
            state=call.state,
            input_tokens=0 if failed else call.usage.input_tokens if call.usage else call.hold.input_tokens_max,
            output_tokens=0 if failed else call.usage.output_tokens if call.usage else call.hold.output_tokens_max,
            cost_pusd=self._cost(call),
            credits_ucredits=self._charge(call),
            outcome=_outcome(call),
            at=call.at,
        )

    def _booked_row(self, booked: _Booked) -> CallRow:
        charge, hold = booked.charge, booked.call.hold
        return CallRow(
            call=hold.call,
            run=None,
            task="",
            attempt=0,
            task_type=hold.task_type,
            provider=hold.provider,
            model=hold.model,
            state="lost" if booked.call.meter is None else "settled",
            input_tokens=charge.input_tokens,
            output_tokens=charge.output_tokens,
            cost_pusd=charge.cost_pusd,
            credits_ucredits=charge.charge_ucredits,
            outcome=charge.outcome,
            at=booked.call.held_at,
        )


def _outcome(call: _Call) -> str:
    if call.usage is not None and call.usage.provider_failed:
        return "provider_failed"
    outcome = "pending" if call.usage is None else "estimated" if call.usage.estimated else "ok"
    return INTERRUPTED[outcome] if call.state == "lost" else outcome


def _changed(row: CallRow, **changes: Any) -> CallRow:
    return replace(row, **changes)

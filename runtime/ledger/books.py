"""The ledger on the store: wallets, holds, escrows, receipts, tokens, sealed keys and models, written by one writer."""

import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from runtime.accounts.rules import NO_RULES, AccountRules
from runtime.errors import CeilingReachedError, DailyCapError, NotEnoughCreditsError
from runtime.ids import BlobId, CallId, ProjectId, UserId
from runtime.ledger import caps, escrows, postings, recall, wallets
from runtime.ledger.account_book import AccountBook
from runtime.ledger.accounts import ACCOUNTS
from runtime.ledger.caps import ASK_THE_OPERATOR, NO_CAPS, Caps, Rules
from runtime.ledger.key_book import KeyBook
from runtime.ledger.model_book import ModelBook
from runtime.ledger.money import Tariff
from runtime.ledger.order_book import OrderBook
from runtime.ledger.port import (
    Balance,
    Draw,
    Escrow,
    EscrowId,
    Hold,
    Meter,
    Mismatch,
    NewToken,
    Payer,
    Receipt,
    Return,
    Settlement,
    Spent,
    StoppedAccount,
)
from runtime.ledger.recall import Recall
from runtime.ledger.receipt import receipt_of
from runtime.ledger.records import Stop, at_us, call_of
from runtime.ledger.star_book import StarBook
from runtime.ledger.token_book import TokenBook
from runtime.ledger.tokens import check_token
from runtime.store.blobs import Blobs
from runtime.store.database import Database
from runtime.store.journal import utc_now
from runtime.store.transaction import DuplicateRowError, Transaction

log = logging.getLogger(__name__)

T = TypeVar("T")
ESCROW_SILENT_S = 60.0
"""Escrows of a process that says nothing for so long are ended. Processes give theirs up much earlier by themselves."""


class Books(AccountBook, KeyBook, ModelBook, OrderBook, StarBook, TokenBook):
    """Implements `runtime.ledger.port.Ledger`. The rules are in `postings`; here they meet the database."""

    def __init__(
        self,
        *,
        database: Database,
        blobs: Blobs,
        tariff: Tariff,
        initial_free_ucredits: int,
        identity_salt: bytes,
        caps: Caps = NO_CAPS,
        referral_ucredits: int = 0,
        more_credits: str = ASK_THE_OPERATOR,
        payments_enabled: bool = True,
        clock: Callable[[], datetime] = utc_now,
        recall_wait_s: float = recall.WAIT_S,
        account_rules: AccountRules = NO_RULES,
    ) -> None:
        rules = Rules(tariff=tariff, caps=caps, more_credits=more_credits, payments_enabled=payments_enabled)
        super().__init__(database, clock, rules, referral_ucredits)
        self._blobs = blobs
        self._initial_free_ucredits = initial_free_ucredits
        self._identity_salt = identity_salt
        self._account_rules = account_rules
        self._recall = Recall(recall_wait_s)
        self._seen_s: dict[str, float] = {}
        """When a process that has escrows was last heard of, by the monotonic clock."""

    async def open_wallet(self, user: UserId, is_admin: bool) -> Balance:
        return await self._database.write(lambda tx: self._open_wallet(tx, user, is_admin))

    async def reconcile(self) -> Sequence[Mismatch]:
        """Everything that does not add up; accounts that it is about are stopped."""
        found = await self.mismatches()
        of_user: dict[UserId, list[str]] = defaultdict(list)
        for mismatch in found:
            log.error("the books do not add up: %s: %s", mismatch.subject, mismatch.text)
            if mismatch.user is not None:
                of_user[mismatch.user].append(f"{mismatch.subject}: {mismatch.text}")
        for user, texts in of_user.items():
            await self.stop_account(user, "; ".join(sorted(texts))[:500])
        return found

    async def stop_account(self, user: UserId, reason: str) -> None:
        """Escrows of the account are asked back from whoever holds them. An account that was released stays so while
        the reason is the very one that was looked into."""

        def act(tx: Transaction) -> Mapping[EscrowId, str]:
            known = tx.get(caps.STOPS, user)
            if known is not None and known.lifted_at is not None and known.reason == reason:
                return {}
            if known is None or known.lifted_at is not None:
                tx.execute("put_stop", user_id=user, reason=reason, since=self._clock())
                tx.keep(caps.STOPS, user, Stop(user=user, reason=reason, lifted_at=None))
            return escrows.recallable(tx, user, "", 0)

        self._recall.ask(user, await self._database.write(act))

    async def release_account(self, user: UserId) -> bool:
        def act(tx: Transaction) -> bool:
            known = tx.get(caps.STOPS, user)
            if known is None or known.lifted_at is not None:
                return False
            caps.check_not_erased(tx, user)
            now = self._clock()
            tx.execute("lift_stop", user_id=user, lifted_at=now)
            tx.keep(caps.STOPS, user, replace(known, lifted_at=round(now.timestamp() * 1e6)))
            return True

        return await self._database.write(act)

    async def stopped_accounts(self) -> Sequence[StoppedAccount]:
        rows = await self._rows("stops", {})
        return [StoppedAccount(user=user, reason=reason, since=at_us(since)) for user, reason, since in rows]

    async def balance(self, user: UserId) -> Balance:
        rows = await self._rows("select_wallet", {"free": postings.wallet(user), "held": postings.held(user)})
        balance, held = rows[0]
        return Balance(balance_ucredits=balance, held_ucredits=held)

    async def hold(self, hold: Hold) -> None:
        """Waits a moment before a refusal while processes are asked to give back what they hold in advance."""
        needed = self._rules.tariff.credits_for(postings.bound_of(hold))
        await self._recalling(hold.user, "", needed, lambda: self._hold(hold))

    async def meter(self, meter: Meter) -> None:
        await self._database.write(lambda tx: postings.meter(tx, meter, self._rules.tariff, self._clock()))

    async def expire_holds(self, older_than: datetime) -> Sequence[CallId]:
        """Gives up calls without a run that are still held since before `older_than`: their process died.

        Their bound is booked as the platform's loss. Usage that arrives later still corrects it.
        """

        def act(tx: Transaction) -> list[CallId]:
            stale = [CallId(call) for (call,) in tx.committed("stale_calls_without_run", {"older_than": older_than})]
            return [call for call in stale if postings.expire_hold(tx, call, self._clock())]

        return await self._database.write(act)

    async def draw(self, draw: Draw) -> Escrow:
        self._seen_s[draw.process] = time.monotonic()
        escrow = await self._recalling(draw.payer.user, draw.process, draw.min_ucredits, lambda: self._draw(draw))
        self._given(draw.process, draw.returns)
        return escrow

    async def settle(self, settlement: Settlement) -> Sequence[EscrowId]:
        self._seen_s[settlement.process] = time.monotonic()

        async def book(rule: Callable[[Transaction, Settlement, Rules, datetime], None]) -> None:
            await self._database.write(
                lambda tx: rule(tx, self._under_pseudonyms(tx, settlement), self._rules, self._clock()),
                weight=max(1, len(settlement.calls)),
            )

        if settlement.calls or settlement.returns or settlement.process_ended:
            try:
                await book(escrows.settle)
            except DuplicateRowError:
                await book(escrows.settle_again)
        self._given(settlement.process, settlement.returns)
        if settlement.process_ended:
            self._seen_s.pop(settlement.process, None)
            self._recall.ended(settlement.process)
        return self._recall.asked_of(settlement.process)

    async def expire_escrows(self, silent_s: float = ESCROW_SILENT_S) -> int:
        """Ends the escrows of processes that were not heard of for so long; how many. For them a restart of the ledger
        is a sign of life."""
        rows = await self._rows("open_escrows", {})
        now_s = time.monotonic()
        for _, process in rows:
            self._seen_s.setdefault(process, now_s)
        silent = {process for process, seen_s in self._seen_s.items() if now_s - seen_s >= silent_s}
        stale = [EscrowId(escrow) for escrow, process in rows if process in silent]

        def act(tx: Transaction) -> None:
            for escrow in stale:
                escrows.take_back(tx, Return(escrow=escrow, granted_ucredits=0, ends=True), self._clock())

        if stale:
            await self._database.write(act)
        for process in silent:
            del self._seen_s[process]
        return len(stale)

    async def receipt(self, project: ProjectId) -> Receipt:
        calls = await self._rows("calls_of_project", {"project": project})
        refunds = await self._rows("refunds_of_project", {"project": project})
        return receipt_of(
            project,
            [call_of(row) for row in calls],
            {call: (amount, reason, at_us(at)) for call, amount, reason, at in refunds},
        )

    async def spent(self, project: ProjectId) -> Spent:
        ((ucredits, cost_pusd, refunded_ucredits),) = await self._rows("spent_on_project", {"project": project})
        return Spent(total_cost_pusd=cost_pusd, total_ucredits=ucredits, refunded_ucredits=refunded_ucredits)

    async def add_token(self, token: NewToken) -> None:
        """Raises BadInputError for a token that cannot be one, ConflictError for somebody who is being erased."""
        check_token(token)

        def act(tx: Transaction) -> None:
            caps.check_not_erased(tx, token.user)
            if tx.get(caps.USERS, token.user) is None:
                self._open_wallet(tx, token.user, is_admin=False)
            budget = token.terms.budget_ucredits
            if self._add_token(tx, token) and budget is not None:
                (subject,) = Payer(token.user, None, token.token_sha256).budgets
                postings.set_ceiling(tx, subject, budget)

        await self._database.write(act)

    async def put_blob(self, data: bytes) -> BlobId:
        return await self._blobs.put(data)

    async def get_blob(self, blob: BlobId) -> bytes:
        return await self._blobs.get(blob)

    async def remove_blob(self, blob: BlobId) -> bool:
        return await self._blobs.remove(blob)

    async def mismatches(self) -> Sequence[Mismatch]:
        found = [Mismatch(subject=subject, text=text) for subject, text in await self._rows("mismatches", {})]
        return [replace(each, user=await self._user_of(each.subject)) for each in found]

    async def _user_of(self, subject: str) -> UserId | None:
        if subject.startswith("user:"):
            return UserId(subject.removeprefix("user:").removesuffix("/held"))
        rows = await self._rows("user_of_subject", {"subject": subject})
        return UserId(rows[0][0]) if rows else None

    def _open_wallet(self, tx: Transaction, user: UserId, is_admin: bool) -> Balance:
        account = tx.get(ACCOUNTS, user)
        identity = (account.telegram_key if account else None) or self._identity_sha256(user)
        return wallets.open_wallet(tx, user, is_admin, identity, self._initial_free_ucredits, self._clock())

    async def _hold(self, hold: Hold) -> None:
        try:
            await self._database.write(lambda tx: postings.hold(tx, hold, self._rules, self._clock()))
        except DuplicateRowError:
            await self._database.write(lambda tx: postings.hold_again(tx, hold))

    async def _draw(self, draw: Draw) -> Escrow:
        sparing = self._recall.is_waited_for(draw.payer.user)
        try:
            return await self._database.write(
                lambda tx: escrows.draw(tx, draw, self._rules, self._clock(), sparing=sparing)
            )
        except DuplicateRowError:
            return await self._database.write(lambda tx: escrows.draw_again(tx, draw))

    async def _recalling(self, user: UserId, process: str, needed: int, take: Callable[[], Awaitable[T]]) -> T:
        """`take`, tried again while other processes give back what they hold of the user's wallet."""
        deadline_s = time.monotonic() + self._recall.wait_s
        while True:
            seen = self._recall.returns
            try:
                return await take()
            except (NotEnoughCreditsError, CeilingReachedError, DailyCapError) as refusal:
                if isinstance(refusal, DailyCapError) and refusal.scope != "user":
                    raise  # The next model answers sooner than what others hold would come back.
                left = await self._database.write(lambda tx: escrows.recallable(tx, user, process, needed))
                if self._recall.returns != seen and time.monotonic() < deadline_s:
                    continue  # It may have come back while it was looked for.
                if not left or not await self._recall.for_return(user, left, self._recall.returns, deadline_s):
                    raise

    def _given(self, process: str, returns: Sequence[Return]) -> None:
        if returns:
            self._recall.given(process, [given.escrow for given in returns])

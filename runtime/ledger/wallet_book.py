"""Wallets on the store: what fills them, what is given back, and what is told of them. The rules are in `wallets`."""

from collections.abc import Callable, Sequence
from datetime import datetime

from runtime.ids import UserId
from runtime.ledger import caps, roles, wallets
from runtime.ledger.book import Book
from runtime.ledger.caps import Rules
from runtime.ledger.money import credits_text
from runtime.ledger.port import (
    Adjustment,
    Balance,
    CallRefund,
    Movement,
    Notice,
    Purchase,
    Repayment,
    Role,
    Spending,
    Subscription,
)
from runtime.ledger.records import at_us
from runtime.store.database import Database
from runtime.store.transaction import Transaction


class WalletBook(Book):
    def __init__(self, database: Database, clock: Callable[[], datetime], rules: Rules, referral_ucredits: int) -> None:
        super().__init__(database, clock)
        self._rules = rules
        self._referral_ucredits = referral_ucredits

    async def set_role(self, user: UserId, role: Role) -> None:
        await self._database.write(lambda tx: wallets.set_role(tx, user, role))

    async def set_inviter(self, user: UserId, inviter: UserId) -> None:
        await self._database.write(lambda tx: wallets.set_inviter(tx, user, inviter))

    async def adjust(self, adjustment: Adjustment) -> Balance:
        return await self._database.write(lambda tx: wallets.adjust(tx, adjustment, self._clock()))

    async def purchase(self, purchase: Purchase) -> bool:
        bonus = self._referral_ucredits
        return await self._database.write(lambda tx: wallets.purchase(tx, purchase, bonus, self._clock()))

    async def repay(self, repayment: Repayment) -> int:
        return await self._database.write(lambda tx: wallets.repay(tx, repayment, self._clock()))

    async def refund_call(self, refund: CallRefund) -> int:
        return await self._database.write(lambda tx: wallets.refund_call(tx, refund, self._clock()))

    async def statement(self, user: UserId, after: str | None, limit: int) -> Sequence[Movement]:
        rows = await self._rows("statement", {"user_id": user, "after": after, "limit": limit})
        return [
            Movement(
                id=id, type=type, amount_ucredits=amount, cost_pusd=cost, call=call, project=project,
                external_id=external_id, text=text, at=at_us(at),
            )
            for id, type, amount, cost, call, project, external_id, text, at in rows
        ]  # fmt: skip

    async def spending(self, user: UserId) -> Spending:
        spent = await self._rows("select_day", {"key": caps.spent_on(user, self._clock())})
        known = await self._rows("select_user", {"key": user})
        role = roles.effective_role(known[0][2], await self._subscribed_until(user), self._clock()) if known else None
        cap = caps.user_cap(self._rules.caps, role)
        return Spending(spent_ucredits=spent[0][0], cap_ucredits=cap)

    async def notices(self, user: UserId) -> Sequence[Notice]:
        return await self._notices("notices", user)

    async def untold_notices(self, user: UserId) -> Sequence[Notice]:
        return await self._notices("untold_notices", user)

    async def mark_told(self, user: UserId, until: datetime) -> None:
        if await self._rows("untold_notices", {"user_id": user}):
            told = {"user_id": user, "until": until, "told_at": self._clock()}
            await self._database.write(lambda tx: tx.execute("mark_told", **told))

    async def note_low_balances(self, low_ucredits: int) -> int:
        """Tells everybody once whose balance fell below since they were last above; how many are told now."""
        if not await self._rows("balance_crossings", {"low": low_ucredits}):
            return 0

        def act(tx: Transaction) -> int:
            told = 0
            for user, was_low, balance in tx.committed("balance_crossings", {"low": low_ucredits}):
                tx.execute("set_low", user_id=user, is_low=not was_low)
                if not was_low:
                    now, told = self._clock(), told + 1
                    text = f"{credits_text(balance)} credits are left. {self._rules.more_credits}"
                    tx.execute(
                        "add_notice", notice=f"low/{user}/{now.isoformat()}", user_id=user, kind="low_balance",
                        text=text, made_at=now,
                    )  # fmt: skip
            return told

        return await self._database.write(act)

    async def subscription(self, user: UserId) -> Subscription | None:
        return roles.subscription(await self._subscribed_until(user), self._clock())

    async def _subscribed_until(self, user: UserId) -> datetime | None:
        for (until_us,) in await self._rows("select_subscription", {"user_id": user}):
            return at_us(until_us)
        return None

    async def _notices(self, query: str, user: UserId) -> list[Notice]:
        return [
            Notice(kind=kind, text=text, at=at_us(at)) for kind, text, at in await self._rows(query, {"user_id": user})
        ]

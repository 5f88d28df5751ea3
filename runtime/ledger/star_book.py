"""Payments with Stars, and subscriptions, on the store. The rules are in `stars` and `subscriptions`."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from runtime.ids import UserId
from runtime.ledger import caps, stars
from runtime.ledger.person_book import PersonBook
from runtime.ledger.port import PaymentLine, StarPayment, StarsCheckout, StarsPayment, StarsRefund
from runtime.ledger.records import at_us
from runtime.store.transaction import Transaction

TOLD_BEFORE = timedelta(days=3)
"""How long before its end somebody is told of it. Source: spec/assistant.md §15."""

TOLD_TOGETHER = 1_000
"""In one write."""


class StarBook(PersonBook):
    async def check_checkout(self, checkout: StarsCheckout) -> None:
        """In the writer's own order: who asked to be erased a moment ago is refused."""
        enabled = self._rules.payments_enabled
        await self._database.write(lambda tx: stars.check_checkout(tx, checkout, payments_enabled=enabled))

    async def fulfil(self, payment: StarsPayment) -> StarPayment:
        bonus = self._referral_ucredits

        def act(tx: Transaction) -> StarPayment:
            return stars.fulfil(tx, self._by_name_now(tx, payment), bonus, self._clock())

        return await self._database.write(act)

    async def refund_stars(self, charge_id: str, reason: str, made_by: UserId) -> StarsRefund:
        return await self._database.write(lambda tx: stars.refund(tx, charge_id, reason, made_by, self._clock()))

    async def untold_star_refunds(self) -> Sequence[StarsRefund]:
        payments = [stars.star_payment_of(row) for row in await self._rows("untold_star_refunds", {})]
        return [each.refund for each in payments if each.refund is not None]

    async def star_refund_told(self, charge_id: str) -> None:
        await self._database.write(lambda tx: stars.mark_told(tx, charge_id, self._clock()))

    async def payments_of(self, user: UserId) -> Sequence[PaymentLine]:
        return [
            PaymentLine(
                provider=provider, external_id=external_id, product=product, ucredits=ucredits, days=days,
                amount_minor=amount, currency=currency, status=status, failure=failure, at=at_us(at),
                expires_at=at_us(ends_us) if ends_us is not None else None,
            )
            for provider, external_id, product, ucredits, days, amount, currency, status, failure, at, ends_us
            in await self._rows("payments_of_user", {"user_id": user})
        ]  # fmt: skip

    async def note_subscriptions(self) -> int:
        """Tells whoever has nothing but a subscription of its end, three days before and when it came, once each; how
        many are told now. Whether a subscription runs does not wait for this."""

        def looked_for() -> dict[str, Any]:
            now = self._clock()
            return {"now": now, "soon": now + TOLD_BEFORE, "limit": TOLD_TOGETHER}

        def act(tx: Transaction) -> int:
            now = self._clock()
            found = tx.committed("subscription_ends", looked_for())
            for user, until_us, has_ended in found:
                event, until = "ended" if has_ended else "ending", at_us(until_us)
                tx.execute("add_subscription_event", user_id=user, expires_at=until, event=event, made_at=now)
                tx.execute(
                    "add_notice", notice=f"subscription/{event}/{user}/{until.isoformat()}", user_id=user,
                    kind=f"subscription_{event}", text=_notice(until, has_ended), made_at=now,
                )  # fmt: skip
            return len(found)

        told = 0
        while await self._rows("subscription_ends", looked_for()):
            told += await self._database.write(act)
        return told

    def _by_name_now(self, tx: Transaction, payment: StarsPayment) -> StarsPayment:
        """Of somebody who was erased since they paid, under the pseudonym: their id comes back nowhere."""
        if tx.get(caps.USERS, payment.user) is not None:
            return payment
        identity = self._identity_sha256(payment.user)
        known = {identity: UserId(pseudonym) for identity, pseudonym, _ in tx.committed("erased_identities", {})}
        return replace(payment, user=known.get(identity, payment.user))


def _notice(until: datetime, has_ended: bool) -> str:
    day = f"{until:%Y-%m-%d %H:%M} UTC"
    if has_ended:
        return f"Your subscription ended on {day}: your role is DEMO again. /subscribe starts a new one."
    return f"Your subscription ends on {day}. /subscribe extends it by 30 days from then."

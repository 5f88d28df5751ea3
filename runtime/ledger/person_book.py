"""Persons on the store: what is kept of them, and how they are erased. The rules are in `persons`."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from runtime.ids import CallId, ProjectId, UserId
from runtime.ledger import escrows, orders, persons, roles, stars
from runtime.ledger.persons import Erasure
from runtime.ledger.port import (
    Bought,
    Deletion,
    EscrowCall,
    Papers,
    Person,
    Purchase,
    Rating,
    Settlement,
    UserCall,
)
from runtime.ledger.recall import Recall
from runtime.ledger.records import at_us, call_of
from runtime.ledger.wallet_book import WalletBook
from runtime.reports.reports import feedback_subject
from runtime.store.transaction import Transaction


class _Erased(NamedTuple):
    pseudonym: UserId
    at: datetime


class PersonBook(WalletBook):
    _identity_salt: bytes
    _recall: Recall

    async def person(self, user: UserId) -> Person | None:
        for name, is_admin, role, email, registered_us, asked_us, until_us in await self._rows(
            "select_person", {"user_id": user}
        ):
            until, now = at_us(until_us) if until_us is not None else None, self._clock()
            opened = self._database.seal.open(email, persons.email_subject(name)).decode() if email else ""
            return Person(
                user=name,
                is_admin=is_admin,
                role=roles.effective_role(role, until, now),
                email=opened,
                registered_at=at_us(registered_us),
                erasure_asked_at=at_us(asked_us) if asked_us is not None else None,
                subscription=roles.subscription(until, now),
            )
        return None

    async def set_email(self, user: UserId, email: str) -> None:
        seal = self._database.seal
        await self._database.write(lambda tx: persons.set_email(tx, user, email, seal))

    async def papers(self, user: UserId) -> Papers:
        asked = {"user_id": user}
        return Papers(
            orders=[orders.order_of(row) for row in await self._rows("orders_of_user", asked)],
            purchases=[_bought(*row) for row in await self._rows("all_purchases_of_user", asked)],
            notices=await self._notices("all_notices", user),
            stars=[stars.star_payment_of(row) for row in await self._rows("star_payments_of_user", asked)],
            ratings=[self._rating(*row) for row in await self._rows("feedback_of_user", asked)],
        )

    async def calls_of(self, user: UserId, after: CallId | None, limit: int) -> Sequence[UserCall]:
        rows = await self._rows("calls_of_user", {"user_id": user, "after": after or "", "limit": limit})
        return [UserCall(project=call.project, row=call.row()) for call in map(call_of, rows)]

    async def delete_person(self, user: UserId, forfeit_ucredits: int) -> Deletion:
        """Waits a moment for processes to give back what they hold in advance."""
        wish = Erasure(
            pseudonym=UserId(f"erased-{secrets.token_hex(12)}"),
            user=user,
            identity_sha256=self._identity_sha256(user),
            forfeits_ucredits=0,
            asked_at=self._clock(),
        )
        seal = self._database.seal
        deletion = await self._database.write(lambda tx: persons.ask(tx, wish, forfeit_ucredits, seal, self._clock()))
        deadline_s = time.monotonic() + self._recall.wait_s
        while True:
            seen = self._recall.returns
            left = await self._database.write(lambda tx: escrows.recallable(tx, user, "", 0))
            self._recall.ask(user, left)
            if not left or not await self._recall.for_return(user, left, seen, deadline_s):
                return deletion

    async def erase(self, user: UserId, pseudonym: UserId, files: Sequence[str], *, forced: bool) -> bool:
        """Replaces the user by the pseudonym for ever; False where something of theirs is open or held again."""

        def act(tx: Transaction) -> bool:
            is_quiet = persons.end_projects(tx, user, self._database.seal, self._clock())
            if persons.has_balance(tx, user) or not (is_quiet or forced):
                return False
            persons.erase(tx, user, pseudonym, files, self._clock())
            return True

        return await self._database.write(act)

    async def prepare_erasure(self, user: UserId, pseudonym: UserId, *, forced: bool) -> bool:
        """Ends what is open and takes what came back; True when nothing of the user's is open or held any more.

        `forced` gives up what is held, and does not wait for projects.
        """

        def act(tx: Transaction) -> bool:
            now = self._clock()
            is_quiet = persons.end_projects(tx, user, self._database.seal, now)
            if forced:
                persons.let_go(tx, user, now)
            persons.forfeit(tx, user, pseudonym, now)
            return (is_quiet or forced) and not persons.has_balance(tx, user)

        return await self._database.write(act)

    def _rating(self, project: ProjectId, score: int, sealed: bytes | None, made_us: int) -> Rating:
        text = self._database.seal.open(sealed, feedback_subject(project)).decode() if sealed else ""
        return Rating(project=project, score=score, text=text, at=at_us(made_us))

    def _identity_sha256(self, user: UserId) -> str:
        return hmac.new(self._identity_salt, user.encode(), hashlib.sha256).hexdigest()

    def _under_pseudonyms(self, tx: Transaction, settlement: Settlement) -> Settlement:
        """Calls that somebody made before they were erased, in the name that their rows have now. Their escrow says it
        already; this is for one that the ledger does not know."""
        unknown = {name for name in {call.escrow for call in settlement.calls} if tx.get(escrows.ESCROWS, name) is None}
        rows = tx.committed("erased_identities", {}) if unknown else []
        known = {identity: _Erased(pseudonym, at_us(at)) for identity, pseudonym, at in rows}
        if not known:
            return settlement
        calls = (self._renamed(call, known) if call.escrow in unknown else call for call in settlement.calls)
        return replace(settlement, calls=tuple(calls))

    def _renamed(self, call: EscrowCall, known: Mapping[str, _Erased]) -> EscrowCall:
        erased = known.get(self._identity_sha256(call.hold.user))
        if erased is None or call.held_at > erased.at:
            return call
        return replace(call, hold=replace(call.hold, user=erased.pseudonym))


def _bought(
    provider: str, external_id: str, user: UserId, product: str, ucredits: int, paid_pusd: int, currency: str,
    amount_minor: int, days: int, made_us: int, repaid: int | None,
) -> Bought:  # fmt: skip
    made = Purchase(
        provider=provider,
        external_id=external_id,
        user=user,
        product=product,
        ucredits=ucredits,
        paid_pusd=paid_pusd,
        currency=currency,
        amount_minor=amount_minor,
        days=days,
    )
    return Bought(purchase=made, at=at_us(made_us), repaid_ucredits=repaid)

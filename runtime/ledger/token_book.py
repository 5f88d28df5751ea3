"""Tokens on the store: whose they are, what they may be used for, and what was spent with them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from runtime.ids import ProjectId, RunId, UserId
from runtime.ledger.book import Book
from runtime.ledger.port import Identity, NewToken, TokenKind, TokenRow, TokenTerms
from runtime.ledger.records import at_us
from runtime.ledger.roles import is_running
from runtime.ledger.tokens import TOKEN_ID_DIGITS, identity_of, insert_token, label_subject
from runtime.store.transaction import Transaction


class TokenBook(Book):
    def _refusal(self, user: UserId, profile: bytes | None, banned: bool) -> str:
        """Why no door lets the user in."""
        raise NotImplementedError

    async def revoke_token(self, token: str) -> None:
        await self._database.write(lambda tx: tx.execute("revoke_token", token=token, revoked_at=self._clock()))

    async def tokens(self, user: UserId | None) -> Sequence[TokenRow]:
        return [self._row(*row) for row in await self._rows("list_tokens", {"user_id": user})]

    async def authenticate(self, token_sha256: str) -> Identity | None:
        now = self._clock()
        values = {"token_sha256": token_sha256, "at_time": now}
        for (
            is_admin, role, user, kind, run, project, models, budget, rate, expires_us, until_us, profile, authorized,
            banned,
        ) in await self._rows("identity_of_token", values):  # fmt: skip
            token = NewToken(
                token_sha256=token_sha256,
                user=user,
                kind=kind,
                label="",
                run=run,
                project=project,
                terms=_terms(models, budget, rate),
                expires_at=_at(expires_us),
            )
            identity = identity_of(token, role=role, is_admin=is_admin, subscription_until=_at(until_us), now=now)
            may_chat = authorized or is_running(_at(until_us), now)
            return replace(identity, refusal=self._refusal(user, profile, banned), authorized=may_chat)
        return None

    def _add_token(self, tx: Transaction, token: NewToken) -> bool:
        """False when it is there already."""
        label = self._database.seal.close(token.label.encode(), label_subject(token.token_sha256))
        return insert_token(tx, token, label, self._clock())

    def _row(
        self,
        token_sha256: str,
        label: bytes,
        user: UserId,
        kind: TokenKind,
        run: RunId | None,
        project: ProjectId | None,
        models: Sequence[str] | None,
        budget: int | None,
        rate: int | None,
        spent: int,
        created_us: int,
        expires_us: int | None,
        revoked_us: int | None,
    ) -> TokenRow:
        return TokenRow(
            token_id=token_sha256[:TOKEN_ID_DIGITS],
            user=user,
            kind=kind,
            label=self._database.seal.open(label, label_subject(token_sha256)).decode(),
            run=run,
            project=project,
            terms=_terms(models, budget, rate),
            spent_ucredits=spent,
            created_at=at_us(created_us),
            expires_at=_at(expires_us),
            revoked_at=_at(revoked_us),
        )


def _terms(models: Sequence[str] | None, budget_ucredits: int | None, rate: int | None) -> TokenTerms:
    return TokenTerms(models=tuple(models or ()), budget_ucredits=budget_ucredits, requests_per_minute=rate)


def _at(microseconds: int | None) -> datetime | None:
    return at_us(microseconds) if microseconds is not None else None

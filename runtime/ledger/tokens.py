"""What a token must be, and whom it speaks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from runtime.accounts.roles import higher
from runtime.errors import BadInputError
from runtime.ids import ProjectId, RunId, UserId
from runtime.ledger.port import Identity, NewToken, Role, TokenKind, TokenTerms
from runtime.ledger.roles import effective_role
from runtime.store.transaction import Kind, Transaction

TOKEN_ID_DIGITS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class _TokenRow:
    token_sha256: str
    user: UserId
    kind: TokenKind
    label: bytes
    run: RunId | None
    project: ProjectId | None
    models: Sequence[str]
    budget_ucredits: int | None
    requests_per_minute: int | None
    expires_at: datetime | None
    created_at: datetime


_TOKENS: Kind[str] = Kind(name="token", query="select_token", read=lambda rows: rows[0][0] if rows else None)


def check_token(token: NewToken) -> None:
    """Raises BadInputError."""
    if len(token.token_sha256) != 64 or not set(token.token_sha256) <= set("0123456789abcdef"):
        raise BadInputError("A token is known by its SHA-256: 64 hex digits.")
    if (token.kind == "task") != (token.run is not None):
        raise BadInputError("A task's token names its run; no other token has one.")
    if (token.kind == "project") != (token.project is not None):
        raise BadInputError("A project's token names its project; no other token has one.")
    terms = token.terms
    if terms.budget_ucredits is not None and terms.budget_ucredits < 0:
        raise BadInputError("A token's budget cannot be negative.")
    if terms.requests_per_minute is not None and terms.requests_per_minute < 1:
        raise BadInputError("A token allows at least one request per minute.")


def check_task_token(token: NewToken) -> None:
    """Of one that comes with an append: that its user is known is not asked then. Raises BadInputError."""
    check_token(token)
    if token.kind != "task" or token.terms.budget_ucredits is not None:
        raise BadInputError("A token that comes with an append is a task's, without a budget of its own.")


def insert_token(tx: Transaction, token: NewToken, label: bytes, now: datetime) -> bool:
    """`label` is the token's, sealed for `label_subject`. One that is there already stays as it is: False."""
    if tx.get(_TOKENS, token.token_sha256) is not None:
        return False
    tx.keep(_TOKENS, token.token_sha256, token.token_sha256)
    row = _TokenRow(
        token_sha256=token.token_sha256,
        user=token.user,
        kind=token.kind,
        label=label,
        run=token.run,
        project=token.project,
        models=token.terms.models,
        budget_ucredits=token.terms.budget_ucredits,
        requests_per_minute=token.terms.requests_per_minute,
        expires_at=token.expires_at,
        created_at=now,
    )
    tx.insert("tokens", row)
    return True


def label_subject(token_sha256: str) -> str:
    return f"token {token_sha256}"


def identity_of(
    token: NewToken, *, role: Role, is_admin: bool, subscription_until: datetime | None, now: datetime
) -> Identity:
    """A token with terms was made to be given away: it administers nothing, even if it is an administrator's. `role` is
    the one that is stored. It rules what its user calls; a build's models are the operator's choice at a price that its
    owner agreed to, so a task's token may call them whatever the role is. Source: DESIGN §11."""
    if token.kind == "task":
        role = higher(role, "FULL_ACCESS")
    effective = effective_role(role, subscription_until, now)
    return Identity(
        user=token.user,
        is_admin=is_admin and token.kind == "user" and token.terms == TokenTerms(),
        kind=token.kind,
        run=token.run,
        role=effective,
        project=token.project,
        token_sha256=token.token_sha256,
        terms=token.terms,
        expires_at=token.expires_at,
        role_until=subscription_until if effective != role else None,
    )

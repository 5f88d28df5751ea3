"""The operator's part of the HTTP door that issues, lists and revokes tokens. A token is told once and never again."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import Field, StringConstraints

from runtime.accounts.port import AccountChange
from runtime.errors import BadInputError, ConflictError, NotFoundError
from runtime.ids import ProjectId, UserId, project_entity
from runtime.ledger.money import credits_exact
from runtime.ledger.port import NewToken, TokenRow, TokenTerms
from runtime.ledger.tokens import TOKEN_ID_DIGITS
from runtime.tokens import new_token, token_hash
from serve_apps.auth import Admin, TheSystem, by_of
from serve_apps.bodies import Body, UCredits, Words, read_body
from serve_apps.system import System

BODY_BYTES_MAX = 64 << 10
EXPIRES_S_MAX = 10 * 365 * 86_400
TOKEN_ID = re.compile(rf"[0-9a-f]{{{TOKEN_ID_DIGITS}}}")
router = APIRouter(prefix="/api/v1/admin")

Name = Annotated[Words, StringConstraints(max_length=200)]
AllowedModel = Annotated[
    str, StringConstraints(pattern=r"^([a-z0-9][a-z0-9._-]*/[^\s\"'\\]+|auto|eco|smart|deep)$", max_length=300)
]
"""`provider/model`, `provider/*` or a profile."""


class TokenBody(Body):
    """A project's token pays under the project's ceiling, from its owner's wallet; another one from its user's."""

    user: Annotated[Name, StringConstraints(pattern=r"^[^/\s]+$")] | None = None
    role: Literal["DEMO", "FULL_ACCESS"] | None = None
    """Given to the named user; who is new is DEMO."""
    project: Name | None = None
    models: Annotated[list[AllowedModel], Field(default_factory=list, max_length=200)]
    budget_ucredits: UCredits | None = Field(default=None, alias="budget_credits")
    requests_per_minute: Annotated[int, Field(ge=1, le=10**6)] | None = None
    expires_in_s: Annotated[int, Field(ge=1, le=EXPIRES_S_MAX)] | None = None
    label: Annotated[str, StringConstraints(max_length=200)] = ""


@router.post("/tokens")
async def create_token(request: Request, system: TheSystem, admin: Admin) -> JSONResponse:
    """Issues one, for the caller where no user is named. A user nobody knew is registered, with the first credits."""
    body = await read_body(request, TokenBody, BODY_BYTES_MAX)
    if body.role is not None and body.user in (None, admin.user):
        raise BadInputError("role belongs to another user than you.", "Name the user, or leave the role out.")
    user, project = await _payer(system, body, admin.user)
    token = new_token()
    expires_at = datetime.now(UTC) + timedelta(seconds=body.expires_in_s) if body.expires_in_s else None
    issued = NewToken(
        token_sha256=token_hash(token),
        user=user,
        kind="project" if project else "user",
        label=body.label,
        project=project,
        terms=TokenTerms(
            models=tuple(dict.fromkeys(body.models)),
            budget_ucredits=body.budget_ucredits,
            requests_per_minute=body.requests_per_minute,
        ),
        expires_at=expires_at,
    )
    await system.ledger.add_token(issued)
    if body.role is not None:
        await system.ledger.change_account(AccountChange(user=user, role=body.role), by_of(request, admin))
    identity = await system.ledger.authenticate(issued.token_sha256)
    row = next(row for row in await system.ledger.tokens(user) if row.token_id == issued.token_sha256[:TOKEN_ID_DIGITS])
    assert identity is not None, "it was added a moment ago"
    told = {"token": token, "administers": identity.is_admin, "role": identity.role, **_told(row)}
    return JSONResponse(told, 201)


@router.get("/tokens")
async def list_tokens(system: TheSystem, admin: Admin, user: str | None = None) -> JSONResponse:
    """Newest first, also those that expired or were revoked."""
    rows = await system.ledger.tokens(UserId(user) if user else None)
    return JSONResponse({"tokens": [_told(row) for row in rows]})


@router.delete("/tokens/{token_id}")
async def revoke_token(token_id: str, request: Request, system: TheSystem, admin: Admin) -> JSONResponse:
    """The doors refuse it within five seconds. Calls under way are finished and charged."""
    rows = await system.ledger.tokens(None) if TOKEN_ID.fullmatch(token_id) else ()
    if not any(row.token_id == token_id for row in rows):
        raise NotFoundError(f"There is no token {token_id[:100]}.", "`masterbuilder tokens list` names them.")
    operator_sha256: str | None = request.app.state.operator_sha256
    if operator_sha256 and operator_sha256.startswith(token_id):
        raise ConflictError(
            "This is the operator's own token, which opens this very door.", "Change it in secrets.json instead."
        )
    await system.ledger.revoke_token(token_id)
    return JSONResponse({"token_id": token_id, "revoked": True})


async def _payer(system: System, body: TokenBody, caller: UserId) -> tuple[UserId, ProjectId | None]:
    """Raises NotFoundError for a project that is not there, BadInputError for one that is another's."""
    if body.project is None:
        return UserId(body.user) if body.user else caller, None
    project = ProjectId(body.project)
    head = await system.journal.head(project_entity(project))
    if head is None:
        raise NotFoundError(f"There is no project {project}.", "`masterbuilder projects` lists yours.")
    if body.user and body.user != head.owner:
        raise BadInputError(f"The project {project} is not {body.user}'s.", "Leave the user out: it is the owner's.")
    return head.owner, project


def _told(row: TokenRow) -> dict[str, Any]:
    """Amounts in credits are exact texts."""
    budget = row.terms.budget_ucredits
    is_over = row.expires_at is not None and row.expires_at <= datetime.now(UTC)
    return {
        "token_id": row.token_id,
        "state": "revoked" if row.revoked_at else "expired" if is_over else "valid",
        "user": row.user,
        "kind": row.kind,
        "label": row.label,
        "project": row.project,
        "run": row.run,
        "models": list(row.terms.models),
        "budget_credits": credits_exact(budget) if budget is not None else None,
        "spent_credits": credits_exact(row.spent_ucredits),
        "requests_per_minute": row.terms.requests_per_minute,
        "created_at": row.created_at.isoformat(),
        "expires_at": row.expires_at.isoformat() if row.expires_at else None,
        "revoked_at": row.revoked_at.isoformat() if row.revoked_at else None,
    }

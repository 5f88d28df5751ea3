"""A person's own part of the HTTP door: who they are here, their e-mail, all their data, and its end."""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BeforeValidator, Field, StrictBool, StrictInt, StringConstraints

from runtime.accounts.port import AuditEntry
from runtime.errors import BadInputError, ForbiddenError
from runtime.ids import UserId, user_entity
from runtime.ledger.money import credits_exact
from runtime.ledger.port import Identity
from runtime.privacy.export import export
from runtime.project.messages import SetPurgePeriod
from serve_apps.auth import TheSystem, User, by_of
from serve_apps.bodies import Body, Words, idempotency_key, read_body, unsigned_ucredits
from serve_apps.system import System
from serve_apps.wallet_routes import balance_json

BODY_BYTES_MAX = 64 << 10
router = APIRouter(prefix="/api/v1")

Name = Annotated[Words, StringConstraints(max_length=200, pattern=r"^[^/\s]+$")]


class MeBody(Body):
    """What is not given stays as it is."""

    email: Annotated[str, StringConstraints(max_length=1_000)] | None = None
    """Empty removes it."""
    purge_after_days: Annotated[StrictInt, Field(ge=1, le=365)] | None = None
    """Days from a project's end to the erasure of its files and texts, for old projects and new ones."""


class DeleteBody(Body):
    """`confirm` is the yes. Credits that are left are forfeited, so it says up to how many may be."""

    confirm: StrictBool
    forfeit_ucredits: Annotated[int, BeforeValidator(unsigned_ucredits)] = Field(default=0, alias="forfeit_credits")
    user: Name | None = None


@router.get("/me")
async def me(system: TheSystem, user: User) -> JSONResponse:
    return JSONResponse(await _me(system, user))


@router.patch("/me")
async def change_me(request: Request, system: TheSystem, user: User) -> JSONResponse:
    body = await read_body(request, MeBody, BODY_BYTES_MAX)
    if body.email is None and body.purge_after_days is None:
        raise BadInputError("Nothing is to be changed.", "Give email or purge_after_days.")
    if body.email is not None:
        await system.ledger.set_email(user.user, body.email)
    if body.purge_after_days is not None:
        period = SetPurgePeriod(key=idempotency_key(request, "purge"), days=body.purge_after_days)
        await system.entities.ask(user_entity(user.user), period)
    return JSONResponse(await _me(system, user))


@router.get("/me/export")
async def export_me(request: Request, system: TheSystem, caller: User, user: str | None = None) -> Response:
    """A ZIP of all that is kept of the caller, or, for an administrator, of the named `user`."""
    whose = _whose(caller, user)
    if whose != caller.user:
        await system.ledger.note(AuditEntry(by=by_of(request, caller), action="export", target=whose))
    pieces = export(whose, system.ledger, system.journal, datetime.now(UTC))
    first = await anext(pieces)  # Whoever is not there is told so before an answer has begun.
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", whose)[:60]
    headers = {
        "content-disposition": f'attachment; filename="masterbuilder-{name}.zip"',
        "cache-control": "no-store",
    }
    return StreamingResponse(_from(first, pieces), media_type="application/zip", headers=headers)


@router.delete("/me")
async def delete_me(request: Request, system: TheSystem, caller: User) -> JSONResponse:
    """Asks for all data of the caller to be erased, or, for an administrator, of the named `user`.

    There is no way back: from this answer on the user's tokens are refused and nothing is spent. Asking again answers
    the same.
    """
    body = await read_body(request, DeleteBody, BODY_BYTES_MAX)
    whose = _whose(caller, body.user)
    if not body.confirm:
        raise BadInputError("confirm must be true, for what is erased cannot be brought back.", "Export it first.")
    deletion = await system.ledger.delete_person(whose, body.forfeit_ucredits)
    forfeited = credits_exact(deletion.forfeited_ucredits)
    told = {
        "user": deletion.user,
        "asked_at": deletion.asked_at.isoformat(),
        "due_at": deletion.due_at.isoformat(),
        "forfeited_credits": forfeited,
        "forfeited_ucredits": deletion.forfeited_ucredits,
        "text": f"{forfeited} credits are forfeited. Builds under way are stopped, and everything but the rows that "
        "bookkeeping needs is erased within 24 hours; those rows lose the name.",
    }
    return JSONResponse(told, 202)


async def _me(system: System, user: Identity) -> dict[str, Any]:
    balance = await system.ledger.balance(user.user)
    person = await system.ledger.person(user.user)
    session = await system.journal.head(user_entity(user.user))
    chosen = session.data.get("purge_days") if session else None
    return {
        "user": user.user,
        "is_admin": user.is_admin,
        "role": user.role,
        "email": person.email if person else "",
        "subscription_tier": person.subscription_tier if person else None,
        "expires_at": person.subscription.expires_at.isoformat() if person and person.subscription else None,
        "registered_at": person.registered_at.isoformat() if person else None,
        "purge_after_days": chosen or system.settings.project_purge_days,
        **balance_json(balance),
    }


def _whose(caller: Identity, named: str | None) -> UserId:
    """Raises ForbiddenError for another's data, unless an administrator asks."""
    if named is None or named == caller.user:
        return caller.user
    if not caller.is_admin:
        raise ForbiddenError("Another person's data is for administrators.", "Leave the user out: it is you.")
    return UserId(named)


async def _from(first: bytes, rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    yield first
    async for piece in rest:
        yield piece

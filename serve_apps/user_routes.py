"""The operator's part of the HTTP door about people: users, invites, who did what. Source: spec/assistant.md §16.2."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import Field, StrictBool, StrictInt

from runtime.accounts.port import INVITE_ID_DIGITS, Account, AccountChange, AuditEntry, AuditRow, Invite, NewInvite
from runtime.errors import BadInputError, NotFoundError
from runtime.ids import UserId
from runtime.ledger.accounts import INVITE_USES_MAX
from runtime.tokens import new_invite_code, token_hash
from serve_apps.auth import Admin, TheSystem, by_of
from serve_apps.bodies import Body, read_body
from serve_apps.system import System

BODY_BYTES_MAX = 64 << 10
PAGE_MAX = 1_000
EXPIRES_S_MAX = 10 * 365 * 86_400
INVITE_ID = re.compile(rf"[0-9a-f]{{{INVITE_ID_DIGITS}}}")
TELEGRAM_ID = re.compile(r"[1-9][0-9]{0,18}")
router = APIRouter(prefix="/api/v1/admin")


class UserBody(Body):
    """What is not given stays as it is."""

    role: Literal["DEMO", "FULL_ACCESS", "ADMIN"] | None = None
    authorized: StrictBool | None = None
    verified: StrictBool | None = None
    banned: StrictBool | None = None
    logout: StrictBool = False
    """Makes every login of theirs worthless."""


class InviteBody(Body):
    role: Literal["DEMO", "FULL_ACCESS"] = "DEMO"
    uses: Annotated[StrictInt, Field(ge=1, le=INVITE_USES_MAX)] = 1
    expires_in_s: Annotated[StrictInt, Field(ge=1, le=EXPIRES_S_MAX)] | None = None


@router.get("/users")
async def users(request: Request, system: TheSystem, admin: Admin) -> JSONResponse:
    """Oldest first."""
    limit, offset = _page(request)
    await _note_read(request, system, admin, "users")
    found = await system.ledger.accounts(limit, offset)
    return JSONResponse({"users": [_user_json(each) for each in found], "limit": limit, "offset": offset})


@router.patch("/users/{user}")
async def change_user(user: str, request: Request, system: TheSystem, admin: Admin) -> JSONResponse:
    """By the Telegram id, or by the user's own id."""
    body = await read_body(request, UserBody, BODY_BYTES_MAX)
    if body == UserBody():
        raise BadInputError("Nothing is to be changed.", "Give role, authorized, verified, banned or logout.")
    known = await _user(system, user)
    by = by_of(request, admin)
    change = AccountChange(
        user=known.user, role=body.role, authorized=body.authorized, verified=body.verified, banned=body.banned
    )
    account = await system.ledger.change_account(change, by)
    if body.logout:
        await system.ledger.revoke_logins(known.user)
        await system.ledger.note(AuditEntry(by=by, action="logout", target=known.user))
    return JSONResponse(_user_json(account))


@router.post("/invite")
async def create_invite(request: Request, system: TheSystem, admin: Admin) -> JSONResponse:
    """The code is told once and never again."""
    body = await read_body(request, InviteBody, BODY_BYTES_MAX)
    code = new_invite_code()
    expires_at = datetime.now(UTC) + timedelta(seconds=body.expires_in_s) if body.expires_in_s else None
    invite = NewInvite(code_sha256=token_hash(code), role=body.role, uses=body.uses, expires_at=expires_at)
    made = await system.ledger.add_invite(invite, by_of(request, admin))
    return JSONResponse({"code": code, **_invite_json(made)}, 201, headers={"cache-control": "no-store"})


@router.get("/invite")
async def invites(request: Request, system: TheSystem, admin: Admin) -> JSONResponse:
    """Those that can still be used, newest first; with `all=true` the others too."""
    await _note_read(request, system, admin, "invites")
    every = request.query_params.get("all", "false").lower() == "true"
    found = [each for each in await system.ledger.invites() if every or each.state == "open"]
    return JSONResponse({"invites": [_invite_json(each) for each in found]})


@router.delete("/invite/{invite_id}")
async def revoke_invite(invite_id: str, request: Request, system: TheSystem, admin: Admin) -> JSONResponse:
    is_id = INVITE_ID.fullmatch(invite_id)
    if not is_id or not await system.ledger.revoke_invite(invite_id, by_of(request, admin)):
        raise NotFoundError(f"There is no invite {invite_id[:100]}.", "`masterbuilder invite list` names them.")
    return JSONResponse({"invite_id": invite_id, "revoked": True})


@router.get("/audit")
async def audit(request: Request, system: TheSystem, admin: Admin) -> JSONResponse:
    """Newest first."""
    limit, offset = _page(request)
    found = await system.ledger.audit(limit, offset)
    await _note_read(request, system, admin, "audit")
    return JSONResponse({"audit": [_audit_json(each) for each in found], "limit": limit, "offset": offset})


def _page(request: Request) -> tuple[int, int]:
    """Raises BadInputError."""
    given = {"limit": "100", "offset": "0", **request.query_params}
    if not re.fullmatch(r"[0-9]{1,9}", given["limit"]) or not 1 <= int(given["limit"]) <= PAGE_MAX:
        raise BadInputError(f"limit must be a number from 1 to {PAGE_MAX}.", "Correct it and ask again.")
    if not re.fullmatch(r"[0-9]{1,9}", given["offset"]):
        raise BadInputError("offset must be a number, 0 or more.", "Correct it and ask again.")
    return int(given["limit"]), int(given["offset"])


async def _user(system: System, named: str) -> Account:
    """Raises NotFoundError."""
    found = await system.ledger.account_of(int(named)) if TELEGRAM_ID.fullmatch(named) else None
    found = found or await system.ledger.account(UserId(named))
    if found is None:
        raise NotFoundError(f"There is no user {named[:100]}.", "`masterbuilder users list` names them.")
    return found


async def _note_read(request: Request, system: System, admin: Admin, what: str) -> None:
    await system.ledger.note(AuditEntry(by=by_of(request, admin), action="read", target=what))


def _user_json(account: Account) -> dict[str, Any]:
    return {
        "user_id": account.user,
        "telegram_id": account.telegram_id,
        "username": account.username,
        "first_name": account.first_name,
        "last_name": account.last_name,
        "role": account.role,
        "authorized": account.authorized,
        "verified": account.verified,
        "banned": account.banned,
    }


def _invite_json(invite: Invite) -> dict[str, Any]:
    return {
        "invite_id": invite.invite_id,
        "role": invite.role,
        "state": invite.state,
        "uses": invite.uses,
        "uses_left": invite.uses_left,
        "made_by": invite.made_by,
        "made_at": invite.made_at.isoformat(),
        "expires_at": invite.expires_at.isoformat() if invite.expires_at else None,
        "consumers": list(invite.consumers),
    }


def _audit_json(row: AuditRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "actor": row.actor,
        "action": row.action,
        "target": row.target,
        "details": dict(row.details),
        "ip_address": row.address,
        "at": row.at.isoformat(),
    }

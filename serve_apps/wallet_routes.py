"""The wallet's part of the HTTP door: what is there, what changed it, what an operator gives, takes and gives back."""

import csv
import io
import logging
import re
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BeforeValidator, Field, StringConstraints

from runtime.accounts.port import AuditEntry
from runtime.errors import BadInputError, MasterbuilderError, NotFoundError
from runtime.ids import CallId, UserId, user_entity
from runtime.ledger.money import credits_exact, credits_text, usd_text
from runtime.ledger.port import Adjustment, Balance, CallRefund, Movement
from runtime.ledger.receipt import harmless
from runtime.payments.products import more_credits
from runtime.session.session import ToppedUp
from serve_apps.auth import Admin, TheSystem, User, by_of
from serve_apps.bodies import Body, Words, idempotency_key, read_body, signed_ucredits
from serve_apps.system import System

BODY_BYTES_MAX = 64 << 10
LINES_MAX = 1_000
router = APIRouter()
log = logging.getLogger(__name__)

Name = Annotated[Words, StringConstraints(max_length=200, pattern=r"^[^/\s]+$")]
Reason = Annotated[Words, StringConstraints(max_length=500)]


class AdjustmentBody(Body):
    user: Name
    amount_ucredits: Annotated[int, BeforeValidator(signed_ucredits)] = Field(alias="amount_credits")
    reason: Reason


class RefundBody(Body):
    call: Annotated[Words, StringConstraints(max_length=300)]
    reason: Reason


@router.get("/api/v1/credits")
async def credits(system: TheSystem, user: User) -> JSONResponse:
    """Balance, what today's own calls used of the cap of a day, and what is to be known: that little is left, say.

    Who was told here is not told again by a door that tells without being asked.
    """
    balance = await system.ledger.balance(user.user)
    spending = await system.ledger.spending(user.user)
    notices = await system.ledger.notices(user.user)
    if notices:
        await system.ledger.mark_told(user.user, notices[0].at)
    cap = spending.cap_ucredits
    return JSONResponse(
        {
            "user": user.user,
            **balance_json(balance),
            "spent_today_credits": credits_exact(spending.spent_ucredits),
            "cap_today_credits": None if cap is None else credits_exact(cap),
            "left_today_credits": None if cap is None else credits_exact(max(0, cap - spending.spent_ucredits)),
            "notices": [{"kind": each.kind, "text": each.text, "at": each.at.isoformat()} for each in notices],
            "more": more_credits(system.settings.payments_enabled),
        }
    )


@router.get("/api/v1/credits/statement")
async def statement(request: Request, system: TheSystem, user: User) -> Response:
    """Newest first: `limit` lines after the one whose id is `after`; JSON or CSV."""
    return await _statement(request, system, user.user)


@router.get("/api/v1/admin/credits/{user}/statement")
async def statement_of(user: str, request: Request, system: TheSystem, admin: Admin) -> Response:
    await system.ledger.note(AuditEntry(by=by_of(request, admin), action="read_statement", target=user))
    return await _statement(request, system, UserId(user))


@router.get("/api/v1/admin/credits/{user}")
async def credits_of(user: str, system: TheSystem, admin: Admin) -> JSONResponse:
    return JSONResponse({"user": user, **balance_json(await system.ledger.balance(UserId(user)))})


@router.post("/api/v1/admin/credits")
async def adjust(request: Request, system: TheSystem, admin: Admin) -> JSONResponse:
    """Gives credits, or takes them where the number is negative. With an Idempotency-Key a repeat changes nothing."""
    body = await read_body(request, AdjustmentBody, BODY_BYTES_MAX)
    user = UserId(body.user)
    adjustment = Adjustment(
        id=idempotency_key(request, "adjust"),
        user=user,
        amount_ucredits=body.amount_ucredits,
        reason=body.reason,
        made_by=admin.user,
    )
    balance = await system.ledger.adjust(adjustment)
    if body.amount_ucredits > 0:
        try:
            await topped_up(system, user)
        except MasterbuilderError as error:  # The credits are there, whatever becomes of this.
            log.warning("the projects of %s were not told of new credits: %s", user, error)
    return JSONResponse({"user": user, **balance_json(balance)})


@router.post("/api/v1/admin/refunds")
async def refund(request: Request, system: TheSystem, admin: Admin) -> JSONResponse:
    """Gives back what one call was charged, once for ever."""
    body = await read_body(request, RefundBody, BODY_BYTES_MAX)
    call = CallRefund(call=CallId(body.call), reason=body.reason, made_by=admin.user)
    refunded = credits_exact(await system.ledger.refund_call(call))
    details = {"credits": refunded}
    await system.ledger.note(AuditEntry(by=by_of(request, admin), action="refund", target=body.call, details=details))
    return JSONResponse({"call": body.call, "refunded_credits": refunded})


@router.get("/api/v1/admin/accounts/stopped")
async def stopped(system: TheSystem, admin: Admin) -> JSONResponse:
    """Accounts that do not add up: nothing is spent from them."""
    found = await system.ledger.stopped_accounts()
    told = [{"user": each.user, "reason": each.reason, "since": each.since.isoformat()} for each in found]
    return JSONResponse({"stopped": told})


@router.post("/api/v1/admin/accounts/{user}/release")
async def release(user: str, system: TheSystem, admin: Admin) -> JSONResponse:
    if not await system.ledger.release_account(UserId(user)):
        named = "`masterbuilder credits stopped` lists those that are."
        raise NotFoundError(f"The account of {user[:100]} is not stopped.", named)
    return JSONResponse({"user": user, "released": True})


async def topped_up(system: System, user: UserId) -> None:
    """Projects of the user that wait for credits go on. May be repeated. Raises the session's errors."""
    await system.entities.ask(user_entity(user), ToppedUp())


async def _statement(request: Request, system: System, user: UserId) -> Response:
    wanted = request.query_params.get("format", "json")
    if wanted not in ("json", "csv"):
        raise BadInputError("format must be json or csv.", "Correct it and ask again.")
    given = request.query_params.get("limit", "100")
    if not re.fullmatch(r"[0-9]{1,4}", given) or not 1 <= int(given) <= LINES_MAX:
        raise BadInputError(f"limit must be a number from 1 to {LINES_MAX}.", "Correct it and ask again.")
    moves = await system.ledger.statement(user, request.query_params.get("after"), int(given))
    if wanted == "csv":
        return Response(_statement_csv(moves), media_type="text/csv")
    return JSONResponse({"user": user, "movements": [_movement_json(move) for move in moves]})


def _movement_json(move: Movement) -> dict[str, Any]:
    return {
        "id": move.id,
        "type": move.type,
        "amount_credits": credits_exact(move.amount_ucredits),
        "amount_ucredits": move.amount_ucredits,
        "cost_usd": None if move.cost_pusd is None else usd_text(move.cost_pusd),
        "call": move.call,
        "project": move.project,
        "external_id": move.external_id,
        "text": move.text,
        "at": move.at.isoformat(),
    }


def _statement_csv(moves: Sequence[Movement]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ["at", "type", "amount_credits", "cost_usd", "call", "project", "external_id", "text", "id"]
    writer.writerow(names)
    for move in moves:
        told = _movement_json(move)
        writer.writerow([harmless(told[name]) for name in names])
    return text.getvalue()


def balance_json(balance: Balance) -> dict[str, Any]:
    return {
        "balance_credits": credits_text(balance.balance_ucredits),
        "held_credits": credits_text(balance.held_ucredits),
        "free_credits": credits_text(balance.free_ucredits),
        "balance_ucredits": balance.balance_ucredits,
        "held_ucredits": balance.held_ucredits,
    }

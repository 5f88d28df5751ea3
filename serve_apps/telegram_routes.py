"""The door that Telegram knocks at. It answers when an update is on disk, and not before."""

import hmac
import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse

from runtime.errors import BadInputError, ForbiddenError, NotFoundError, TooLargeError
from runtime.telegram.reception import Reception
from serve_apps.bodies import read_bytes
from serve_apps.door import application
from serve_apps.system import System

BODY_BYTES_MAX = 1 << 20
HEADER = "x-telegram-bot-api-secret-token"
router = APIRouter()
logger = logging.getLogger("masterbuilder.http")


def create_app(system: System, secret: str, *, under_serve: bool = False) -> FastAPI:
    """`secret` is what Telegram was told to send with each update."""
    assert secret, "without one, anybody could speak as Telegram"
    app = application((router,), system, under_serve=under_serve)
    app.state.webhook_secret = secret
    app.state.reception = Reception(system.ledger, system.entities, is_pushed=True)
    return app


@router.post("/{path}")
async def update(path: str, request: Request) -> JSONResponse:
    """What is none of Telegram's updates is let go with a line in the log: an error would bring it back for ever."""
    settings = request.app.state.system.settings
    if settings.telegram_mode != "webhook" or path != settings.webhook_path:
        _log("webhook_forged", why="another path" if settings.telegram_mode == "webhook" else "there is no webhook")
        raise NotFoundError("There is nothing here.")
    given = request.headers.get(HEADER, "")
    if not hmac.compare_digest(given.encode(), request.app.state.webhook_secret.encode()):
        _log("webhook_forged", why="another secret" if given else "no secret")
        raise ForbiddenError("This is not from Telegram.")
    reception: Reception = request.app.state.reception
    try:
        await reception.take(_parsed(await read_bytes(request, BODY_BYTES_MAX)))
    except (BadInputError, TooLargeError) as error:
        _log("update_let_go", reason=error.message[:200])
    return JSONResponse({})


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise BadInputError("It is no JSON.") from None


def _log(event: str, **facts: str) -> None:
    said: Mapping[str, str] = {"at": datetime.now(UTC).isoformat(), "event": event, **facts}
    logger.warning(json.dumps(said))

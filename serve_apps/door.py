"""What happens to every request before any route: it gets an id, a line in the log, and an answer come what may."""

import json
import logging
import re
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.frames import frames
from serve_apps import answers
from serve_apps.answers import unforeseen_body
from serve_apps.system import System

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
logger = logging.getLogger("masterbuilder.http")


def application(
    routers: Sequence[APIRouter], system: System, *, under_serve: bool, operator_sha256: str | None = None
) -> FastAPI:
    """An application of these routes, with the same ids, logs and error answers at every door.

    `operator_sha256` is the hash of the token that administers without asking the ledger.
    """
    app = FastAPI(openapi_url=None)
    app.state.system = system
    app.state.operator_sha256 = operator_sha256
    for router in routers:
        app.include_router(router)
    app.add_middleware(Door, sets_header=not under_serve)
    answers.install(app)
    return app


class Door:
    """ASGI middleware. Logs JSON lines: routes, never paths' contents, bodies, tokens or an exception's text.

    `sets_header` is false under Ray Serve, whose proxy sets `x-request-id` from the same request header.
    """

    def __init__(self, app: ASGIApp, sets_header: bool) -> None:
        self._app = app
        self._sets_header = sets_header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else str(uuid.uuid4())
        scope.setdefault("state", {})["request_id"] = request_id
        began_s = time.monotonic()
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._sets_header:
                    MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except Exception as error:
            _log(logging.ERROR, "unforeseen", request_id=request_id, error=type(error).__name__, frames=frames(error))
            if not status:
                await JSONResponse(unforeseen_body(request_id), 500)(scope, receive, send_named)
        finally:
            _log(
                logging.INFO,
                "request",
                request_id=request_id,
                method=scope["method"],
                route=getattr(scope.get("route"), "path", None),
                status=status,
                duration_ms=round((time.monotonic() - began_s) * 1000, 1),
            )


def log_unforeseen(error: Exception, request_id: str) -> None:
    """For what goes wrong after an answer has begun."""
    _log(logging.ERROR, "unforeseen", request_id=request_id, error=type(error).__name__, frames=frames(error))


def log_to_stderr() -> None:
    """One JSON object a line. For a process that is a door; calling it again changes nothing."""
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler())
        logger.setLevel(logging.INFO)
        logger.propagate = False


def _log(level: int, what: str, **fields: object) -> None:
    logger.log(level, json.dumps({"at": datetime.now(UTC).isoformat(), "event": what, **fields}))

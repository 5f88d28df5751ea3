"""How the model door answers: each error in the caller's own wire, under the names its SDK reads the request id by."""

import json
from collections.abc import Iterable
from types import ModuleType

from runtime.errors import MasterbuilderError, QuarantinedError
from runtime.providers.splice import Wire
from runtime.providers.wires import anthropic, openai
from serve_apps.answers import retry_after_s, status_of, unforeseen_body

Header = tuple[bytes, bytes]

JSON: Header = (b"content-type", b"application/json")
STREAM: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)
_WIRES: dict[Wire, ModuleType] = {"openai": openai, "anthropic": anthropic}
_UNFORESEEN = unforeseen_body("")["error"]


def refusal(error: MasterbuilderError, wire: Wire, request_id: str) -> tuple[int, list[Header], bytes]:
    """Status, headers and body."""
    status = status_of(error)
    headers = []
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status in (429, 503) and not isinstance(error, QuarantinedError):
        headers.append((b"retry-after", str(retry_after_s(error)).encode()))
    if status == 502:
        headers.append((b"x-should-retry", b"false"))  # What could be retried was; the SDKs would do it all again.
    return status, headers, _json(_WIRES[wire].error_body(**_told(error, request_id)))


def refusal_event(error: MasterbuilderError, wire: Wire, request_id: str) -> bytes:
    """For an answer that has begun, and ends with this."""
    event: bytes = _WIRES[wire].error_event(**_told(error, request_id))
    return event


def unforeseen(wire: Wire, request_id: str) -> bytes:
    """Says nothing about what happened inside."""
    return _json(_WIRES[wire].error_body(**_unforeseen(request_id)))


def unforeseen_event(wire: Wire, request_id: str) -> bytes:
    event: bytes = _WIRES[wire].error_event(**_unforeseen(request_id))
    return event


def with_length(headers: Iterable[Header], body: bytes) -> list[Header]:
    return [JSON, (b"content-length", str(len(body)).encode()), *headers]


def _told(error: MasterbuilderError, request_id: str) -> dict[str, object]:
    return {
        "kind": error.code,
        "status": status_of(error),
        "message": str(error),
        "request_id": request_id,
        "extra": {"charged": error.charged, "next": error.next_step},
    }


def _unforeseen(request_id: str) -> dict[str, object]:
    told = _UNFORESEEN
    extra = {"charged": told["charged"], "next": told["next"]}
    return {"kind": told["code"], "status": 500, "message": told["message"], "request_id": request_id, "extra": extra}


def _json(body: dict[str, object]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")

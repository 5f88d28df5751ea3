"""How the model door answers: each error in the caller's own wire, under the names its SDK reads the request id by."""

from collections.abc import Iterable

from runtime.errors import MasterbuilderError
from runtime.providers.rendered import WIRES, to_json
from runtime.providers.splice import Wire
from serve_apps.answers import headers_of, status_of, unforeseen_body

Header = tuple[bytes, bytes]

JSON: Header = (b"content-type", b"application/json")
STREAM: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)
_UNFORESEEN = unforeseen_body("")["error"]


def refusal(error: MasterbuilderError, wire: Wire, request_id: str) -> tuple[int, list[Header], bytes]:
    """Status, headers and body."""
    headers = [(name.encode(), value.encode()) for name, value in headers_of(error).items()]
    return status_of(error), headers, to_json(WIRES[wire].error_body(**_told(error, request_id)))


def refusal_event(error: MasterbuilderError, wire: Wire, request_id: str) -> bytes:
    """For an answer that has begun, and ends with this."""
    event: bytes = WIRES[wire].error_event(**_told(error, request_id))
    return event


def unforeseen(wire: Wire, request_id: str) -> bytes:
    """Says nothing about what happened inside."""
    return to_json(WIRES[wire].error_body(**_unforeseen(request_id)))


def unforeseen_event(wire: Wire, request_id: str) -> bytes:
    event: bytes = WIRES[wire].error_event(**_unforeseen(request_id))
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

"""A stand-in for the service's HTTP doors: answers what a test wrote down, and remembers what it was asked."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from click.testing import Result

Answer = tuple[int, dict[str, str], bytes]
Run = Callable[..., Result]
"""Runs `masterbuilder` with these arguments."""

PROJECT: dict[str, Any] = {
    "id": "p1",
    "title": "Expense tracker",
    "status": "implementing",
    "question": None,
    "scope": None,
    "quote_credits": "20.00",
    "ceiling_credits": "30.00",
    "spent_credits": "1.50",
    "spent_ucredits": 1_500_000,
    "spent_usd": "0.010000",
    "spent_pusd": 10_000_000_000,
    "tasks": [],
    "tasks_done": 3,
    "tasks_total": 12,
    "failure_reason": None,
    "package": None,
    "created_at": "2026-11-01T10:00:00+00:00",
    "updated_at": "2026-11-01T10:00:00+00:00",
    "last_seq": 4,
}


class FakeDoor:
    """Routes are `METHOD /path` without the query. A route's answer is always the same, or what its function says."""

    def __init__(self) -> None:
        self.routes: dict[str, Answer | Callable[[int], Answer]] = {}
        self.asked: list[tuple[str, str, Any, str]] = []
        """Route, query, body and bearer of every request."""
        self._counts: dict[str, int] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def says(self, route: str, body: Any, status: int = 200, **headers: str) -> None:
        self.routes[route] = json_answer(body, status, **headers)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        door = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                path, _, query = self.path.partition("?")
                route = f"{self.command} {path}"
                length = int(self.headers.get("Content-Length") or 0)
                sent = self.rfile.read(length)
                bearer = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
                door.asked.append((route, query, json.loads(sent) if sent else None, bearer))
                answer = door.routes.get(route, error_answer("not_found", 404, "There is no such thing."))
                if callable(answer):
                    door._counts[route] = door._counts.get(route, 0) + 1
                    answer = answer(door._counts[route])
                status, headers, body = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PATCH = do_DELETE = _serve

            def log_message(self, format: str, *args: Any) -> None:
                return None

        return Handler


def json_answer(body: Any, status: int = 200, **headers: str) -> Answer:
    return status, {"Content-Type": "application/json", **headers}, json.dumps(body).encode()


def error_answer(code: str, status: int, message: str, next_step: str = "", request_id: str = "req-7") -> Answer:
    text = f"{message} {next_step}".strip()
    error = {"code": code, "type": code, "message": text, "charged": "Nothing was charged.", "next": next_step}
    return json_answer({"error": {**error, "request_id": request_id}}, status)


def stream_answer(events: list[dict[str, Any]], ended: bool) -> Answer:
    """Server-sent events; without `ended` the connection breaks after the last."""
    text = ": heartbeat\n\n"
    for event in events:
        text += f"id: {event['seq']}\nevent: {event['type']}\ndata: {json.dumps(event)}\n\n"
    if ended:
        text += "event: end\ndata: {}\n\n"
    return 200, {"Content-Type": "text/event-stream"}, text.encode()


def event(seq: int, kind: str, **data: Any) -> dict[str, Any]:
    return {"seq": seq, "type": kind, "at": "2026-11-01T10:00:00+00:00", "data": data}

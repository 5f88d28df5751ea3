"""A model provider that repeats the key it was shown, wherever it can."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

STATUSES = ("400", "403", "404", "408", "429", "500", "503", "529")
"""What it answers when the user's last word is one of them."""
STREAMED = ("error-event", "broken-event", "cut")
LAST = ("402", "401")
"""After these a key is not used for a while, or never again."""


@dataclass(slots=True)
class Indiscreet:
    url: str
    """For all three wires."""
    answered: Counter[str]
    """How often it gave each answer."""


@contextmanager
def indiscreet() -> Iterator[Indiscreet]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    provider = Indiscreet(f"http://127.0.0.1:{server.server_address[1]}", Counter())
    _Handler.answered = provider.answered
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answered: ClassVar[Counter[str]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        wanted = next((word for word in (*STATUSES, *STREAMED, *LAST) if f"please {word}" in body), "html")
        self.answered[wanted] += 1
        key = self._key()
        said = f"You said {key}. Authorization: Bearer {key}, x-api-key={key}, https://x/?key={key}"
        error = {"type": "error", "error": {"message": said, "type": key, "code": key, "status": key, "param": key}}
        if wanted == "html":
            self._send(200, "text/html", f"<html>{said}</html>", key)
        elif wanted in STREAMED:
            event = {"error-event": json.dumps(error), "broken-event": f'{{"key": "{key}', "cut": ": " + key}[wanted]
            self._send(200, "text/event-stream", f"event: error\ndata: {event}\n\n", key)
        else:
            self._send(int(wanted), "application/json", json.dumps(error), key)

    def _key(self) -> str:
        shown = self.headers.get("authorization", "").removeprefix("Bearer ")
        return shown or self.headers.get("x-api-key") or self.headers.get("x-goog-api-key") or ""

    def _send(self, status: int, content_type: str, text: str, key: str) -> None:
        body = text.encode()
        self.send_response(status, key)
        for name, value in (("Content-Type", content_type), ("Content-Length", str(len(body))), ("X-Your-Key", key)):
            self.send_header(name, value)
        self.send_header("Request-Id", key)
        self.send_header("X-Request-Id", key)
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return

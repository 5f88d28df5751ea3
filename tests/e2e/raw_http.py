"""Requests no library would send: bytes on a socket, and whatever comes back."""

import json
import select
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

_READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The last answer on a connection. `status` is 0 where it ended without one."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def connection(url: str, *, receive_bytes: int | None = None) -> socket.socket:
    """`receive_bytes` bounds what the kernel takes for a reader that does not read."""
    parts = urlsplit(url)
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if receive_bytes is not None:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    opened.settimeout(10.0)
    opened.connect((parts.hostname, parts.port))
    return opened


def head(method: str, path: str, headers: Mapping[str, str | int]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def exchange(url: str, sent: Iterable[bytes], timeout_s: float = 30.0) -> Answer:
    """Sends piece by piece, and stops as soon as there is an answer or the other side has hung up.

    Raises TimeoutError where neither comes.
    """
    deadline = time.monotonic() + timeout_s
    pieces = iter(sent)
    waiting, got = b"", b""
    with connection(url) as line:
        line.setblocking(False)
        more = True
        while time.monotonic() < deadline:
            if more and not waiting:
                waiting = next(pieces, b"")
                more = bool(waiting)
            readable, writable, _ = select.select([line], [line] if waiting else [], [], 0.5)
            try:
                if readable:
                    received = line.recv(_READ_BYTES)
                    got += received
                    if answer := read_answer(got, ended=not received):
                        return answer
                if writable:
                    waiting = waiting[line.send(waiting[: 1 << 18]) :]
            except ConnectionError:
                return read_answer(got, ended=True) or Answer(status=0, headers={}, body=b"")
    raise TimeoutError(f"no answer after {timeout_s:g} s; so far {got[:200]!r}")


def read_answer(got: bytes, *, ended: bool) -> Answer | None:
    """None until it is whole, or for ever where the connection ended within it."""
    status, headers = 100, dict[str, str]()
    while 100 <= status < 200:
        first, separator, got = got.partition(b"\r\n\r\n")
        if not separator:
            return Answer(status=0, headers={}, body=first) if ended else None
        lines = first.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        fields = (line.partition(":") for line in lines[1:])
        headers = {name.strip().lower(): value.strip() for name, _, value in fields}
    if "content-length" in headers:
        size = int(headers["content-length"])
        return Answer(status=status, headers=headers, body=got[:size]) if len(got) >= size or ended else None
    if headers.get("transfer-encoding") == "chunked":
        if not (got.endswith(b"0\r\n\r\n") or ended):
            return None
        return Answer(status=status, headers=headers, body=_joined(got))
    return Answer(status=status, headers=headers, body=got) if ended else None


def _joined(chunks: bytes) -> bytes:
    body = b""
    while chunks:
        size, _, rest = chunks.partition(b"\r\n")
        length = int(size.partition(b";")[0] or b"0", 16)
        if not length:
            break
        body, chunks = body + rest[:length], rest[length + 2 :]
    return body

"""The load on one gateway, in a process of its own, on the bare protocol: it must cost less than what it measures.

`python -m tests.bench.gateway.load` takes a `Load` as JSON on stdin and prints a `Seen` as JSON.
"""

import asyncio
import json
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise

import httptools

from tests.bench.gateway.upstream import TOKEN_EVERY_S, TOKENS

PATH = "/v1/chat/completions"
ANSWER_S_MAX = 60.0
PROMPT = "Tell me in two sentences why the sea is salty and the rivers that fill it are not. " * 4
_TOKEN = re.compile(rb'"content":\s*"(\d+)@(\d+) "')


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    port: int
    headers: Mapping[str, str]
    body: str
    callers: int
    seconds: float
    streamed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Times in milliseconds, unsorted. Of streams, `latency_ms` is the time to the first token."""

    seconds: float
    latency_ms: list[float]
    errors: int
    first_error: str
    token_delay_ms: list[float]
    """From when the upstream sent each token to when it was read."""
    lost: int
    """Tokens that never came, came twice or out of order."""
    merged: int
    """Tokens read together with an earlier one that had been sent at least half an interval before."""


def body(model: str, *, streamed: bool) -> str:
    asked: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 100}
    if streamed:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(asked)


class Caller(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self, load: Load) -> None:
        head = "".join(f"{name}: {value}\r\n" for name, value in load.headers.items())
        body = load.body.encode()
        self._request = (
            f"POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1:{load.port}\r\ncontent-type: application/json\r\n"
            f"{head}content-length: {len(body)}\r\n\r\n"
        ).encode() + body
        self._load = load
        self._done: asyncio.Future[None] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self.transport: asyncio.Transport | None = None

    async def ask(self) -> None:
        """Raises ConnectionError or TimeoutError; afterwards `status`, `body` and `reads` tell what came."""
        loop = asyncio.get_running_loop()
        if self.transport is None or self.transport.is_closing():
            self._parser = httptools.HttpResponseParser(self)
            await loop.create_connection(lambda: self, "127.0.0.1", self._load.port)
        assert self.transport is not None
        self.reads: list[tuple[float, bytes]] = []
        self._keep_alive = True
        self._done = loop.create_future()
        self.transport.write(self._request)
        async with asyncio.timeout(ANSWER_S_MAX):
            await self._done
        self.status = self._parser.get_status_code()
        if not self._keep_alive:
            self.transport.close()

    @property
    def body(self) -> bytes:
        return b"".join(data for _, data in self.reads)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self._done and not self._done.done():
            self._done.set_exception(ConnectionError("The gateway closed the connection."))

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        self.reads.append((time.monotonic(), data))

    def on_message_complete(self) -> None:
        self._keep_alive = self._parser.should_keep_alive()
        if self._done and not self._done.done():
            self._done.set_result(None)


async def run(load: Load) -> Seen:
    latency_ms: list[float] = []
    delays: list[float] = []
    errors = lost = merged = 0
    first_error = ""
    end = time.monotonic() + load.seconds

    async def call() -> None:
        nonlocal errors, lost, merged, first_error
        caller = Caller(load)
        while time.monotonic() < end:
            begun = time.monotonic()
            try:
                await caller.ask()
                if caller.status != 200 or b"error" in caller.body[:200]:
                    raise ConnectionError(f"{caller.status} {caller.body[:300]!r}")
            except (OSError, TimeoutError, httptools.HttpParserError) as error:
                errors += 1
                first_error = first_error or f"{type(error).__name__}: {error}"
                await asyncio.sleep(0.05)
                continue
            if not load.streamed:
                latency_ms.append((time.monotonic() - begun) * 1e3)
                continue
            read = _tokens(caller.reads)
            if read:
                latency_ms.append((read[0][0] - begun) * 1e3)
            lost += abs(TOKENS - len(read)) + sum(number != at for at, (_, number, _) in enumerate(read))
            delays.extend((at - sent) * 1e3 for at, _, sent in read)
            merged += sum(
                late[0] == early[0] and late[2] - early[2] >= TOKEN_EVERY_S / 2 for early, late in pairwise(read)
            )
        if caller.transport:
            caller.transport.close()

    begun = time.monotonic()
    await asyncio.gather(*(call() for _ in range(load.callers)))
    return Seen(
        seconds=time.monotonic() - begun,
        latency_ms=latency_ms,
        errors=errors,
        first_error=first_error,
        token_delay_ms=delays,
        lost=lost,
        merged=merged,
    )


def _tokens(reads: list[tuple[float, bytes]]) -> list[tuple[float, int, float]]:
    """(when read, number, when sent) of every token; one cut in two by the network counts when its end was read."""
    found = []
    text, known = b"", 0
    for at, data in reads:
        text += data
        for token in _TOKEN.finditer(text, known):
            found.append((at, int(token[1]), int(token[2]) / 1e9))
            known = token.end()
    return found


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(run(Load(**json.load(sys.stdin)))))))

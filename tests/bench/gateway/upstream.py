"""The mock model service behind every gateway that is measured: answers after a fixed delay, and does nothing else.

`python -m tests.bench.gateway.upstream PORT DELAY_S`. It speaks OpenAI's chat completions, whole and streamed, on the
loopback. A streamed event carries its number and the moment it was sent, on the clock that all processes of a machine
share, so that a reader can tell what was lost, merged or delayed on the way. Written on the bare protocol: what it
costs is taken from the cores that the measured gateway runs on.
"""

import asyncio
import json
import sys
import time

TOKENS = 24
TOKEN_EVERY_S = 0.01
PROMPT_TOKENS = 12

_LIMITS = b"".join(
    b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %d\r\nx-ratelimit-reset-%b: 2ms\r\n"
    % (subject, 10**8, subject, 10**8 - 1, subject)
    for subject in (b"requests", b"tokens")
)
"""As the real service sends them, and far above what is asked of it here."""
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n" + _LIMITS
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n" + _LIMITS + b"\r\n"
)
_USAGE = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": TOKENS, "total_tokens": PROMPT_TOKENS + TOKENS}


class Upstream(asyncio.Protocol):
    """One connection; requests on it are answered one after the other."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._received = b""
        self._answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        if self._answering:
            self._answering.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, rest = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        size = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                size = int(line[15:])
        if len(rest) < size:
            return
        body, self._received = rest[:size], rest[size:]
        asked = json.loads(body) if body else {}
        if asked.get("stream"):
            wants_usage = bool((asked.get("stream_options") or {}).get("include_usage"))
            self._answering = asyncio.get_running_loop().create_task(self._stream(wants_usage))
        elif self._delay_s:
            asyncio.get_running_loop().call_later(self._delay_s, self._answer)
        else:
            self._answer()

    def _answer(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(_HEAD + b"content-length: %d\r\n\r\n" % len(_REPLY) + _REPLY)

    async def _stream(self, wants_usage: bool) -> None:
        await asyncio.sleep(self._delay_s)
        self._transport.write(_STREAM_HEAD)
        begun = time.monotonic()
        for number in range(TOKENS):
            await asyncio.sleep(begun + number * TOKEN_EVERY_S - time.monotonic())
            self._event(_chunk(number))
        self._event(_chunk(None))
        if wants_usage:
            self._event({**_FRAME, "choices": [], "usage": _USAGE})
        self._transport.write(_chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    def _event(self, event: dict[str, object]) -> None:
        self._transport.write(_chunked(b"data: " + json.dumps(event).encode() + b"\n\n"))


_FRAME: dict[str, object] = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1_700_000_000,
    "model": "gpt-4o-mini",
}
_MESSAGE = {"role": "assistant", "content": "word " * TOKENS}
_REPLY = json.dumps(
    {
        **_FRAME,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}],
        "usage": _USAGE,
    }
).encode()


def _chunk(number: int | None) -> dict[str, object]:
    """The token of this number and when it left; the end without one."""
    delta = {} if number is None else {"content": f"{number}@{time.monotonic_ns()} "}
    finish = "stop" if number is None else None
    return {**_FRAME, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n" % len(data) + data + b"\r\n"


async def _serve(port: int, delay_s: float) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Upstream(delay_s), "127.0.0.1", port, backlog=512)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2])))

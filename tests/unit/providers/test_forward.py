"""The forwarder against a service on a socket that answers byte for byte what the test says."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from runtime.errors import ProviderRefusedError
from runtime.ids import CallId
from runtime.keys.keys import Lease
from runtime.providers.failures import BrokenReplyError, KeyRefusedError, OutageError, RateLimitedError
from runtime.providers.forward import Forwarder, Passage
from runtime.providers.usage import Usage

CHAT, EMBED, CLAUDE = "/chat/completions", "/embeddings", "/messages"
CALL = CallId("c-1")
REPLY = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3},
    "of the provider's own": [1.000],
}


class Service:
    """Answers each request with `head`, then `pieces`, each in a write of its own; None waits for ever."""

    def __init__(self) -> None:
        self.status = "200 OK"
        self.headers: dict[str, str] = {"content-type": "application/json"}
        self.pieces: list[bytes | None] = [json.dumps(REPLY).encode()]
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.hung_up = asyncio.Event()
        self.port = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            self.seen.append((first, headers, await reader.readexactly(int(headers.get("content-length", 0)))))
            told = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
            writer.write(f"HTTP/1.1 {self.status}\r\n{told}connection: close\r\n\r\n".encode())
            for piece in self.pieces:
                if piece is None:
                    await reader.read()
                    break
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.005)
        self.hung_up.set()
        writer.close()

    def streams(self, *pieces: bytes | None) -> None:
        self.headers["content-type"] = "text/event-stream; charset=utf-8"
        self.pieces = list(pieces)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    server = await asyncio.start_server(service.answer, "127.0.0.1", 0)
    service.port = server.sockets[0].getsockname()[1]
    yield service
    server.close()


@pytest.fixture
async def forwarder() -> AsyncIterator[Forwarder]:
    forwarder = Forwarder(timeout_s=5)
    yield forwarder
    await forwarder.close()


def lease(service: Service, base: str = "/v1") -> Lease:
    return Lease(
        provider="openai", model="m", key_id="k1", base_url=f"http://127.0.0.1:{service.port}{base}", key="sk-secret"
    )


async def read(
    forwarder: Forwarder, service: Service, path: Any = CHAT, wants_usage: bool = True
) -> tuple[bytes, Passage]:
    passage = await forwarder.stream(lease(service), CALL, b"{}", path, wants_usage=wants_usage)
    return b"".join([piece async for piece in passage.pieces()]), passage


async def _read_into(got: list[bytes], passage: Passage) -> None:
    async for piece in passage.pieces():
        got.append(piece)


def delta(text: str, finish: str | None = None) -> bytes:
    chunk = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def event(name: str, **fields: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **fields})}\n\n".encode()


USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3}}\n\n'
DONE = b"data: [DONE]\n\n"


async def test_reply__comes_back_byte_for_byte_with_what_it_used(service, forwarder):
    service.pieces = [
        b' {"choices":[{"message":{"content":"h\\u0069"}}], "x":1.000,"usage":',
        b'{"prompt_tokens":9,"completion_tokens":3}}',
    ]
    service.headers |= {"x-ratelimit-remaining-requests": "7"}
    answer = await forwarder.complete(lease(service), CALL, b'{"a":1}', CHAT)
    assert answer.body == b"".join(piece for piece in service.pieces if piece)
    assert answer.usage == Usage(input_tokens=9, output_tokens=3)
    assert answer.limits is not None
    assert answer.limits.requests_left == 7
    first, headers, body = service.seen[0]
    assert (first, body) == ("POST /v1/chat/completions HTTP/1.1", b'{"a":1}')
    assert headers["authorization"] == "Bearer sk-secret"
    assert (headers["x-client-request-id"], headers["accept-encoding"]) == ("c-1", "identity")


@pytest.mark.parametrize("base", ["", "/v1"])
async def test_anthropics_wire__is_spoken_as_anthropic_does(service, forwarder, base):
    told = {"input_tokens": 5, "cache_creation_input_tokens": 2, "cache_read_input_tokens": 1, "output_tokens": 4}
    service.pieces = [json.dumps({"content": [{"type": "text", "text": "hi"}], "usage": told}).encode()]
    answer = await forwarder.complete(lease(service, base), CALL, b"{}", CLAUDE)
    assert answer.usage == Usage(input_tokens=8, output_tokens=4)
    first, headers, _ = service.seen[0]
    assert first.startswith("POST /v1/messages ")
    assert headers["x-api-key"] == "sk-secret"
    assert "authorization" not in headers
    assert headers["anthropic-version"]


async def test_embeddings__need_no_output_tokens(service, forwarder):
    service.pieces = [b'{"data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":4,"total_tokens":4}}']
    assert (await forwarder.complete(lease(service), CALL, b"{}", EMBED)).usage == Usage(
        input_tokens=4, output_tokens=0
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"usage": None}, "how many tokens"),
        ({"usage": {"prompt_tokens": -1, "completion_tokens": 3}}, "how many tokens"),
        ({"usage": {"prompt_tokens": 10**12, "completion_tokens": 3}}, "how many tokens"),
        ({"usage": {"prompt_tokens": "9"}}, "not a reply"),
        ({"choices": [{"message": {"content": ""}}]}, "without any content"),
        ({"choices": [{"message": {"content": None, "tool_calls": []}}]}, "without any content"),
        ({"choices": []}, "without any content"),
        ({"choices": 5}, "not a reply"),
    ],
)
async def test_reply__that_nobody_can_use_or_bill_is_broken(service, forwarder, change, told):
    service.pieces = [json.dumps({**REPLY, **change}).encode()]
    with pytest.raises(BrokenReplyError, match=told):
        await forwarder.complete(lease(service), CALL, b"{}", CHAT)


@pytest.mark.parametrize("junk", [b"", b"<h1>proxy</h1>", b"[" * 100_000, b"\xff", b"[]"])
async def test_junk__is_a_broken_reply(service, forwarder, junk):
    service.pieces = [junk]
    with pytest.raises(BrokenReplyError):
        await forwarder.complete(lease(service), CALL, b"{}", CHAT)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("401 Unauthorized", KeyRefusedError),
        ("429 Too Many Requests", RateLimitedError),
        ("500 Oops", OutageError),
        ("400 Bad Request", ProviderRefusedError),
        ("302 Found", Exception),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_refusal__is_told_apart_and_never_shows_the_key(service, forwarder, status, kind, streamed):
    service.status = status
    service.headers |= {"retry-after": "3", "location": f"http://127.0.0.1:{service.port}/elsewhere"}
    service.pieces = [b'{"error":{"message":"no: sk-secret","code":"x"}}']
    ask = (forwarder.stream, {"wants_usage": False}) if streamed else (forwarder.complete, {})
    with pytest.raises(kind) as refused:
        await ask[0](lease(service), CALL, b"{}", CHAT, **ask[1])
    assert "sk-secret" not in str(refused.value)
    if kind is RateLimitedError:
        assert refused.value.retry_after_s == 3
    assert len(service.seen) == 1


async def test_service__that_is_not_there_or_says_nothing_is_an_outage(service):
    forwarder = Forwarder(timeout_s=0.05)
    service.pieces = [None]
    with pytest.raises(OutageError, match="in time"):
        await forwarder.complete(lease(service), CALL, b"{}", CHAT)
    gone = Lease(provider="openai", model="m", key_id="k", base_url="http://127.0.0.1:9/v1", key="sk-secret")
    with pytest.raises(OutageError, match="reached"):
        await forwarder.complete(gone, CALL, b"{}", CHAT)
    await forwarder.close()


async def test_stream__passes_whole_events_untouched_as_they_come(service, forwarder):
    first, second = delta("zaż\n"), delta("b", "stop")
    service.streams(b": hello\n\n" + first[:20], first[20:], second + USAGE, DONE)
    passage = await forwarder.stream(lease(service), CALL, b"{}", CHAT, wants_usage=True)
    pieces, seen = [], []
    async for piece in passage.pieces():
        pieces.append(piece)
        seen.append((passage.usage is not None, passage.finished))
    assert pieces == [b": hello\n\n", first, second, USAGE, DONE]
    assert seen[1] == (False, False)
    assert seen[3:] == [(True, False), (True, True)]
    assert passage.usage == Usage(input_tokens=9, output_tokens=3)
    assert (passage.said_bytes, passage.said_pieces) == (len("zaż\nb".encode()), 2)


async def test_usage_event__reaches_only_the_client_that_asked(service, forwarder):
    service.streams(delta("a", "stop") + USAGE + DONE)
    body, passage = await read(forwarder, service, wants_usage=False)
    assert body == delta("a", "stop") + DONE
    assert passage.usage is not None


async def test_event__is_never_cut_and_lines_may_end_as_they_like(service, forwarder):
    whole = delta("a", "stop").replace(b"\n", b"\r\n") + USAGE + DONE
    service.streams(*(whole[at : at + 7] for at in range(0, len(whole), 7)))
    passage = await forwarder.stream(lease(service), CALL, b"{}", CHAT, wants_usage=True)
    pieces = [piece async for piece in passage.pieces()]
    assert b"".join(pieces) == whole
    assert all(piece.endswith((b"\n\n", b"\r\n\r\n")) for piece in pieces)


async def test_anthropics_stream__adds_what_its_last_word_changes(service, forwarder):
    start = event("message_start", message={"content": [], "usage": {"input_tokens": 7, "output_tokens": 1}})
    text = event("content_block_delta", delta={"type": "text_delta", "text": "hey"})
    end = event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 5})
    stop = event("message_stop")
    service.streams(start, text, end, stop)
    body, passage = await read(forwarder, service, CLAUDE)
    assert body == start + text + end + stop
    assert passage.usage == Usage(input_tokens=7, output_tokens=5)
    assert (passage.said_bytes, passage.finished) == (3, True)


@pytest.mark.parametrize(
    ("pieces", "kind", "passed"),
    [
        ((), OutageError, b""),
        ((delta("a"),), OutageError, delta("a")),
        ((delta("a"), b'data: {"error":{"message":"oops"}}\n\n'), OutageError, delta("a")),
        ((delta("a") + b'event: error\ndata: {"type":"error"}\n\n',), OutageError, delta("a")),
        ((delta("", "stop"), USAGE, DONE), BrokenReplyError, delta("", "stop") + USAGE),
    ],
)
async def test_stream__that_breaks_off_says_so_after_what_came(service, forwarder, pieces, kind, passed):
    service.streams(*pieces)
    passage = await forwarder.stream(lease(service), CALL, b"{}", CHAT, wants_usage=True)
    got = []
    with pytest.raises(kind):
        await _read_into(got, passage)
    assert b"".join(got) == passed


async def test_stream__without_a_done_is_whole_when_the_model_said_it_stopped(service, forwarder):
    service.streams(delta("a", "stop"), USAGE)
    body, passage = await read(forwarder, service)
    assert body == delta("a", "stop") + USAGE
    assert not passage.finished


@pytest.mark.parametrize("end", [DONE, USAGE[:-2]])
async def test_stream__without_usage_is_whole(service, forwarder, end):
    service.streams(delta("a", "stop"), end)
    _, passage = await read(forwarder, service)
    assert passage.usage is None
    assert passage.said_bytes == 1


async def test_text__that_looks_like_an_end_or_an_error_is_text(service, forwarder):
    tricky = delta('"finish_reason": "stop" data: [DONE] "error" {"usage":{"prompt_tokens":1,"completion_tokens":1}}')
    service.streams(tricky)
    with pytest.raises(OutageError):
        await read(forwarder, service)


async def test_closing__hangs_up_on_the_provider(service, forwarder):
    service.streams(delta("a"), None)
    passage = await forwarder.stream(lease(service), CALL, b"{}", CHAT, wants_usage=True)
    pieces = passage.pieces()
    assert await anext(pieces) == delta("a")
    await pieces.aclose()
    await asyncio.wait_for(service.hung_up.wait(), 60)


async def test_answer__that_is_no_stream_is_an_outage_for_who_asked_for_one(service, forwarder):
    with pytest.raises(OutageError):
        await forwarder.stream(lease(service), CALL, b"{}", CHAT, wants_usage=True)

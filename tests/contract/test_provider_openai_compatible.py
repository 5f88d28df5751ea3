"""The adapter against a real HTTP server that speaks OpenAI's wire format, in all the ways a service can misbehave."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from runtime.errors import MasterbuilderError, ProviderError, ProviderRefusedError
from runtime.ids import CallId
from runtime.providers.failures import BrokenReplyError, KeyRefusedError, OutageError, RateLimitedError
from runtime.providers.keys import Lease
from runtime.providers.openai_compatible import OpenAICompatible, Part, retry_after

KEY = "sk-very-secret-key"
CALL = CallId("project:p/plan#1/1")
BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "grüß dich"}], "max_tokens": 9}
GOOD = {
    "id": "c1",
    "object": "chat.completion",
    "model": "gpt-4o",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    "system_fingerprint": "kept as it came",
}


class Provider:
    """A model service: answers what `reply` says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.reply: Any = web.json_response(GOOD)
        self.headers: list[Any] = []
        self.bodies: list[dict[str, Any]] = []
        self.gone = asyncio.Event()
        self.base_url = ""

    @property
    def lease(self) -> Lease:
        return Lease(provider="openai", key_id="openai-1", base_url=self.base_url, key=KEY)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(request.headers)
        self.bodies.append(await request.json())
        if isinstance(self.reply, web.Response):
            return self.reply
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        try:
            for piece in self.reply:
                if piece is CUT:
                    assert request.transport is not None
                    request.transport.abort()
                elif piece is HANG:
                    await asyncio.sleep(60)
                else:
                    await response.write(piece)
        except (asyncio.CancelledError, ConnectionError):
            self.gone.set()
            raise
        return response


CUT, HANG = object(), object()


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    service = Provider()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", service.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    service.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield service
    await runner.cleanup()


@pytest.fixture
async def adapter() -> AsyncIterator[OpenAICompatible]:
    adapter = OpenAICompatible(timeout_s=5)
    yield adapter
    await adapter.close()


def sse(*chunks: Any, done: bool = True) -> list[bytes]:
    pieces = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]
    return pieces + ([b"data: [DONE]\n\n"] if done else [])


def text(content: str, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish}], "usage": None}


USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


async def collected(adapter: OpenAICompatible, provider: Provider) -> list[Part]:
    return [part async for part in adapter.stream(provider.lease, CALL, BODY)]


async def test_complete__passes_the_request_and_the_reply_through_untouched(adapter, provider):
    completion = await adapter.complete(provider.lease, CALL, BODY)
    assert completion.body == GOOD
    assert (completion.usage.input_tokens, completion.usage.output_tokens) == (3, 1)
    assert provider.bodies == [BODY]
    assert provider.headers[0]["x-client-request-id"] == CALL
    assert provider.headers[0]["authorization"] == f"Bearer {KEY}"


async def test_complete__is_one_attempt_whatever_happens(adapter, provider):
    for status in (408, 429, 500, 503):
        provider.bodies.clear()
        provider.reply = web.json_response({"error": {"message": "no"}}, status=status)
        with pytest.raises(ProviderError):
            await adapter.complete(provider.lease, CALL, BODY)
        assert len(provider.bodies) == 1


@pytest.mark.parametrize(
    ("status", "headers", "error", "kind"),
    [
        (401, {}, {"message": f"Incorrect API key provided: {KEY}"}, KeyRefusedError),
        (429, {"retry-after": "7"}, {"message": "slow down"}, RateLimitedError),
        (429, {}, {"message": "pay first", "code": "insufficient_quota"}, ProviderError),
        (400, {}, {"message": "context too long"}, ProviderRefusedError),
        (404, {}, {"message": "no such model"}, ProviderRefusedError),
        (422, {}, {"message": "bad field"}, ProviderRefusedError),
        (403, {}, {"message": "not in your country"}, ProviderError),
        (500, {}, {"message": "oops"}, OutageError),
        (503, {"retry-after": "3"}, {"message": "overloaded"}, OutageError),
    ],
)
async def test_refusal__becomes_what_may_be_done_about_it(adapter, provider, status, headers, error, kind):
    provider.reply = web.json_response({"error": error}, status=status, headers=headers)
    with pytest.raises(MasterbuilderError) as refused:
        await adapter.complete(provider.lease, CALL, BODY)
    assert type(refused.value) is kind
    assert KEY not in repr(refused.value)
    assert refused.value.next_step
    if "retry-after" in headers:
        assert refused.value.retry_after_s == float(headers["retry-after"])
    if kind in (ProviderError, ProviderRefusedError):
        assert error["message"] in str(refused.value)


async def test_refusal__of_a_stream_is_the_same(adapter, provider):
    provider.reply = web.json_response({"error": {"message": "slow"}}, status=429, headers={"retry-after": "2"})
    with pytest.raises(RateLimitedError) as limited:
        await collected(adapter, provider)
    assert limited.value.retry_after_s == 2


async def test_refusal__that_repeats_the_key_is_told_without_it(adapter, provider):
    provider.reply = web.json_response({"error": {"message": f"the key {KEY} may not"}}, status=403)
    with pytest.raises(ProviderError, match=r"the key \*\*\* may not"):
        await adapter.complete(provider.lease, CALL, BODY)


@pytest.mark.parametrize(
    "body",
    [
        "not json at all",
        "",
        '{"choices": [',
        "[1, 2]",
        json.dumps({**GOOD, "usage": None}),
        json.dumps({**GOOD, "usage": {"prompt_tokens": -5, "completion_tokens": 1}}),
        json.dumps({**GOOD, "usage": {"prompt_tokens": 10**30, "completion_tokens": 1}}),
        json.dumps({**GOOD, "usage": {"prompt_tokens": "3", "completion_tokens": True}}),
        json.dumps({**GOOD, "choices": []}),
        json.dumps({**GOOD, "choices": None}),
        json.dumps({**GOOD, "choices": [{"message": {"role": "assistant", "content": ""}}]}),
        json.dumps({**GOOD, "choices": [{"message": {"role": "assistant", "content": None}}]}),
    ],
)
async def test_reply__nobody_can_use_or_bill_is_an_error(adapter, provider, body):
    provider.reply = web.Response(text=body, content_type="application/json")
    with pytest.raises(BrokenReplyError):
        await adapter.complete(provider.lease, CALL, BODY)


async def test_reply__in_html_is_an_error(adapter, provider):
    provider.reply = web.Response(text="<h1>gateway</h1>", content_type="text/html")
    with pytest.raises(BrokenReplyError):
        await adapter.complete(provider.lease, CALL, BODY)


async def test_empty_reply__still_tells_what_it_used(adapter, provider):
    provider.reply = web.json_response({**GOOD, "choices": [{"message": {"content": ""}}]})
    with pytest.raises(BrokenReplyError) as broken:
        await adapter.complete(provider.lease, CALL, BODY)
    assert broken.value.usage is not None
    assert broken.value.usage.input_tokens == 3


async def test_tool_call__is_content(adapter, provider):
    call = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    provider.reply = web.json_response({**GOOD, "choices": [{"message": {"content": None, "tool_calls": [call]}}]})
    completion = await adapter.complete(provider.lease, CALL, BODY)
    assert completion.body["choices"][0]["message"]["tool_calls"] == [call]


async def test_service__that_is_not_there_is_an_outage(adapter, provider):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        lease = Lease(provider="openai", key_id="k", base_url=f"http://127.0.0.1:{unused.getsockname()[1]}/v1", key=KEY)
        with pytest.raises(OutageError, match="could not be reached"):
            await adapter.complete(lease, CALL, BODY)


async def test_service__that_does_not_answer_in_time_is_an_outage(provider):
    adapter = OpenAICompatible(timeout_s=0.2)
    provider.reply = [HANG]
    with pytest.raises(OutageError, match="in time"):
        await adapter.complete(provider.lease, CALL, BODY)
    with pytest.raises(OutageError, match="in time"):
        await collected(adapter, provider)
    await adapter.close()


async def test_stream__always_asks_for_usage_and_gives_the_pieces_as_they_came(adapter, provider):
    provider.reply = sse(text("he"), text("llo", "stop"), USAGE)
    parts = await collected(adapter, provider)
    assert [part.chunk for part in parts] == [text("he"), text("llo", "stop"), USAGE]
    assert [part.only_usage for part in parts] == [False, False, True]
    assert parts[-1].usage is not None
    assert parts[-1].usage.output_tokens == 2
    assert provider.bodies[0]["stream"] is True
    assert provider.bodies[0]["stream_options"] == {"include_usage": True}
    assert provider.headers[0]["x-client-request-id"] == CALL


async def test_stream__in_any_number_of_pieces_is_the_same_stream(adapter, provider):
    whole = b": comment\n\n" + b"".join(sse(text("zażółć \U0001f600"), text("", "stop"), USAGE))
    provider.reply = [whole[at : at + 7] for at in range(0, len(whole), 7)]
    parts = await collected(adapter, provider)
    assert parts[0].chunk["choices"][0]["delta"]["content"] == "zażółć \U0001f600"


@pytest.mark.parametrize(
    ("pieces", "kind", "whole_parts"),
    [
        ([*sse(text("he"), done=False), CUT], OutageError, 1),
        (sse(text("he"), done=False), OutageError, 1),
        (sse(text("he")), OutageError, 1),
        ([], OutageError, 0),
        ([CUT], OutageError, 0),
        ([*sse(text("he"), done=False), b"data: {broken\n\n"], BrokenReplyError, 1),
        ([b"data: 5\n\n"], OutageError, 0),
        (sse(text("he"), {"error": {"message": "server had an error"}}, done=False), OutageError, 1),
        (sse(text("", "stop"), USAGE), BrokenReplyError, 2),
    ],
)
async def test_stream__that_breaks_off_is_never_taken_for_a_whole_one(adapter, provider, pieces, kind, whole_parts):
    provider.reply = pieces
    parts = adapter.stream(provider.lease, CALL, BODY)
    for _ in range(whole_parts):
        await anext(parts)
    with pytest.raises(ProviderError) as broken:
        await anext(parts)
    assert type(broken.value) is kind


async def test_stream__closed_early_hangs_up_on_the_provider(adapter, provider):
    provider.reply = [*sse(text("he"), done=False), HANG]
    parts = adapter.stream(provider.lease, CALL, BODY)
    await anext(parts)
    await parts.aclose()
    await asyncio.wait_for(provider.gone.wait(), 10)


async def test_stream__cancelled_while_it_waits_hangs_up_on_the_provider(adapter, provider):
    provider.reply = [*sse(text("he"), done=False), HANG]
    parts = adapter.stream(provider.lease, CALL, BODY)
    await anext(parts)
    waiting = asyncio.create_task(anext(parts))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.wait_for(provider.gone.wait(), 10)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
def test_retry_after__reads_seconds_milliseconds_and_dates(headers, wait_s):
    assert retry_after(headers, datetime(2026, 10, 21, 7, 28, tzinfo=UTC)) == wait_s

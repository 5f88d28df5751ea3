"""The OpenAI adapter against a server that speaks the wire format, in all the ways a service can misbehave."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from runtime.errors import MasterbuilderError, ProviderError, ProviderRefusedError
from runtime.ids import CallId
from runtime.keys.keys import KeyLimits
from runtime.providers.adapters.openai_sdk import OpenAISdk
from runtime.providers.chat import (
    ChatEvent,
    ChatRequest,
    EmbedRequest,
    Finished,
    JsonShape,
    Text,
    TextDelta,
    ToolCall,
    ToolCallBegin,
    ToolCallDelta,
    UsageSoFar,
)
from runtime.providers.failures import BrokenReplyError, KeyRefusedError, OutageError, RateLimitedError
from runtime.providers.usage import Usage
from tests.contract.model_service import (
    CUT,
    HANG,
    HELLO,
    KEY,
    LIMITS,
    PIXEL,
    SHAPE,
    TOOL_LOOP,
    WEATHER,
    Service,
    event,
    serving,
    whole,
)

CALL = CallId("project:p/plan#1/1")
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
DONE = b"data: [DONE]\n\n"


def reply(message: dict[str, Any], finish: str = "stop", **others: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return {
        "id": "c1",
        "object": "chat.completion",
        "model": "gpt-4o-2024",
        "choices": [choice],
        "usage": USAGE,
    } | others


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    return event({"id": "c1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": None})


LAST = event({"id": "c1", "choices": [], "usage": USAGE})
GOOD = reply({"content": "hi"})


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving("openai", "gpt-4o", "/v1") as service:
        service.reply = whole(GOOD)
        yield service


@pytest.fixture
async def adapter() -> AsyncIterator[OpenAISdk]:
    adapter = OpenAISdk(timeout_s=5)
    yield adapter
    await adapter.close()


async def streamed(adapter: OpenAISdk, service: Service, request: ChatRequest = HELLO) -> list[ChatEvent]:
    return [event async for event in adapter.stream(service.lease, CALL, request)]


async def test_complete__sends_the_request_on_openais_wire(adapter, service):
    await adapter.complete(service.lease, CALL, HELLO)
    assert service.paths == ["/v1/chat/completions"]
    assert service.body == {
        "model": "gpt-4o",
        "messages": [
            {"role": "system", "content": "masterbuilder task=chat id=1"},
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "grüß dich"},
        ],
    }
    assert service.headers[0]["authorization"] == f"Bearer {KEY}"
    assert service.headers[0]["x-client-request-id"] == CALL


async def test_complete__sends_tools_their_results_pictures_and_settings(adapter, service):
    await adapter.complete(service.lease, CALL, TOOL_LOOP)
    body = service.body
    user, assistant, first, second, again = body.pop("messages")
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    assert user["content"] == [{"type": "text", "text": "Weather here?"}, picture]
    assert assistant["content"] == "I look."
    assert [call["id"] for call in assistant["tool_calls"]] == ["call:1", "call:2"]
    assert assistant["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city": "Kraków"}'}
    assert first == {"role": "tool", "tool_call_id": "call:1", "content": "rain"}
    assert second == {"role": "tool", "tool_call_id": "call:2", "content": "no such city"}
    assert again == {"role": "user", "content": "And now?"}
    function = {"name": "weather", "description": "Tells the weather.", "parameters": WEATHER.parameters}
    assert body == {
        "model": "gpt-4o",
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "max_completion_tokens": 64,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["END"],
    }


async def test_complete__asks_for_json_as_the_service_understands_it(adapter, service):
    request = replace(HELLO, json=JsonShape(name="number", schema=SHAPE), output_tokens_max=9)
    await adapter.complete(service.lease, CALL, request)
    shape = {"type": "json_schema", "json_schema": {"name": "number", "schema": SHAPE}}
    assert service.body["response_format"] == shape
    for provider in ("deepseek", "a-service-nobody-knows"):
        service.bodies.clear()
        await adapter.complete(replace(service.lease, provider=provider), CALL, request)
        assert service.body["response_format"] == {"type": "json_object"}
        assert '"integer"' in service.body["messages"][2]["content"]
        assert service.body["max_tokens"] == 9


async def test_complete__reads_text_calls_usage_and_limits(adapter, service):
    calls = [{"id": "a", "type": "function", "function": {"name": "weather", "arguments": ""}}]
    service.reply = whole(reply({"content": "so", "tool_calls": calls}, "tool_calls"), headers=LIMITS)
    answer = await adapter.complete(service.lease, CALL, TOOL_LOOP)
    assert answer.parts == (Text(text="so"), ToolCall(id="a", name="weather", arguments="{}"))
    assert (answer.id, answer.model, answer.finish) == ("c1", "gpt-4o-2024", "tool_calls")
    assert answer.usage == Usage(input_tokens=3, output_tokens=2)
    assert answer.limits == KeyLimits(requests_left=7, requests_reset_s=90)


@pytest.mark.parametrize(
    ("message", "finish", "expected"),
    [
        ({"content": "x"}, "length", "length"),
        ({"content": "x"}, "content_filter", "refused"),
        ({"content": None, "refusal": "No."}, "stop", "refused"),
        ({"content": "x"}, "eos", "stop"),
        ({"content": [{"type": "text", "text": "x"}]}, "stop", "stop"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}, "stop", "tool_calls"),
    ],
)
async def test_complete__says_why_the_model_ended(adapter, service, message, finish, expected):
    service.reply = whole(reply(message, finish))
    assert (await adapter.complete(service.lease, CALL, HELLO)).finish == expected


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        (reply({"content": ""}), Usage(input_tokens=3, output_tokens=2)),
        (reply({}, choices=[]), Usage(input_tokens=3, output_tokens=2)),
        (reply({"content": "hi"}, usage=None), None),
        (reply({"content": "hi"}, usage={"prompt_tokens": -1, "completion_tokens": True}), None),
        (["what"], None),
    ],
)
async def test_complete__refuses_a_reply_nobody_can_use_or_bill(adapter, service, body, usage):
    service.reply = whole(body)
    with pytest.raises(BrokenReplyError) as broken:
        await adapter.complete(service.lease, CALL, HELLO)
    assert broken.value.usage == usage


async def test_complete__is_one_attempt_whatever_happens(adapter, service):
    for status in (302, 408, 429, 500, 503):
        service.bodies.clear()
        service.reply = whole({"error": {"message": "no"}}, status, {"location": "/v1/elsewhere"})
        with pytest.raises(ProviderError):
            await adapter.complete(service.lease, CALL, HELLO)
        assert len(service.bodies) == 1


@pytest.mark.parametrize(
    ("status", "headers", "error", "kind"),
    [
        (401, {}, {"message": f"Incorrect API key provided: {KEY}"}, KeyRefusedError),
        (403, {}, {"message": "gone", "code": "account_deactivated"}, KeyRefusedError),
        (400, {}, "Incorrect API key provided: xa***", KeyRefusedError),
        (400, {}, {"message": "In messages[0]: 'Incorrect API key provided'"}, ProviderRefusedError),
        (429, {"retry-after": "7"}, {"message": "slow down"}, RateLimitedError),
        (429, {}, {"message": "pay first", "code": "insufficient_quota"}, RateLimitedError),
        (402, {}, {"message": "Insufficient Balance"}, RateLimitedError),
        (400, {}, {"message": f"context too long for {KEY}"}, ProviderRefusedError),
        (422, {}, {"message": "bad field"}, ProviderRefusedError),
        (404, {}, {"message": "no such model"}, ProviderError),
        (403, {}, {"message": "not in your country"}, ProviderError),
        (500, {}, {"message": "oops"}, OutageError),
        (503, {"retry-after": "3"}, {"message": "overloaded"}, OutageError),
    ],
)
async def test_refusal__becomes_what_may_be_done_about_it(adapter, service, status, headers, error, kind):
    service.reply = whole({"error": error}, status, {**headers, **LIMITS})
    for ask in (adapter.complete(service.lease, CALL, HELLO), streamed(adapter, service)):
        with pytest.raises(MasterbuilderError) as refused:
            await ask
        assert type(refused.value) is kind
        assert KEY not in repr(refused.value) + str(refused.value.__dict__)
        assert refused.value.__cause__ is None
        assert refused.value.next_step
        if "retry-after" in headers:
            assert refused.value.retry_after_s == float(headers["retry-after"])
        if kind in (RateLimitedError, OutageError):
            assert refused.value.limits == KeyLimits(requests_left=7, requests_reset_s=90)


async def test_complete__a_silent_or_absent_service_is_an_outage(service):
    adapter = OpenAISdk(timeout_s=0.2)
    service.reply = [HANG]
    with pytest.raises(OutageError, match="in time"):
        await adapter.complete(service.lease, CALL, HELLO)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        away = replace(service.lease, base_url=f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
        with pytest.raises(OutageError, match="reached"):
            await adapter.complete(away, CALL, HELLO)
    await adapter.close()


async def test_complete__what_is_not_json_is_a_broken_reply(adapter, service):
    service.reply = [b"<html>"]
    with pytest.raises(BrokenReplyError):
        await adapter.complete(service.lease, CALL, HELLO)


async def test_complete__no_proxy_stands_before_this_machine(adapter, service, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert (await adapter.complete(service.lease, CALL, HELLO)).text == "hi"


async def test_keys__each_has_its_own_client(adapter, service):
    await adapter.complete(service.lease, CALL, HELLO)
    await adapter.complete(replace(service.lease, key_id="key-2", key="sk-other"), CALL, HELLO)
    assert [headers["authorization"] for headers in service.headers] == [f"Bearer {KEY}", "Bearer sk-other"]


async def test_stream__gives_each_piece_as_it_comes(adapter, service):
    service.reply = [chunk({"role": "assistant", "content": ""}), chunk({"content": "he"}), chunk({"content": "llo"}),
                     chunk({}, "stop"), LAST, DONE]  # fmt: skip
    events = await streamed(adapter, service)
    usage = Usage(input_tokens=3, output_tokens=2)
    assert events == [
        TextDelta(text="he"),
        TextDelta(text="llo"),
        UsageSoFar(usage=usage),
        Finished(finish="stop", usage=usage, limits=KeyLimits(requests_left=7, requests_reset_s=90)),
    ]
    assert service.body["stream_options"] == {"include_usage": True}


def piece(index: int | None, name: str | None = None, id: str | None = None, arguments: Any = None) -> bytes:
    function = {"name": name, "arguments": arguments}
    return chunk({"tool_calls": [{"index": index, "id": id, "function": function}]})


@pytest.mark.parametrize(
    "pieces",
    [
        [piece(0, "f", "a", ""), piece(0, arguments='{"x"'), piece(0, arguments=": 1}"), piece(1, "g", "b")],
        [piece(0, "f", "a", '{"x"'), piece(1, "g", "b", ""), piece(0, arguments=": 1}")],
        [piece(0, "f", "a", '{"x": 1}'), piece(0, "g", "b", "{}")],
        [piece(0, "f", "a", '{"x"'), piece(0, "f", "a", ": 1}"), piece(1, "g", "b", {})],
        [piece(None, "f", "a", '{"x": 1}'), piece(None, "g", "b")],
    ],
    ids=["in turn", "interleaved", "all numbered 0", "id repeated", "not numbered"],
)
async def test_stream__loses_no_argument_of_a_tool_call(adapter, service, pieces):
    service.reply = [*pieces, chunk({}, "tool_calls"), LAST, DONE]
    events = await streamed(adapter, service)
    begun = [(event.index, event.id, event.name) for event in events if isinstance(event, ToolCallBegin)]
    assert begun == [(0, "a", "f"), (1, "b", "g")]
    arguments = {0: "", 1: ""}
    for event_ in events:
        if isinstance(event_, ToolCallDelta):
            arguments[event_.index] += event_.arguments
    assert arguments == {0: '{"x": 1}', 1: "{}"}
    assert events[-1].finish == "tool_calls"


@pytest.mark.parametrize(
    "pieces",
    [
        [chunk({"content": "he"}), CUT],
        [CUT],
        [chunk({"content": "he"}), LAST, DONE],
        [chunk({"content": "he"})],
        [chunk({"content": "he"}), b"data: {\n\n"],
        [chunk({"content": "he"}), event([1])],
        [chunk({"content": "he"}), event({"error": {"message": "overloaded", "code": 429}})],
        [chunk({"content": "he"}), HANG],
    ],
    ids=["cut", "cut at once", "no reason", "no end", "bad json", "no object", "error event", "silence"],
)
async def test_stream__that_breaks_off_is_an_outage(service, pieces):
    adapter = OpenAISdk(timeout_s=0.3)
    service.reply = pieces
    with pytest.raises(OutageError):
        await streamed(adapter, service)
    await adapter.close()


async def test_stream__without_content_or_usage_is_broken(adapter, service):
    service.reply = [chunk({"role": "assistant"}), chunk({}, "stop"), LAST, DONE]
    with pytest.raises(BrokenReplyError) as broken:
        await streamed(adapter, service)
    assert broken.value.usage == Usage(input_tokens=3, output_tokens=2)
    service.reply = [chunk({"content": "x"}), chunk({}, "stop"), DONE]
    with pytest.raises(BrokenReplyError, match="tokens"):
        await streamed(adapter, service)


async def test_stream__closed_early_closes_the_providers(adapter, service):
    service.reply = [chunk({"content": "he"}), HANG]
    async with aclosing(adapter.stream(service.lease, CALL, HELLO)) as events:
        assert await anext(events) == TextDelta(text="he")
    await asyncio.wait_for(service.gone.wait(), 60)


async def test_embed__gives_one_vector_a_text_in_order(adapter, service):
    data = [{"index": 1, "embedding": [0.5, 1]}, {"index": 0, "embedding": [1.0, 0]}]
    service.reply = whole({"data": data, "model": "m", "usage": {"prompt_tokens": 4, "total_tokens": 4}})
    found = await adapter.embed(service.lease, CALL, EmbedRequest(texts=("a", "b"), dimensions=2))
    assert found.vectors == ((1.0, 0), (0.5, 1))
    assert (found.model, found.usage) == ("m", Usage(input_tokens=4, output_tokens=0))
    assert service.paths == ["/v1/embeddings"]
    assert service.body == {"model": "gpt-4o", "input": ["a", "b"], "dimensions": 2, "encoding_format": "float"}


@pytest.mark.parametrize("vectors", [[[1.0]], [[1.0], []], [[1.0], [1.0, 2.0]], [[1.0], ["x"]], [[1.0], None]])
async def test_embed__refuses_what_is_not_a_vector_a_text(adapter, service, vectors):
    data = [{"index": i, "embedding": vector} for i, vector in enumerate(vectors)]
    service.reply = whole({"data": data, "usage": {"prompt_tokens": 4}})
    with pytest.raises(BrokenReplyError):
        await adapter.embed(service.lease, CALL, EmbedRequest(texts=("a", "b")))


@pytest.mark.parametrize("indexes", [[0, 0], [1, 2], [0, None], [0, "1"], [-1, 0], [False, True]])
async def test_embed__refuses_what_does_not_say_whose_each_vector_is(adapter, service, indexes):
    """A vector of another text would never be noticed."""
    data = [{"index": index, "embedding": [1.0, 2.0]} for index in indexes]
    service.reply = whole({"data": data, "usage": {"prompt_tokens": 4}})
    with pytest.raises(BrokenReplyError, match="whose"):
        await adapter.embed(service.lease, CALL, EmbedRequest(texts=("a", "b")))


async def test_embed__without_any_index_takes_the_vectors_in_their_order(adapter, service):
    data = [{"embedding": [1.0]}, {"embedding": [2.0]}]
    service.reply = whole({"data": data, "usage": {"prompt_tokens": 4}})
    found = await adapter.embed(service.lease, CALL, EmbedRequest(texts=("a", "b")))
    assert found.vectors == ((1.0,), (2.0,))


async def test_logs__never_hold_the_key(adapter, service, caplog):
    caplog.set_level(0)
    await adapter.complete(service.lease, CALL, HELLO)
    service.reply = whole({"error": {"message": KEY, "status": "no"}}, 400)
    with pytest.raises(ProviderRefusedError):
        await streamed(adapter, service)
    assert caplog.records
    assert KEY not in caplog.text + "".join(str(vars(record)) for record in caplog.records)

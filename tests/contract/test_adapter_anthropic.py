"""The Anthropic adapter against a server that speaks the wire format as Anthropic documents it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from runtime.errors import MasterbuilderError, ProviderError, ProviderRefusedError
from runtime.ids import CallId
from runtime.keys.keys import KeyLimits
from runtime.providers.adapters.anthropic_sdk import AnthropicSdk
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
    PIXEL,
    SHAPE,
    TOOL_LOOP,
    WEATHER,
    Service,
    event,
    says,
    serving,
    whole,
)

CALL = CallId("project:p/plan#1/1")
NEW = "claude-sonnet-4-5"


def reply(*content: Any, stop: str | None = "end_turn", **others: Any) -> dict[str, Any]:
    return {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "content": list(content),
        "stop_reason": stop, "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 2},
    } | others  # fmt: skip


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def on_wire(type_: str, **data: Any) -> bytes:
    return event({"type": type_, **data}, type_)


def start(**usage: Any) -> bytes:
    message = reply(stop=None, usage={"input_tokens": 25, "output_tokens": 1, **usage})
    return on_wire("message_start", message=message)


def begin(index: int, **block: Any) -> bytes:
    return on_wire("content_block_start", index=index, content_block=block)


def delta(index: int, type_: str, **data: Any) -> bytes:
    return on_wire("content_block_delta", index=index, delta={"type": type_, **data})


def stop(index: int) -> bytes:
    return on_wire("content_block_stop", index=index)


def end(reason: str | None = "end_turn", **usage: Any) -> list[bytes]:
    last = {"stop_reason": reason, "stop_sequence": None}
    return [on_wire("message_delta", delta=last, usage={"output_tokens": 15, **usage}), on_wire("message_stop")]


PING = on_wire("ping")
HELLO_BLOCK = [begin(0, type="text", text=""), delta(0, "text_delta", text="he")]


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving("claude", "claude-3-5-sonnet-20241022") as service:
        service.reply = whole(reply(text("hi")))
        yield service


@pytest.fixture
async def adapter() -> AsyncIterator[AnthropicSdk]:
    adapter = AnthropicSdk(timeout_s=5)
    yield adapter
    await adapter.close()


async def streamed(adapter: AnthropicSdk, service: Service, request: ChatRequest = HELLO) -> list[ChatEvent]:
    return [event async for event in adapter.stream(service.lease, CALL, request)]


async def test_complete__sends_the_request_on_anthropics_wire(adapter, service):
    await adapter.complete(service.lease, CALL, HELLO)
    assert service.paths == ["/v1/messages"]
    assert service.body == {
        "model": "claude-3-5-sonnet-20241022",
        "max_tokens": 4096,
        "system": "masterbuilder task=chat id=1\n\nBe kind.",
        "messages": [{"role": "user", "content": [text("grüß dich")]}],
    }
    headers = service.headers[0]
    assert headers["x-api-key"] == KEY
    assert "authorization" not in headers
    assert headers["x-client-request-id"] == CALL
    assert headers["anthropic-version"] == "2023-06-01"


async def test_complete__sends_tools_their_results_pictures_and_settings(adapter, service):
    await adapter.complete(service.lease, CALL, TOOL_LOOP)
    body = service.body
    user, assistant, results = body.pop("messages")
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    assert user == {"role": "user", "content": [text("Weather here?"), picture]}
    assert assistant["content"] == [
        text("I look."),
        {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Kraków"}},
        {"type": "tool_use", "id": "call_2", "name": "weather", "input": {"INVALID_JSON": "not json"}},
    ]
    assert results["content"] == [
        {"type": "tool_result", "tool_use_id": "call_1", "content": "rain"},
        {"type": "tool_result", "tool_use_id": "call_2", "content": "no such city", "is_error": True},
        text("And now?"),
    ]
    assert body == {
        "model": "claude-3-5-sonnet-20241022",
        "max_tokens": 64,
        "tools": [{"name": "weather", "description": "Tells the weather.", "input_schema": WEATHER.parameters}],
        "tool_choice": {"type": "tool", "name": "weather"},
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["END"],
    }


@pytest.mark.parametrize(("choice", "expected"), [("auto", "auto"), ("none", "none"), ("required", "any")])
async def test_complete__sends_the_tool_choice(adapter, service, choice, expected):
    await adapter.complete(service.lease, CALL, replace(TOOL_LOOP, tool_choice=choice, temperature=1.7))
    assert service.body["tool_choice"] == {"type": expected}
    assert service.body["temperature"] == 1.0


async def test_complete__leaves_out_the_settings_that_newer_models_refuse(adapter, service):
    for model, takes in ((NEW, True), ("claude-opus-4-20250514", True), ("claude-opus-4-7", False),
                         ("claude-sonnet-5-5", False)):  # fmt: skip
        service.bodies.clear()
        await adapter.complete(replace(service.lease, model=model), CALL, TOOL_LOOP)
        assert ("temperature" in service.body) == ("top_p" in service.body) == takes


async def test_json__older_models_answer_through_a_tool(adapter, service):
    request = replace(HELLO, json=JsonShape(name="number", schema=SHAPE))
    service.reply = whole(reply({"type": "tool_use", "id": "t", "name": "number", "input": {"n": 1}}, stop="tool_use"))
    answer = await adapter.complete(service.lease, CALL, request)
    assert service.body["tools"][0]["input_schema"] == SHAPE
    assert service.body["tool_choice"] == {"type": "tool", "name": "number"}
    assert (json.loads(answer.text), answer.finish) == ({"n": 1}, "stop")

    service.reply = [start(), begin(0, type="tool_use", id="t", name="number", input={}), PING,
                     delta(0, "input_json_delta", partial_json=""), delta(0, "input_json_delta", partial_json='{"n"'),
                     delta(0, "input_json_delta", partial_json=": 1}"), stop(0), *end("tool_use")]  # fmt: skip
    events = await streamed(adapter, service, request)
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == '{"n": 1}'
    assert (events[-1].finish, events[-1].usage) == ("stop", Usage(input_tokens=25, output_tokens=15))


@pytest.mark.parametrize("model", [NEW, "claude-opus-4-5-20251101", "claude-fable-5-2"])
async def test_json__newer_models_are_held_to_the_schema(adapter, service, model):
    request = replace(HELLO, json=JsonShape(name="number", schema=SHAPE))
    await adapter.complete(replace(service.lease, model=model), CALL, request)
    given = service.body["output_config"]["format"]
    assert given == {"type": "json_schema", "schema": {**SHAPE, "additionalProperties": False}}
    assert "tools" not in service.body


@pytest.mark.parametrize(
    ("model", "schema", "tools"),
    [
        (NEW, {"type": "object", "additionalProperties": {"type": "string"}}, ()),
        (NEW, None, ()),
        (NEW, {"description": "no type"}, ()),
        ("claude-3-opus-20240229", None, ()),
        ("claude-sonnet-4-20250514", SHAPE, (WEATHER,)),
        ("claude-opus-4-0", {"type": "array", "items": SHAPE}, ()),
    ],
)
async def test_json__what_neither_takes_stands_in_the_system_text(adapter, service, model, schema, tools):
    request = replace(HELLO, json=JsonShape(name="number", schema=schema), tools=tools)
    await adapter.complete(replace(service.lease, model=model), CALL, request)
    said = service.body["system"].removeprefix("masterbuilder task=chat id=1\n\nBe kind.\n\n")
    assert said.startswith("Answer with")
    assert schema is None or json.dumps(schema) in said
    assert "output_config" not in service.body
    assert len(service.body.get("tools", ())) == len(tools)


async def test_complete__reads_text_calls_usage_and_limits(adapter, service):
    call = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Kraków"}}
    usage = {"input_tokens": 3, "cache_read_input_tokens": 10, "cache_creation_input_tokens": 4, "output_tokens": 2}
    body = reply(
        {"type": "thinking", "thinking": "hm", "signature": "s"}, text("so"), call, stop="tool_use", usage=usage
    )
    limits = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-tokens-remaining": "1000",
        "anthropic-ratelimit-tokens-reset": "2020-01-02T03:04:05Z",
    }
    service.reply = whole(body, headers=limits)
    answer = await adapter.complete(service.lease, CALL, TOOL_LOOP)
    assert answer.parts == (Text(text="so"), ToolCall(id="toolu_1", name="weather", arguments='{"city": "Kraków"}'))
    assert (answer.id, answer.model, answer.finish) == ("msg_1", "claude-x", "tool_calls")
    assert answer.usage == Usage(input_tokens=17, output_tokens=2)
    assert answer.limits == KeyLimits(requests_per_minute=50, tokens_left=1000, tokens_reset_s=0)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("end_turn", "stop"), ("stop_sequence", "stop"), ("max_tokens", "length"), ("refusal", "refused"),
     ("model_context_window_exceeded", "length"), ("tool_use", "stop"), ("something new", "stop")],
)  # fmt: skip
async def test_complete__says_why_the_model_ended(adapter, service, reason, expected):
    service.reply = whole(reply(text("x"), stop=reason))
    assert (await adapter.complete(service.lease, CALL, HELLO)).finish == expected


async def test_complete__refuses_a_reply_nobody_can_use_or_bill(adapter, service):
    service.reply = whole(reply(stop="refusal"))
    with pytest.raises(BrokenReplyError) as broken:
        await adapter.complete(service.lease, CALL, HELLO)
    assert broken.value.usage == Usage(input_tokens=3, output_tokens=2)
    for body in (reply(text("x"), usage={"input_tokens": 3}), reply(text("x"), usage=None), ["what"]):
        service.reply = whole(body)
        with pytest.raises(BrokenReplyError):
            await adapter.complete(service.lease, CALL, HELLO)


@pytest.mark.parametrize(
    ("status", "headers", "type_", "message", "kind"),
    [
        (401, {}, "authentication_error", f"invalid x-api-key {KEY}", KeyRefusedError),
        (402, {}, "billing_error", "pay", RateLimitedError),
        (400, {}, "invalid_request_error", "Your credit balance is too low to access", RateLimitedError),
        (400, {}, "invalid_request_error", "max_tokens: too large", ProviderRefusedError),
        (403, {}, "permission_error", "not this model", ProviderError),
        (404, {}, "not_found_error", "model: claude-y", ProviderError),
        (413, {}, "request_too_large", "too large", ProviderRefusedError),
        (429, {"retry-after": "7"}, "rate_limit_error", "slow down", RateLimitedError),
        (500, {}, "api_error", "oops", OutageError),
        (529, {}, "overloaded_error", "Overloaded", OutageError),
    ],
)
async def test_refusal__becomes_what_may_be_done_about_it(adapter, service, status, headers, type_, message, kind):
    limits = {"anthropic-ratelimit-requests-remaining": "0"}
    body = {"type": "error", "error": {"type": type_, "message": message}, "request_id": "req_1"}
    for answer in (whole(body, status, {**headers, **limits}), [event(body, "error")]):
        service.reply = answer
        with pytest.raises(MasterbuilderError) as refused:
            await streamed(adapter, service)
        assert type(refused.value) is kind
        assert KEY not in repr(refused.value) + str(refused.value.__dict__)
        assert refused.value.__cause__ is None
    service.reply = whole(body, status, {**headers, **limits})
    with pytest.raises(kind) as refused:
        await adapter.complete(service.lease, CALL, HELLO)
    if kind in (RateLimitedError, OutageError):
        assert refused.value.limits == KeyLimits(requests_left=0)
    if headers:
        assert refused.value.retry_after_s == 7


async def test_stream__gives_text_and_calls_as_they_come(adapter, service):
    service.reply = [
        start(), begin(0, type="thinking", thinking="", signature=""), delta(0, "thinking_delta", thinking="hm"),
        delta(0, "signature_delta", signature="s"), stop(0), PING,
        begin(1, type="text", text=""), delta(1, "text_delta", text="I "), delta(1, "text_delta", text="look."),
        stop(1),
        begin(2, type="tool_use", id="a", name="weather", input={}), delta(2, "input_json_delta", partial_json=""),
        delta(2, "input_json_delta", partial_json='{"ci'), delta(2, "input_json_delta", partial_json='ty": "x"}'),
        stop(2), begin(3, type="tool_use", id="b", name="now", input={}), stop(3), *end("tool_use"),
    ]  # fmt: skip
    assert await streamed(adapter, service, TOOL_LOOP) == [
        UsageSoFar(usage=Usage(input_tokens=25, output_tokens=1)),
        TextDelta(text="I "),
        TextDelta(text="look."),
        ToolCallBegin(index=0, id="a", name="weather"),
        ToolCallDelta(index=0, arguments='{"ci'),
        ToolCallDelta(index=0, arguments='ty": "x"}'),
        ToolCallBegin(index=1, id="b", name="now"),
        ToolCallDelta(index=1, arguments="{}"),
        UsageSoFar(usage=Usage(input_tokens=25, output_tokens=15)),
        Finished(
            finish="tool_calls",
            usage=Usage(input_tokens=25, output_tokens=15),
            limits=KeyLimits(requests_left=7, requests_reset_s=90),
        ),
    ]
    assert service.body["stream"] is True


@pytest.mark.parametrize(
    "pieces",
    [
        [start(), *HELLO_BLOCK, CUT],
        [CUT],
        [],
        [start(), *HELLO_BLOCK, stop(0)],
        [start(), *HELLO_BLOCK, stop(0), end()[0]],
        [start(), *HELLO_BLOCK, stop(0), *end(None)],
        [start(), *HELLO_BLOCK, b"event: content_block_delta\ndata: {\n\n"],
        [start(), *HELLO_BLOCK, event({"error": {"type": "rate_limit_error", "message": "slow"}}, "error")],
        [start(), *HELLO_BLOCK, event({"error": {"type": "overloaded_error", "message": "slow"}}, "error")],
        [start(), *HELLO_BLOCK, HANG],
    ],
    ids=["cut", "cut at once", "nothing", "no end", "no stop", "no reason", "bad json", "limit", "overload", "silence"],
)
async def test_stream__that_breaks_off_is_an_outage(service, pieces):
    adapter = AnthropicSdk(timeout_s=0.3)
    service.reply = pieces
    with pytest.raises(OutageError):
        await streamed(adapter, service)
    await adapter.close()


async def test_stream__without_content_or_usage_is_broken(adapter, service):
    service.reply = [start(), *end("refusal")]
    with pytest.raises(BrokenReplyError) as broken:
        await streamed(adapter, service)
    assert broken.value.usage == Usage(input_tokens=25, output_tokens=15)
    service.reply = [start(), *HELLO_BLOCK, stop(0), *end(output_tokens=None)]
    with pytest.raises(BrokenReplyError, match="tokens"):
        await streamed(adapter, service)


async def test_stream__closed_early_closes_the_providers(adapter, service):
    service.reply = [start(), *HELLO_BLOCK, HANG]
    async with aclosing(adapter.stream(service.lease, CALL, HELLO)) as events:
        assert isinstance(await anext(events), UsageSoFar)
        assert await anext(events) == TextDelta(text="he")
    await asyncio.wait_for(service.gone.wait(), 60)


async def test_embed__is_not_offered(adapter, service):
    with pytest.raises(ProviderRefusedError):
        await adapter.embed(service.lease, CALL, EmbedRequest(texts=("a",)))
    assert service.bodies == []


async def test_environment__holds_no_other_credentials(adapter, service, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "another-token")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "another-key")
    await adapter.complete(service.lease, CALL, replace(HELLO, messages=(says("x"),)))
    assert "another" not in str(dict(service.headers[0]))


async def test_logs__never_hold_the_key(adapter, service, caplog):
    caplog.set_level(0)
    await adapter.complete(service.lease, CALL, HELLO)
    service.reply = whole({"error": {"message": KEY, "status": "no"}}, 400)
    with pytest.raises(ProviderRefusedError):
        await streamed(adapter, service)
    assert caplog.records
    assert KEY not in caplog.text + "".join(str(vars(record)) for record in caplog.records)

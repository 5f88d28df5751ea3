"""The Gemini adapter against a server that speaks the wire format as Google documents it."""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from runtime.errors import MasterbuilderError, ProviderError, ProviderRefusedError
from runtime.ids import CallId
from runtime.keys.keys import KeyLimits
from runtime.providers.adapters.gemini_sdk import NO_SIGNATURE, GeminiSdk
from runtime.providers.chat import (
    ChatEvent,
    ChatRequest,
    EmbedRequest,
    Finished,
    JsonShape,
    Text,
    TextDelta,
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
USAGE = {"promptTokenCount": 3, "candidatesTokenCount": 2, "thoughtsTokenCount": 4, "totalTokenCount": 9}
USED = Usage(input_tokens=3, output_tokens=6)


def reply(*parts: Any, finish: str | None = "STOP", usage: Any = USAGE, **others: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": list(parts)}}
    body = {"candidates": [candidate], "modelVersion": "gemini-x", "responseId": "r1", **others}
    if finish:
        candidate["finishReason"] = finish
    return {**body, "usageMetadata": usage} if usage else body


def text(words: str) -> dict[str, Any]:
    return {"text": words}


def camel(value: Any) -> Any:
    """The SDK writes some names with underscores; Google takes either spelling."""
    if isinstance(value, list):
        return [camel(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {re.sub("_([a-z])", lambda found: found[1].upper(), name): camel(one) for name, one in value.items()}


def called(name: str, args: Any = None, **others: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, **({"args": args} if args is not None else {}), **others}}


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving("gemini", "gemini-2.0-flash") as service:
        service.reply = whole(reply(text("hi")))
        yield service


@pytest.fixture
async def adapter() -> AsyncIterator[GeminiSdk]:
    adapter = GeminiSdk(timeout_s=5)
    yield adapter
    await adapter.close()


async def streamed(adapter: GeminiSdk, service: Service, request: ChatRequest = HELLO) -> list[ChatEvent]:
    return [event async for event in adapter.stream(service.lease, CALL, request)]


async def test_complete__sends_the_request_on_geminis_wire(adapter, service, monkeypatch):
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    monkeypatch.setenv("GOOGLE_API_KEY", "another-key")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    answer = await adapter.complete(service.lease, CALL, HELLO)
    assert service.paths == ["/v1beta/models/gemini-2.0-flash:generateContent"]
    said = [part["text"] for part in service.body["systemInstruction"]["parts"]]
    assert said == ["masterbuilder task=chat id=1\n\nBe kind."]
    assert service.body["contents"] == [{"role": "user", "parts": [text("grüß dich")]}]
    assert not service.body.get("generationConfig")
    assert service.headers[0]["x-goog-api-key"] == KEY
    assert service.headers[0]["x-client-request-id"] == CALL
    assert (answer.id, answer.model, answer.parts, answer.finish) == ("r1", "gemini-x", (Text(text="hi"),), "stop")
    assert answer.usage == USED


async def test_keys__go_with_the_request(adapter, service):
    await adapter.complete(service.lease, CALL, HELLO)
    await adapter.complete(replace(service.lease, key_id="key-2", key="other"), CALL, HELLO)
    service.reply = [event(reply(text("x")))]
    await streamed(adapter, service)
    service.reply = whole({"embeddings": [{"values": [1]}]})
    await adapter.embed(service.lease, CALL, EmbedRequest(texts=("a",)))
    assert [headers.getall("x-goog-api-key") for headers in service.headers] == [[KEY], ["other"], [KEY], [KEY]]


async def test_complete__takes_the_version_from_the_address(adapter, service):
    await adapter.complete(replace(service.lease, base_url=f"{service.base_url}/proxy/v1"), CALL, HELLO)
    assert service.paths == ["/proxy/v1/models/gemini-2.0-flash:generateContent"]


async def test_complete__sends_tools_their_results_pictures_and_settings(adapter, service):
    await adapter.complete(service.lease, CALL, TOOL_LOOP)
    body = camel(service.body)
    user, model, results = body["contents"]
    picture = user["parts"][1]["inlineData"]
    assert (user["role"], user["parts"][0], picture["mimeType"]) == ("user", text("Weather here?"), "image/png")
    assert base64.urlsafe_b64decode(picture["data"]) == base64.b64decode(PIXEL)
    assert model["role"] == "model"
    calls = [part["functionCall"] for part in model["parts"][1:]]
    assert calls == [
        {"id": "call:1", "name": "weather", "args": {"city": "Kraków"}},
        {"id": "call:2", "name": "weather", "args": {"INVALID_JSON": "not json"}},
    ]
    assert base64.urlsafe_b64decode(model["parts"][1]["thoughtSignature"]) == NO_SIGNATURE
    assert results == {"role": "user", "parts": [
        {"functionResponse": {"id": "call:1", "name": "weather", "response": {"output": "rain"}}},
        {"functionResponse": {"id": "call:2", "name": "weather", "response": {"error": "no such city"}}},
        text("And now?"),
    ]}  # fmt: skip
    declaration = {"name": "weather", "description": "Tells the weather.", "parametersJsonSchema": WEATHER.parameters}
    assert body["tools"] == [{"functionDeclarations": [declaration]}]
    assert body["toolConfig"] == {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}}
    settings = {"maxOutputTokens": 64, "temperature": 0.5, "topP": 0.9, "stopSequences": ["END"]}
    assert body["generationConfig"] == settings


@pytest.mark.parametrize(("choice", "mode"), [("auto", "AUTO"), ("none", "NONE"), ("required", "ANY")])
async def test_complete__sends_the_tool_choice(adapter, service, choice, mode):
    await adapter.complete(service.lease, CALL, replace(TOOL_LOOP, tool_choice=choice))
    assert service.body["toolConfig"] == {"functionCallingConfig": {"mode": mode}}


async def test_json__is_held_to_the_schema_unless_there_are_tools(adapter, service):
    request = replace(HELLO, json=JsonShape(name="number", schema=SHAPE))
    await adapter.complete(service.lease, CALL, request)
    settings = {"responseMimeType": "application/json", "responseJsonSchema": SHAPE}
    assert service.bodies[0]["generationConfig"] == settings
    await adapter.complete(service.lease, CALL, replace(request, json=JsonShape(name="any", schema=None)))
    assert service.bodies[1]["generationConfig"] == {"responseMimeType": "application/json"}
    await adapter.complete(service.lease, CALL, replace(request, tools=(WEATHER,)))
    assert "responseMimeType" not in service.bodies[2].get("generationConfig", {})
    assert json.dumps(SHAPE) in service.bodies[2]["systemInstruction"]["parts"][0]["text"]


async def test_complete__reads_text_and_calls_but_no_thoughts(adapter, service):
    parts = [{"text": "hm", "thought": True}, text("so"), called("weather", {"city": "Kraków"}, id="x"), called("now")]
    service.reply = whole(reply(*parts), headers=LIMITS)
    answer = await adapter.complete(service.lease, CALL, TOOL_LOOP)
    said, first, second = answer.parts
    assert said == Text(text="so")
    assert (first.id, first.name, json.loads(first.arguments)) == ("x", "weather", {"city": "Kraków"})
    assert (second.name, second.arguments) == ("now", "{}")
    assert second.id.startswith("call_")
    assert answer.finish == "tool_calls"
    assert answer.limits == KeyLimits(requests_left=7, requests_reset_s=90)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("STOP", "stop"), ("MAX_TOKENS", "length"), ("CONTINUATION", "length"), ("SAFETY", "refused"),
     ("RECITATION", "refused"), ("OTHER", "stop"), ("A_NEW_ONE", "stop")],
)  # fmt: skip
async def test_complete__says_why_the_model_ended_and_never_asks_on(adapter, service, reason, expected):
    body = reply(text("x"), finish=reason)
    body["candidates"][0]["continuationToken"] = base64.b64encode(b"more").decode()
    service.reply = whole(body)
    assert (await adapter.complete(service.lease, CALL, HELLO)).finish == expected
    assert len(service.bodies) == 1


async def test_usage__is_estimated_from_the_words_where_gemini_says_nothing(adapter, service):
    service.reply = whole(reply(text("one two three"), usage=None))
    answer = await adapter.complete(service.lease, CALL, HELLO)
    assert answer.usage == Usage(input_tokens=2 * (3 + 2 + 2), output_tokens=6, estimated=True)
    service.reply = [event(reply(text("one "), finish=None, usage=None)),
                     event(reply(text("two"), usage=None))]  # fmt: skip
    events = await streamed(adapter, service)
    assert events[-1].usage == Usage(input_tokens=14, output_tokens=4, estimated=True)


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        (reply(finish="SAFETY"), USED),
        (reply(finish="MALFORMED_FUNCTION_CALL"), USED),
        (reply({"text": "hm", "thought": True}, finish="MAX_TOKENS"), USED),
        (
            {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}},
            Usage(input_tokens=3, output_tokens=0, estimated=True),
        ),
    ],
)
async def test_complete__an_empty_reply_is_broken(adapter, service, body, usage):
    service.reply = whole(body)
    with pytest.raises(BrokenReplyError) as broken:
        await adapter.complete(service.lease, CALL, HELLO)
    assert broken.value.usage == usage
    service.reply = [event(body)]
    with pytest.raises(BrokenReplyError) as broken:
        await streamed(adapter, service)
    assert broken.value.usage == usage


async def test_complete__what_is_not_json_is_a_broken_reply(adapter, service):
    service.reply = [b"<html>"]
    with pytest.raises(BrokenReplyError):
        await adapter.complete(service.lease, CALL, HELLO)


def refused(code: int, status: str, message: str, *details: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


INFO = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}
RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (refused(400, "INVALID_ARGUMENT", f"API key not valid: {KEY}", INFO), KeyRefusedError),
        (refused(400, "INVALID_ARGUMENT", "API key expired. Please renew the API key."), KeyRefusedError),
        (refused(403, "PERMISSION_DENIED", "Your API key was reported as leaked."), KeyRefusedError),
        (refused(401, "UNAUTHENTICATED", "who?"), KeyRefusedError),
        (refused(403, "PERMISSION_DENIED", "not here"), ProviderError),
        (refused(404, "NOT_FOUND", "models/x is not found"), ProviderError),
        (refused(400, "INVALID_ARGUMENT", "bad schema"), ProviderRefusedError),
        (refused(429, "RESOURCE_EXHAUSTED", "quota", RETRY), RateLimitedError),
        (refused(503, "UNAVAILABLE", "overloaded"), OutageError),
        (refused(500, "INTERNAL", "oops"), OutageError),
    ],
)
async def test_refusal__becomes_what_may_be_done_about_it(adapter, service, body, kind):
    service.reply = whole(body, body["error"]["code"], LIMITS)
    for ask in (
        adapter.complete(service.lease, CALL, HELLO),
        streamed(adapter, service),
        adapter.embed(service.lease, CALL, EmbedRequest(texts=("a",))),
    ):
        with pytest.raises(MasterbuilderError) as failed:
            await ask
        assert type(failed.value) is kind
        assert KEY not in repr(failed.value) + str(failed.value.__dict__)
        assert failed.value.__cause__ is None
        if kind is RateLimitedError:
            assert failed.value.retry_after_s == 34.5
            assert failed.value.limits == KeyLimits(requests_left=7, requests_reset_s=90)
    assert len(service.bodies) == 3


async def test_stream__gives_text_and_calls_as_they_come(adapter, service):
    early = {"promptTokenCount": 3}
    service.reply = [
        event(reply(text("I "), finish=None, usage=early)),
        event(reply({"text": "hm", "thought": True}, finish=None, usage=None)),
        event(reply(text("look."), called("weather", {"city": "x"}, id="a"), finish=None, usage=None)),
        event(reply(called("now", id="b"))),
    ]
    assert await streamed(adapter, service, TOOL_LOOP) == [
        TextDelta(text="I "),
        UsageSoFar(usage=Usage(input_tokens=3, output_tokens=0, estimated=True)),
        TextDelta(text="look."),
        ToolCallBegin(index=0, id="a", name="weather"),
        ToolCallDelta(index=0, arguments='{"city": "x"}'),
        ToolCallBegin(index=1, id="b", name="now"),
        ToolCallDelta(index=1, arguments="{}"),
        UsageSoFar(usage=USED),
        Finished(finish="tool_calls", usage=USED, limits=KeyLimits(requests_left=7, requests_reset_s=90)),
    ]
    assert service.paths == ["/v1beta/models/gemini-2.0-flash:streamGenerateContent?alt=sse"]
    assert service.headers[0]["x-client-request-id"] == CALL


@pytest.mark.parametrize(
    "pieces",
    [
        [event(reply(text("he"), finish=None)), CUT],
        [CUT],
        [],
        [event(reply(text("he"), finish=None))],
        [event(reply(text("he"), finish=None)), b"data: {\n\n"],
        [event(reply(text("he"), finish=None)), event(refused(429, "RESOURCE_EXHAUSTED", "quota"))],
        [event(reply(text("he"), finish=None)), event(refused(503, "UNAVAILABLE", "quota"))],
        [event(reply(text("he"), finish=None)), HANG],
    ],
    ids=["cut", "cut at once", "nothing", "no end", "bad json", "limit", "overload", "silence"],
)
async def test_stream__that_breaks_off_is_an_outage(service, pieces):
    adapter = GeminiSdk(timeout_s=0.3)
    service.reply = pieces
    with pytest.raises(OutageError):
        await streamed(adapter, service)
    await adapter.close()


async def test_stream__closed_early_closes_the_providers(adapter, service):
    service.reply = [event(reply(text("he"), finish=None)), HANG]
    async with aclosing(adapter.stream(service.lease, CALL, HELLO)) as events:
        assert await anext(events) == TextDelta(text="he")
    await asyncio.wait_for(service.gone.wait(), 60)


async def test_embed__gives_one_vector_a_text(adapter, service):
    service.reply = whole({"embeddings": [{"values": [1, 0.5]}, {"values": [0, 1]}]})
    found = await adapter.embed(service.lease, CALL, EmbedRequest(texts=("a b", "c"), dimensions=2))
    assert found.vectors == ((1, 0.5), (0, 1))
    assert found.usage == Usage(input_tokens=6, output_tokens=0, estimated=True)
    assert service.paths == ["/v1beta/models/gemini-2.0-flash:batchEmbedContents"]
    assert [one["content"]["parts"] for one in service.body["requests"]] == [[text("a b")], [text("c")]]
    assert service.body["requests"][0]["outputDimensionality"] == 2
    service.reply = whole({"embeddings": [{"values": [1]}]})
    with pytest.raises(BrokenReplyError):
        await adapter.embed(service.lease, CALL, EmbedRequest(texts=("a b", "c")))


async def test_logs__never_hold_the_key(adapter, service, caplog):
    caplog.set_level(0)
    await adapter.complete(service.lease, CALL, HELLO)
    service.reply = whole({"error": {"message": KEY, "status": "no"}}, 400)
    with pytest.raises(ProviderRefusedError):
        await streamed(adapter, service)
    assert caplog.records
    assert KEY not in caplog.text + "".join(str(vars(record)) for record in caplog.records)

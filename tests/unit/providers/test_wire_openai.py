"""OpenAI's wire: what clients send becomes a request, what a model says becomes what they expect."""

import base64
import json
import struct
from typing import Any

import pytest

from runtime.errors import BadInputError
from runtime.keys.keys import Lease
from runtime.providers.adapters.openai_sdk import body_of
from runtime.providers.chat import (
    ChatReply,
    Embeddings,
    Finished,
    Image,
    JsonShape,
    Message,
    Text,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallBegin,
    ToolCallDelta,
    ToolResult,
    UsageSoFar,
)
from runtime.providers.usage import Usage
from runtime.providers.wires.openai import (
    DONE,
    ReplyStream,
    embed_request_of,
    embeddings_body,
    error_body,
    error_event,
    reply_body,
    request_of,
)

PIXEL = base64.b64encode(b"\x89PNG").decode()
CALL = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "x"}'}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": {"type": "object"}}}
USAGE = Usage(input_tokens=3, output_tokens=2)
FULL: dict[str, Any] = {
    "model": "openai/gpt-4o",
    "messages": [
        {"role": "system", "content": "first"},
        {"role": "developer", "content": [{"type": "text", "text": "second", "cache_control": {"type": "ephemeral"}}]},
        {"role": "user", "content": [
            {"type": "text", "text": "look"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}", "detail": "low"}},
        ]},
        {"role": "assistant", "content": None, "tool_calls": [CALL, {**CALL, "id": "b"}], "refusal": None,
         "annotations": [], "audio": None, "function_call": None},
        {"role": "tool", "tool_call_id": "a", "content": "rain"},
        {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "sun"}], "name": "weather"},
        {"role": "user", "content": "so?"},
    ],
    "tools": [TOOL, {"type": "function", "function": {"name": "now", "strict": True}}],
    "tool_choice": {"type": "function", "function": {"name": "now"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"a": 1}, "strict": True}},
    "max_tokens": 5, "max_completion_tokens": 9, "temperature": 2, "top_p": 0.5, "stop": "END",
    "n": 1, "logprobs": False, "frequency_penalty": 0.0, "logit_bias": {}, "parallel_tool_calls": True, "seed": None,
    "user": "u", "stream": True, "stream_options": {"include_usage": True}, "store": False,
}  # fmt: skip


def user(**message: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "x", **message}]}


def test_request__carries_everything_over():
    request = request_of(FULL)
    assert request.system == ("first", "second")
    assert request.messages == (
        Message(role="user", parts=(Text(text="look"), Image(media_type="image/png", data=PIXEL))),
        Message(
            role="assistant",
            parts=(
                ToolCall(id="a", name="weather", arguments='{"city": "x"}'),
                ToolCall(id="b", name="weather", arguments='{"city": "x"}'),
            ),
        ),
        Message(
            role="user",
            parts=(
                ToolResult(call_id="a", name="weather", text="rain"),
                ToolResult(call_id="b", name="weather", text="sun"),
            ),
        ),
        Message(role="user", parts=(Text(text="so?"),)),
    )
    assert request.tools == (
        Tool(name="weather", description="d", parameters={"type": "object"}),
        Tool(name="now", description="", parameters={"type": "object", "properties": {}}),
    )
    assert (request.tool_choice, request.json) == ("now", JsonShape(name="n", schema={"a": 1}))
    assert (request.output_tokens_max, request.temperature, request.top_p, request.stop) == (9, 2.0, 0.5, ("END",))


def test_request__survives_the_way_through_the_adapter():
    request = request_of(FULL)
    lease = Lease(provider="openai", model="gpt-4o", key_id="k", base_url="http://x", key="k")
    assert request_of(body_of(request, lease, "json_schema")) == request


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, JsonShape(name="reply", schema=None)),
    ],
)
def test_request__reads_the_json_shape(given, expected):
    assert request_of({**user(), **given}).json == expected


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"n": 2}, "n"),
        ({"n": True}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"seed": 7}, "seed"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"functions": [{}]}, "functions"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"web_search_options": {"a": 1}}, "web_search_options"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": [{"role": "system", "content": "only"}]}, "messages"),
        (user(role="robot"), "messages[0].role"),
        (user(content=""), "messages[0].content"),
        (user(content=7), "messages[0].content"),
        (user(name="Bob"), "messages[0].name"),
        (user(content="\ud800"), "messages[0].content"),
        (user(content=[{"type": "input_audio"}]), "messages[0].content[0].type"),
        (user(content=[{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]), "image_url.url"),
        (user(content=[{"type": "image_url", "image_url": {"url": "data:image/png;base64,%%%"}}]), "image_url.url"),
        (user(content=[{"type": "image_url", "image_url": {"url": "data:image/tiff;base64,AAAA"}}]), "image_url.url"),
        ({"messages": [{"role": "tool", "tool_call_id": "z", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "a"}]}]}, "tool_calls[0].function"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "not ok"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": [1]}}]}, "parameters"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "nobody"}}}, "tool_choice.function.name"),
        ({"tool_choice": "weather"}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**12}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": True}, "top_p"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"stream": "yes"}, "stream"),
    ],
)
def test_request__what_it_cannot_carry_is_refused_by_name(change, field):
    with pytest.raises(BadInputError) as refused:
        request_of({**user(), **change})
    assert field in refused.value.message
    assert refused.value.next_step


def test_request__a_tool_cannot_be_named_like_another_choice():
    tool = {"type": "function", "function": {"name": "none"}}
    choice = {"type": "function", "function": {"name": "none"}}
    with pytest.raises(BadInputError, match="tool_choice"):
        request_of({**user(), "tools": [tool], "tool_choice": choice})


def test_request__a_schema_nested_too_deep_is_refused():
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    with pytest.raises(BadInputError, match="nested too deep"):
        request_of({**user(), "tools": [{"type": "function", "function": {"name": "f", "parameters": deep}}]})


def test_reply__is_a_chat_completion():
    parts = (Text(text="so"), ToolCall(id="a", name="f", arguments='{"x": 1}'))
    reply = ChatReply(id="r", model="m", parts=parts, finish="tool_calls", usage=USAGE)
    body = reply_body(reply, created=1_700_000_000)
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    message = {"role": "assistant", "content": "so", "refusal": None, "tool_calls": [call]}
    assert body == {
        "id": "r",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "m",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }


def data_of(written: bytes) -> Any:
    assert written.startswith(b"data: ")
    assert written.endswith(b"\n\n")
    assert b"\n" not in written[:-2]
    return json.loads(written[6:])


@pytest.mark.parametrize("wants_usage", [True, False])
def test_stream__is_one_event_a_piece(wants_usage):
    stream = ReplyStream(id="r", model="m", created=1, wants_usage=wants_usage)
    assert stream.written(UsageSoFar(usage=USAGE)) == []
    first = [data_of(one) for one in stream.written(TextDelta(text="zażółć\n"))]
    assert [one["choices"][0]["delta"] for one in first] == [
        {"role": "assistant", "content": ""},
        {"content": "zażółć\n"},
    ]
    (begun,) = stream.written(ToolCallBegin(index=0, id="a", name="f"))
    call = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}
    assert data_of(begun)["choices"][0]["delta"] == {"tool_calls": [call]}
    (piece,) = stream.written(ToolCallDelta(index=0, arguments='{"x'))
    assert data_of(piece)["choices"][0]["delta"] == {"tool_calls": [{"index": 0, "function": {"arguments": '{"x'}}]}
    last, *usage, done = stream.written(Finished(finish="refused", usage=USAGE))
    assert data_of(last)["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "content_filter"}
    assert done == DONE
    if wants_usage:
        closing = data_of(usage[0])
        assert (closing["choices"], closing["usage"]["total_tokens"]) == ([], 5)
        assert first[0]["usage"] is None
    else:
        assert usage == []
        assert "usage" not in first[0]


def test_errors__are_in_openais_shape():
    body = error_body(kind="forbidden", status=403, message="No.", request_id="q", extra={"charged": "Nothing."})
    assert body["error"] == {
        "message": "No.", "type": "forbidden", "code": "forbidden", "param": None, "request_id": "q",
        "charged": "Nothing.",
    }  # fmt: skip
    assert data_of(error_event(kind="x", status=500, message="a\nb", request_id="q"))["error"]["message"] == "a\nb"


def test_embeddings__come_as_numbers_or_packed():
    assert embed_request_of({"model": "m", "input": "a", "encoding_format": "base64"}).texts == ("a",)
    request = embed_request_of({"input": ["a", "b"], "dimensions": 2})
    assert (request.texts, request.dimensions) == (("a", "b"), 2)
    found = Embeddings(model="m", vectors=((0.5, -1.0), (0.0, 1.0)), usage=Usage(input_tokens=4, output_tokens=0))
    body = embeddings_body(found)
    assert body["data"][1] == {"object": "embedding", "index": 1, "embedding": [0.0, 1.0]}
    assert body["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    packed = embeddings_body(found, encoding_format="base64")["data"][0]["embedding"]
    assert struct.unpack("<2f", base64.b64decode(packed)) == (0.5, -1.0)


@pytest.mark.parametrize(
    "body",
    [{}, {"input": []}, {"input": ""}, {"input": [1, 2]}, {"input": [[1]]}, {"input": ["a", ""]}, {"input": [{}]},
     {"input": "a", "dimensions": 0}, {"input": "a", "encoding_format": "hex"}, {"input": "a", "what": 1},
     {"input": ["a"] * 2049}, {"input": "\ud800"}],
)  # fmt: skip
def test_embeddings__refuse_what_is_no_text(body):
    with pytest.raises(BadInputError):
        embed_request_of(body)

"""Anthropic's wire: what clients send becomes a request, what a model says becomes what they expect."""

import base64
import json
from typing import Any

import pytest

from runtime.errors import BadInputError
from runtime.keys.keys import Lease
from runtime.providers.adapters.anthropic_sdk import body_of
from runtime.providers.chat import (
    ChatReply,
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
from runtime.providers.wires.anthropic import ReplyStream, error_body, error_event, reply_body, request_of

PIXEL = base64.b64encode(b"\x89PNG").decode()
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
USE = {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "Kraków"}, "caller": {"type": "direct"}}
TOOL = {"name": "weather", "description": "d", "input_schema": {"type": "object"}}
USAGE = Usage(input_tokens=3, output_tokens=2)
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}
FULL: dict[str, Any] = {
    "model": "claude-x",
    "max_tokens": 9,
    "system": [{"type": "text", "text": "first", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "look"}, PICTURE]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "I look.", "citations": None}, USE, {**USE, "id": "b"},
        ]},
        {"role": "user", "content": [
            {"type": "text", "text": "so?"},
            {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "rain"}, PICTURE]},
            {"type": "tool_result", "tool_use_id": "b", "content": "gone", "is_error": True},
        ]},
        {"role": "system", "content": "second"},
    ],
    "tools": [{**TOOL, "type": "custom", "cache_control": {"type": "ephemeral"}}],
    "tool_choice": {"type": "tool", "name": "weather", "disable_parallel_tool_use": False},
    "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    "temperature": 1, "top_p": 0.5, "stop_sequences": ["END"],
    "metadata": {"user_id": "u"}, "thinking": {"type": "disabled"}, "service_tier": "auto", "stream": True,
}  # fmt: skip


def user(**message: Any) -> dict[str, Any]:
    return {"max_tokens": 9, "messages": [{"role": "user", "content": "x", **message}]}


def test_request__carries_everything_over():
    request = request_of(FULL)
    image = Image(media_type="image/png", data=PIXEL)
    assert request.system == ("first", "second")
    assert request.messages == (
        Message(role="user", parts=(Text(text="look"), image)),
        Message(
            role="assistant",
            parts=(
                Text(text="I look."),
                ToolCall(id="a", name="weather", arguments='{"city":"Kraków"}'),
                ToolCall(id="b", name="weather", arguments='{"city":"Kraków"}'),
            ),
        ),
        Message(
            role="user",
            parts=(
                ToolResult(call_id="a", name="weather", text="rain"),
                ToolResult(call_id="b", name="weather", text="gone", is_error=True),
                Text(text="so?"),
                image,
            ),
        ),
    )
    assert request.tools == (Tool(name="weather", description="d", parameters={"type": "object"}),)
    assert (request.tool_choice, request.json) == ("weather", JsonShape(name="reply", schema=SCHEMA))
    assert (request.output_tokens_max, request.temperature, request.top_p, request.stop) == (9, 1.0, 0.5, ("END",))


def test_request__survives_the_way_through_the_adapter():
    request = request_of({**FULL, "system": "first\n\nsecond", "messages": FULL["messages"][:3]})
    lease = Lease(provider="claude", model="claude-sonnet-4-5", key_id="k", base_url="http://x", key="k")
    assert request_of(body_of(request, lease)[0]) == request


@pytest.mark.parametrize(
    ("given", "expected"), [("auto", "auto"), ("none", "none"), ("any", "required"), ("tool", "weather")]
)
def test_request__reads_the_tool_choice(given, expected):
    choice = {"type": given, **({"name": "weather"} if given == "tool" else {})}
    assert request_of({**user(), "tools": [TOOL], "tool_choice": choice}).tool_choice == expected


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"top_k": 5}, "top_k"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking"),
        ({"mcp_servers": [{}]}, "mcp_servers"),
        ({"output_config": {"effort": "high"}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
        ({"temperature": 1.5}, "temperature"),
        ({"messages": []}, "messages"),
        ({"messages": {}}, "messages"),
        (user(role="tool"), "messages[0].role"),
        (user(content=[]), "messages[0].content"),
        (user(content=None), "messages[0].content"),
        (user(content=[{"type": "document"}]), "messages[0].content[0].type"),
        (user(content=[{"type": "text", "text": "\udfff"}]), "messages[0].content[0].text"),
        (user(content=[{"type": "image", "source": {"type": "url", "url": "https://x"}}]), "source.type"),
        (user(content=[{"type": "image", "source": {"type": "base64", "media_type": "a/b"}}]), "source"),
        (user(content=[{"type": "tool_result", "tool_use_id": "z"}]), "tool_use_id"),
        (user(role="assistant", content=[{"type": "server_tool_use"}]), "messages[0].content[0].type"),
        (user(role="assistant", content=[{**USE, "input": "x"}]), "input"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "tool", "name": "nobody"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}, "disable_parallel_tool_use"),
        ({"stop_sequences": "END", "stream": 1}, "stream"),
        ({"metadata": "me"}, "metadata"),
    ],
)
def test_request__what_it_cannot_carry_is_refused_by_name(change, field):
    with pytest.raises(BadInputError) as refused:
        request_of({**user(), **change})
    assert field in refused.value.message
    assert refused.value.next_step


def test_reply__is_a_message():
    parts = (
        Text(text="so"),
        ToolCall(id="a", name="f", arguments='{"x": 1}'),
        ToolCall(id="b", name="f", arguments="["),
    )
    reply = ChatReply(id="r", model="m", parts=parts, finish="tool_calls", usage=USAGE)
    assert reply_body(reply, created=1) == {
        "id": "r",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "text", "text": "so"},
            {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
            {"type": "tool_use", "id": "b", "name": "f", "input": {"INVALID_JSON": "["}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }


def data_of(written: bytes) -> Any:
    name, data, *rest = written.decode().split("\n")
    assert rest == ["", ""]
    found = json.loads(data.removeprefix("data: "))
    assert name == f"event: {found['type']}"
    return found


def test_stream__opens_and_closes_each_block():
    stream = ReplyStream(id="r", model="m", created=1, wants_usage=False)
    events = [
        TextDelta(text="zażółć\n"), TextDelta(text="x"), ToolCallBegin(index=0, id="a", name="f"),
        ToolCallDelta(index=0, arguments='{"x'), ToolCallDelta(index=0, arguments='": 1}'),
        ToolCallBegin(index=1, id="b", name="g"), ToolCallDelta(index=1, arguments="{}"), TextDelta(text="y"),
        Finished(finish="tool_calls", usage=USAGE),
    ]  # fmt: skip
    found = [data_of(one) for event in events for one in stream.written(event)]
    assert [(one["type"].removeprefix("content_block_"), one.get("index")) for one in found] == [
        ("message_start", None),
        ("start", 0), ("delta", 0), ("delta", 0), ("stop", 0),
        ("start", 1), ("delta", 1), ("delta", 1), ("stop", 1),
        ("start", 2), ("delta", 2), ("stop", 2),
        ("start", 3), ("delta", 3), ("stop", 3),
        ("message_delta", None), ("message_stop", None),
    ]  # fmt: skip
    assert found[0]["message"]["usage"] == {"input_tokens": 0, "output_tokens": 0}
    assert found[2]["delta"] == {"type": "text_delta", "text": "zażółć\n"}
    assert found[5]["content_block"] == {"type": "tool_use", "id": "a", "name": "f", "input": {}}
    assert found[6]["delta"] == {"type": "input_json_delta", "partial_json": '{"x'}
    assert found[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert found[-2]["usage"] == {"input_tokens": 3, "output_tokens": 2}


def test_stream__tells_the_input_tokens_at_once_where_they_are_known():
    stream = ReplyStream(id="r", model="m", created=1, wants_usage=False)
    assert stream.written(UsageSoFar(usage=Usage(input_tokens=25, output_tokens=1))) == []
    first = data_of(stream.written(TextDelta(text="x"))[0])
    assert first["message"]["usage"]["input_tokens"] == 25


@pytest.mark.parametrize(
    ("status", "type_"),
    [(400, "invalid_request_error"), (401, "authentication_error"), (402, "billing_error"), (403, "permission_error"),
     (404, "not_found_error"), (409, "invalid_request_error"), (413, "request_too_large"), (429, "rate_limit_error"),
     (500, "api_error"), (502, "api_error"), (503, "overloaded_error")],
)  # fmt: skip
def test_errors__are_in_anthropics_shape(status, type_):
    body = error_body(kind="no", status=status, message="No.", request_id="q", extra={"charged": "Nothing."})
    error = {"type": type_, "message": "No.", "code": "no", "charged": "Nothing."}
    assert body == {"type": "error", "error": error, "request_id": "q"}
    assert data_of(error_event(kind="no", status=status, message="No.", request_id="q"))["error"]["type"] == type_

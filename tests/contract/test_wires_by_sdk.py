"""What the two wires write, read by the SDKs that clients use."""

import json
from collections.abc import AsyncIterator

import anthropic
import openai
import pytest

from runtime.providers.chat import (
    ChatReply,
    Embeddings,
    Finished,
    Text,
    TextDelta,
    ToolCall,
    ToolCallBegin,
    ToolCallDelta,
    UsageSoFar,
)
from runtime.providers.usage import Usage
from runtime.providers.wires import anthropic as anthropic_wire
from runtime.providers.wires import openai as openai_wire
from tests.contract.model_service import Service, serving, whole

USAGE = Usage(input_tokens=3, output_tokens=2)
EVENTS = [
    UsageSoFar(usage=USAGE),
    TextDelta(text="zażółć "),
    TextDelta(text="gęślą\n"),
    ToolCallBegin(index=0, id="a", name="weather"),
    ToolCallDelta(index=0, arguments='{"city": '),
    ToolCallDelta(index=0, arguments='"Kraków"}'),
    ToolCallBegin(index=1, id="b", name="now"),
    ToolCallDelta(index=1, arguments="{}"),
    Finished(finish="tool_calls", usage=USAGE),
]
REPLY = ChatReply(
    id="r1",
    model="m",
    parts=(Text(text="zażółć"), ToolCall(id="a", name="weather", arguments='{"city": "Kraków"}')),
    finish="tool_calls",
    usage=USAGE,
)
ERROR = {"kind": "provider_error", "status": 502, "message": "It broke off.", "request_id": "q1"}
MESSAGES = [{"role": "user", "content": "x"}]


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving("us", "m") as service:
        yield service


@pytest.fixture
async def by_openai(service) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{service.base_url}/v1", api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture
async def by_anthropic(service) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=service.base_url, api_key="k", max_retries=0) as client:
        yield client


def pieces(wire) -> list[bytes]:
    stream = wire.ReplyStream(id="r1", model="m", created=1, wants_usage=True)
    return [piece for event in EVENTS for piece in stream.written(event)]


async def test_openai__a_whole_reply_is_understood(service, by_openai):
    service.reply = whole(openai_wire.reply_body(REPLY, created=1))
    reply = await by_openai.chat.completions.create(model="m", messages=MESSAGES)
    choice = reply.choices[0]
    assert (choice.message.content, choice.finish_reason, reply.usage.total_tokens) == ("zażółć", "tool_calls", 5)
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"city": "Kraków"}
    again = openai_wire.request_of({"messages": [*MESSAGES, choice.message.model_dump()]})
    assert again.messages[1].parts == REPLY.parts


async def test_openai__a_stream_is_put_together(service, by_openai):
    service.reply = pieces(openai_wire)
    async with by_openai.chat.completions.stream(model="m", messages=MESSAGES) as stream:
        reply = await stream.get_final_completion()
    message = reply.choices[0].message
    assert (message.content, reply.choices[0].finish_reason) == ("zażółć gęślą\n", "tool_calls")
    calls = [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls]
    assert calls == [("a", "weather", '{"city": "Kraków"}'), ("b", "now", "{}")]
    assert reply.usage.total_tokens == 5


async def test_openai__an_error_is_raised_whole_or_in_the_middle(service, by_openai):
    service.reply = whole(openai_wire.error_body(**ERROR), 502)
    with pytest.raises(openai.InternalServerError, match="It broke off"):
        await by_openai.chat.completions.create(model="m", messages=MESSAGES)
    service.reply = [*pieces(openai_wire)[:2], openai_wire.error_event(**ERROR)]
    stream = await by_openai.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    with pytest.raises(openai.APIError, match="It broke off"):
        _ = [chunk async for chunk in stream]


async def test_openai__embeddings_are_understood(service, by_openai):
    found = Embeddings(model="m", vectors=((0.5, -1.0),), usage=Usage(input_tokens=4, output_tokens=0))
    service.reply = whole(openai_wire.embeddings_body(found, encoding_format="base64"))
    reply = await by_openai.embeddings.create(model="m", input="x")
    assert service.body["encoding_format"] == "base64"
    assert openai_wire.embed_request_of(service.body).texts == ("x",)
    assert (reply.data[0].embedding, reply.usage.prompt_tokens) == ([0.5, -1.0], 4)


async def test_anthropic__a_whole_reply_is_understood(service, by_anthropic):
    service.reply = whole(anthropic_wire.reply_body(REPLY, created=1))
    reply = await by_anthropic.messages.create(model="m", messages=MESSAGES, max_tokens=9)
    text, call = reply.content
    assert (text.text, call.input, reply.stop_reason) == ("zażółć", {"city": "Kraków"}, "tool_use")
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (3, 2)
    turn = {"role": "assistant", "content": [block.model_dump() for block in reply.content]}
    again = anthropic_wire.request_of({"messages": [*MESSAGES, turn], "max_tokens": 9})
    assert [part.name for part in again.messages[1].parts if isinstance(part, ToolCall)] == ["weather"]


async def test_anthropic__a_stream_is_put_together(service, by_anthropic):
    service.reply = pieces(anthropic_wire)
    async with by_anthropic.messages.stream(model="m", messages=MESSAGES, max_tokens=9) as stream:
        reply = await stream.get_final_message()
    text, first, second = reply.content
    assert (text.text, first.input, second.input) == ("zażółć gęślą\n", {"city": "Kraków"}, {})
    assert (first.id, first.name, second.id, second.name) == ("a", "weather", "b", "now")
    assert (reply.stop_reason, reply.usage.input_tokens, reply.usage.output_tokens) == ("tool_use", 3, 2)


async def test_anthropic__an_error_is_raised_whole_or_in_the_middle(service, by_anthropic):
    service.reply = whole(anthropic_wire.error_body(**{**ERROR, "status": 429}), 429)
    with pytest.raises(anthropic.RateLimitError, match="It broke off"):
        await by_anthropic.messages.create(model="m", messages=MESSAGES, max_tokens=9)
    service.reply = [*pieces(anthropic_wire)[:3], anthropic_wire.error_event(**ERROR)]
    stream = await by_anthropic.messages.create(model="m", messages=MESSAGES, max_tokens=9, stream=True)
    with pytest.raises(anthropic.APIStatusError, match="It broke off"):
        _ = [event async for event in stream]

"""The simulator, as the real `anthropic` client meets it."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest
import pytest_asyncio
from anthropic import AsyncAnthropic

from cluster.simulator.scenario import SCENARIOS
from cluster.simulator.server import Simulator
from cluster.simulator.usage import UsageFile, fingerprint, text_tokens
from runtime.project.schemas import task_line

BRIEF = (SCENARIOS / "expense_tracker" / "brief.md").read_text()
ADD: Any = {"name": "add", "description": "adds", "input_schema": {"type": "object", "properties": {}}}
TOOL_ORDER = 'synthetic tool=add args={"a": 1, "b": 2} tool=add args={"a": 3} piece_tokens=1'


@pytest.fixture
def usage_file(tmp_path: Path) -> Path:
    return tmp_path / "usage.jsonl"


@pytest_asyncio.fixture
async def simulator(usage_file: Path) -> AsyncIterator[Simulator]:
    async with Simulator(usage_file=usage_file) as simulator:
        yield simulator


@pytest_asyncio.fixture
async def client(simulator: Simulator) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(base_url=simulator.root_url, api_key="sim-1", max_retries=0) as client:
        yield client


@pytest_asyncio.fixture
async def http(simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"x-api-key": "sim-1", "anthropic-version": "2023-06-01"}
    async with httpx.AsyncClient(base_url=simulator.root_url, headers=headers) as http:
        yield http


async def say(client: AsyncAnthropic, content: Any, *more: Any, max_tokens: int = 10_000, **options: Any) -> Any:
    messages: Any = [{"role": "user", "content": content}, *more]
    return await client.messages.create(model="claude-opus-4-7", max_tokens=max_tokens, messages=messages, **options)


async def test_scenario__is_played_over_this_wire(client: AsyncAnthropic, usage_file: Path) -> None:
    line = task_line(task="plan.stack", id="project", attempt=1, brief=BRIEF)
    message = await say(client, BRIEF, system=line, extra_headers={"X-Client-Request-Id": "call-1"})

    assert json.loads(message.content[0].text)["choices"]
    assert message.stop_reason == "end_turn"
    assert message.usage.input_tokens == text_tokens(f"system{line}") + text_tokens(f"user{BRIEF}")
    [call] = UsageFile(usage_file).calls()
    assert (call.wire, call.call_id, call.key) == ("anthropic", "call-1", fingerprint("sim-1"))
    assert (call.prompt_tokens, call.completion_tokens) == (message.usage.input_tokens, message.usage.output_tokens)


async def test_stream__brings_pieces_and_usage(client: AsyncAnthropic) -> None:
    async with client.messages.stream(
        model="claude-opus-4-7",
        max_tokens=1_000,
        messages=[{"role": "user", "content": "synthetic tokens=50 piece_tokens=1 seed=3"}],
    ) as stream:
        events = [event async for event in stream]
        message = await stream.get_final_message()

    assert [event.text for event in events if event.type == "text"] == [
        f"{word} " for word in message.content[0].text.split()
    ]
    assert (message.usage.output_tokens, message.stop_reason) == (50, "end_turn")
    started = next(event for event in events if event.type == "message_start")
    assert started.message.usage.input_tokens == message.usage.input_tokens > 0


async def test_answer__stops_at_the_tokens_allowed(client: AsyncAnthropic) -> None:
    message = await say(client, "synthetic tokens=50", max_tokens=20)

    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 20)


@pytest.mark.parametrize("stream", [False, True])
async def test_tools__are_called_and_answered(client: AsyncAnthropic, stream: bool) -> None:
    if stream:
        async with client.messages.stream(
            model="claude-opus-4-7",
            max_tokens=1_000,
            messages=[{"role": "user", "content": TOOL_ORDER}],
            tools=[ADD],
        ) as events:
            message: Any = await events.get_final_message()
    else:
        message = await say(client, TOOL_ORDER, tools=[ADD])
    results = [
        {"type": "tool_result", "tool_use_id": call.id, "content": f"sum {call.input}"} for call in message.content
    ]
    asked = [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.input} for call in message.content]
    after = await say(
        client, TOOL_ORDER, {"role": "assistant", "content": asked}, {"role": "user", "content": results}, tools=[ADD]
    )

    assert message.stop_reason == "tool_use"
    assert [call.input for call in message.content] == [{"a": 1, "b": 2}, {"a": 3}]
    assert after.content[0].text == "The tools answered: sum {'a': 1, 'b': 2} | sum {'a': 3}"


async def test_tool_results__that_are_missing_are_refused(client: AsyncAnthropic) -> None:
    asked = {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "add", "input": {}}]}

    with pytest.raises(anthropic.BadRequestError, match="t1"):
        await say(client, "synthetic", asked, {"role": "user", "content": "and?"})


async def test_tool__that_must_be_called_is(client: AsyncAnthropic) -> None:
    message = await say(client, "synthetic", tools=[ADD], tool_choice={"type": "tool", "name": "add"})

    assert [(call.name, call.input) for call in message.content] == [("add", {})]


async def test_json__fits_the_schema_asked_for(client: AsyncAnthropic) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 4}}, "required": ["n"]}
    message = await say(client, "synthetic json", output_config={"format": {"type": "json_schema", "schema": schema}})

    assert json.loads(message.content[0].text) == {"n": 4}


async def test_image__is_seen(client: AsyncAnthropic) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(b"png").decode()}
    message = await say(client, [{"type": "image", "source": source}, {"type": "text", "text": "synthetic image"}])

    assert message.content[0].text.startswith("1 images: image/png 3 bytes ")


async def test_models__are_listed(client: AsyncAnthropic) -> None:
    assert "claude-opus-4-7" in [model.id async for model in client.models.list()]


async def test_key__that_does_not_start_with_sim_is_refused(simulator: Simulator) -> None:
    async with AsyncAnthropic(base_url=simulator.root_url, api_key="sk-ant", max_retries=0) as client:
        with pytest.raises(anthropic.AuthenticationError) as refused:
            await say(client, "synthetic")

    body: Any = refused.value.body
    assert body["error"] == {"type": "authentication_error", "message": "invalid x-api-key"}
    assert refused.value.request_id == body["request_id"]


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        ({"kind": "status_429", "retry_after_s": 7}, 429, "rate_limit_error"),
        ({"kind": "status_500"}, 500, "api_error"),
        ({"kind": "status_529"}, 529, "overloaded_error"),
    ],
)
async def test_errors__have_their_kind_and_cost_nothing(
    client: AsyncAnthropic, http: httpx.AsyncClient, usage_file: Path, fault: Any, status: int, kind: str
) -> None:
    await http.post("/simulator/faults", json={"wire": "anthropic", **fault})

    with pytest.raises(anthropic.APIStatusError) as refused:
        await say(client, "synthetic")

    body: Any = refused.value.body
    assert (refused.value.status_code, body["error"]["type"]) == (status, kind)
    assert refused.value.response.headers.get("retry-after") == ("7" if status == 429 else None)
    assert not UsageFile(usage_file).calls()


async def test_error__may_come_in_the_middle_of_a_stream(client: AsyncAnthropic, http: httpx.AsyncClient) -> None:
    await http.post("/simulator/faults", json={"kind": "error_in_stream", "after_pieces": 2})
    stream = await say(client, "synthetic tokens=9 piece_tokens=1", stream=True)
    pieces: list[Any] = []

    async def read() -> None:
        async for event in stream:
            pieces.extend([event] if event.type == "content_block_delta" else [])

    with pytest.raises(anthropic.APIStatusError, match="overloaded_error"):
        await read()

    assert len(pieces) == 2


@pytest.mark.parametrize(
    ("body", "about"),
    [
        ({"messages": [{"role": "user", "content": "x"}]}, "max_tokens"),
        ({"max_tokens": 1, "messages": [{"role": "system", "content": "x"}]}, "role"),
        ({"max_tokens": 1, "messages": [{"role": "user", "content": ""}]}, "non-empty"),
        ({"max_tokens": 1, "messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}, "non-empty"),
        ({"max_tokens": 1, "messages": [{"role": "user", "content": [{"type": "tool_use"}]}]}, "tool_use"),
        ({"max_tokens": 1, "messages": [{"role": "user", "content": [{"type": "image", "source": 7}]}]}, "source"),
        ({"max_tokens": 1, "messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": 7}]}]}, "id"),
    ],
)
async def test_request__that_is_malformed_is_refused(http: httpx.AsyncClient, body: Any, about: str) -> None:
    answer = await http.post("/v1/messages", json={"model": "claude", **body})

    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert about in answer.json()["error"]["message"]


async def test_version__must_be_told(simulator: Simulator) -> None:
    async with httpx.AsyncClient(base_url=simulator.root_url, headers={"x-api-key": "sim-1"}) as http:
        answer = await http.post("/v1/messages", json={})

    assert answer.json()["error"]["message"] == "anthropic-version: header is required"

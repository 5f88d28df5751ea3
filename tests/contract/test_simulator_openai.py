"""The simulator, as the real `openai` client meets it."""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from cluster.simulator.scenario import SCENARIOS, Scenario
from cluster.simulator.server import Simulator
from cluster.simulator.usage import ServedCall, UsageFile, fingerprint, text_tokens
from runtime.project.schemas import RequirementsReply, task_line

SCENARIO = Scenario.load(SCENARIOS / "expense_tracker")


@pytest.fixture
def usage_file(tmp_path: Path) -> Path:
    return tmp_path / "usage.jsonl"


@pytest_asyncio.fixture
async def simulator(usage_file: Path) -> AsyncIterator[Simulator]:
    async with Simulator(usage_file=usage_file) as simulator:
        yield simulator


@pytest_asyncio.fixture
async def client(simulator: Simulator) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=simulator.base_url, api_key="sim-1", max_retries=0) as client:
        yield client


@pytest_asyncio.fixture
async def http(simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=simulator.base_url.removesuffix("/v1")) as http:
        yield http


def messages(task: str, id: str = "project", brief: str = SCENARIO.brief) -> list[ChatCompletionMessageParam]:
    line = task_line(task=task, id=id, attempt=1, brief=brief)
    return [{"role": "system", "content": f"{line}\nYou are an architect."}, {"role": "user", "content": brief}]


def calls(usage_file: Path) -> list[ServedCall]:
    return UsageFile(usage_file).calls()


async def ask(client: AsyncOpenAI, task: str = "plan.stack", **options: Any) -> Any:
    return await client.chat.completions.create(model="gpt-4o", messages=messages(task), **options)


async def test_models__are_listed(client: AsyncOpenAI) -> None:
    assert "gpt-4o" in [model.id async for model in client.models.list()]


async def test_chat__answers_with_usage(client: AsyncOpenAI) -> None:
    schema = {"name": "requirements", "schema": RequirementsReply.model_json_schema()}
    completion = await ask(client, "plan.requirements", response_format={"type": "json_schema", "json_schema": schema})

    assert RequirementsReply.model_validate_json(completion.choices[0].message.content).requirements
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.prompt_tokens == sum(
        text_tokens(f"{message['role']}{message['content']}") for message in messages("plan.requirements")
    )
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens


async def test_chat__says_the_same_again(client: AsyncOpenAI) -> None:
    first, second = await ask(client), await ask(client)

    assert first.choices == second.choices
    assert first.usage == second.usage
    assert first.id != second.id


async def test_stream__brings_the_same_text_and_usage(client: AsyncOpenAI) -> None:
    whole = await ask(client, "docs.api", response_format={"type": "json_object"})
    chunks = [
        chunk async for chunk in await ask(client, "docs.api", stream=True, stream_options={"include_usage": True})
    ]

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage == whole.usage
    assert len(chunks) > 5


async def test_stream__tells_no_usage_unless_asked(client: AsyncOpenAI) -> None:
    chunks = [chunk async for chunk in await ask(client, stream=True)]

    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)


async def test_chat__stops_at_the_tokens_allowed(client: AsyncOpenAI) -> None:
    completion = await ask(client, max_tokens=20)

    assert completion.choices[0].finish_reason == "length"
    assert completion.usage.completion_tokens == 20


async def test_key__that_does_not_start_with_sim_is_refused(simulator: Simulator) -> None:
    async with AsyncOpenAI(base_url=simulator.base_url, api_key="sk-real", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as refused:
            await ask(client)

    assert refused.value.code == "invalid_api_key"


async def test_request__that_is_small_talk_is_told_who_answers(client: AsyncOpenAI) -> None:
    said = [{"role": "user", "content": "Say hello."}]
    answer = await client.chat.completions.create(model="gpt-4o", messages=said)  # type: ignore[arg-type]

    assert "simulated provider" in (answer.choices[0].message.content or "")


async def test_request__without_a_task_line_that_asks_for_a_form_is_refused_with_advice(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(
            model="gpt-4o",
            messages=[{"role": "user", "content": "Hello, in JSON"}],
            response_format={"type": "json_object"},
        )

    assert refused.value.code == "unknown_scenario"


@pytest.mark.parametrize(
    "asked",
    [messages("plan.stack", brief="A game of chess."), messages("code.edit", id="T-099")],
    ids=["unknown brief", "unknown id"],
)
async def test_request__without_a_scenario_is_refused_with_advice(client: AsyncOpenAI, asked: Any) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model="gpt-4o", messages=asked)

    assert refused.value.code == "unknown_scenario"
    assert "expense_tracker" in refused.value.message
    assert "OPENAI_API_KEY" in refused.value.message


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b'{"model": "gpt-4o"}', "messages"),
        (b'{"model": "gpt-4o", "messages": [], "stream": true}', "messages"),
        (b'{"model": "gpt-4o", "messages": [{}], "response_format": {"type": "xml"}}', "response_format.type"),
    ],
)
async def test_request__that_is_malformed_is_refused(http: httpx.AsyncClient, body: bytes, param: str | None) -> None:
    answer = await http.post("/v1/chat/completions", content=body, headers={"Authorization": "Bearer sim-1"})

    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert answer.json()["error"]["param"] == param


async def test_path__that_is_not_there_answers_on_the_wire(http: httpx.AsyncClient) -> None:
    answer = await http.get("/v1/nothing")

    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "invalid_request_error")


async def test_usage_file__holds_what_the_client_was_told(
    client: AsyncOpenAI, http: httpx.AsyncClient, usage_file: Path
) -> None:
    told: dict[str, tuple[int, int]] = {}
    for number, task in enumerate(["plan.stack", "plan.todo", "docs.readme"]):
        header = {"X-Client-Request-Id": f"call-{number}"}
        completion = await ask(client, task, extra_headers=header)
        told[f"call-{number}"] = (completion.usage.prompt_tokens, completion.usage.completion_tokens)
    streamed = await ask(
        client, stream=True, stream_options={"include_usage": True}, extra_headers={"X-Client-Request-Id": "call-3"}
    )
    usage = [chunk.usage async for chunk in streamed][-1]
    told["call-3"] = (usage.prompt_tokens, usage.completion_tokens)

    assert {c.call_id: (c.prompt_tokens, c.completion_tokens) for c in calls(usage_file)} == told
    assert all(call.complete for call in calls(usage_file))
    report = (await http.get("/simulator/usage")).json()
    assert report["totals"]["prompt_tokens"] == sum(prompt for prompt, _ in told.values())
    assert report["totals"]["completion_tokens"] == sum(completion for _, completion in told.values())
    assert report["by_call"]["call-1"]["completion_tokens"] == told["call-1"][1]


async def test_rate_limit__carries_retry_after_and_costs_nothing(
    client: AsyncOpenAI, http: httpx.AsyncClient, usage_file: Path
) -> None:
    await http.post("/simulator/faults", json={"kind": "status_429", "retry_after_s": 7})

    with pytest.raises(openai.RateLimitError) as refused:
        await ask(client)

    assert refused.value.response.headers["Retry-After"] == "7"
    assert refused.value.code == "rate_limit_exceeded"
    assert not calls(usage_file)
    await ask(client)
    assert len(calls(usage_file)) == 1


async def test_server_error__costs_nothing(client: AsyncOpenAI, http: httpx.AsyncClient, usage_file: Path) -> None:
    await http.post("/simulator/faults", json={"kind": "status_500", "task": "plan.todo"})

    await ask(client, "plan.stack")
    with pytest.raises(openai.InternalServerError):
        await ask(client, "plan.todo")

    assert [call.task for call in calls(usage_file)] == ["plan.stack"]


@pytest.mark.parametrize("stream", [False, True])
async def test_cut_stream__breaks_off_and_is_recorded_as_cut(
    client: AsyncOpenAI, http: httpx.AsyncClient, usage_file: Path, stream: bool
) -> None:
    await http.post("/simulator/faults", json={"kind": "cut_stream"})

    with pytest.raises((openai.APIConnectionError, httpx.RemoteProtocolError)):
        await drain(client, stream)

    [call] = calls(usage_file)
    assert not call.complete
    assert (call.completion_tokens > 0) == stream


async def drain(client: AsyncOpenAI, stream: bool) -> None:
    answer = await ask(client, stream=stream)
    if stream:
        async for _ in answer:
            pass


async def test_malformed_json__is_the_models_and_counted(
    client: AsyncOpenAI, http: httpx.AsyncClient, usage_file: Path
) -> None:
    await http.post("/simulator/faults", json={"kind": "malformed_json"})

    completion = await ask(client)

    with pytest.raises(json.JSONDecodeError):
        json.loads(completion.choices[0].message.content)
    assert calls(usage_file)[0].completion_tokens == completion.usage.completion_tokens


async def test_wrong_usage__is_told_but_not_recorded(
    client: AsyncOpenAI, http: httpx.AsyncClient, usage_file: Path
) -> None:
    await http.post("/simulator/faults", json={"kind": "wrong_usage"})

    completion = await ask(client)

    assert completion.usage.completion_tokens == 10 * calls(usage_file)[0].completion_tokens


async def test_client__that_went_away_is_recorded_as_cut(
    client: AsyncOpenAI, http: httpx.AsyncClient, usage_file: Path
) -> None:
    await http.post("/simulator/faults", json={"kind": "slow_first_byte", "delay_s": 0.3})

    with pytest.raises(openai.APITimeoutError):
        await ask(client, stream=True, timeout=0.05)

    for _ in range(500):
        if calls(usage_file):
            break
        await asyncio.sleep(0.02)
    [call] = calls(usage_file)
    assert (call.complete, call.completion_tokens) == (False, 0)


async def test_fault__that_nobody_knows_is_refused(http: httpx.AsyncClient) -> None:
    assert (await http.post("/simulator/faults", json={"kind": "earthquake"})).status_code == 400


ADD: Any = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "adds",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
    },
}
TOOL_ORDER = 'synthetic tool=add args={"a": 1, "b": 2} tool=add args={"a": 3} piece_tokens=1'
PNG = b"\x89PNG\r\n\x1a\n and the rest"


def user(content: Any) -> Any:
    return {"role": "user", "content": content}


async def say(client: AsyncOpenAI, *messages: Any, **options: Any) -> Any:
    return await client.chat.completions.create(model="gpt-4o", messages=messages, **options)


async def test_synthetic__streams_in_the_pieces_ordered(client: AsyncOpenAI, usage_file: Path) -> None:
    stream = await say(
        client,
        user("synthetic tokens=50 piece_tokens=1 piece_ms=1 delay_ms=1 user=ann"),
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]

    pieces = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
    assert [len(piece) for piece in pieces] == [4] * 50
    assert chunks[-1].usage.completion_tokens == 50
    [call] = calls(usage_file)
    assert (call.wire, call.task, call.id, call.completion_tokens) == ("openai", "synthetic", "text", 50)
    assert (call.status, call.user, call.key) == (200, "ann", fingerprint("sim-1"))
    assert "sim-1" not in str(call)


@pytest.mark.parametrize("stream", [False, True])
async def test_tools__are_called_and_answered(client: AsyncOpenAI, stream: bool) -> None:
    if stream:
        async with client.chat.completions.stream(
            model="gpt-4o", messages=[user(TOOL_ORDER)], tools=[ADD], stream_options={"include_usage": True}
        ) as events:
            completion: Any = await events.get_final_completion()
    else:
        completion = await say(client, user(TOOL_ORDER), tools=[ADD])
    message = completion.choices[0].message
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": f"sum {number}"}
        for number, call in enumerate(message.tool_calls)
    ]
    asked = {
        "role": "assistant",
        "tool_calls": [
            {"id": c.id, "type": "function", "function": {"name": c.function.name, "arguments": c.function.arguments}}
            for c in message.tool_calls
        ],
    }
    after = await say(client, user(TOOL_ORDER), asked, *results, tools=[ADD])

    assert completion.choices[0].finish_reason == "tool_calls"
    assert [json.loads(call.function.arguments) for call in message.tool_calls] == [{"a": 1, "b": 2}, {"a": 3}]
    assert len({call.id for call in message.tool_calls}) == 2
    assert completion.usage.completion_tokens == sum(
        text_tokens(call.function.name + call.function.arguments) for call in message.tool_calls
    )
    assert after.choices[0].message.content == "The tools answered: sum 0 | sum 1"


async def test_tool_results__that_do_not_fit_the_calls_are_refused(client: AsyncOpenAI) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    asked = {"role": "assistant", "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "3"}

    for messages in ([user("synthetic"), result], [user("synthetic"), asked], [asked, user("synthetic"), result]):
        with pytest.raises(openai.BadRequestError, match="Tool"):
            await say(client, *messages)


async def test_json__fits_the_schema_asked_for(client: AsyncOpenAI) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 4}}, "required": ["n"]}
    asked = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}
    completion = await say(client, user("synthetic json"), response_format=asked)

    assert json.loads(completion.choices[0].message.content) == {"n": 4}


async def test_echo_and_image__say_what_came(client: AsyncOpenAI) -> None:
    url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    echoed = await say(client, user("synthetic echo\nGrüße"))
    seen = await say(
        client, user([{"type": "text", "text": "synthetic image"}, {"type": "image_url", "image_url": {"url": url}}])
    )

    assert echoed.choices[0].message.content == "synthetic echo\nGrüße"
    digest = hashlib.sha256(PNG).hexdigest()[:8]
    assert seen.choices[0].message.content == f"1 images: image/png {len(PNG)} bytes {digest}"


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_embeddings__are_one_a_text_and_counted(client: AsyncOpenAI, usage_file: Path, encoding: str) -> None:
    texts = ["an expense", "a game of chess"]
    # Asked for nothing, the client asks for base64 and unpacks it.
    chosen: Any = {} if encoding == "base64" else {"encoding_format": encoding}
    answer = await client.embeddings.create(model="text-embedding-3-small", input=texts, dimensions=64, **chosen)
    usual = await client.embeddings.create(model="text-embedding-3-small", input="an expense")

    assert [len(each.embedding) for each in answer.data] == [64, 64]
    assert len(usual.data[0].embedding) == 1536
    assert answer.usage.prompt_tokens == sum(text_tokens(text) for text in texts)
    call = calls(usage_file)[0]
    assert (call.task, call.prompt_tokens, call.completion_tokens) == ("embeddings", answer.usage.prompt_tokens, 0)


@pytest.mark.parametrize(
    ("status", "error"),
    [(429, openai.RateLimitError), (500, openai.InternalServerError), (503, openai.InternalServerError)],
)
async def test_errors__have_their_kind(
    client: AsyncOpenAI, http: httpx.AsyncClient, status: int, error: type[openai.APIStatusError]
) -> None:
    await http.post("/simulator/faults", json={"kind": f"status_{status}"})

    with pytest.raises(error) as refused:
        await say(client, user("synthetic"))

    assert refused.value.status_code == status
    assert refused.value.type == ("requests" if status == 429 else "server_error")


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "\xff"}]}',
        b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "gpt-4o", "messages": [{"role": "user", "content": ' + b"[" * 50_000 + b"]" * 50_000 + b"}]}",
        b'{"model": "gpt-4o", "messages": [{"role": "king", "content": "x"}]}',
        b'{"model": "gpt-4o", "messages": [{"role": "user", "content": 7}]}',
        b'{"model": "gpt-4o", "messages": [{"role": "user", "content": [7]}]}',
        b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}], "max_tokens": -1}',
        b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}], "stream_options": {}}',
        b'{"model": "gpt-4o", "messages": [{"role": "assistant", "tool_calls": [7]}]}',
        b'{"model": "gpt-4o", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": 7}]}]}',
    ],
)
async def test_hostile_request__is_a_400(http: httpx.AsyncClient, body: bytes) -> None:
    answer = await http.post("/v1/chat/completions", content=body, headers={"Authorization": "Bearer sim-1"})

    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")

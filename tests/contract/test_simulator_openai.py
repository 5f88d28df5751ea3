"""The simulator, as the real `openai` client meets it."""

import asyncio
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
from cluster.simulator.usage import ServedCall, UsageFile, prompt_tokens
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
    assert completion.usage.prompt_tokens == prompt_tokens(messages("plan.requirements"))
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


@pytest.mark.parametrize(
    "asked",
    [
        [{"role": "user", "content": "Hello"}],
        messages("plan.stack", brief="A game of chess."),
        messages("code.edit", id="T-099"),
    ],
    ids=["no task line", "unknown brief", "unknown id"],
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

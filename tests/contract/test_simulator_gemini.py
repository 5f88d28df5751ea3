"""The simulator, as the real `google-genai` client meets it."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from google import genai
from google.genai import errors, types

from cluster.simulator.scenario import SCENARIOS
from cluster.simulator.server import Simulator
from cluster.simulator.usage import UsageFile, fingerprint, text_tokens
from runtime.project.schemas import task_line

BRIEF = (SCENARIOS / "expense_tracker" / "brief.md").read_text()
ADD = types.Tool(
    function_declarations=[types.FunctionDeclaration(name="add", parameters_json_schema={"type": "object"})]
)
TOOL_ORDER = 'synthetic tool=add args={"a": 1, "b": 2} tool=add args={"a": 3}'


@pytest.fixture
def usage_file(tmp_path: Path) -> Path:
    return tmp_path / "usage.jsonl"


@pytest_asyncio.fixture
async def simulator(usage_file: Path) -> AsyncIterator[Simulator]:
    async with Simulator(usage_file=usage_file) as simulator:
        yield simulator


def client_of(simulator: Simulator, key: str = "sim-1") -> genai.client.AsyncClient:
    options = types.HttpOptions(base_url=simulator.root_url, headers={"X-Client-Request-Id": "call-1"})
    return genai.Client(api_key=key, http_options=options).aio


@pytest_asyncio.fixture
async def client(simulator: Simulator) -> AsyncIterator[genai.client.AsyncClient]:
    client = client_of(simulator)
    yield client
    await client.aclose()


@pytest_asyncio.fixture
async def http(simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=simulator.root_url) as http:
        yield http


async def say(client: genai.client.AsyncClient, contents: Any, **options: Any) -> types.GenerateContentResponse:
    options.setdefault("automatic_function_calling", {"disable": True})
    return await client.models.generate_content(
        model="gemini-2.5-flash", contents=contents, config=types.GenerateContentConfig(**options)
    )


async def test_scenario__is_played_over_this_wire(client: genai.client.AsyncClient, usage_file: Path) -> None:
    line = task_line(task="plan.stack", id="project", attempt=1, brief=BRIEF)
    answer = await say(client, BRIEF, system_instruction=line)

    assert answer.text is not None
    assert json.loads(answer.text)["choices"]
    usage: Any = answer.usage_metadata
    assert usage.prompt_token_count == text_tokens(f"system{line}") + text_tokens(f"user{BRIEF}")
    [call] = UsageFile(usage_file).calls()
    assert (call.wire, call.call_id, call.key, call.model) == (
        "gemini",
        "call-1",
        fingerprint("sim-1"),
        "gemini-2.5-flash",
    )
    assert (call.prompt_tokens, call.completion_tokens) == (usage.prompt_token_count, usage.candidates_token_count)


async def test_stream__brings_pieces_and_usage(client: genai.client.AsyncClient) -> None:
    stream = await client.models.generate_content_stream(
        model="gemini-2.5-flash", contents="synthetic tokens=50 piece_tokens=1"
    )
    chunks: list[Any] = [chunk async for chunk in stream]

    assert [len(chunk.text) for chunk in chunks] == [4] * 50 + [0]
    assert chunks[-1].candidates[0].finish_reason == "STOP"
    assert chunks[0].candidates[0].finish_reason is None
    assert chunks[-1].usage_metadata.candidates_token_count == 50


async def test_answer__stops_at_the_tokens_allowed(client: genai.client.AsyncClient) -> None:
    answer: Any = await say(client, "synthetic tokens=50", max_output_tokens=20)

    assert answer.candidates[0].finish_reason == "MAX_TOKENS"
    assert answer.usage_metadata.candidates_token_count == 20


@pytest.mark.parametrize("stream", [False, True])
async def test_tools__are_called_and_answered(client: genai.client.AsyncClient, stream: bool) -> None:
    if stream:
        config = types.GenerateContentConfig(tools=[ADD])
        chunks = await client.models.generate_content_stream(
            model="gemini-2.5-flash", contents=TOOL_ORDER, config=config
        )
        calls = [call async for chunk in chunks for call in chunk.function_calls or ()]
    else:
        calls = (await say(client, TOOL_ORDER, tools=[ADD])).function_calls or []
    asked = types.Content(role="model", parts=[types.Part(function_call=call) for call in calls])
    results = [types.Part.from_function_response(name="add", response={"sum": n}) for n in range(len(calls))]
    after = await say(
        client,
        [
            types.Content(role="user", parts=[types.Part(text=TOOL_ORDER)]),
            asked,
            types.Content(role="user", parts=results),
        ],
        tools=[ADD],
    )

    assert [(call.name, call.args) for call in calls] == [("add", {"a": 1, "b": 2}), ("add", {"a": 3})]
    assert after.text == 'The tools answered: {"sum": 0} | {"sum": 1}'


async def test_tool__that_must_be_called_is(client: genai.client.AsyncClient) -> None:
    calling = types.FunctionCallingConfig(mode=types.FunctionCallingConfigMode.ANY, allowed_function_names=["add"])
    answer = await say(client, "synthetic", tools=[ADD], tool_config=types.ToolConfig(function_calling_config=calling))

    assert [call.name for call in answer.function_calls or ()] == ["add"]


@pytest.mark.parametrize("schema", ["response_schema", "response_json_schema"])
async def test_json__fits_the_schema_asked_for(client: genai.client.AsyncClient, schema: str) -> None:
    asked = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 4}}, "required": ["n"]}
    answer = await say(client, "synthetic json", response_mime_type="application/json", **{schema: asked})

    assert json.loads(answer.text or "") == {"n": 4}


async def test_image__is_seen(client: genai.client.AsyncClient) -> None:
    image = types.Part.from_bytes(data=b"\xfb\xff\xfe", mime_type="image/png")
    answer = await say(client, [image, "synthetic image"])

    assert (answer.text or "").startswith("1 images: image/png 3 bytes ")


@pytest.mark.parametrize("texts", [["an expense"], ["an expense", "a game of chess"]])
async def test_embeddings__are_one_a_text_and_counted(
    client: genai.client.AsyncClient, usage_file: Path, texts: list[str]
) -> None:
    answer = await client.models.embed_content(
        model="gemini-embedding-001", contents=texts, config={"output_dimensionality": 64}
    )

    assert [len(each.values or ()) for each in answer.embeddings or ()] == [64] * len(texts)
    [call] = UsageFile(usage_file).calls()
    assert (call.task, call.wire, call.prompt_tokens) == ("embeddings", "gemini", sum(map(text_tokens, texts)))


async def test_embedding__of_one_text_has_its_own_shape(http: httpx.AsyncClient) -> None:
    answer = await http.post(
        "/v1beta/models/gemini-embedding-001:embedContent?key=sim-1", json={"content": {"parts": [{"text": "x"}]}}
    )

    assert len(answer.json()["embedding"]["values"]) == 3072


async def test_models__are_listed(client: genai.client.AsyncClient) -> None:
    assert "models/gemini-2.5-flash" in [model.name async for model in await client.models.list()]


async def test_bad_key__is_a_400_as_google_sends_it(simulator: Simulator) -> None:
    client = client_of(simulator, "AIza-real")
    with pytest.raises(errors.ClientError) as refused:
        await say(client, "synthetic")
    await client.aclose()

    assert (refused.value.code, refused.value.status) == (400, "INVALID_ARGUMENT")
    details: Any = refused.value.details
    assert details["error"]["details"][0]["reason"] == "API_KEY_INVALID"


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [
        ({"kind": "status_429", "retry_after_s": 7.5}, 429, "RESOURCE_EXHAUSTED"),
        ({"kind": "status_500"}, 500, "INTERNAL"),
        ({"kind": "status_503"}, 503, "UNAVAILABLE"),
    ],
)
async def test_errors__have_their_kind(
    client: genai.client.AsyncClient, http: httpx.AsyncClient, fault: Any, code: int, status: str
) -> None:
    await http.post("/simulator/faults", json={"wire": "gemini", **fault})

    with pytest.raises(errors.APIError) as refused:
        await say(client, "synthetic")

    assert (refused.value.code, refused.value.status) == (code, status)
    details: Any = refused.value.details
    told = [each["retryDelay"] for each in details["error"].get("details", ())]
    assert told == (["7.5s"] if code == 429 else [])
    assert "Retry-After" not in refused.value.response.headers


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (":generateContent", {}, 400),
        (":generateContent", {"contents": [{"role": "system", "parts": [{"text": "x"}]}]}, 400),
        (":generateContent", {"contents": [{"parts": []}]}, 400),
        (":generateContent", {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "?"}}]}]}, 400),
        (":streamGenerateContent", {"contents": [{"parts": [{"text": "synthetic"}]}]}, 400),
        (":embedContent", {"content": {"parts": [{"text": ""}]}}, 400),
        (":explain", {}, 404),
    ],
)
async def test_request__that_is_malformed_is_refused(
    http: httpx.AsyncClient, path: str, body: Any, status: int
) -> None:
    answer = await http.post(f"/v1beta/models/gemini-2.5-flash{path}", json=body, headers={"x-goog-api-key": "sim-1"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, status)
    assert answer.json()["error"]["status"] == ("NOT_FOUND" if status == 404 else "INVALID_ARGUMENT")

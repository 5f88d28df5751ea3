"""The gateway in process, and through OpenAI's own SDK over a real connection."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import openai
import pytest
import uvicorn
from fastapi import FastAPI

from runtime.errors import (
    CeilingReachedError,
    ConflictError,
    NotEnoughCreditsError,
    ProviderError,
)
from runtime.providers.failures import OutageError
from serve_apps.gateway_routes import create_app

HELLO = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}


async def test_models__are_the_catalogued_ones_of_configured_providers(model_door):
    listed = (await model_door.get("/models")).json()
    ids = [model["id"] for model in listed["data"]]
    assert "openai/gpt-4o" in ids
    assert "deepseek/deepseek-chat" in ids
    assert not any(name.startswith(("groq/", "ollama/")) for name in ids)
    assert {model["object"] for model in listed["data"]} == {"model"}


async def test_users_call__pays_from_the_wallet_under_a_fresh_id(model_door, system):
    for _ in range(2):
        response = await model_door.post("/chat/completions", json=HELLO)
        assert response.json() == system.adapter.reply.body
    one, two = system.ledger.holds
    assert one.call != two.call
    assert one.call.startswith("gw-")
    assert (one.user, one.run, one.task_type) == ("ann", None, "chat")
    assert [meter.output_tokens for meter in system.ledger.meters] == [3, 3]


async def test_tasks_call__pays_under_its_run(model_door, system, names):
    headers = {"authorization": "Bearer task-token"}
    for _ in range(2):
        assert (await model_door.post("/chat/completions", json=HELLO, headers=headers)).status_code == 200
    one, two = system.ledger.holds
    assert one.call != two.call
    assert one.call.startswith(f"{names.run}/")
    assert (one.user, one.run, one.task_type) == ("ann", names.run, "coding")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"model": "openai/gpt-9"}, 422),
        ({"model": "nonsense"}, 400),
        ({"model": None}, 400),
        ({"model": 5}, 400),
        ({"messages": []}, 400),
        ({"max_tokens": -1}, 400),
        ({"service_tier": "priority"}, 400),
        ({"model": "deepseek/deepseek-chat"}, 503),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_request__that_cannot_be_made_is_refused_in_shape_and_costs_nothing(
    model_door, system, change, status, stream
):
    response = await model_door.post("/chat/completions", json={**HELLO, "stream": stream, **change})
    assert response.status_code == status
    error = response.json()["error"]
    assert error.keys() == {"type", "code", "message", "charged", "next", "request_id"}
    assert error["request_id"] == response.headers["x-request-id"]
    assert system.adapter.asked == []
    assert all(meter.provider_failed for meter in system.ledger.meters)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotEnoughCreditsError("Too little.", "Ask."), 402),
        (CeilingReachedError("The ceiling.", "Raise it."), 402),
        (ConflictError("The run is over.", ""), 409),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_refused_hold__is_answered_before_anything_is_asked(model_door, system, error, status, stream):
    system.ledger.refuses = error
    response = await model_door.post("/chat/completions", json={**HELLO, "stream": stream})
    assert (response.status_code, response.json()["error"]["code"]) == (status, error.code)
    assert system.adapter.asked == []


async def test_body__over_the_bound_is_413_and_junk_is_400(model_door):
    assert (await model_door.post("/chat/completions", content=b"x" * (20 << 20) + b"x")).status_code == 413
    for junk in (b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"model": "\\ud800", "messages": []}'):
        response = await model_door.post("/chat/completions", content=junk)
        assert response.status_code == 400
        assert response.json()["error"]["code"] == "bad_input"


async def test_every_route__wants_a_token(model_door):
    for method, path in (("GET", "/models"), ("POST", "/chat/completions")):
        response = await model_door.request(method, path, headers={"authorization": "Bearer no"})
        assert (response.status_code, response.json()["error"]["code"]) == (401, "not_authenticated")
    assert (await model_door.get("/nothing")).json()["error"]["code"] == "not_found"


# Through OpenAI's SDK


@pytest.fixture
async def base_url(system) -> AsyncIterator[str]:
    outer = FastAPI()
    outer.mount("/v1", create_app(system))
    server = uvicorn.Server(uvicorn.Config(outer, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    server.should_exit = True
    server.force_exit = True
    await serving


@pytest.fixture
async def sdk(base_url) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key="ann-token", base_url=base_url) as client:
        yield client


async def test_sdk__lists_models(sdk):
    assert "openai/gpt-4o" in [model.id async for model in sdk.models.list()]


async def test_sdk__gets_a_whole_reply(sdk):
    completion = await sdk.chat.completions.create(**HELLO)
    assert completion.choices[0].message.content == "hello"
    assert completion.usage.total_tokens == 12


async def test_sdk__gets_a_stream_without_usage_unless_it_asks(sdk, system):
    chunks = [chunk async for chunk in await sdk.chat.completions.create(**HELLO, stream=True)]
    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == "hello"
    assert all(chunk.usage is None for chunk in chunks)
    asked = {"include_usage": True}
    chunks = [c async for c in await sdk.chat.completions.create(**HELLO, stream=True, stream_options=asked)]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 12
    assert len(system.ledger.meters) == 2


async def test_sdk__shows_what_happened_and_what_to_do(sdk, system):
    system.ledger.refuses = NotEnoughCreditsError("You have 0.01 credits.", "Ask the operator for credits.")
    with pytest.raises(openai.APIStatusError) as refused:
        await sdk.chat.completions.create(**HELLO)
    assert refused.value.status_code == 402
    assert "You have 0.01 credits. Ask the operator for credits." in refused.value.message
    assert refused.value.code == "not_enough_credits"
    assert refused.value.body["request_id"] == refused.value.request_id


async def test_sdk__does_not_repeat_what_the_gateway_already_retried(sdk, system):
    system.adapter.reply = ProviderError("openai refused the request (400): too long")
    with pytest.raises(openai.InternalServerError, match="too long"):
        await sdk.chat.completions.create(**HELLO)
    assert len(system.adapter.asked) == 1


async def test_sdk__learns_that_a_stream_broke_off(sdk, system, names):
    system.adapter.pieces = [names.piece("hel"), OutageError("openai broke its reply off.", "Try again.")]
    stream = await sdk.chat.completions.create(**HELLO, stream=True)
    assert (await anext(stream)).choices[0].delta.content == "hel"
    with pytest.raises(openai.APIError, match="broke its reply off"):
        await anext(stream)
    assert system.ledger.meters == []


async def test_broken_stream__ends_with_an_error_in_shape_and_without_done(base_url, system, names):
    for error, code in ((OutageError("cut"), "provider_error"), (RuntimeError("sk-secret"), "internal_error")):
        system.adapter.pieces = [names.piece("hel"), error]
        async with httpx.AsyncClient(headers={"authorization": "Bearer ann-token"}) as client:
            response = await client.post(f"{base_url}/chat/completions", json={**HELLO, "stream": True})
        *_, last = [line for line in response.text.split("\n") if line]
        told = json.loads(last.removeprefix("data: "))["error"]
        assert told["code"] == code
        assert told["request_id"] == response.headers["x-request-id"]
        assert "sk-secret" not in response.text


async def test_client__that_hangs_up_makes_the_gateway_hang_up_on_the_provider(base_url, system, names):
    system.adapter.pieces = [names.piece("hel"), None]
    async with (
        httpx.AsyncClient(headers={"authorization": "Bearer ann-token"}) as client,
        client.stream("POST", f"{base_url}/chat/completions", json={**HELLO, "stream": True}) as response,
    ):
        await anext(response.aiter_bytes())
        assert not system.adapter.closed.is_set()
    await asyncio.wait_for(system.adapter.closed.wait(), 10)
    assert len(system.ledger.holds) == 1
    assert system.ledger.meters == []

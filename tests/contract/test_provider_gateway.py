"""The whole way of a model call: OpenAI's SDK, the gateway on a socket, the adapter, and a service that misbehaves.

The service counts what it served under each call id; the ledger must have booked exactly that, once.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import openai
import pytest
import uvicorn
from aiohttp import web
from fastapi import FastAPI

from runtime.catalogue.catalogue import CATALOGUE
from runtime.catalogue.endpoints import Endpoint
from runtime.catalogue.market import Market
from runtime.catalogue.routes import Routes
from runtime.config import Settings
from runtime.ids import UserId
from runtime.keys.keys import provider_key
from runtime.keys.ring import KeyRing
from runtime.ledger.port import Hold, Identity, Meter
from runtime.providers.calls import ModelCalls
from serve_apps.gateway_routes import create_app
from tests.uncounted import Uncounted

FAULTS = ("none", "none", "limited", "failed", "reset", "html", "empty", "no_usage")
CALLS = 60


class Service:
    """Speaks OpenAI's wire format; draws a fault for each request. `served` is its truth: call id -> tokens."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.served: dict[str, tuple[int, int]] = {}
        self.attempts: Counter[str] = Counter()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        call = request.headers["x-client-request-id"]
        body = await request.json()
        self.attempts[call] += 1
        match self.random.choice(FAULTS):
            case "limited":
                return web.json_response({"error": {"message": "slow"}}, status=429, headers={"retry-after": "0"})
            case "failed":
                return web.json_response({"error": {"message": "oops"}}, status=500)
            case "reset":
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            case "html":
                return web.Response(text="<h1>proxy</h1>", content_type="text/html")
            case "empty":
                return await self._reply(request, call, body, "", usage=True)
            case "no_usage":
                return await self._reply(request, call, body, "hello", usage=False)
            case _:
                return await self._reply(request, call, body, "hello", usage=True)

    async def _reply(
        self, request: web.Request, call: str, body: dict[str, Any], text: str, *, usage: bool
    ) -> web.StreamResponse:
        tokens = self.random.randint(1, 500), self.random.randint(1, 50)
        used = {"usage": {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}} if usage else {}
        if usage and text:
            assert call not in self.served, "served twice under one call id"
            self.served[call] = tokens
        head = {"id": "c", "created": 1, "model": body["model"]}
        if not body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            return web.json_response({**head, "object": "chat.completion", "choices": [choice], **used})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        head["object"] = "chat.completion.chunk"
        for piece, finish in ((text[:2], None), (text[2:], "stop")):
            choice = {"index": 0, "delta": {"content": piece}, "finish_reason": finish}
            await response.write(f"data: {json.dumps({**head, 'choices': [choice]})}\n\n".encode())
        if usage:
            await response.write(f"data: {json.dumps({**head, 'choices': [], **used})}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response


class Books:
    """As much of a ledger as the gateway asks for."""

    def __init__(self) -> None:
        self.holds: dict[str, Hold] = {}
        self.meters: dict[str, Meter] = {}

    async def authenticate(self, token_sha256: str) -> Identity:
        return Identity(user=UserId("ann"), is_admin=False, kind="user")

    async def keys(self, provider: str) -> Sequence[str]:
        return []

    async def hold(self, hold: Hold) -> None:
        assert hold.call not in self.holds
        self.holds[hold.call] = hold

    async def meter(self, meter: Meter) -> None:
        assert meter.call in self.holds
        assert meter.call not in self.meters
        self.meters[meter.call] = meter


@pytest.fixture
async def chain() -> AsyncIterator[SimpleNamespace]:
    service, books = Service(seed=7), Books()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", service.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    endpoint = Endpoint(provider="openai", base_url=f"http://127.0.0.1:{runner.addresses[0][1]}/v1", key="sk")
    settings = Settings(call_timeout_s=10)

    async def short_sleep(_: float) -> None:
        await asyncio.sleep(0)

    keys = KeyRing([provider_key(endpoint)], cooldown_s=0)
    calls = ModelCalls(books, keys, Market(Routes(CATALOGUE), configured=("openai",)), settings, sleep=short_sleep)
    outer = FastAPI()
    outer.mount("/v1", create_app(SimpleNamespace(ledger=books, calls=calls, settings=settings, entities=Uncounted())))
    server = uvicorn.Server(uvicorn.Config(outer, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    async with openai.AsyncOpenAI(api_key="t", base_url=url, max_retries=0) as sdk:
        yield SimpleNamespace(service=service, books=books, sdk=sdk)
    server.should_exit = server.force_exit = True
    await serving
    await calls.close()
    await runner.cleanup()


async def test_ledger__books_what_was_served_and_nothing_else(chain):
    async def ask(number: int) -> bool:
        request = {
            "model": "openai/gpt-4o-mini",
            "messages": [{"role": "user", "content": f"n{number}"}],
            "max_tokens": 50,
        }
        try:
            if number % 2:
                return bool((await chain.sdk.chat.completions.create(**request)).choices[0].message.content)
            chunks = [c async for c in await chain.sdk.chat.completions.create(**request, stream=True)]
            return "".join(c.choices[0].delta.content for c in chunks) == "hello"
        except openai.APIError:
            return False

    succeeded = await asyncio.gather(*(ask(number) for number in range(CALLS)))
    books, service = chain.books, chain.service
    charged = {
        call: (meter.input_tokens, meter.output_tokens)
        for call, meter in books.meters.items()
        if not meter.provider_failed and not meter.estimated
    }
    assert charged == service.served
    assert sum(succeeded) == sum(not meter.provider_failed for meter in books.meters.values())
    assert 0 < len(charged) < CALLS
    assert max(service.attempts.values()) > 1
    assert len(books.holds) == CALLS
    assert books.holds.keys() == books.meters.keys()
    guessed = [meter for call, meter in books.meters.items() if call not in service.served]
    assert all(meter.provider_failed or meter.estimated for meter in guessed)

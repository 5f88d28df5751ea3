"""The model door in process, and through OpenAI's and Anthropic's own SDKs over a real connection."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from types import SimpleNamespace
from typing import Any

import anthropic
import httpx
import openai
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from runtime.catalogue.model import Model
from runtime.errors import (
    CeilingReachedError,
    ConflictError,
    ForbiddenError,
    NotEnoughCreditsError,
    ProviderError,
    StoreUnavailableError,
    UnpricedModelError,
)
from runtime.ids import ProjectId, RunId, UserId
from runtime.ledger.port import Identity, TokenTerms
from runtime.project import waits
from runtime.project.messages import WorkerWaits
from runtime.providers.calls import OnCut
from runtime.providers.failures import OutageError
from runtime.providers.forward import Forwarded
from runtime.providers.order import CallOrder
from runtime.providers.splice import Spliced
from runtime.providers.usage import Usage
from runtime.providers.waiting import waiting
from runtime.tokens import token_hash
from serve_apps import gateway_routes
from serve_apps.gateway_routes import create_app
from tests.uncounted import Uncounted

HELLO: dict[str, Any] = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}
CLAUDE = {**HELLO, "model": "claude/haiku", "max_tokens": 9}
REPLY = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-mini",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
}
MESSAGE = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "haiku",
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 9, "output_tokens": 3},
}
USAGE = Usage(input_tokens=9, output_tokens=3)
ANN = UserId("ann")
RUN = RunId("project:p/task/T-001#1")
PROJECT = ProjectId("11111111-1111-4111-8111-111111111111")
TERMS = TokenTerms(models=("openai/*",), requests_per_minute=2)
IDENTITIES = {
    "ann-token": Identity(user=ANN, is_admin=False, kind="user"),
    "task-token": Identity(user=ANN, is_admin=False, kind="task", run=RUN),
    "project-token": Identity(user=ANN, is_admin=False, kind="project", project=PROJECT, terms=TERMS, role="DEMO"),
}


def piece(content: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


class Calls:
    """Answers `reply`, or raises it; a stream's pieces likewise, and waits for ever at None. Cuts answers `to`."""

    def __init__(self) -> None:
        self.reply: dict[str, Any] | Exception | None = REPLY
        self.pieces: list[bytes | Exception | None] = [piece("hel"), piece("lo", "stop"), b"data: [DONE]\n\n"]
        self.asked: list[tuple[CallOrder, Spliced]] = []
        self.closed = asyncio.Event()
        self.key = asyncio.Event()
        """Until it is set, a call without a reply waits for a key."""
        self.to: int | None = None

    async def forward(self, order: CallOrder, asked: Spliced, on_cut: OnCut) -> Forwarded:
        self.asked.append((order, asked))
        if self.to is not None:
            on_cut(self.to)
        try:
            if self.reply is None:
                with waiting("a free key of openai", 30.0):
                    await self.key.wait()
                return Forwarded(body=b"{}", usage=USAGE)
        finally:
            self.closed.set()
        if isinstance(self.reply, Exception):
            raise self.reply
        return Forwarded(body=json.dumps(self.reply).encode(), usage=USAGE)

    async def forward_stream(self, order: CallOrder, asked: Spliced, on_cut: OnCut) -> AsyncGenerator[bytes, None]:
        self.asked.append((order, asked))
        if self.to is not None:
            on_cut(self.to)
        try:
            for item in self.pieces:
                if isinstance(item, Exception):
                    raise item
                if item is None:
                    await asyncio.Event().wait()
                else:
                    yield item
        finally:
            self.closed.set()

    async def models(self, identity: Identity) -> list[Model]:
        return [
            Model(
                provider="openai",
                name="gpt-4o",
                input_udollars_per_mtok=1,
                output_udollars_per_mtok=1,
                context_tokens=128_000,
                output_tokens_max=16_384,
            )
        ]


class Ledger:
    def __init__(self) -> None:
        self.raises: Exception | None = None

    async def authenticate(self, token_sha256: str) -> Identity | None:
        if self.raises:
            raise self.raises
        return {token_hash(token): identity for token, identity in IDENTITIES.items()}.get(token_sha256)


@pytest.fixture
def system() -> SimpleNamespace:
    return SimpleNamespace(calls=Calls(), ledger=Ledger(), entities=Uncounted())


@pytest.fixture
async def door(system: SimpleNamespace) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=create_app(system))  # type: ignore[arg-type]
    headers = {"authorization": "Bearer ann-token"}
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as client:
        yield client


@pytest.fixture
async def base_url(system: SimpleNamespace) -> AsyncIterator[str]:
    outer = Starlette(routes=[Mount("/v1", app=create_app(system))])  # type: ignore[arg-type]
    server = uvicorn.Server(uvicorn.Config(outer, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    server.force_exit = True
    await serving


@pytest.fixture
async def sdk(base_url) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key="ann-token", base_url=f"{base_url}/v1", max_retries=0) as client:
        yield client


@pytest.fixture
async def claude(base_url) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(api_key="ann-token", base_url=base_url, max_retries=0) as client:
        yield client


# What is asked of whom, and who pays


@pytest.mark.parametrize("stream", [False, True])
async def test_answer__that_was_cut_to_what_the_wallet_pays_for_says_so_in_its_header(door, system, stream):
    whole = await door.post("/chat/completions", json=HELLO | {"stream": stream})
    assert "x-max-tokens" not in whole.headers
    system.calls.to = 300
    cut = await door.post("/chat/completions", json=HELLO | {"stream": stream, "max_tokens": 500})
    assert (cut.status_code, cut.headers["x-max-tokens"]) == (200, "300")


async def test_wait_for_a_key__of_a_builds_call_is_told_to_its_project(door, system, monkeypatch):
    monkeypatch.setattr(waits, "TOLD_AFTER_S", 0.0)
    system.calls.reply = None
    told: asyncio.Queue[Any] = asyncio.Queue()

    async def ask(entity, message):
        await told.put((entity, message))

    system.entities = SimpleNamespace(ask=ask)
    bearer = {"authorization": "Bearer task-token"}
    calling = asyncio.create_task(door.post("/chat/completions", json=HELLO, headers=bearer))
    assert await told.get() == ("project:p", WorkerWaits(run=RUN, what="a free key of openai", retry_in_s=30.0))
    system.calls.key.set()
    assert await told.get() == ("project:p", WorkerWaits(run=RUN, what=""))
    assert (await calling).status_code == 200
    await door.post("/chat/completions", json=HELLO)
    assert told.empty(), "who calls for themselves has no project to hear of it"


async def test_answer__is_the_providers_byte_for_byte(door, system):
    response = await door.post("/chat/completions", json=HELLO)
    assert response.content == json.dumps(REPLY).encode()
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"] == response.headers["request-id"]


async def test_users_calls__pay_from_the_wallet_under_fresh_ids(door, system):
    for _ in range(2):
        await door.post("/chat/completions", json=HELLO)
    one, two = (order for order, _ in system.calls.asked)
    assert one.call != two.call
    assert one.call.startswith("gw-")
    assert (one.user, one.run, one.task_type, one.priority) == (ANN, None, "chat", "interactive")
    assert (one.model, one.token_sha256) == ("openai/gpt-4o-mini", token_hash("ann-token"))


async def test_tasks_calls__pay_under_their_run_and_stand_behind_people(door, system):
    await door.post("/chat/completions", json=HELLO, headers={"authorization": "Bearer task-token"})
    order = system.calls.asked[0][0]
    assert order.call.startswith(f"{RUN}/")
    assert (order.run, order.task_type, order.priority) == (RUN, "coding", "background")


async def test_projects_calls__carry_its_ceiling_and_the_tokens_terms(door, system):
    body = {"model": "openai/e", "input": "x"}
    await door.post("/embeddings", json=body, headers={"authorization": "Bearer project-token"})
    order = system.calls.asked[0][0]
    assert (order.project, order.allowed, order.role) == (PROJECT, ("openai/*",), "DEMO")
    assert order.task_type == "code_embedding"


async def test_token__that_calls_more_often_than_it_may_is_told_when_to_come_back(door, system):
    headers = {"x-api-key": "project-token", "authorization": ""}
    statuses = [(await door.post("/chat/completions", json=HELLO, headers=headers)).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    limited = await door.post("/messages", json=CLAUDE, headers=headers)
    assert (limited.status_code, limited.json()["error"]["type"]) == (429, "rate_limit_error")
    assert 0 < int(limited.headers["retry-after"]) <= 60


async def test_every_route__wants_a_token(door, system):
    for method, path in (
        ("GET", "/models"),
        ("POST", "/chat/completions"),
        ("POST", "/embeddings"),
        ("POST", "/messages"),
    ):
        for token in ("Bearer no", "Bearer", "Basic ann-token", "Bearer " + "x" * 600, ""):
            response = await door.request(method, path, headers={"authorization": token})
            assert response.status_code == 401
            told = response.json()["error"]
            assert told["code"] == "not_authenticated"
            assert told["type"] == ("authentication_error" if path == "/messages" else "not_authenticated")
    system.ledger.raises = StoreUnavailableError("silent")
    response = await door.get("/models", headers={"authorization": "Bearer other"})
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")


async def test_models__are_listed_in_the_callers_wire(door):
    listed = (await door.get("/models")).json()
    assert (listed["object"], [model["id"] for model in listed["data"]]) == ("list", ["openai/gpt-4o"])
    listed = (await door.get("/models", headers={"anthropic-version": "2023-06-01"})).json()
    assert (listed["has_more"], listed["data"][0]["type"]) == (False, "model")


# What is refused


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (NotEnoughCreditsError("Too little.", "Ask."), 402, "billing_error"),
        (CeilingReachedError("The ceiling.", "Raise it."), 402, "billing_error"),
        (ConflictError("The run is over.", ""), 409, "invalid_request_error"),
        (ForbiddenError("Not this model.", ""), 403, "permission_error"),
        (UnpricedModelError("No price.", ""), 422, "invalid_request_error"),
        (ProviderError("openai broke.", ""), 502, "api_error"),
        (RuntimeError("sk-secret"), 500, "api_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_refusal__before_the_answer_has_its_status_in_either_wire(door, system, error, status, kind, stream):
    system.calls.reply, system.calls.pieces = error, [error]
    code = getattr(error, "code", "internal_error")
    response = await door.post("/chat/completions", json={**HELLO, "stream": stream})
    told = response.json()["error"]
    assert (response.status_code, told["code"], told["type"]) == (status, code, code)
    assert told["request_id"] == response.headers["x-request-id"]
    assert told["charged"]
    response = await door.post("/messages", json={**CLAUDE, "stream": stream})
    told = response.json()
    assert (response.status_code, told["type"], told["error"]["type"]) == (status, "error", kind)
    assert told["request_id"] == response.headers["request-id"]
    assert "sk-secret" not in response.text


async def test_request__that_makes_no_sense_is_asked_of_nobody(door, system):
    for junk in (b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"model": "\\ud800", "messages": []}'):
        response = await door.post("/chat/completions", content=junk)
        assert (response.status_code, response.json()["error"]["code"]) == (400, "bad_input")
    for change in ({"model": None}, {"messages": []}, {"max_tokens": -1}, {"service_tier": "priority"}):
        assert (await door.post("/chat/completions", json={**HELLO, **change})).status_code == 400
    compressed = await door.post("/chat/completions", json=HELLO, headers={"content-encoding": "gzip"})
    assert compressed.status_code == 400
    assert system.calls.asked == []


async def test_body__over_the_bound_is_413_said_or_sent(door, monkeypatch):
    monkeypatch.setattr(gateway_routes, "BODY_BYTES_MAX", 1000)

    async def unsaid() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x" * 100

    assert (await door.post("/chat/completions", content=b"x" * 1001)).status_code == 413
    assert (await door.post("/messages", content=unsaid())).json()["error"]["type"] == "request_too_large"
    said = await door.post("/chat/completions", content=b"{}", headers={"content-length": "9" * 18})
    assert said.status_code == 413


async def test_bodies_under_way__are_bounded_together_and_their_room_comes_back(system, monkeypatch):
    body = json.dumps(HELLO).encode()
    monkeypatch.setattr(gateway_routes, "BODIES_BYTES_MAX", 2 * len(body))
    monkeypatch.setattr(gateway_routes, "BODY_BYTES_SMALL", len(body) - 1)
    system.calls.reply = None
    transport = httpx.ASGITransport(app=create_app(system))
    headers = {"authorization": "Bearer ann-token"}
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as door:
        held = [asyncio.create_task(door.post("/chat/completions", content=body)) for _ in range(2)]
        while len(system.calls.asked) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        over = await door.post("/chat/completions", content=body)
        assert (over.status_code, over.headers["retry-after"]) == (503, "1")
        assert (await door.post("/chat/completions", content=b"{}")).status_code == 400
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        system.calls.reply = REPLY
        assert (await door.post("/chat/completions", json=HELLO)).status_code == 200


async def test_body__that_stops_in_the_middle_is_waited_for_only_so_long(door, monkeypatch):
    monkeypatch.setattr(gateway_routes, "BODY_S_MAX", 0.01)

    async def stopping() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    response = await door.post("/chat/completions", content=stopping())
    assert response.status_code == 400
    assert "did not come whole" in response.json()["error"]["message"]


async def test_address_and_method__that_are_not_there_are_said_to_be(door):
    assert (await door.get("/nothing")).json()["error"]["code"] == "not_found"
    refused = await door.get("/chat/completions")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    assert refused.json()["error"]["code"] == "bad_input"


async def test_log__has_a_line_a_request_and_nothing_of_what_was_said(system, caplog, monkeypatch):
    logger = logging.getLogger("masterbuilder.http")
    monkeypatch.setattr(logger, "propagate", True)
    caplog.set_level(logging.INFO, logger.name)
    app = create_app(system)
    headers = {"authorization": "Bearer ann-token", "x-request-id": "mine"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://g", headers=headers) as door:
        await door.post("/chat/completions", json=HELLO)
        await door.post("/private-path", json=HELLO, headers={"x-request-id": 'bad" id'})
    app._log.write()  # type: ignore[attr-defined]
    first, second = map(json.loads, caplog.text[caplog.text.index("{") :].strip().split("\n"))
    assert (first["request_id"], first["status"], first["route"]) == ("mine", 200, "/chat/completions")
    assert (second["status"], second["route"]) == (404, None)
    assert len(second["request_id"]) == 36
    assert "private-path" not in caplog.text
    assert "ann-token" not in caplog.text


# Through the SDKs


async def test_openais_sdk__lists_asks_and_streams(sdk, system):
    assert [model.id async for model in sdk.models.list()] == ["openai/gpt-4o"]
    assert (await sdk.chat.completions.create(**HELLO)).choices[0].message.content == "hello"
    chunks = [chunk async for chunk in await sdk.chat.completions.create(**HELLO, stream=True)]
    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == "hello"
    assert [asked.streams for _, asked in system.calls.asked] == [False, True]


async def test_anthropics_sdk__lists_asks_and_reads_the_error(claude, system):
    assert [model.id async for model in claude.models.list()] == ["openai/gpt-4o"]
    system.calls.reply = MESSAGE
    assert (await claude.messages.create(**CLAUDE)).content[0].text == "hello"
    assert system.calls.asked[0][1].wire == "anthropic"
    system.calls.reply = NotEnoughCreditsError("You have 0.01 credits.", "Ask the operator for credits.")
    with pytest.raises(anthropic.APIStatusError) as refused:
        await claude.messages.create(**CLAUDE)
    assert refused.value.status_code == 402
    assert "You have 0.01 credits. Ask the operator for credits." in str(refused.value.body)
    assert refused.value.body["request_id"] == refused.value.request_id


async def test_openais_sdk__shows_what_happened_and_what_to_do(sdk, system):
    system.calls.reply = NotEnoughCreditsError("You have 0.01 credits.", "Ask the operator for credits.")
    with pytest.raises(openai.APIStatusError) as refused:
        await sdk.chat.completions.create(**HELLO)
    assert "You have 0.01 credits. Ask the operator for credits." in refused.value.message
    assert refused.value.code == "not_enough_credits"
    assert refused.value.body["request_id"] == refused.value.request_id


async def test_sdks__do_not_repeat_what_the_gateway_already_retried(base_url, system):
    system.calls.reply = ProviderError("openai refused the request (400): too long")
    async with openai.AsyncOpenAI(api_key="ann-token", base_url=f"{base_url}/v1") as sdk:
        with pytest.raises(openai.InternalServerError, match="too long"):
            await sdk.chat.completions.create(**HELLO)
    async with anthropic.AsyncAnthropic(api_key="ann-token", base_url=base_url) as sdk:
        with pytest.raises(anthropic.InternalServerError, match="too long"):
            await sdk.messages.create(**CLAUDE)
    assert len(system.calls.asked) == 2


async def test_sdks__learn_that_a_stream_broke_off(sdk, claude, system):
    system.calls.pieces = [piece("hel"), OutageError("openai broke its reply off.", "Try again.")]
    stream = await sdk.chat.completions.create(**HELLO, stream=True)
    assert (await anext(stream)).choices[0].delta.content == "hel"
    with pytest.raises(openai.APIError, match="broke its reply off"):
        await anext(stream)
    start = b'event: message_start\ndata: {"type":"message_start","message":' + json.dumps(MESSAGE).encode() + b"}\n\n"
    system.calls.pieces = [start, OutageError("claude broke its reply off.", "Try again.")]
    events = await claude.messages.create(**CLAUDE, stream=True)
    assert (await anext(events)).type == "message_start"
    with pytest.raises(anthropic.APIError, match="broke its reply off"):
        await anext(events)


async def test_broken_stream__ends_with_an_error_in_shape_and_without_done(base_url, system):
    for error, code in ((OutageError("cut"), "provider_error"), (RuntimeError("sk-secret"), "internal_error")):
        system.calls.pieces = [piece("hel"), error]
        async with httpx.AsyncClient(headers={"authorization": "Bearer ann-token"}) as client:
            response = await client.post(f"{base_url}/v1/chat/completions", json={**HELLO, "stream": True})
        *_, last = [line for line in response.text.split("\n") if line]
        told = json.loads(last.removeprefix("data: "))["error"]
        assert (told["code"], told["request_id"]) == (code, response.headers["x-request-id"])
        assert "sk-secret" not in response.text


# Clients that leave, and clients that do not read


async def test_client__that_hangs_up_on_a_stream_hangs_us_up_on_the_provider(base_url, system):
    system.calls.pieces = [piece("hel"), None]
    async with (
        httpx.AsyncClient(headers={"authorization": "Bearer ann-token"}) as client,
        client.stream("POST", f"{base_url}/v1/chat/completions", json={**HELLO, "stream": True}) as response,
    ):
        await anext(response.aiter_bytes())
        assert not system.calls.closed.is_set()
    await asyncio.wait_for(system.calls.closed.wait(), 60)


async def test_client__that_does_not_wait_for_its_answer_is_not_served_on(base_url, system):
    system.calls.reply = None
    async with httpx.AsyncClient(headers={"authorization": "Bearer ann-token"}, timeout=0.2) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post(f"{base_url}/v1/chat/completions", json=HELLO)
    await asyncio.wait_for(system.calls.closed.wait(), 60)


async def test_client__that_does_not_read_holds_the_provider_back(base_url, system):
    sent = 0

    async def endless(order: CallOrder, asked: Spliced, on_cut: OnCut) -> AsyncGenerator[bytes, None]:
        nonlocal sent
        while True:
            sent += 1
            yield piece("x" * 10_000)

    system.calls.forward_stream = endless
    port = int(base_url.rsplit(":", 1)[1])
    _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
    body = json.dumps({**HELLO, "stream": True}).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ann-token\r\n"
        b"content-length: %d\r\n\r\n" % len(body) + body
    )
    before = -1
    while sent == 0 or sent != before:
        before = sent
        await asyncio.sleep(0.3)
    assert sent < 2_000  # Sockets' buffers, and no more.
    writer.close()


async def test_client__that_reads_nothing_for_long_is_given_up(base_url, system, monkeypatch):
    monkeypatch.setattr(gateway_routes, "READER_S_MAX", 0.2)
    closed = asyncio.Event()

    async def endless(order: CallOrder, asked: Spliced, on_cut: OnCut) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield piece("x" * 10_000)
        finally:
            closed.set()

    system.calls.forward_stream = endless
    _, writer = await asyncio.open_connection("127.0.0.1", int(base_url.rsplit(":", 1)[1]), limit=1)
    body = json.dumps({**HELLO, "stream": True}).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ann-token\r\n"
        b"content-length: %d\r\n\r\n" % len(body) + body
    )
    await asyncio.wait_for(closed.wait(), 60)
    writer.close()


async def test_request__whose_client_left_ends_quietly_and_is_logged_as_such(system, caplog, monkeypatch):
    logger = logging.getLogger("masterbuilder.http")
    monkeypatch.setattr(logger, "propagate", True)
    caplog.set_level(logging.INFO, logger.name)
    system.calls.reply = None
    messages = [{"type": "http.request", "body": json.dumps(HELLO).encode()}, {"type": "http.disconnect"}]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/chat/completions", "headers": [(b"x-api-key", b"ann-token")]}
    app = create_app(system)
    await app(scope, receive, send)
    app._log.write()  # type: ignore[attr-defined]
    assert sent == []
    assert system.calls.closed.is_set()
    assert '"status":499' in caplog.text

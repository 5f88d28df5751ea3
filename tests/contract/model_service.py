"""A model service in the test's own process: answers what it is told to, and remembers what it was asked."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from runtime.keys.keys import Lease
from runtime.providers.chat import ChatRequest, Image, Message, Text, Tool, ToolCall, ToolResult

KEY = "sk-very-secret-key-0123456789"
CUT, HANG = object(), object()
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
WEATHER = Tool(
    name="weather",
    description="Tells the weather.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
SHAPE: dict[str, Any] = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    body: Any
    status: int
    headers: dict[str, str] | None


@dataclass(slots=True, kw_only=True)
class Service:
    """`reply` is a whole answer, or the pieces of a stream, among them CUT (the line breaks) and HANG."""

    provider: str
    model: str
    base_url: str = ""
    reply: Any = None
    paths: list[str] = field(default_factory=list)
    headers: list[Any] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def lease(self) -> Lease:
        return Lease(provider=self.provider, model=self.model, key_id="key-1", base_url=self.base_url, key=KEY)

    @property
    def body(self) -> Any:
        """Of the one request that came."""
        assert len(self.bodies) == 1
        return self.bodies[0]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.paths.append(request.path_qs)
        self.headers.append(request.headers)
        self.bodies.append(await request.json())
        if isinstance(self.reply, Whole):
            return web.json_response(self.reply.body, status=self.reply.status, headers=self.reply.headers)
        response = web.StreamResponse(headers={"content-type": "text/event-stream", **LIMITS})
        await response.prepare(request)
        try:
            for piece in self.reply:
                if piece is CUT:
                    assert request.transport is not None
                    request.transport.abort()
                elif piece is HANG:
                    await asyncio.sleep(60)
                else:
                    await response.write(piece)
        except (asyncio.CancelledError, ConnectionError):
            self.gone.set()
            raise
        return response


LIMITS = {"x-ratelimit-remaining-requests": "7", "x-ratelimit-reset-requests": "1m30s"}


@asynccontextmanager
async def serving(provider: str, model: str, path: str = "") -> AsyncIterator[Service]:
    service = Service(provider=provider, model=model)
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/{tail:.*}", service.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    service.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}{path}"
    yield service
    await runner.cleanup()


def whole(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> "Whole":
    return Whole(body=body, status=status, headers=headers)


def event(data: Any, name: str = "") -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def says(text: str) -> Message:
    return Message(role="user", parts=(Text(text=text),))


HELLO = ChatRequest(system=("masterbuilder task=chat id=1", "Be kind."), messages=(says("grüß dich"),))
TOOL_LOOP = ChatRequest(
    system=(),
    messages=(
        Message(role="user", parts=(Text(text="Weather here?"), Image(media_type="image/png", data=PIXEL))),
        Message(
            role="assistant",
            parts=(
                Text(text="I look."),
                ToolCall(id="call:1", name="weather", arguments='{"city": "Kraków"}'),
                ToolCall(id="call:2", name="weather", arguments="not json"),
            ),
        ),
        Message(role="user", parts=(ToolResult(call_id="call:1", name="weather", text="rain"),)),
        Message(role="user", parts=(ToolResult(call_id="call:2", name="weather", text="no such city", is_error=True),)),
        says("And now?"),
    ),
    tools=(WEATHER,),
    tool_choice="weather",
    output_tokens_max=64,
    temperature=0.5,
    top_p=0.9,
    stop=("END",),
)

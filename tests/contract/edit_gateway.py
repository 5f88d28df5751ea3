"""A small stand-in for the gateway, for the edit engines, and replies in the notation that they read."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from runtime.implementer.engine import EditRequest

TASK_LINE = "masterbuilder task=code.edit id=T-001 attempt=1 brief=9f86d081884c"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def edit_block(path: str, search: str, replace: str) -> str:
    return f"{path}\n```python\n<<<<<<< SEARCH\n{search}=======\n{replace}>>>>>>> REPLACE\n```\n"


def completion(text: str, finish_reason: str = "stop") -> web.Response:
    message = {"role": "assistant", "content": text}
    return web.json_response(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-4o-mini",
            "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        }
    )


def refusal(status: int, text: str) -> web.Response:
    return web.json_response({"error": {"type": "refused", "code": "refused", "message": text}}, status=status)


TWO = completion("Done.\n\n" + edit_block("src/app.py", "a = 1\n", "a = 2\n"))


@dataclass
class EditGateway:
    """Answers with the next of `replies`, the last one again and again, and keeps what it was asked."""

    replies: list[web.Response | Handler] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    url: str = ""

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        self.tokens.append(request.headers["authorization"])
        reply = self.replies[min(len(self.bodies), len(self.replies)) - 1]
        if isinstance(reply, web.Response):
            return web.Response(body=reply.body, status=reply.status, content_type="application/json")
        return await reply(request)

    def prompt(self, call: int = 0) -> str:
        return "\n".join(str(message["content"]) for message in self.bodies[call]["messages"])

    def request(self, **changes: Any) -> EditRequest:
        given: dict[str, Any] = {
            "instruction": f"{TASK_LINE}\nMake a two.",
            "files": {"src/app.py": b"a = 1\n"},
            "read_only": {},
            "model": "openai/gpt-4o-mini",
            "gateway_url": self.url,
            "token": "mbt-task-1",
            "timeout_s": 60.0,
        }
        return EditRequest(**{**given, **changes})


@asynccontextmanager
async def serving() -> AsyncIterator[EditGateway]:
    gateway = EditGateway()
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/v1/chat/completions", gateway.serve)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    gateway.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield gateway
    await runner.cleanup()

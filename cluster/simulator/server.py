"""The model provider of tests and demos: speaks OpenAI's wire format over HTTP and plays written scenarios.

A reply depends on the request alone; only `id` and `created` differ between two equal ones. What was served is in the
usage file, written before the last part of the answer leaves, so that no client knows more than the file.
"""

import asyncio
import contextlib
import errno
import signal
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel, ValidationError

from cluster.simulator.asked import Asked, read_asked
from cluster.simulator.faults import Fault, Faults
from cluster.simulator.scenario import Library
from cluster.simulator.usage import ServedCall, UsageFile, cut_to_tokens, prompt_tokens, text_tokens, usage_report
from cluster.simulator.wire import ChatRequest, Completion, Part, WireError, model_list
from runtime.errors import BadInputError, NotFoundError

_KEY_PREFIX = "sim-"
_BODY_BYTES_MAX = 16 << 20
_WRONG_USAGE_FACTOR = 10
_Body = TypeVar("_Body", bound=BaseModel)


def run(host: str, port: int, usage_file: Path, latency_ms: int) -> None:
    """Serves until SIGTERM or SIGINT; prints one line with its base URL when ready. Port 0 picks a free one.

    Raises BadInputError when the port is taken or the usage file cannot be written.
    """
    asyncio.run(_run(host, port, usage_file, latency_ms))


class Simulator:
    """The server inside a running event loop: `async with Simulator(usage_file=...) as simulator`.

    Raises BadInputError as `run` does.
    """

    def __init__(self, *, usage_file: Path, host: str = "127.0.0.1", port: int = 0, latency_ms: int = 0) -> None:
        self._host = host
        self._port = port
        self._usage = UsageFile(usage_file)
        doors = _Doors(self._usage, latency_s=latency_ms / 1000)
        self._runner = web.AppRunner(doors.application(), access_log=None, shutdown_timeout=1.0)

    @property
    def base_url(self) -> str:
        """With `/v1`, as OPENAI_BASE_URL wants it. Only while it is started."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._runner.addresses[0][1]}/v1"

    async def __aenter__(self) -> "Simulator":
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self.__aexit__()
            why = "it is in use" if error.errno == errno.EADDRINUSE else error.strerror
            raise BadInputError(
                f"The simulator cannot listen on {self._host}:{self._port}: {why}.",
                "Choose another --port; 0 picks a free one.",
            ) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        self._usage.close()


async def _run(host: str, port: int, usage_file: Path, latency_ms: int) -> None:
    stopped = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopped.set)
    async with Simulator(usage_file=usage_file, host=host, port=port, latency_ms=latency_ms) as simulator:
        print(f"Simulator ready: {simulator.base_url}", flush=True)
        await stopped.wait()


class _Doors:
    """The HTTP routes, and what they share: the faults on order and the usage file."""

    def __init__(self, usage: UsageFile, latency_s: float) -> None:
        self._usage = usage
        self._latency_s = latency_s
        self._library = Library()
        self._faults = Faults()

    def application(self) -> web.Application:
        application = web.Application(client_max_size=_BODY_BYTES_MAX, middlewares=[_errors_on_the_wire])
        application.router.add_get("/v1/models", self._models)
        application.router.add_post("/v1/chat/completions", self._chat)
        application.router.add_get("/simulator/usage", self._report)
        application.router.add_post("/simulator/faults", self._order_fault)
        return application

    async def _models(self, request: web.Request) -> web.Response:
        _check_key(request)
        return web.json_response(model_list())

    async def _report(self, _: web.Request) -> web.Response:
        return web.json_response(usage_report(await asyncio.to_thread(self._usage.calls)))

    async def _order_fault(self, request: web.Request) -> web.Response:
        self._faults.order(await _read(request, Fault))
        return web.json_response({"waiting": [fault.model_dump() for fault in self._faults.waiting()]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        _check_key(request)
        chat = await _read(request, ChatRequest)
        asked = read_asked(chat.messages)
        try:
            text = self._library.reply(asked)
        except NotFoundError as error:
            raise WireError(400, str(error), code="unknown_scenario") from error
        assert asked is not None, "without a task line there is no reply"
        fault = self._faults.take(asked.task)
        kind = fault.kind if fault else None
        if fault:
            await _suffer(fault)
        await asyncio.sleep(self._latency_s)
        completion = _complete(chat, text[: len(text) // 2] if kind == "malformed_json" else text)
        parts = chat.parts_of(_lie_about(completion) if kind == "wrong_usage" else completion)
        return await self._send(
            request, chat.content_type, parts, _served(request, asked, completion), kind == "cut_stream"
        )

    async def _send(
        self, request: web.Request, content_type: str, parts: list[Part], call: ServedCall, cut: bool
    ) -> web.StreamResponse:
        """Sends the parts and records the call: complete just before the last part, else with the text sent so far."""
        response = web.StreamResponse(headers={"Content-Type": content_type, "Cache-Control": "no-cache"})
        sent = ""
        try:
            await response.prepare(request)
            for part in parts[: len(parts) // 2 if cut else -1]:
                await response.write(part.data)
                sent += part.text
        except ConnectionError:
            cut = True
        if cut or request.transport is None or request.transport.is_closing():
            await asyncio.to_thread(
                self._usage.record, replace(call, completion_tokens=text_tokens(sent), complete=False)
            )
            if request.transport is not None:
                request.transport.close()
            return response
        await asyncio.to_thread(self._usage.record, call)
        with contextlib.suppress(ConnectionError):
            await response.write(parts[-1].data)
        return response


@web.middleware
async def _errors_on_the_wire(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except WireError as error:
        return error.response()
    except web.HTTPException as error:
        return WireError(error.status, f"{error.reason}: {request.method} {request.path}").response()


async def _read(request: web.Request, model: type[_Body]) -> _Body:
    try:
        return model.model_validate_json(await request.read())
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"]) or None
        raise WireError(
            400, f"The request does not fit: {first['msg']} (at {param or 'its root'}).", param=param
        ) from error


def _check_key(request: web.Request) -> None:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip().startswith(_KEY_PREFIX):
        raise WireError(
            401,
            f"Incorrect API key provided. The simulator takes any key that starts with {_KEY_PREFIX}",
            code="invalid_api_key",
        )


async def _suffer(fault: Fault) -> None:
    if fault.kind == "status_429":
        raise WireError(
            429,
            f"Rate limit reached. Please try again in {fault.retry_after_s}s.",
            type="requests",
            code="rate_limit_exceeded",
            headers={"Retry-After": str(fault.retry_after_s)},
        )
    if fault.kind == "status_500":
        raise WireError(500, "The server had an error while processing your request.", type="server_error")
    if fault.kind == "slow_first_byte":
        await asyncio.sleep(fault.delay_s)


def _complete(chat: ChatRequest, text: str) -> Completion:
    tokens_max = chat.tokens_max
    said = text if tokens_max is None else cut_to_tokens(text, tokens_max)
    return Completion(
        id=f"chatcmpl-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=chat.model,
        text=said,
        finish_reason="stop" if said == text else "length",
        prompt_tokens=prompt_tokens(chat.messages),
        completion_tokens=text_tokens(said),
    )


def _lie_about(completion: Completion) -> Completion:
    return replace(
        completion,
        prompt_tokens=completion.prompt_tokens * _WRONG_USAGE_FACTOR,
        completion_tokens=completion.completion_tokens * _WRONG_USAGE_FACTOR,
    )


def _served(request: web.Request, asked: Asked, completion: Completion) -> ServedCall:
    return ServedCall(
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        call_id=request.headers.get("X-Client-Request-Id"),
        model=completion.model,
        task=asked.task,
        id=asked.id,
        attempt=asked.attempt,
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
        complete=True,
    )

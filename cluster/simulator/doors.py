"""The HTTP routes, and what they share: the scenarios, the faults on order, the traffic and the usage file."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from cluster.simulator.asked import Asked, read_asked
from cluster.simulator.chat import Chat
from cluster.simulator.embedding import embed
from cluster.simulator.faults import Fault, Faults
from cluster.simulator.limits import Arrival, Limit
from cluster.simulator.matching import KEY_PREFIX
from cluster.simulator.payments import PaymentPage, PaymentSetup
from cluster.simulator.refusal import Refusal
from cluster.simulator.reply import Speech, reply_to
from cluster.simulator.scenario import SCENARIOS, Library
from cluster.simulator.sending import Call, Sender
from cluster.simulator.synthetic import read_order, speech_for
from cluster.simulator.synthetic_build import build_speech, read_build
from cluster.simulator.traffic import Lane, Traffic
from cluster.simulator.usage import UsageFile, usage_report
from cluster.simulator.wires.anthropic import Anthropic
from cluster.simulator.wires.gemini import Gemini
from cluster.simulator.wires.openai import OpenAI
from cluster.simulator.wires.wire import Wire, fit
from runtime.errors import NotFoundError

BODY_BYTES_MAX = 32 << 20
INTRODUCTION = (
    "Hello! I am Masterbuilder's simulated provider: I play written scenarios and am no model. Your settings work. "
    "For real answers configure a provider: see README.md, Build something."
)
"""To who says something that is no task of ours, asks for no form and offers no tools."""
_BUCKET_S = 60.0
_OPENAI, _ANTHROPIC, _GEMINI = OpenAI(), Anthropic(), Gemini()


class Doors:
    def __init__(
        self,
        usage: UsageFile,
        latency_s: float,
        payments: PaymentSetup | None = None,
        scenarios: Path = SCENARIOS,
    ) -> None:
        self._usage = usage
        self._latency_s = latency_s
        self._payments = payments
        self._library = Library(scenarios)
        self._faults = Faults()
        self._traffic = Traffic()
        self._sender = Sender(usage, self._traffic.clock)
        self._ids = count()
        self._server_id = uuid.uuid4().hex[:16]

    def application(self) -> web.Application:
        application = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[self._errors_on_the_wire])
        add = application.router.add_route
        add("POST", "/v1/chat/completions", self._openai)
        add("POST", "/v1/messages", self._anthropic)
        for version in ("v1", "v1beta"):
            path = f"/{version}/models/{{model:[^/:]+}}:"
            add("POST", path + "{method:generateContent|streamGenerateContent}", self._gemini)
            add("POST", path + "{method:embedContent|batchEmbedContents}", self._gemini_embeddings)
        add("POST", "/v1/embeddings", self._openai_embeddings)
        add("GET", "/v1/models", self._models)
        add("GET", "/v1beta/models", self._models)
        add("GET", "/simulator/usage", self._tell_usage)
        add("GET", "/simulator/report", self._tell_report)
        add("POST", "/simulator/faults", self._order_fault)
        add("GET", "/simulator/faults", self._list_faults)
        add("DELETE", "/simulator/faults", self._clear_faults)
        add("POST", "/simulator/limits", self._set_limit)
        add("GET", "/simulator/limits", self._list_limits)
        add("DELETE", "/simulator/limits", self._clear_limits)
        if self._payments is not None:
            PaymentPage(self._payments).add_to(application)
        return application

    async def _openai(self, request: web.Request) -> web.StreamResponse:
        return await self._chat(request, _OPENAI)

    async def _anthropic(self, request: web.Request) -> web.StreamResponse:
        return await self._chat(request, _ANTHROPIC)

    async def _gemini(self, request: web.Request) -> web.StreamResponse:
        return await self._chat(request, _GEMINI)

    async def _openai_embeddings(self, request: web.Request) -> web.StreamResponse:
        return await self._embed(request, _OPENAI)

    async def _gemini_embeddings(self, request: web.Request) -> web.StreamResponse:
        return await self._embed(request, _GEMINI)

    async def _models(self, request: web.Request) -> web.Response:
        wire = _wire_of(request)
        self._key(request, wire)
        return web.json_response(wire.models())

    async def _chat(self, request: web.Request, wire: Wire) -> web.StreamResponse:
        key = self._key(request, wire)
        chat = wire.read(request, await request.read())
        order = read_order(chat.messages)
        asked = None if order else read_asked(chat.messages)
        is_small_talk = not (order or asked or chat.tools) and chat.schema is None
        user = order.user if order and order.user else chat.user
        lane = self._traffic.lane(key, chat.model)
        arrival = lane.arrive(self._traffic.clock(), _call_id(request), user, chat.prompt_tokens)
        with _ended(lane, arrival):
            if is_small_talk:
                speech, (task, id, attempt) = Speech(text=INTRODUCTION), ("chat", "chat", 1)
            elif order:
                speech, (task, id, attempt) = speech_for(order, chat), ("synthetic", order.kind, 1)
            else:
                speech, (task, id, attempt) = self._scenario_speech(asked, chat), _task(asked)
            call = Call(
                request=request,
                wire=wire,
                lane=lane,
                arrival=arrival,
                id=self._new_id(),
                model=chat.model,
                task=task,
                task_id=id,
                attempt=attempt,
                prompt_tokens=chat.prompt_tokens,
                user=user,
                fault=self._faults.take(wire.name, key, chat.model, task),
            )
            return await self._answer(call, chat, speech)

    def _scenario_speech(self, asked: Asked | None, chat: Chat) -> Speech:
        if asked and (build := read_build(chat.messages)):
            return build_speech(build, asked)
        try:
            return Speech(text=self._library.reply(asked))
        except NotFoundError as error:
            raise Refusal(400, str(error), code="unknown_scenario") from error

    async def _answer(self, call: Call, chat: Chat, speech: Speech) -> web.StreamResponse:
        await self._suffer(call)
        if call.hangs_at_once:
            return await self._sender.nothing(call)
        if call.fault:
            speech = call.fault.speech(speech)
        delay_s = self._latency_s if speech.delay_s is None else speech.delay_s
        if delay_s:
            await asyncio.sleep(delay_s)
        reply = reply_to(chat, speech, call.id, int(time.time()))
        told = call.fault.told(reply) if call.fault else reply
        if chat.stream:
            parts = call.wire.stream(chat, told)
            return await self._sender.stream(call, parts, speech.piece_s, reply.completion_tokens)
        return await self._sender.whole(call, call.wire.whole(told), reply.completion_tokens)

    async def _embed(self, request: web.Request, wire: Wire) -> web.StreamResponse:
        key = self._key(request, wire)
        asked = wire.read_embedding(request, await request.read())
        lane = self._traffic.lane(key, asked.model)
        arrival = lane.arrive(self._traffic.clock(), _call_id(request), "", asked.prompt_tokens)
        with _ended(lane, arrival):
            call = Call(
                request=request,
                wire=wire,
                lane=lane,
                arrival=arrival,
                id=self._new_id(),
                model=asked.model,
                task="embeddings",
                task_id="embeddings",
                attempt=1,
                prompt_tokens=asked.prompt_tokens,
                user="",
                fault=self._faults.take(wire.name, key, asked.model, "embeddings"),
            )
            await self._suffer(call)
            if call.hangs_at_once:
                return await self._sender.nothing(call)
            if self._latency_s:
                await asyncio.sleep(self._latency_s)
            vectors = [embed(asked.model, text, asked.dimensions) for text in asked.texts]
            told = None if call.suffers("missing_usage") else asked.prompt_tokens
            if told is not None and call.suffers("wrong_usage"):
                told *= 10
            return await self._sender.whole(call, wire.embedded(asked, vectors, told), 0)

    async def _suffer(self, call: Call) -> None:
        """What a fault does before anything is answered. Raises Refusal."""
        if call.fault is None:
            return
        if refusal := call.fault.refusal():
            refusal.allowances = call.lane.allowances(self._traffic.clock())
            raise refusal
        if call.suffers("slow_first_byte"):
            await asyncio.sleep(call.fault.wait_s)

    def _key(self, request: web.Request, wire: Wire) -> str:
        """Raises Refusal for one that is not ours, or was revoked."""
        key = wire.key(request)
        if not key.startswith(KEY_PREFIX) or not key.isascii() or self._faults.revoked(wire.name, key):
            raise Refusal(
                401,
                f"Incorrect API key provided. The simulator takes any key that starts with {KEY_PREFIX}",
                reason="key",
            )
        return key

    def _new_id(self) -> str:
        return f"{self._server_id}{next(self._ids):08x}"

    async def _tell_usage(self, _: web.Request) -> web.Response:
        return web.json_response(await asyncio.to_thread(lambda: usage_report(self._usage.calls())))

    async def _tell_report(self, request: web.Request) -> web.Response:
        try:
            bucket_s = float(request.query.get("bucket_s", _BUCKET_S))
        except ValueError:
            bucket_s = 0.0
        if not 0.1 <= bucket_s <= 86_400:
            raise Refusal(400, "bucket_s is a number of seconds from 0.1 to 86400.", param="bucket_s")
        return web.json_response(await asyncio.to_thread(self._traffic.report, self._traffic.snapshot(), bucket_s))

    async def _order_fault(self, request: web.Request) -> web.Response:
        id = self._faults.order(fit(Fault, await request.read()))
        return web.json_response({"id": id, "waiting": self._faults.waiting()})

    async def _list_faults(self, _: web.Request) -> web.Response:
        return web.json_response({"waiting": self._faults.waiting()})

    async def _clear_faults(self, request: web.Request) -> web.Response:
        id = request.query.get("id")
        if id is not None and not (id.isdecimal() and len(id) < 20):
            raise Refusal(400, "id is the number of one fault; without it all are cleared.", param="id")
        self._faults.clear(int(id) if id else None)
        return web.json_response({"waiting": self._faults.waiting()})

    async def _set_limit(self, request: web.Request) -> web.Response:
        self._traffic.set_limit(fit(Limit, await request.read()))
        return self._told_limits()

    async def _list_limits(self, _: web.Request) -> web.Response:
        return self._told_limits()

    async def _clear_limits(self, _: web.Request) -> web.Response:
        self._traffic.clear_limits()
        return self._told_limits()

    def _told_limits(self) -> web.Response:
        return web.json_response({"limits": [limit.model_dump() for limit in self._traffic.limits()]})

    @web.middleware
    async def _errors_on_the_wire(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refusal as refusal:
            return self._refuse(request, refusal)
        except web.HTTPException as error:
            return self._refuse(request, Refusal(error.status, f"{error.reason}: {request.method} {request.path}"))

    def _refuse(self, request: web.Request, refusal: Refusal) -> web.Response:
        return _wire_of(request).refuse(refusal, f"req_{self._new_id()}")


def _wire_of(request: web.Request) -> Wire:
    """By the path; `/v1/models` is all three's, and told apart by how the key is sent."""
    path, headers = request.path, request.headers
    if path.startswith("/v1beta/") or (
        path.startswith("/v1/models") and ("x-goog-api-key" in headers or "key" in request.query or ":" in path)
    ):
        return _GEMINI
    if path.startswith("/v1/messages") or "anthropic-version" in headers:
        return _ANTHROPIC
    return _OPENAI


def _call_id(request: web.Request) -> str | None:
    return request.headers.get("X-Client-Request-Id")


def _task(asked: Asked | None) -> tuple[str, str, int]:
    assert asked is not None, "without a task line there is no reply"
    return asked.task, asked.id, asked.attempt


@contextlib.contextmanager
def _ended(lane: Lane, arrival: Arrival) -> Iterator[None]:
    """However it went, the call is no longer under way."""
    try:
        yield
    except Refusal as refusal:
        lane.end(arrival, "failed", refusal.status)
        raise
    finally:
        lane.end(arrival, "cut", 200)

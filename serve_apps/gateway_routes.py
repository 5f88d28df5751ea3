"""The model door, in OpenAI's and in Anthropic's wire format: any tool with a base-URL setting is a client.

A task's token pays under its run; a user's and a project's token pay from the wallet, call by call.

It is a bare ASGI application: a framework's routing and injection would cost more than all that it does.
"""

import asyncio
import json
import secrets
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from types import TracebackType
from typing import Self

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.catalogue.model import Model
from runtime.errors import BadInputError, MasterbuilderError, NotFoundError, OverloadedError, TooLargeError
from runtime.ids import CallId, RunId, new_call_id
from runtime.project.waits import telling_project
from runtime.providers.order import CallOrder
from runtime.providers.splice import WIRES, Path, Spliced, Wire, splice
from runtime.providers.waiting import telling
from serve_apps import gateway_answers as answers
from serve_apps.auth import TOKEN_CHARACTERS_MAX, calls_models_only, count
from serve_apps.door import REQUEST_ID, log_unforeseen
from serve_apps.gateway_answers import Header
from serve_apps.gateway_log import RequestLog
from serve_apps.gateway_tokens import Bearer, Tokens, not_authenticated
from serve_apps.system import System

BODY_BYTES_MAX = 20 << 20
BODIES_BYTES_MAX = 160 << 20
"""Of all requests that are under way together."""
BODY_BYTES_SMALL = 64 << 10
"""A body up to here always finds room: who sends large ones keeps nobody out but others who do."""
BODY_S_MAX = 60.0
"""How long a body may take to come whole, so that nobody keeps the room by stopping in the middle."""
READER_S_MAX = 60.0
"""How long a client may leave the next piece of its stream unread."""
GONE = 499
"""Logged where the client did not wait for its answer; nobody reads it."""


def create_app(system: System, *, under_serve: bool = False) -> ASGIApp:
    """Routes are relative to `/v1`, which Serve takes off as its prefix and others mount it under.

    Serve's proxy sets `x-request-id` itself, from the same request header.
    """
    return ModelDoor(system, sets_header=not under_serve)


class ModelDoor:
    def __init__(self, system: System, *, sets_header: bool) -> None:
        self._system = system
        self._calls = system.calls
        self._tokens = Tokens(system.ledger.authenticate)
        self._sets_header = sets_header
        self._log = RequestLog()
        self._bodies = _Room(BODIES_BYTES_MAX)
        self._routes: dict[str, tuple[str, Callable[[Exchange], Awaitable[None]]]] = {
            "/models": ("GET", self._list_models),
            **dict.fromkeys(WIRES, ("POST", self._call)),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._answer(Exchange(scope, receive, send, sets_header=self._sets_header))

    async def _answer(self, exchange: "Exchange") -> None:
        """Whatever happens: an answer in the caller's wire, and a line in the log. Never paths' contents, bodies,
        tokens or an exception's text in the latter."""
        began_s = time.monotonic()
        method, route = self._routes.get(exchange.path, (None, None))
        try:
            if route is None:
                raise NotFoundError("There is nothing at this address.", "Check the path.")
            if method != exchange.method:
                await exchange.refuse_method(str(method))
            else:
                await route(exchange)
        except _GoneError:
            exchange.status = GONE
        except asyncio.CancelledError:
            exchange.status = GONE
            raise
        except MasterbuilderError as error:
            await exchange.refuse(error)
        except Exception as error:
            log_unforeseen(error, exchange.request_id)
            await exchange.fail()
        finally:
            self._log.request(
                request_id=exchange.request_id,
                method=exchange.method,
                route=exchange.path if route else None,
                status=exchange.status,
                duration_ms=(time.monotonic() - began_s) * 1000,
            )

    async def _list_models(self, exchange: "Exchange") -> None:
        bearer = await self._bearer(exchange)
        await self._count(bearer)
        models = await self._calls.models(bearer.identity)
        await exchange.reply(_models_json(models, exchange.wire))

    async def _call(self, exchange: "Exchange") -> None:
        bearer = await self._bearer(exchange)
        self._tokens.admit(bearer)
        await self._count(bearer)
        with self._bodies.share() as share, self._telling(bearer.identity.run):
            asked = splice(await exchange.body(share), _path(exchange.path))
            order = _order(bearer, asked)
            if asked.streams:
                await self._stream(exchange, order, asked)
                return
            async with exchange.presence():
                forwarded = await self._calls.forward(order, asked, exchange.cut_to)
        await exchange.reply(forwarded.body)

    def _telling(self, run: RunId | None) -> AbstractContextManager[None]:
        """A build hears what its calls wait for."""
        return nullcontext() if run is None else telling(telling_project(lambda: self._system.entities, run))

    async def _stream(self, exchange: "Exchange", order: CallOrder, asked: Spliced) -> None:
        streaming = self._calls.forward_stream(order, asked, exchange.cut_to)
        async with exchange.presence(), aclosing(streaming) as pieces:
            # The answer begins with the first piece: until then an error still has its own status.
            await exchange.begin_stream(await anext(pieces))
            try:
                await exchange.pass_on(pieces)
            except _GoneError:
                raise
            except MasterbuilderError as error:
                await exchange.piece(answers.refusal_event(error, asked.wire, exchange.request_id))
            except Exception as error:
                log_unforeseen(error, exchange.request_id)
                await exchange.piece(answers.unforeseen_event(asked.wire, exchange.request_id))
        await exchange.end_stream()

    async def _bearer(self, exchange: "Exchange") -> Bearer:
        token = exchange.token
        if not 0 < len(token) <= TOKEN_CHARACTERS_MAX:
            raise not_authenticated()
        return await self._tokens.bearer(token)

    async def _count(self, bearer: Bearer) -> None:
        """Tokens for models alone have limits of their own, or none."""
        if not calls_models_only(bearer.identity):
            await count(self._system.entities, bearer.identity)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                self._log.write()
                await self._system.close()
                await send({"type": "lifespan.shutdown.complete"})
                return
            await send({"type": "lifespan.startup.complete"})


class Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, sets_header: bool) -> None:
        # Of a name that is given twice the last counts, as everywhere behind Serve.
        self._headers: Mapping[bytes, bytes] = dict(scope["headers"])
        self._receive = receive
        self._send = send
        self._sets_header = sets_header
        self._began = False
        self.method: str = scope["method"]
        self.path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        given = self._header(b"x-request-id")
        self.request_id = given if REQUEST_ID.fullmatch(given) else str(uuid.uuid4())
        self.status = 0
        self._answer_tokens_max: int | None = None

    @property
    def wire(self) -> Wire:
        """The caller's: by what it asks for, else by how it asks."""
        for path, wire in WIRES.items():
            if path == self.path:
                return wire
        return "anthropic" if b"anthropic-version" in self._headers else "openai"

    @property
    def token(self) -> str:
        scheme, _, token = self._header(b"authorization").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else self._header(b"x-api-key").strip()

    async def body(self, share: "_Share") -> bytes:
        """Raises TooLargeError as soon as the bound is passed, whatever Content-Length says; OverloadedError where the
        requests under way hold too much together."""
        if self._header(b"content-encoding").lower() not in ("", "identity"):
            raise BadInputError("The body is compressed.", "Send it as it is.")
        declared = self._header(b"content-length")
        if declared.isdecimal() and len(declared) < 20 and int(declared) > BODY_BYTES_MAX:
            raise _too_large()
        try:
            async with asyncio.timeout(BODY_S_MAX):
                return await self._body(share)
        except TimeoutError:
            raise BadInputError(f"The body did not come whole within {BODY_S_MAX:g} s.", "Send it again.") from None

    async def _body(self, share: "_Share") -> bytes:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                raise _GoneError
            if chunk := message.get("body", b""):
                chunks.append(chunk)
                size += len(chunk)
                if size > BODY_BYTES_MAX:
                    raise _too_large()
                share.take(len(chunk))
            if not message.get("more_body", False):
                return b"".join(chunks)

    def cut_to(self, answer_tokens_max: int) -> None:
        """That the answer may be so long and no longer: it is told in the header."""
        self._answer_tokens_max = answer_tokens_max

    def presence(self) -> "_Presence":
        return _Presence(self._receive)

    async def reply(self, body: bytes) -> None:
        await self._whole(200, (), body)

    async def refuse(self, error: MasterbuilderError) -> None:
        """Of an answer that has begun nothing is left to say: it breaks off."""
        if self._began:
            return
        status, headers, body = answers.refusal(error, self.wire, self.request_id)
        await self._whole(status, headers, body)

    async def refuse_method(self, allowed: str) -> None:
        error = BadInputError("This address does not take that method.", f"Use {allowed}.")
        _, _, body = answers.refusal(error, self.wire, self.request_id)
        await self._whole(405, ((b"allow", allowed.encode()),), body)

    async def fail(self) -> None:
        if not self._began:
            await self._whole(500, (), answers.unforeseen(self.wire, self.request_id))

    async def begin_stream(self, first: bytes) -> None:
        await self._start(200, list(answers.STREAM))
        await self.piece(first)

    async def pass_on(self, pieces: AsyncGenerator[bytes, None]) -> None:
        """Each piece as it comes; the next is not asked for before the client has taken the last."""
        async for piece in pieces:
            await self.piece(piece)

    async def piece(self, piece: bytes) -> None:
        """Raises _GoneError where the client does not read."""
        try:
            async with asyncio.timeout(READER_S_MAX):
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        except TimeoutError:
            raise _GoneError from None

    async def end_stream(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _whole(self, status: int, headers: tuple[Header, ...] | list[Header], body: bytes) -> None:
        await self._start(status, answers.with_length(headers, body))
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _start(self, status: int, headers: list[Header]) -> None:
        request_id = self.request_id.encode()
        headers.append((b"request-id", request_id))
        if self._sets_header:
            headers.append((b"x-request-id", request_id))
        if self._answer_tokens_max is not None:
            headers.append((b"x-max-tokens", str(self._answer_tokens_max).encode()))
        self._began, self.status = True, status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    def _header(self, name: bytes) -> str:
        return self._headers.get(name, b"").decode("latin-1")


class _GoneError(Exception):
    """The client is not there any more."""


class _Presence:
    """Cancels what is done within it as soon as the client is gone, and raises _GoneError then.

    Serve's own ways differ: some of its proxies cancel the request, some only say so where they are asked.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False

    async def __aenter__(self) -> Self:
        self._answering = asyncio.current_task()
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watching.cancel()
        answering = self._answering
        # A task that was cancelled keeps its frames, which know this: who knows the task too is a cycle of them all.
        del self._watching, self._answering
        if self._gone and kind is asyncio.CancelledError:
            assert answering is not None
            answering.uncancel()
            raise _GoneError from None

    async def _watch(self) -> None:
        while True:
            message: Message = await self._receive()
            if message["type"] == "http.disconnect":
                break
        self._gone = True
        assert self._answering is not None
        self._answering.cancel()


class _Room:
    """What all bodies under way may hold together."""

    def __init__(self, bytes_max: int) -> None:
        self.left_bytes = bytes_max

    def share(self) -> "_Share":
        return _Share(self)


class _Share:
    """One request's; given back when it is left."""

    def __init__(self, room: _Room) -> None:
        self._room = room
        self._size_bytes = 0
        self._taken_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._room.left_bytes += self._taken_bytes

    def take(self, more_bytes: int) -> None:
        self._size_bytes += more_bytes
        if self._size_bytes <= BODY_BYTES_SMALL:
            return
        missing_bytes = self._size_bytes - self._taken_bytes
        if missing_bytes > self._room.left_bytes:
            raise OverloadedError("Too many large requests are under way.")
        self._room.left_bytes -= missing_bytes
        self._taken_bytes = self._size_bytes


def _order(bearer: Bearer, asked: Spliced) -> CallOrder:
    identity = bearer.identity
    run = identity.run
    return CallOrder(
        call=CallId(f"{run}/{secrets.token_hex(6)}") if run else new_call_id(),
        user=identity.user,
        run=run,
        task_type="coding" if run else "code_embedding" if asked.path == "/embeddings" else "chat",
        model=asked.model,
        project=identity.project,
        token_sha256=bearer.token_sha256,
        allowed=identity.terms.models,
        role=identity.role,
        priority="background" if run else "interactive",
    )


def _path(path: str) -> Path:
    return next(known for known in WIRES if known == path)


def _too_large() -> TooLargeError:
    return TooLargeError(f"The request's body is larger than {BODY_BYTES_MAX} bytes.", "Send a smaller one.")


def _models_json(models: Sequence[Model], wire: Wire) -> bytes:
    if wire == "anthropic":
        listed: list[dict[str, object]] = [
            {"type": "model", "id": model.id, "display_name": model.id, "created_at": "1970-01-01T00:00:00Z"}
            for model in models
        ]
        ends = {"first_id": models[0].id, "last_id": models[-1].id} if models else {"first_id": None, "last_id": None}
        return json.dumps({"data": listed, "has_more": False, **ends}).encode()
    listed = [
        {
            "id": model.id,
            "object": "model",
            "created": 0,
            "owned_by": model.provider,
            "context_window": model.context_tokens,
            "max_output_tokens": model.output_tokens_max,
        }
        for model in models
    ]
    return json.dumps({"object": "list", "data": listed}).encode()

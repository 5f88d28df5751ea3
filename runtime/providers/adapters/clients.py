"""What the adapters share: connections, clients, time-outs, and texts for services that know no schemas."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import urlsplit

from runtime.errors import MasterbuilderError
from runtime.ids import CallId
from runtime.keys.keys import Lease
from runtime.providers.chat import JsonShape, Message, Text, ToolCall, ToolResult
from runtime.providers.failures import TRY_LATER, BrokenReplyError, LaterError, OutageError, no_connection, timed_out

if TYPE_CHECKING:
    import httpx2

CLIENTS_MAX = 256
CONNECTIONS_MAX = 1_000
IDLE_CONNECTIONS_MAX = 100
LOOPBACK = ("127.0.0.1", "localhost", "::1")

Client = TypeVar("Client")


class Clients(Generic[Client]):
    """One SDK client a key, over connections that all keys share: a client alone is cheap, its TLS set-up is not."""

    def __init__(
        self,
        sdk: str,
        make: "Callable[[Lease, httpx2.AsyncClient], Client]",
        *,
        timeout_s: float,
        on_answer: "Callable[[httpx2.Response], Awaitable[None]] | None" = None,
    ) -> None:
        """`sdk` is the module to import first; `on_answer` sees each answer as soon as its headers are there."""
        self._sdk = sdk
        self._loaded = False
        self._make = make
        self._hooks = {"response": [on_answer] if on_answer else []}
        self._timeout_s = timeout_s
        self._clients: dict[tuple[str, str, str], Client] = {}
        self._https: dict[bool, httpx2.AsyncClient] = {}

    async def of(self, lease: Lease) -> Client:
        if not self._loaded:
            # Up to a second, in which everything else in this process would stand still.
            # The SDK of OpenAI looks into `httpx` as soon as anybody begins to import it, as Gemini's does: it must be
            # whole before the first call.
            for module in ("httpx", "httpx2", self._sdk):
                await asyncio.to_thread(import_module, module)
            self._loaded = True
        name = (lease.base_url, lease.key_id, lease.key)
        if name not in self._clients:
            if len(self._clients) >= CLIENTS_MAX:
                del self._clients[next(iter(self._clients))]
            self._clients[name] = self._make(lease, self._http(lease.base_url))
        return self._clients[name]

    async def close(self) -> None:
        https, self._https = list(self._https.values()), {}
        self._clients.clear()
        for http in https:
            await http.aclose()

    def _http(self, base_url: str) -> "httpx2.AsyncClient":
        import httpx2

        # A proxy from the environment must not stand between us and a model on this machine.
        direct = urlsplit(base_url).hostname in LOOPBACK
        if direct not in self._https:
            self._https[direct] = httpx2.AsyncClient(
                trust_env=not direct,
                follow_redirects=False,  # A redirect would take the key and the request to another host.
                timeout=self._timeout_s,
                event_hooks=self._hooks,
                limits=httpx2.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=IDLE_CONNECTIONS_MAX),
            )
        return self._https[direct]


@contextlib.asynccontextmanager
async def answering(
    lease: Lease, timeout_s: float, failure_of: Callable[[Lease, Exception], MasterbuilderError | None]
) -> AsyncIterator[None]:
    """Bounds the wait for a provider, and turns what its SDK raises into our failures.

    They carry neither the key nor the request, which is why nothing is chained to them.
    """
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise timed_out(lease) from None
    except MasterbuilderError:
        raise
    except Exception as error:
        failure = failure_of(lease, error) or _transport_failure(lease, error)
        if failure is None:
            raise
        raise failure from None


def call_headers(call: CallId) -> dict[str, str]:
    """By which a provider's log and ours know the call."""
    return {"X-Client-Request-Id": call}


def no_json(lease: Lease) -> BrokenReplyError:
    return BrokenReplyError(f"{lease.provider} answered something that is not JSON.", TRY_LATER)


def broken_off(lease: Lease, why: str = "") -> OutageError:
    return OutageError(f"{lease.provider} broke its reply off{': ' + why if why else ''}.", TRY_LATER)


def of_stream(
    lease: Lease, error: Exception, failure: MasterbuilderError | None, *, said: bool
) -> MasterbuilderError | None:
    """What a failure means inside a stream: once something was said, or where a piece cannot be read, it breaks off."""
    if said and isinstance(failure, LaterError):
        return broken_off(lease, failure.message.rstrip("."))
    if failure is None and isinstance(error, ValueError | RecursionError):
        return broken_off(lease)
    return failure


def as_record(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def as_records(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def turns(messages: Iterable[Message]) -> list[Message]:
    """The same with neighbours of one role joined, the results of tools first: some services insist on either."""
    joined: list[Message] = []
    for message in messages:
        before = joined.pop().parts if joined and joined[-1].role == message.role else ()
        parts = sorted((*before, *message.parts), key=lambda part: not isinstance(part, ToolResult))
        joined.append(replace(message, parts=tuple(parts)))
    return joined


def in_words(shape: JsonShape) -> str:
    """For the system text, where a service cannot be given the schema itself."""
    if shape.schema is None:
        return "Answer with one JSON object and nothing else."
    return f"Answer with JSON that fits this schema, and nothing else:\n{json.dumps(shape.schema, ensure_ascii=False)}"


def words_in(parts: Iterable[object]) -> int:
    """Of texts, tool calls and results."""
    count = 0
    for part in parts:
        match part:
            case str() as text:
                count += len(text.split())
            case Text(text=text) | ToolResult(text=text):
                count += len(text.split())
            case ToolCall(name=name, arguments=arguments):
                count += len(f"{name} {arguments}".split())
    return count


def _transport_failure(lease: Lease, error: Exception) -> MasterbuilderError | None:
    import httpx2

    if isinstance(error, httpx2.TimeoutException):
        return timed_out(lease)
    if isinstance(error, httpx2.HTTPError):
        return no_connection(lease)
    if isinstance(error, ValueError | RecursionError):
        return no_json(lease)
    return None

"""The adapter for every service that speaks OpenAI's chat completions, over the `openai` SDK.

It makes one attempt per call and translates what comes back; retries, keys and money are `runtime.providers.calls`'.
Replies are passed on as the provider wrote them, unknown fields included. The SDK takes 0.3 s to import, which a host
that was killed does not have: the first call does it.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from runtime.errors import MasterbuilderError, ProviderError, ProviderRefusedError
from runtime.ids import CallId
from runtime.providers.failures import BrokenReplyError, KeyRefusedError, OutageError, RateLimitedError
from runtime.providers.keys import Lease
from runtime.providers.usage import Usage, usage_of

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

CLIENTS_MAX = 64
MESSAGE_CHARACTERS_MAX = 500
LOOPBACK = ("127.0.0.1", "localhost", "::1")
TRY_LATER = "Try again in a moment; if it goes on, look at the provider's status page or choose another model."
CORRECT = "Correct the request, or choose another model."


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A whole reply, as the provider wrote it, and what it used."""

    body: dict[str, Any]
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a stream. `usage` is the total so far, where the provider says it; the last one counts.

    `only_usage` marks the closing chunk that carries no text, which only a client that asked for usage may see.
    """

    chunk: dict[str, Any]
    usage: Usage | None
    only_usage: bool


class Adapter(Protocol):
    """One attempt at a provider. Raises `runtime.providers.failures` and nothing else but bugs."""

    async def complete(self, lease: Lease, call: CallId, body: Mapping[str, Any]) -> Completion: ...

    def stream(self, lease: Lease, call: CallId, body: Mapping[str, Any]) -> AsyncGenerator[Part, None]:
        """Ends after a reply that is finished; raises OutageError where it breaks off, before or after the first."""

    async def close(self) -> None: ...


class OpenAICompatible:
    """Implements `Adapter`. `timeout_s` bounds a whole reply, and the wait for each piece of a stream."""

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._clients: dict[tuple[str, str], AsyncOpenAI] = {}

    async def complete(self, lease: Lease, call: CallId, body: Mapping[str, Any]) -> Completion:
        async with _translated(lease), asyncio.timeout(self._timeout_s):
            reply: object = await self._client(lease).post(
                "/chat/completions", cast_to=object, body=dict(body), options=_options(call)
            )
        if not isinstance(reply, dict):
            raise BrokenReplyError(f"{lease.provider} answered something that is not JSON.", TRY_LATER)
        usage = usage_of(reply)
        if usage is None:
            raise BrokenReplyError(f"{lease.provider} did not say how many tokens it used.", TRY_LATER)
        if not _says_something(reply):
            raise BrokenReplyError(f"{lease.provider} answered without any content.", TRY_LATER, usage=usage)
        return Completion(body=reply, usage=usage)

    async def stream(self, lease: Lease, call: CallId, body: Mapping[str, Any]) -> AsyncGenerator[Part, None]:
        from openai import AsyncStream

        asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
        async with _translated(lease), asyncio.timeout(self._timeout_s):
            chunks = await self._client(lease).post(
                "/chat/completions",
                cast_to=object,
                body=asked,
                options=_options(call),
                stream=True,
                stream_cls=AsyncStream[object],
            )
        finished = said = False
        usage: Usage | None = None
        try:
            while True:
                async with _translated(lease), asyncio.timeout(self._timeout_s):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    break
                if not isinstance(chunk, dict):
                    raise OutageError(f"{lease.provider} sent a piece that is not a JSON object.", TRY_LATER)
                usage = usage_of(chunk) or usage
                choices = [choice for choice in chunk.get("choices") or () if isinstance(choice, dict)]
                finished = finished or any(choice.get("finish_reason") for choice in choices)
                said = said or any(_has_content(choice.get("delta")) for choice in choices)
                yield Part(chunk=chunk, usage=usage_of(chunk), only_usage=not choices and "usage" in chunk)
        finally:
            await chunks.close()
        if not finished:
            raise OutageError(f"{lease.provider} broke its reply off.", TRY_LATER)
        if not said:
            raise BrokenReplyError(f"{lease.provider} answered without any content.", TRY_LATER, usage=usage)

    async def close(self) -> None:
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.close()

    def _client(self, lease: Lease) -> "AsyncOpenAI":
        """One client a key: making one costs tens of milliseconds, and it keeps connections open."""
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        name = (lease.base_url, lease.key_id)
        if name not in self._clients:
            if len(self._clients) >= CLIENTS_MAX:
                del self._clients[next(iter(self._clients))]
            # A proxy from the environment must not stand between us and a model on this machine.
            direct = urlsplit(lease.base_url).hostname in LOOPBACK
            self._clients[name] = AsyncOpenAI(
                api_key=lease.key,
                base_url=lease.base_url,
                max_retries=0,
                timeout=self._timeout_s,
                http_client=DefaultAsyncHttpxClient(trust_env=not direct),
            )
        return self._clients[name]


@contextlib.asynccontextmanager
async def _translated(lease: Lease) -> AsyncIterator[None]:
    """Turns what the SDK raises into our failures, without the key and without the request."""
    import openai

    provider = lease.provider
    try:
        yield
    except openai.APIStatusError as error:
        raise _refusal(lease, error) from None
    except (TimeoutError, openai.APITimeoutError):
        raise OutageError(f"{provider} did not answer in time.", TRY_LATER) from None
    except openai.APIConnectionError:
        raise OutageError(f"{provider} could not be reached, or broke the connection.", TRY_LATER) from None
    except openai.APIError as error:
        raise OutageError(f"{provider} broke off: {_clean(error.message, lease)}", TRY_LATER) from None
    except ValueError:
        raise BrokenReplyError(f"{provider} answered something that is not JSON.", TRY_LATER) from None


def _refusal(lease: Lease, error: "APIStatusError") -> MasterbuilderError:
    provider, status = lease.provider, error.status_code
    told = error.body.get("message") if isinstance(error.body, dict) else None
    said = _clean(told if isinstance(told, str) else error.message, lease)
    if status == 401:
        return KeyRefusedError(
            f"{provider} refused the key {lease.key_id} (401).", "Check the key in the provider's console."
        )
    if status == 429 and error.code == "insufficient_quota":
        return ProviderError(
            f"The account at {provider} is out of quota: {said}", "Add credit at the provider, or choose another model."
        )
    retry_after_s = retry_after(error.response.headers, datetime.now(UTC))
    if status == 429:
        return RateLimitedError(f"{provider} limits our requests: {said}", TRY_LATER, retry_after_s=retry_after_s)
    if status >= 500 or status in (408, 409):
        return OutageError(f"{provider} failed ({status}).", TRY_LATER, retry_after_s=retry_after_s)
    kind = ProviderError if status in (402, 403) else ProviderRefusedError
    return kind(f"{provider} refused the request ({status}): {said}", CORRECT)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `Retry-After` (seconds or a date); None where it says nothing usable.

    Source: RFC 9110 §10.2.3.
    """
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            wait_s = float(headers.get(name, "")) * unit_s
        except ValueError:
            continue
        if isfinite(wait_s):
            return max(0.0, wait_s)
    try:
        until = parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    return max(0.0, ((until if until.tzinfo else until.replace(tzinfo=UTC)) - now).total_seconds())


def _options(call: CallId) -> Any:
    return {"headers": {"X-Client-Request-Id": call}}


def _clean(message: str, lease: Lease) -> str:
    """What the provider said, short, on one line, and never with our key in it."""
    return " ".join(message.replace(lease.key, "***").split())[:MESSAGE_CHARACTERS_MAX]


def _says_something(reply: dict[str, Any]) -> bool:
    choices = reply.get("choices")
    return isinstance(choices, list) and any(isinstance(c, dict) and _has_content(c.get("message")) for c in choices)


def _has_content(message: Any) -> bool:
    """A message or a delta that holds text, a refusal or a tool call."""
    names = ("content", "refusal", "tool_calls", "function_call")
    return isinstance(message, dict) and any(message.get(name) for name in names)

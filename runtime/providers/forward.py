"""Passes a call through to a provider of the client's own wire: its bytes there, the answer's bytes back, untouched.

Of an answer only what is money is read: the usage, and whether anything was said at all.
"""

import json
import re
import urllib.request
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec
from msgspec import Raw, Struct
from yarl import URL

from runtime.ids import CallId
from runtime.keys.keys import KeyLimits, Lease
from runtime.providers.failures import (
    TRY_LATER,
    BrokenReplyError,
    OutageError,
    limits_of,
    no_connection,
    no_content,
    refusal,
    timed_out,
)
from runtime.providers.splice import WIRES, Path, Wire
from runtime.providers.usage import TOKENS_MAX, Usage, with_thoughts

CONNECT_S_MAX = 10.0
REPLY_BYTES_MAX = 64 << 20
EVENT_BYTES_MAX = 8 << 20
ERROR_BYTES_MAX = 64 << 10
IDLE_S_MAX = 60.0
"""How long a connection nobody uses is kept. Providers close theirs a little later."""
ANTHROPIC_VERSION = "2023-06-01"
ADDRESSES_MAX = 256
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarded:
    """A whole answer of a provider, as it came."""

    body: bytes = field(repr=False)
    usage: Usage
    limits: KeyLimits | None = None


class Forwarder:
    """One attempt at a provider. Raises `runtime.providers.failures` and what they are made of, and nothing else but
    bugs. No error holds the key. `timeout_s` bounds a whole reply, and the wait for each piece of a stream.
    """

    def __init__(self, *, timeout_s: float) -> None:
        self._whole = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_S_MAX)
        self._pieces = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S_MAX, sock_read=timeout_s)
        self._session: aiohttp.ClientSession | None = None
        self._addresses: dict[tuple[str, Path], _Address] = {}

    async def complete(self, lease: Lease, call: CallId, body: bytes, path: Path) -> Forwarded:
        """BrokenReplyError where nothing usable came: no JSON, no content, or no usage."""
        try:
            async with self._post(lease, call, body, path, self._whole) as response:
                if response.status != 200:
                    raise await _refused(lease, response)
                answer = await _read(response, REPLY_BYTES_MAX)
                limits = limits_of(response.headers)
        except _BROKEN as error:
            raise _outage(lease, error) from None
        if len(answer) > REPLY_BYTES_MAX:
            raise BrokenReplyError(f"{lease.provider} answered more than {REPLY_BYTES_MAX} bytes.", TRY_LATER)
        try:
            reply: _Completion | _Embeddings | _AnthropicMessage = _REPLIES[path].decode(answer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise BrokenReplyError(f"{lease.provider} answered something that is not a reply.", TRY_LATER) from None
        usage = reply.usage.counted(None) if reply.usage else None
        if usage is None:
            raise BrokenReplyError(f"{lease.provider} did not say how many tokens it used.", TRY_LATER)
        if not reply.says_something():
            raise no_content(lease, usage)
        return Forwarded(body=answer, usage=usage, limits=limits)

    async def stream(self, lease: Lease, call: CallId, body: bytes, path: Path, *, wants_usage: bool) -> "Passage":
        """A stream whose first piece has not come yet; it must be `close`d. Raises as `complete` does.

        Without `wants_usage` an OpenAI stream's closing event, which holds nothing but usage, is left out.
        """
        try:
            response = await self._post(lease, call, body, path, self._pieces)
            try:
                if response.status != 200:
                    raise await _refused(lease, response)
                if response.content_type != "text/event-stream":
                    raise OutageError(f"{lease.provider} answered a stream's request with something else.", TRY_LATER)
            except BaseException:
                response.close()
                raise
        except _BROKEN as error:
            raise _outage(lease, error) from None
        return Passage(lease, response, WIRES[path], wants_usage=wants_usage)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
        self._session = None

    def _post(
        self, lease: Lease, call: CallId, body: bytes, path: Path, timeout: aiohttp.ClientTimeout
    ) -> "aiohttp.client._RequestContextManager":
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S_MAX, ttl_dns_cache=300),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                skip_auto_headers=("user-agent",),
            )
        address = self._addresses.get((lease.base_url, path))
        if address is None:
            if len(self._addresses) >= ADDRESSES_MAX:
                self._addresses.clear()
            address = self._addresses[lease.base_url, path] = _address(lease.base_url, path)
        headers = {"content-type": "application/json", "accept-encoding": "identity", "x-client-request-id": call}
        if WIRES[path] == "openai":
            headers["authorization"] = f"Bearer {lease.key}"
        else:
            headers["x-api-key"] = lease.key
            headers["anthropic-version"] = ANTHROPIC_VERSION
        return self._session.post(
            address.url, data=body, headers=headers, timeout=timeout, allow_redirects=False, proxy=address.proxy
        )


class Passage:
    """One answer on its way through.

    `usage` and `finished` are up to date before the piece that says so is handed on.
    """

    def __init__(self, lease: Lease, response: aiohttp.ClientResponse, wire: Wire, *, wants_usage: bool) -> None:
        self.usage: Usage | None = None
        """What the provider has said so far; the last word counts."""
        self.said_bytes = 0
        """Of text and of tool calls, in UTF-8."""
        self.said_pieces = 0
        """Events that held some of it: at least as many tokens were sent."""
        self.finished = False
        """The provider said that this is the end."""
        self.limits = limits_of(response.headers)
        self._lease = lease
        self._response = response
        self._end = _DONE if wire == "openai" else _MESSAGE_STOP
        self._reads_usage = _CHUNK if wire == "openai" else _EVENT
        self._drops_usage = wire == "openai" and not wants_usage
        self._stopped = False

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Whole server-sent events, each on its own, however they came.

        Raises OutageError where the provider breaks off, BrokenReplyError after an end without content. Some services
        end without a word about usage: that is no reason to spoil a whole answer.
        Closing it hangs up on the provider.
        """
        rest = b""
        try:
            while True:
                try:
                    data = await self._response.content.readany()
                except _BROKEN as error:
                    raise _outage(self._lease, error) from None
                if not data:
                    break
                events, rest = _whole_events(rest + data)
                if len(rest) > EVENT_BYTES_MAX:
                    raise OutageError(f"{self._lease.provider} sent an event without an end.", TRY_LATER)
                failed = _ERROR.search(events)
                piece = self._look_at(events[: failed.start()] if failed else events)
                if self.finished and not self.said_pieces:
                    break
                for event in _EVENTS.findall(piece):
                    yield event
                if failed:
                    raise OutageError(f"{self._lease.provider} broke its reply off with an error.", TRY_LATER)
        finally:
            self.close()
        provider = self._lease.provider
        if not self.finished and not self._stopped:
            raise OutageError(f"{provider} broke its reply off.", TRY_LATER)
        if not self.said_pieces:
            raise no_content(self._lease, self.usage)

    def close(self) -> None:
        """Hangs up, unless all has come: then the connection serves the next call."""
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()

    def _look_at(self, events: bytes) -> bytes:
        """Takes note of what they say; returns what the client is to see of them."""
        seen: set[bytes] = set()
        end = 0
        for said in _SAID.finditer(events):
            if events.find(b"\n", end, said.start()) >= 0:
                seen.clear()  # Another line is another event.
            end = said.end()
            if said[1] in seen:
                continue  # Some services tell a thought twice: `reasoning` and `reasoning_details`.
            seen.add(said[1])
            self.said_pieces += 1
            self.said_bytes += _text_bytes(said[1])
        self._stopped = self._stopped or _STOPPED.search(events) is not None
        if b'"usage"' in events:
            events = b"".join(event for event in _EVENTS.findall(events) if self._takes_note_of_usage(event))
        self.finished = self.finished or self._end.search(events) is not None
        return events

    def _takes_note_of_usage(self, event: bytes) -> bool:
        """Whether the client is to see the event."""
        if b'"usage"' not in event:
            return True
        data = b"\n".join(line[5:] for line in event.splitlines() if line.startswith(b"data:"))
        try:
            chunk = self._reads_usage.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return True
        reported = chunk.usage or (chunk.message.usage if chunk.message else None)
        if reported is None:
            return True
        self.usage = reported.counted(self.usage) or self.usage
        return not (self._drops_usage and chunk.choices == [])


class _Details(Struct):
    reasoning_tokens: int | None = None


class _OpenAIUsage(Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int | None = None
    completion_tokens_details: _Details | None = None

    def counted(self, before: Usage | None) -> Usage | None:
        thoughts = self.completion_tokens_details.reasoning_tokens if self.completion_tokens_details else None
        written = with_thoughts(self.prompt_tokens, self.completion_tokens, thoughts, self.total_tokens)
        return _usage(self.prompt_tokens, written)


class _EmbeddingsUsage(Struct):
    prompt_tokens: int

    def counted(self, before: Usage | None) -> Usage | None:
        return _usage(self.prompt_tokens, 0)


class _AnthropicUsage(Struct):
    output_tokens: int
    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None

    def counted(self, before: Usage | None) -> Usage | None:
        """A later report says only what changed."""
        if self.input_tokens is None:
            return _usage(before.input_tokens, self.output_tokens) if before else None
        cached = (self.cache_creation_input_tokens or 0) + (self.cache_read_input_tokens or 0)
        return _usage(self.input_tokens + cached, self.output_tokens)


_NULL = Raw(b"null")


class _Message(Struct):
    content: Raw = _NULL
    refusal: Raw = _NULL
    tool_calls: Raw = _NULL
    function_call: Raw = _NULL


class _Choice(Struct):
    message: _Message


class _Completion(Struct):
    choices: list[_Choice]
    usage: _OpenAIUsage | None = None

    def says_something(self) -> bool:
        return any(
            bytes(raw) not in (b"null", b'""', b"[]", b"{}")
            for choice in self.choices
            for message in (choice.message,)
            for raw in (message.content, message.refusal, message.tool_calls, message.function_call)
        )


class _Embeddings(Struct):
    data: list[Raw]
    usage: _EmbeddingsUsage | None = None

    def says_something(self) -> bool:
        return bool(self.data)


class _AnthropicMessage(Struct):
    content: list[Raw]
    usage: _AnthropicUsage | None = None

    def says_something(self) -> bool:
        return bool(self.content)


class _Chunk(Struct):
    choices: list[Raw] | None = None
    usage: _OpenAIUsage | None = None
    message: None = None


class _MessageStart(Struct):
    usage: _AnthropicUsage | None = None


class _Event(Struct):
    """`message_start` holds the usage in its message, `message_delta` beside its delta."""

    choices: None = None
    usage: _AnthropicUsage | None = None
    message: _MessageStart | None = None


class _Error(Struct):
    message: str = ""
    code: str | int | None = None
    type: str | None = None


class _ErrorBody(Struct):
    error: _Error | str


_REPLIES: dict[Path, msgspec.json.Decoder[Any]] = {
    "/chat/completions": msgspec.json.Decoder(_Completion),
    "/embeddings": msgspec.json.Decoder(_Embeddings),
    "/messages": msgspec.json.Decoder(_AnthropicMessage),
}
_CHUNK = msgspec.json.Decoder(_Chunk)
_EVENT = msgspec.json.Decoder(_Event)
# At the beginning of a line only: a text, in which line breaks are escaped, may say the same.
_DONE = re.compile(rb"^data: ?\[DONE\]", re.MULTILINE)
_MESSAGE_STOP = re.compile(rb"^event: ?message_stop\b", re.MULTILINE)
_EVENTS = re.compile(rb".*?(?:\r\n\r\n|\n\n|\r\r)", re.DOTALL)
_ERROR = re.compile(rb'^(?:event: ?error\b|data: ?\{"error"\s*:\s*["{])', re.MULTILINE)
_STOPPED = re.compile(rb'"(?:finish_reason|stop_reason)"\s*:\s*"')
_TEXTS = rb"content|refusal|reasoning_content|reasoning|arguments|text|partial_json|thinking|name"
_SAID = re.compile(rb'"(?:' + _TEXTS + rb')"\s*:\s*"(?!")([^"\\]*+(?:\\.[^"\\]*+)*+)"')
"""A text that is not empty. A quotation mark in a text is escaped, so no text looks like a field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Address:
    url: URL
    proxy: str | None


def _address(base_url: str, path: Path) -> _Address:
    """OpenAI's base URLs end in `/v1`, Anthropic's do not."""
    url = URL(base_url + path if WIRES[path] == "openai" else base_url.removesuffix("/v1") + "/v1" + path)
    host = url.host or ""
    # A proxy from the environment must not stand between us and a model on this machine.
    if host in LOOPBACK or urllib.request.proxy_bypass(host):
        return _Address(url=url, proxy=None)
    return _Address(url=url, proxy=urllib.request.getproxies().get(url.scheme))


_BROKEN = (TimeoutError, aiohttp.ClientError, OSError, ValueError)


def _outage(lease: Lease, error: Exception) -> OutageError:
    """Without the key and without the request, which the client's own errors may quote."""
    if isinstance(error, TimeoutError):
        return timed_out(lease)
    return no_connection(lease)


async def _read(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    """Up to a little more than `bytes_max`, where there is more."""
    whole = await response.content.readany()
    if response.content.at_eof():
        return whole
    parts, size = [whole], len(whole)
    while size <= bytes_max and (part := await response.content.readany()):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


async def _refused(lease: Lease, response: aiohttp.ClientResponse) -> Exception:
    said = (await _read(response, ERROR_BYTES_MAX))[:ERROR_BYTES_MAX]
    try:
        error = msgspec.json.decode(said, type=_ErrorBody).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        error = _Error(message=response.reason or "")
    if isinstance(error, str):
        error = _Error(message=error)
    code = str(error.code) if error.code is not None else error.type
    return refusal(lease, status=response.status, code=code, message=error.message, headers=response.headers)


def _whole_events(data: bytes) -> tuple[bytes, bytes]:
    """What is whole, and the beginning of an event whose end has not come yet."""
    separators = (b"\n\n", b"\r\n\r\n", b"\r\r") if b"\r" in data else (b"\n\n",)
    end = max(at + len(separator) if (at := data.rfind(separator)) >= 0 else 0 for separator in separators)
    return data[:end], data[end:]


def _text_bytes(text: bytes) -> int:
    """UTF-8 bytes of what stands between a JSON text's quotation marks."""
    if b"\\" not in text:
        return len(text)
    try:
        return len(json.loads(b'"' + text + b'"').encode(errors="replace"))
    except ValueError:
        return 0


def _usage(input_tokens: int, output_tokens: int) -> Usage | None:
    """None for what cannot be believed."""
    if not (0 <= input_tokens <= TOKENS_MAX and 0 <= output_tokens <= TOKENS_MAX):
        return None
    return Usage(input_tokens=input_tokens, output_tokens=output_tokens)

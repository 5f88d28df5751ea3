"""One model call as any client makes it over the network, and how it ended: by what came, never by what should have."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp

Wire = Literal["openai", "anthropic"]
Kind = Literal["answered", "refused", "failed", "left", "cut", "unreachable", "wrong"]
"""How a call ended for its client:

    answered      the whole answer came
    refused       an error in the wire's own shape, with a request id, and no 500
    failed        a stream that had begun ended in such an error
    left          the client went away in the middle, because it was told to
    cut           the connection broke, or the stream ended without its end
    unreachable   nobody was there, or only the proxy was
    wrong         anything else: a 500, an answer that cannot be read, silence
"""
PATHS: Mapping[Wire, str] = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
_LAST: Mapping[Wire, bytes] = {"openai": b"data: [DONE]", "anthropic": b"event: message_stop"}
_UNFORESEEN = "internal_error"
_TOLD_CHARS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    wire: Wire
    model: str
    token: str = field(repr=False)
    text: str
    tokens_max: int
    streams: bool = False
    leaves_after: int | None = None
    """Of a stream: the client goes once so many of its events came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    kind: Kind
    began_at: float
    """Unix time; `ended_at` too."""
    ended_at: float
    status: int = 0
    code: str = ""
    """Of an error: our own name for it."""
    usage: tuple[int, int] | None = None
    """Input and output tokens, as the answer says."""
    events: int = 0
    told: str = ""
    """The beginning of what came, where it is `wrong`."""


class Caller:
    """Connections to one address. To be closed."""

    def __init__(self, url: str, *, timeout_s: float = 90.0, connections_max: int = 0) -> None:
        """0 connections are as many as are needed."""
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections_max, keepalive_timeout=15.0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5.0),
        )

    async def call(self, ask: Ask) -> End:
        """Never raises, whatever happens to the call."""
        call = _Call(ask, time.time())
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._call(call, ask)
        except aiohttp.ConnectionTimeoutError as error:
            return call.end("unreachable", told=str(error))
        except TimeoutError:
            return call.end("wrong", told=f"no end in {self._timeout_s:g} s")
        except aiohttp.ClientConnectorError as error:
            return call.end("unreachable", told=str(error))
        except (aiohttp.ClientError, ConnectionError) as error:
            return call.end("cut", told=repr(error))
        except ValueError as error:
            return call.end("wrong", told=f"an event that cannot be read: {error}")

    async def close(self) -> None:
        await self._http.close()

    async def _call(self, call: "_Call", ask: Ask) -> End:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {ask.token}"}
        if ask.wire == "anthropic":
            headers = {"Content-Type": "application/json", "x-api-key": ask.token, "anthropic-version": "2023-06-01"}
        async with self._http.post(self._url + PATHS[ask.wire], data=_body(ask), headers=headers) as response:
            call.status = response.status
            if response.status != 200:
                return _refusal(call, await response.read(), response.headers)
            if not ask.streams:
                return _answer(call, await response.read())
            tail = b""
            async for chunk in response.content.iter_any():
                tail += chunk
                done, between, rest = tail.rpartition(b"\n\n")
                if between:
                    call.read(done)
                    tail = rest
                if ask.leaves_after is not None and call.events >= ask.leaves_after and not call.ends:
                    response.close()
                    return call.end("left")
        return call.ended()


class _Call:
    """What is known of a call so far."""

    def __init__(self, ask: Ask, began_at: float) -> None:
        self.wire = ask.wire
        self.began_at = began_at
        self.status = 0
        self.events = 0
        self.ends = False
        self._usage: dict[str, Any] = {}
        self._error: dict[str, Any] | None = None

    def read(self, events: bytes) -> None:
        """Whole server-sent events. Only those that say more than text are parsed."""
        self.events += events.count(b"\n\n") + 1
        self.ends = self.ends or _LAST[self.wire] in events
        if _says_more(events):
            for event in filter(_says_more, events.split(b"\n\n")):
                self._read_one(event)

    def note_usage(self, reply: Mapping[str, Any]) -> None:
        reported = reply.get("usage") or reply.get("message", {}).get("usage")
        if isinstance(reported, dict):
            self._usage.update(reported)

    def ended(self) -> End:
        """After the last byte of a stream."""
        if self._error is not None:
            code = str(self._error.get("code", ""))
            return self.end("wrong" if code == _UNFORESEEN else "failed", code=code)
        return self.end("answered") if self.ends else self.end("cut", told="a stream without an end")

    def end(self, kind: Kind, *, code: str = "", told: str = "") -> End:
        names = ("prompt_tokens", "completion_tokens") if self.wire == "openai" else ("input_tokens", "output_tokens")
        told_in, told_out = (self._usage.get(name) for name in names)
        usage = (told_in, told_out) if isinstance(told_in, int) and isinstance(told_out, int) else None
        return End(
            kind=kind,
            began_at=self.began_at,
            ended_at=time.time(),
            status=self.status,
            code=code,
            usage=usage,
            events=self.events,
            told=told[:_TOLD_CHARS],
        )

    def _read_one(self, event: bytes) -> None:
        data = event[event.find(b"data: ") + 6 :]
        if not data.startswith(b"{"):
            return
        document = json.loads(data)
        self.note_usage(document)
        if isinstance(document.get("error"), dict):
            self._error = document["error"]


def _says_more(events: bytes) -> bool:
    return b'"usage":{' in events or b'"usage": {' in events or b'"error"' in events


def _body(ask: Ask) -> bytes:
    body: dict[str, Any] = {
        "model": ask.model,
        "messages": [{"role": "user", "content": ask.text}],
        "max_tokens": ask.tokens_max,
    }
    if ask.streams:
        body["stream"] = True
        if ask.wire == "openai":
            body["stream_options"] = {"include_usage": True}
    return json.dumps(body).encode()


def _answer(call: _Call, body: bytes) -> End:
    try:
        document = json.loads(body)
        said = document["choices"][0]["message"] if call.wire == "openai" else document["content"][0]
        call.note_usage(document)
    except (ValueError, LookupError, TypeError):
        return call.end("wrong", told=body.decode(errors="replace"))
    return call.end("answered" if said else "wrong", told="" if said else "nothing was said")


def _refusal(call: _Call, body: bytes, headers: Mapping[str, str]) -> End:
    """An error of ours says what happened, by a code, in the wire's shape and under a request id."""
    try:
        document = json.loads(body)
        error = document["error"]
        is_ours = bool(error["code"] and error["message"] and error["type"])
        if call.wire == "anthropic":
            is_ours = is_ours and document["type"] == "error"
        is_ours = is_ours and bool(headers.get("request-id") or headers.get("x-request-id"))
    except (ValueError, LookupError, TypeError):
        is_ours, error = False, {}
    if is_ours and call.status != 500:
        return call.end("refused", code=str(error["code"]))
    kind: Kind = "unreachable" if call.status in (502, 503, 504) and not is_ours else "wrong"
    return call.end(kind, told=body.decode(errors="replace"))

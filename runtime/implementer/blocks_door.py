"""How the engine `blocks` reaches a model: the gateway's door in OpenAI's wire format, and nothing else."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp

from runtime.implementer.blocks_prompt import Said
from runtime.implementer.engine import EditRequest

REPLY_BYTES_MAX = 8 << 20
_TRANSIENT_STATUSES = (502, 503)
RETRY_DELAYS_S = (0.5, 2.0, 5.0)
_CONNECT_S_MAX = 10.0
_READ_BYTES = 64 << 10
_SHOWN_CHARACTERS_MAX = 2_000


class NoReplyError(Exception):
    """The gateway refused the call (`status`), or no whole answer came from it (0)."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text, status)
        self.text = text
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReply:
    text: str
    is_cut: bool
    """Whether it ended at the output limit."""


class ModelDoor(Protocol):
    async def ask(self, request: EditRequest, said: Sequence[Said]) -> ModelReply:
        """One paid call, with the request's model, token and output limit. Raises NoReplyError."""


class GatewayDoor:
    """Keeps no connection, cookie or token from one call to the next. Cancelling a call hangs up."""

    def __init__(self, retry_delays_s: Sequence[float] = RETRY_DELAYS_S) -> None:
        self._retry_delays_s = retry_delays_s

    async def ask(self, request: EditRequest, said: Sequence[Said]) -> ModelReply:
        """A gateway that is away for a moment is asked again; no call that may have been paid for is repeated."""
        delays_s = list(self._retry_delays_s)
        while True:
            try:
                return await self._ask_once(request, said)
            except _AwayError as error:
                if not delays_s:
                    raise NoReplyError(error.text, error.status) from None
                await asyncio.sleep(delays_s.pop(0))

    async def _ask_once(self, request: EditRequest, said: Sequence[Said]) -> ModelReply:
        body = {
            "model": request.model,
            "messages": [{"role": each.role, "content": each.text} for each in said],
            "max_tokens": request.output_tokens_max,
        }
        # The caller bounds the whole of it; here it is only known that a gateway which is there accepts at once.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S_MAX)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
                session.post(
                    f"{request.gateway_url}/chat/completions",
                    json=body,
                    headers={"authorization": f"Bearer {request.token}"},
                    allow_redirects=False,
                ) as response,
            ):
                status = response.status
                answer = await _read(response)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise _AwayError(f"The gateway does not answer: {error}.") from None
        except (aiohttp.ClientError, OSError) as error:
            raise NoReplyError(f"The gateway's answer broke off: {error or type(error).__name__}.") from None
        if status in _TRANSIENT_STATUSES:
            raise _AwayError(_why(answer, status), status)
        if status != 200:
            raise NoReplyError(_why(answer, status), status)
        return _reply(answer)


class _AwayError(NoReplyError):
    """Worth asking again: the call was not made."""


async def _read(response: aiohttp.ClientResponse) -> bytes:
    answer = bytearray()
    async for chunk in response.content.iter_chunked(_READ_BYTES):
        answer += chunk
        if len(answer) > REPLY_BYTES_MAX:
            raise NoReplyError(f"The gateway's answer is over {REPLY_BYTES_MAX} bytes.", response.status)
    return bytes(answer)


def _reply(answer: bytes) -> ModelReply:
    try:
        choice = json.loads(answer)["choices"][0]
        text = choice["message"].get("content") or ""
        finish = choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError):
        raise NoReplyError(f"The gateway's answer is no completion: {_shown(answer)}", 200) from None
    if not isinstance(text, str):
        raise NoReplyError("The gateway's answer has no text.", 200)
    # JSON may hold half of a surrogate pair, which no file can.
    return ModelReply(text=text.encode(errors="replace").decode(), is_cut=finish == "length")


def _why(answer: bytes, status: int) -> str:
    """What the gateway said, in its own words where it used its own shape."""
    try:
        told: Any = json.loads(answer)["error"]["message"]
    except (ValueError, LookupError, TypeError):
        told = ""
    return str(told)[:_SHOWN_CHARACTERS_MAX] or f"The gateway answered {status}: {_shown(answer)}"


def _shown(answer: bytes) -> str:
    return answer[:_SHOWN_CHARACTERS_MAX].decode(errors="replace") or "nothing"

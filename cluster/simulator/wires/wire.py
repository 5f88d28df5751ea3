"""What a wire format must be able to say."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from cluster.simulator.allowance import Allowance
from cluster.simulator.chat import Chat, Embedding, WireName
from cluster.simulator.refusal import Refusal
from cluster.simulator.reply import Part, Reply
from runtime.validation import problems

_Body = TypeVar("_Body", bound=BaseModel)

MODELS: Mapping[WireName, Sequence[str]] = {
    "openai": ("gpt-4o", "gpt-4o-mini", "text-embedding-3-small"),
    "anthropic": ("claude-opus-4-7", "claude-sonnet-4-6"),
    "gemini": ("gemini-2.5-pro", "gemini-2.5-flash", "gemini-embedding-001"),
}
"""Those listed; any name is served."""


class Wire(Protocol):
    """Readers raise Refusal; `stream` gives the parts of a stream, of which only the last says that the answer is
    complete; the parts' bytes hold whole events."""

    name: ClassVar[WireName]

    def key(self, request: web.Request) -> str:
        """Empty where there is none."""

    def read(self, request: web.Request, body: bytes) -> Chat: ...

    def whole(self, reply: Reply) -> bytes: ...

    def stream(self, chat: Chat, reply: Reply) -> Sequence[Part]: ...

    def read_embedding(self, request: web.Request, body: bytes) -> Embedding: ...

    def embedded(self, asked: Embedding, vectors: Sequence[Sequence[float]], told_tokens: int | None) -> bytes: ...

    def models(self) -> dict[str, Any]: ...

    def refuse(self, refusal: Refusal, request_id: str) -> web.Response: ...

    def error_event(self, refusal: Refusal, request_id: str) -> bytes:
        """An error in the middle of a stream."""

    def headers(self, request_id: str, requests: Allowance | None, tokens: Allowance | None) -> dict[str, str]: ...


def fit(model: type[_Body], body: bytes) -> _Body:
    """Raises Refusal that names the first place that does not fit."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        where, what = problems(error)[0]
        raise Refusal(
            400, f"The request does not fit: {what} (at {where or 'its root'}).", param=where or None
        ) from error


def encoded(body: Any) -> bytes:
    return _ENCODE(body).encode()


_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

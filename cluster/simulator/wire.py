"""The shapes of OpenAI's chat completions.

Source: https://platform.openai.com/docs/api-reference/chat
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

MODELS = ("gpt-4o", "gpt-4o-mini")
"""Those listed; any name is served."""

_PIECE_CHARS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Bytes that leave together. `text` is what a client has of the answer's text once they arrived."""

    data: bytes
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One answer, whole."""

    id: str
    created: int
    """Seconds since 1970."""
    model: str
    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int


class StreamOptions(BaseModel):
    include_usage: bool = False


class JsonSchema(BaseModel):
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")


class ResponseFormat(BaseModel):
    """Checked and otherwise ignored: a scenario's replies are what they are."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class ChatRequest(BaseModel):
    """What the simulator looks at; everything else that OpenAI takes is accepted and ignored."""

    model_config = ConfigDict(extra="ignore")

    model: str = Field(min_length=1)
    messages: list[dict[str, Any]] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)

    @property
    def tokens_max(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def content_type(self) -> str:
        return "text/event-stream" if self.stream else "application/json"

    def parts_of(self, completion: Completion) -> list[Part]:
        """The answer as it was asked for; only the last part says that it is complete, and what it used."""
        if not self.stream:
            body = _json(_whole(completion))
            return [Part(data=body[: len(body) // 2]), Part(data=body[len(body) // 2 :], text=completion.text)]
        usage = self.stream_options is not None and self.stream_options.include_usage
        return _stream(completion, usage=usage)


class WireError(Exception):
    """An answer in OpenAI's error shape."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self._status = status
        self._body = {"error": {"message": message, "type": type, "param": param, "code": code}}
        self._headers = headers

    def response(self) -> web.Response:
        return web.json_response(self._body, status=self._status, headers=self._headers)


def model_list() -> dict[str, Any]:
    models = [{"id": name, "object": "model", "created": 0, "owned_by": "masterbuilder-simulator"} for name in MODELS]
    return {"object": "list", "data": models}


def _whole(completion: Completion) -> dict[str, Any]:
    message = {"role": "assistant", "content": completion.text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": completion.finish_reason}
    return {**_head(completion, "chat.completion"), "choices": [choice], "usage": _usage(completion)}


def _stream(completion: Completion, *, usage: bool) -> list[Part]:
    def event(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        unknown_yet = {"usage": None} if usage else {}
        return _event({**head, "choices": [choice], **unknown_yet})

    head = _head(completion, "chat.completion.chunk")
    text = completion.text
    pieces = [text[start : start + _PIECE_CHARS] for start in range(0, len(text), _PIECE_CHARS)]
    end = event({}, completion.finish_reason)
    if usage:
        end += _event({**head, "choices": [], "usage": _usage(completion)})
    return [
        Part(data=event({"role": "assistant", "content": ""})),
        *(Part(data=event({"content": piece}), text=piece) for piece in pieces),
        Part(data=end + b"data: [DONE]\n\n"),
    ]


def _head(completion: Completion, kind: str) -> dict[str, Any]:
    return {"id": completion.id, "object": kind, "created": completion.created, "model": completion.model}


def _usage(completion: Completion) -> dict[str, int]:
    return {
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
        "total_tokens": completion.prompt_tokens + completion.completion_tokens,
    }


def _event(body: Mapping[str, Any]) -> bytes:
    return b"data: " + _json(body) + b"\n\n"


def _json(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()

"""Anthropic's messages.

Source: https://docs.claude.com/en/api/messages, .../messages-streaming, .../errors, .../rate-limits
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal

from aiohttp import web
from pydantic import BaseModel, Field

from cluster.simulator.allowance import Allowance
from cluster.simulator.chat import (
    Chat,
    Embedding,
    Message,
    Picture,
    Tool,
    ToolCall,
    ToolResult,
    WireName,
    check_tool_results,
    picture,
    picture_at,
    prompt_tokens,
)
from cluster.simulator.refusal import Refusal, retry_headers
from cluster.simulator.reply import Part, Reply, pieces_of
from cluster.simulator.wires.openai import bearer
from cluster.simulator.wires.wire import MODELS, encoded, fit

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


class Anthropic:
    """Implements `Wire`."""

    name: ClassVar[WireName] = "anthropic"

    def key(self, request: web.Request) -> str:
        return request.headers.get("x-api-key") or bearer(request)

    def read(self, request: web.Request, body: bytes) -> Chat:
        if "anthropic-version" not in request.headers:
            raise Refusal(400, "anthropic-version: header is required")
        asked = fit(_Chat, body)
        system = _text_of(asked.system, "system") if asked.system else ""
        messages = [Message(role="system", text=system)] if system else []
        messages += [_message(given, f"messages.{index}") for index, given in enumerate(asked.messages)]
        if any(message.tool_calls or message.tool_results for message in messages):
            check_tool_results(messages)
        tools = tuple(
            Tool(name=tool.name, description=tool.description or "", parameters=tool.input_schema)
            for tool in asked.tools or ()
        )
        return Chat(
            model=asked.model,
            messages=messages,
            prompt_tokens=prompt_tokens(messages, tools),
            tools=tools,
            tool_choice=asked.tool_choice.neutral() if asked.tool_choice else "auto",
            schema=asked.output_config.format.schema_ if asked.output_config and asked.output_config.format else None,
            tokens_max=asked.max_tokens,
            stream=bool(asked.stream),
            user=(asked.metadata.user_id if asked.metadata else None) or "",
        )

    def whole(self, reply: Reply) -> bytes:
        content: list[dict[str, Any]] = [{"type": "text", "text": reply.text}] if reply.text else []
        content += [{**_call(call), "input": json.loads(call.arguments)} for call in reply.tool_calls]
        usage = {"usage": _usage(reply, reply.completion_tokens)} if reply.tells_usage else {}
        return encoded({**_head(reply), "content": content, "stop_reason": _STOP_REASONS[reply.finish], **usage})

    def stream(self, chat: Chat, reply: Reply) -> Sequence[Part]:
        usage = {"usage": _usage(reply, 1)} if reply.tells_usage else {}
        head = {**_head(reply), "content": [], "stop_reason": None, **usage}
        parts = [Part(data=_event("message_start", {"message": head}))]
        index = 0
        if reply.text:
            parts.append(_begin(index, {"type": "text", "text": ""}))
            parts.append(Part(data=_event("ping", {})))
            parts += [_delta(index, "text_delta", "text", piece) for piece in reply.pieces()]
            parts.append(Part(data=_event("content_block_stop", {"index": index})))
            index += 1
        for call in reply.tool_calls:
            parts.append(_begin(index, {**_call(call), "input": {}}, call.name))
            parts += [
                _delta(index, "input_json_delta", "partial_json", piece)
                for piece in pieces_of(call.arguments, reply.piece_chars)
            ]
            parts.append(Part(data=_event("content_block_stop", {"index": index})))
            index += 1
        delta = {"stop_reason": _STOP_REASONS[reply.finish], "stop_sequence": None}
        told = {"usage": {"output_tokens": reply.completion_tokens}} if reply.tells_usage else {}
        end = _event("message_delta", {"delta": delta, **told}) + _event("message_stop", {})
        return [*parts, Part(data=end)]

    def read_embedding(self, request: web.Request, body: bytes) -> Embedding:
        raise Refusal(404, "Anthropic has no embeddings.")

    def embedded(self, asked: Embedding, vectors: Sequence[Sequence[float]], told_tokens: int | None) -> bytes:
        raise Refusal(404, "Anthropic has no embeddings.")

    def models(self) -> dict[str, Any]:
        names = MODELS["anthropic"]
        made = {"type": "model", "created_at": "2026-01-01T00:00:00Z"}
        data = [{"id": name, "display_name": name, **made} for name in names]
        return {"data": data, "has_more": False, "first_id": names[0], "last_id": names[-1]}

    def refuse(self, refusal: Refusal, request_id: str) -> web.Response:
        headers = {**self.headers(request_id, *refusal.allowances), **retry_headers(refusal, ("seconds",))}
        return web.json_response(_error(refusal, request_id), status=refusal.status, headers=headers)

    def error_event(self, refusal: Refusal, request_id: str) -> bytes:
        return b"event: error\ndata: " + encoded(_error(refusal, request_id)) + b"\n\n"

    def headers(self, request_id: str, requests: Allowance | None, tokens: Allowance | None) -> dict[str, str]:
        headers = {"request-id": request_id}
        for what, allowance in (("requests", requests), ("tokens", tokens)):
            if allowance is not None:
                whole_at = datetime.now(UTC) + timedelta(seconds=allowance.reset_s)
                headers[f"anthropic-ratelimit-{what}-limit"] = str(allowance.most)
                headers[f"anthropic-ratelimit-{what}-remaining"] = str(allowance.left)
                headers[f"anthropic-ratelimit-{what}-reset"] = whole_at.isoformat(timespec="milliseconds").replace(
                    "+00:00", "Z"
                )
        return headers


class _Tool(BaseModel):
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,128}$")
    description: str | None = None
    input_schema: dict[str, Any]


class _ToolChoice(BaseModel):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None

    def neutral(self) -> str:
        if self.type == "tool":
            return f"tool:{self.name}"
        return "required" if self.type == "any" else self.type


class _Metadata(BaseModel):
    user_id: str | None = None


class _Format(BaseModel):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class _OutputConfig(BaseModel):
    format: _Format | None = None


class _Message(BaseModel):
    role: Literal["user", "assistant"]
    content: str | list[dict[str, Any]]


class _Chat(BaseModel):
    """What the simulator looks at; everything else that Anthropic takes is accepted and ignored."""

    model: str = Field(min_length=1)
    max_tokens: int = Field(ge=1)
    messages: list[_Message] = Field(min_length=1)
    system: str | list[dict[str, Any]] | None = None
    stream: bool | None = False
    tools: list[_Tool] | None = None
    tool_choice: _ToolChoice | None = None
    metadata: _Metadata | None = None
    output_config: _OutputConfig | None = None


def _message(given: _Message, where: str) -> Message:
    if isinstance(given.content, str):
        if not given.content:
            raise Refusal(400, f"{where}: all messages must have non-empty content")
        return Message(role=given.role, text=given.content)
    texts: list[str] = []
    pictures: list[Picture] = []
    calls: list[ToolCall] = []
    results: list[ToolResult] = []
    for number, block in enumerate(given.content):
        kind, place = block.get("type"), f"{where}.content.{number}"
        if kind == "text":
            texts.append(_text_block(block, place))
        elif kind == "image" and given.role == "user":
            pictures.append(_picture(block, place))
        elif kind == "tool_use" and given.role == "assistant":
            calls.append(_tool_use(block, place))
        elif kind == "tool_result" and given.role == "user":
            content = block.get("content")
            text = _text_of(content, place) if content else ""
            results.append(ToolResult(call_id=str(block.get("tool_use_id")), text=text))
        elif kind not in ("thinking", "redacted_thinking"):
            raise Refusal(400, f"{place}.type: {kind!r:.40} is not a block that a {given.role} may send")
    return Message(
        role=given.role,
        text="".join(texts),
        pictures=tuple(pictures),
        tool_calls=tuple(calls),
        tool_results=tuple(results),
    )


def _text_of(content: Any, place: str) -> str:
    """A text, or blocks of text; pictures among a tool's results are passed over."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise Refusal(400, f"{place}: Input should be a text or a list of blocks")
    return "".join(_text_block(block, place) for block in content if block.get("type") != "image")


def _text_block(block: Mapping[str, Any], place: str) -> str:
    text = block.get("text")
    if block.get("type") != "text" or not isinstance(text, str) or not text:
        raise Refusal(400, f"{place}: text content blocks must be non-empty")
    return text


def _picture(block: Mapping[str, Any], place: str) -> Picture:
    source = block.get("source")
    if isinstance(source, dict) and source.get("type") == "url":
        return picture_at(str(source.get("url")))
    if not isinstance(source, dict) or source.get("type") != "base64" or not isinstance(source.get("data"), str):
        raise Refusal(400, f"{place}.source: Input should be a base64 or url source")
    return picture(str(source.get("media_type")), source["data"])


def _tool_use(block: Mapping[str, Any], place: str) -> ToolCall:
    id, name, given = block.get("id"), block.get("name"), block.get("input")
    if not isinstance(id, str) or not isinstance(name, str) or not isinstance(given, dict):
        raise Refusal(400, f"{place}: a tool_use needs an id, a name and an input, which is an object")
    return ToolCall(id=id, name=name, arguments=json.dumps(given))


def _head(reply: Reply) -> dict[str, Any]:
    return {
        "id": f"msg_{reply.id}",
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "stop_sequence": None,
    }


def _call(call: ToolCall) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{call.id}", "name": call.name}


def _usage(reply: Reply, output_tokens: int) -> dict[str, int]:
    return {
        "input_tokens": reply.prompt_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": output_tokens,
    }


def _begin(index: int, block: Mapping[str, Any], text: str = "") -> Part:
    return Part(data=_event("content_block_start", {"index": index, "content_block": block}), text=text)


def _delta(index: int, kind: str, field: str, piece: str) -> Part:
    return Part(data=_event("content_block_delta", {"index": index, "delta": {"type": kind, field: piece}}), text=piece)


def _error(refusal: Refusal, request_id: str) -> dict[str, Any]:
    kind = _ERROR_TYPES.get(refusal.status, "invalid_request_error" if refusal.status < 500 else "api_error")
    message = "invalid x-api-key" if refusal.reason == "key" else refusal.message
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}


def _event(name: str, body: Mapping[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + encoded({"type": name, **body}) + b"\n\n"

"""OpenAI's chat completions and embeddings.

Source: https://platform.openai.com/docs/api-reference/chat, .../embeddings, .../guides/rate-limits
"""

import base64
import struct
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

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
    picture_at,
    prompt_tokens,
)
from cluster.simulator.refusal import Refusal, retry_headers
from cluster.simulator.reply import Part, Reply, pieces_of
from cluster.simulator.wires.wire import MODELS, encoded, fit


class OpenAI:
    """Implements `Wire`."""

    name: ClassVar[WireName] = "openai"

    def key(self, request: web.Request) -> str:
        return bearer(request)

    def read(self, request: web.Request, body: bytes) -> Chat:
        asked = fit(_Chat, body)
        if asked.stream_options is not None and not asked.stream:
            raise Refusal(
                400,
                "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
                param="stream_options",
            )
        messages = _messages(asked.messages)
        tools = tuple(tool.function.neutral() for tool in asked.tools or ())
        return Chat(
            model=asked.model,
            messages=messages,
            prompt_tokens=prompt_tokens(messages, tools),
            tools=tools,
            tool_choice=_tool_choice(asked.tool_choice),
            schema=asked.response_format.schema_asked() if asked.response_format else None,
            tokens_max=asked.max_completion_tokens or asked.max_tokens,
            stream=bool(asked.stream),
            usage_in_stream=asked.stream_options is not None and asked.stream_options.include_usage,
            user=asked.user or "",
        )

    def whole(self, reply: Reply) -> bytes:
        message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None}
        if reply.tool_calls:
            message["content"] = reply.text or None
            message["tool_calls"] = [_call(call, call.arguments) for call in reply.tool_calls]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish}
        usage = {"usage": _usage(reply)} if reply.tells_usage else {}
        return encoded({**_head(reply, "chat.completion"), "choices": [choice], **usage})

    def stream(self, chat: Chat, reply: Reply) -> Sequence[Part]:
        def event(delta: Mapping[str, Any], finish_reason: str | None = None) -> bytes:
            return before + encoded(delta) + b',"logprobs":null,"finish_reason":' + encoded(finish_reason) + after

        tells_usage = chat.usage_in_stream and reply.tells_usage
        head = encoded(_head(reply, "chat.completion.chunk"))[:-1]
        before = b"data: " + head + b',"choices":[{"index":0,"delta":'
        after = b'}],"usage":null}\n\n' if tells_usage else b"}]}\n\n"
        parts = [Part(data=event({"role": "assistant", "content": "" if reply.text else None}))]
        parts += [Part(data=event({"content": piece}), text=piece) for piece in reply.pieces()]
        for index, call in enumerate(reply.tool_calls):
            parts.append(Part(data=event({"tool_calls": [{"index": index, **_call(call, "")}]}), text=call.name))
            for piece in pieces_of(call.arguments, reply.piece_chars):
                delta = {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
                parts.append(Part(data=event(delta), text=piece))
        end = event({}, reply.finish)
        if tells_usage:
            end += b"data: " + head + b',"choices":[],"usage":' + encoded(_usage(reply)) + b"}\n\n"
        return [*parts, Part(data=end + b"data: [DONE]\n\n")]

    def read_embedding(self, request: web.Request, body: bytes) -> Embedding:
        asked = fit(_Embedding, body)
        texts = _texts(asked.input)
        if not texts or not all(texts):
            raise Refusal(400, "'$.input' is invalid: an input cannot be empty.", param="input")
        return Embedding(
            model=asked.model,
            texts=texts,
            dimensions=asked.dimensions,
            base64=asked.encoding_format == "base64",
        )

    def embedded(self, asked: Embedding, vectors: Sequence[Sequence[float]], told_tokens: int | None) -> bytes:
        data = [
            {"object": "embedding", "index": index, "embedding": _packed(vector) if asked.base64 else vector}
            for index, vector in enumerate(vectors)
        ]
        told = {"prompt_tokens": told_tokens, "total_tokens": told_tokens}
        usage = {} if told_tokens is None else {"usage": told}
        return encoded({"object": "list", "data": data, "model": asked.model, **usage})

    def models(self) -> dict[str, Any]:
        owner = {"object": "model", "created": 0, "owned_by": "masterbuilder-simulator"}
        return {"object": "list", "data": [{"id": name, **owner} for name in MODELS["openai"]]}

    def refuse(self, refusal: Refusal, request_id: str) -> web.Response:
        headers = {**self.headers(request_id, *refusal.allowances), **retry_headers(refusal, ("seconds", "ms"))}
        return web.json_response(_error(refusal), status=refusal.status, headers=headers)

    def error_event(self, refusal: Refusal, request_id: str) -> bytes:
        return b"data: " + encoded(_error(refusal)) + b"\n\n"

    def headers(self, request_id: str, requests: Allowance | None, tokens: Allowance | None) -> dict[str, str]:
        headers = {"x-request-id": request_id}
        for what, allowance in (("requests", requests), ("tokens", tokens)):
            if allowance is not None:
                headers[f"x-ratelimit-limit-{what}"] = str(allowance.most)
                headers[f"x-ratelimit-remaining-{what}"] = str(allowance.left)
                headers[f"x-ratelimit-reset-{what}"] = _duration(allowance.reset_s)
        return headers


def bearer(request: web.Request) -> str:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


class _StreamOptions(BaseModel):
    include_usage: bool = False


class _JsonSchema(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")


class _ResponseFormat(BaseModel):
    """A scenario's replies are what they are; only synthetic ones follow it."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: _JsonSchema | None = None

    def schema_asked(self) -> dict[str, Any] | None:
        if self.type == "text":
            return None
        return self.json_schema.schema_ if self.json_schema else {}


class _Function(BaseModel):
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None

    def neutral(self) -> Tool:
        return Tool(name=self.name, description=self.description or "", parameters=self.parameters or {})


class _Tool(BaseModel):
    type: Literal["function"]
    function: _Function


class _FunctionName(BaseModel):
    name: str


class _NamedTool(BaseModel):
    type: Literal["function"]
    function: _FunctionName


class _Chat(BaseModel):
    """What the simulator looks at; everything else that OpenAI takes is accepted and ignored."""

    model: str = Field(min_length=1)
    messages: list[dict[str, Any]] = Field(min_length=1)
    stream: bool | None = False
    stream_options: _StreamOptions | None = None
    response_format: _ResponseFormat | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    tools: list[_Tool] | None = None
    tool_choice: Literal["auto", "none", "required"] | _NamedTool | None = None
    user: str | None = None


class _Embedding(BaseModel):
    model: str = Field(min_length=1)
    input: str | list[str] | list[int] | list[list[int]]
    dimensions: int | None = Field(default=None, ge=1, le=8192)
    encoding_format: Literal["float", "base64"] = "float"


def _messages(raw: Sequence[Mapping[str, Any]]) -> list[Message]:
    messages: list[Message] = []
    calls = False
    for index, given in enumerate(raw):
        role, content = given.get("role"), given.get("content")
        if role == "user" and type(content) is str:
            messages.append(Message(role="user", text=content))
        elif role == "tool":
            result = ToolResult(call_id=str(given.get("tool_call_id")), text=_text(content, index))
            before = messages[-1].tool_results if messages else ()
            if before:
                messages.pop()
            messages.append(Message(role="user", tool_results=(*before, result)))
            calls = True
        elif role in ("system", "developer"):
            messages.append(Message(role="system", text=_text(content, index)))
        elif role == "user":
            messages.append(Message(role="user", text=_text(content, index), pictures=_pictures(content)))
        elif role == "assistant":
            asked = given.get("tool_calls") or []
            if not isinstance(asked, list):
                raise Refusal(400, f"'messages[{index}].tool_calls' is a list.", param="messages")
            tool_calls = tuple(_tool_call(call, index) for call in asked)
            calls = calls or bool(tool_calls)
            if content is None and not tool_calls:
                raise Refusal(400, "Invalid value for 'content': expected a string, got null.", param="messages")
            messages.append(Message(role="assistant", text=_text(content, index), tool_calls=tool_calls))
        else:
            raise Refusal(400, f"Invalid value of role: {role!r:.40}.", param=f"messages[{index}].role")
    if calls:
        check_tool_results(messages)
    return messages


def _text(content: Any, index: int) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise Refusal(400, "A message's content must be text or a list of parts.", param=f"messages[{index}].content")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get("refusal" if kind == "refusal" else "text") if kind else None
        if kind == "image_url":
            continue
        if kind not in ("text", "refusal") or not isinstance(text, str):
            raise Refusal(400, f"Invalid content part: {kind!r:.40}.", param=f"messages[{index}].content")
        texts.append(text)
    return "".join(texts)


def _pictures(content: Any) -> tuple[Picture, ...]:
    if not isinstance(content, list):
        return ()
    addresses = [part.get("image_url") for part in content if part.get("type") == "image_url"]
    return tuple(picture_at(str(address.get("url")) if isinstance(address, dict) else "") for address in addresses)


def _tool_call(given: Any, index: int) -> ToolCall:
    function = given.get("function") if isinstance(given, dict) else None
    if not isinstance(function, dict) or not all(
        isinstance(text, str) for text in (given.get("id"), function.get("name"), function.get("arguments"))
    ):
        raise Refusal(400, "A tool call needs id, function.name and function.arguments.", param=f"messages[{index}]")
    return ToolCall(id=given["id"], name=function["name"], arguments=function["arguments"])


def _tool_choice(given: str | _NamedTool | None) -> str:
    return f"tool:{given.function.name}" if isinstance(given, _NamedTool) else given or "auto"


def _texts(given: str | list[str] | list[int] | list[list[int]]) -> tuple[str, ...]:
    """Token ids become their decimal numbers: the simulator has no tokenizer."""
    if isinstance(given, str):
        return (given,)
    if given and isinstance(given[0], int):
        return (" ".join(map(str, given)),)
    return tuple(each if isinstance(each, str) else " ".join(map(str, each)) for each in given)  # type: ignore[arg-type]


def _call(call: ToolCall, arguments: str) -> dict[str, Any]:
    return {"id": f"call_{call.id}", "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _head(reply: Reply, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{reply.id}", "object": kind, "created": reply.created, "model": reply.model}


def _usage(reply: Reply) -> dict[str, int]:
    return {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "total_tokens": reply.prompt_tokens + reply.completion_tokens,
    }


def _error(refusal: Refusal) -> dict[str, Any]:
    kind, code = "invalid_request_error", refusal.code
    if refusal.reason == "key":
        code = "invalid_api_key"
    elif refusal.status == 429:
        kind, code = refusal.reason or "requests", "rate_limit_exceeded"
    elif refusal.status >= 500:
        kind = "server_error"
    return {"error": {"message": refusal.message, "type": kind, "param": refusal.param, "code": code}}


def _duration(seconds: float) -> str:
    """As OpenAI writes it: `120ms`, `7.66s`, `1m0s`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f}m{rest:.3g}s" if minutes else f"{rest:.3f}".rstrip("0").rstrip(".") + "s"


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()

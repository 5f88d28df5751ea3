"""Gemini's generateContent and embedContent.

Source: https://ai.google.dev/api/generate-content, .../api/embeddings, .../gemini-api/docs/troubleshooting
"""

import json
from collections.abc import Sequence
from typing import Any, ClassVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

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
    prompt_tokens,
)
from cluster.simulator.refusal import Refusal, retry_headers
from cluster.simulator.reply import Part, Reply
from cluster.simulator.wires.wire import MODELS, encoded, fit

STREAM = "streamGenerateContent"
_STATUSES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
}


class Gemini:
    """Implements `Wire`. Model and method stand in the path: `/v1beta/models/{model}:{method}`; `/v1` does as well."""

    name: ClassVar[WireName] = "gemini"

    def key(self, request: web.Request) -> str:
        return request.headers.get("x-goog-api-key") or request.query.get("key", "")

    def read(self, request: web.Request, body: bytes) -> Chat:
        streams = request.match_info["method"] == STREAM
        if streams and request.query.get("alt") != "sse":
            raise Refusal(400, "The simulator streams server-sent events only: ask with ?alt=sse.")
        asked = fit(_Chat, body)
        system = asked.system_instruction.text() if asked.system_instruction else ""
        messages = [Message(role="system", text=system)] if system else []
        messages += [content.message() for content in asked.contents]
        if any(message.tool_calls or message.tool_results for message in messages):
            check_tool_results(messages)
        tools = tuple(function.neutral() for tool in asked.tools or () for function in tool.function_declarations)
        options = asked.generation_config
        return Chat(
            model=request.match_info["model"],
            messages=messages,
            prompt_tokens=prompt_tokens(messages, tools),
            tools=tools,
            tool_choice=asked.tool_config.neutral() if asked.tool_config else "auto",
            schema=options.schema_asked(),
            tokens_max=options.max_output_tokens,
            stream=streams,
        )

    def whole(self, reply: Reply) -> bytes:
        return encoded(_body(reply, reply.text, last=True))

    def stream(self, chat: Chat, reply: Reply) -> Sequence[Part]:
        """Text in pieces; function calls whole, as Gemini sends them."""
        parts = [Part(data=_event(_body(reply, piece, last=False)), text=piece) for piece in reply.pieces()]
        for call in reply.tool_calls:
            body = _body(reply, "", last=False)
            body["candidates"][0]["content"]["parts"] = [_call(call)]
            parts.append(Part(data=_event(body), text=call.name + call.arguments))
        end = _body(reply, "", last=True)
        end["candidates"][0]["content"]["parts"] = [{"text": ""}]
        return [*parts, Part(data=_event(end))]

    def read_embedding(self, request: web.Request, body: bytes) -> Embedding:
        single = request.match_info["method"] == "embedContent"
        asked = [fit(_Embedding, body)] if single else fit(_Embeddings, body).requests
        texts = tuple(each.content.text() for each in asked)
        if not all(texts):
            raise Refusal(400, "content is empty")
        dimensions = {each.dimensions() for each in asked}
        return Embedding(
            model=request.match_info["model"],
            texts=texts,
            dimensions=max(dimensions, key=lambda d: d or 0),
            single=single,
        )

    def embedded(self, asked: Embedding, vectors: Sequence[Sequence[float]], told_tokens: int | None) -> bytes:
        values = [{"values": vector} for vector in vectors]
        body: dict[str, Any] = {"embedding": values[0]} if asked.single else {"embeddings": values}
        if told_tokens is not None:
            body["usageMetadata"] = {"promptTokenCount": told_tokens}
        return encoded(body)

    def models(self) -> dict[str, Any]:
        methods = ["generateContent", "streamGenerateContent"]
        return {
            "models": [
                {
                    "name": f"models/{name}",
                    "displayName": name,
                    "supportedGenerationMethods": ["embedContent"] if "embedding" in name else methods,
                }
                for name in MODELS["gemini"]
            ]
        }

    def refuse(self, refusal: Refusal, request_id: str) -> web.Response:
        """A bad key is a 400 here; how long to wait stands in the body only, unless a header was ordered."""
        error = _error(refusal)
        return web.json_response(error, status=error["error"]["code"], headers=retry_headers(refusal, ()))

    def error_event(self, refusal: Refusal, request_id: str) -> bytes:
        return _event(_error(refusal))

    def headers(self, request_id: str, requests: Allowance | None, tokens: Allowance | None) -> dict[str, str]:
        """Gemini tells nothing of its limits."""
        return {}


class _Base(BaseModel):
    """Names in camel case or as in the proto files, as Google takes both; unknown ones are ignored."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class _Blob(_Base):
    mime_type: str = Field(min_length=1)
    data: str


class _FunctionCall(_Base):
    id: str | None = None
    name: str = Field(min_length=1)
    args: dict[str, Any] = Field(default_factory=dict)


class _FunctionResponse(_Base):
    id: str | None = None
    name: str = Field(min_length=1)
    response: dict[str, Any]


class _Part(_Base):
    text: str | None = None
    inline_data: _Blob | None = None
    function_call: _FunctionCall | None = None
    function_response: _FunctionResponse | None = None


class _Content(_Base):
    role: str | None = None
    parts: list[_Part] = Field(min_length=1)

    def text(self) -> str:
        return "".join(part.text or "" for part in self.parts)

    def message(self) -> Message:
        """Calls without an id are known by their name."""
        if self.role not in (None, "user", "model", "function"):
            raise Refusal(400, "Please use a valid role: user, model.")
        return Message(
            role="assistant" if self.role == "model" else "user",
            text=self.text(),
            pictures=tuple(_pictures(self.parts)),
            tool_calls=tuple(
                ToolCall(id=call.id or call.name, name=call.name, arguments=json.dumps(call.args))
                for part in self.parts
                if (call := part.function_call)
            ),
            tool_results=tuple(
                ToolResult(call_id=result.id or result.name, text=json.dumps(result.response, ensure_ascii=False))
                for part in self.parts
                if (result := part.function_response)
            ),
        )


class _Function(_Base):
    name: str = Field(min_length=1)
    description: str = ""
    parameters: dict[str, Any] | None = None
    parameters_json_schema: dict[str, Any] | None = None

    def neutral(self) -> Tool:
        schema = self.parameters or self.parameters_json_schema or {}
        return Tool(name=self.name, description=self.description, parameters=schema)


class _Tool(_Base):
    function_declarations: list[_Function] = Field(default_factory=list)


class _Calling(_Base):
    mode: str = "AUTO"
    allowed_function_names: list[str] = Field(default_factory=list)


class _ToolConfig(_Base):
    function_calling_config: _Calling = Field(default_factory=_Calling)

    def neutral(self) -> str:
        config = self.function_calling_config
        if config.mode != "ANY":
            return "none" if config.mode == "NONE" else "auto"
        return f"tool:{config.allowed_function_names[0]}" if config.allowed_function_names else "required"


class _Options(_Base):
    max_output_tokens: int | None = Field(default=None, ge=1)
    response_mime_type: str | None = None
    response_schema: dict[str, Any] | None = None
    response_json_schema: dict[str, Any] | None = None

    def schema_asked(self) -> dict[str, Any] | None:
        if self.response_mime_type != "application/json":
            return None
        return self.response_schema or self.response_json_schema or {}


class _Chat(_Base):
    contents: list[_Content] = Field(min_length=1)
    system_instruction: _Content | None = None
    tools: list[_Tool] | None = None
    tool_config: _ToolConfig | None = None
    generation_config: _Options = Field(default_factory=_Options)


class _EmbeddingOptions(_Base):
    output_dimensionality: int | None = Field(default=None, ge=1, le=8192)


class _Embedding(_Base):
    content: _Content
    output_dimensionality: int | None = Field(default=None, ge=1, le=8192)
    embed_content_config: _EmbeddingOptions = Field(default_factory=_EmbeddingOptions)

    def dimensions(self) -> int | None:
        return self.output_dimensionality or self.embed_content_config.output_dimensionality


class _Embeddings(_Base):
    requests: list[_Embedding] = Field(min_length=1)


def _pictures(parts: Sequence[_Part]) -> Sequence[Picture]:
    return [picture(part.inline_data.mime_type, part.inline_data.data) for part in parts if part.inline_data]


def _body(reply: Reply, text: str, *, last: bool) -> dict[str, Any]:
    """Only the last part says how it ended and what the answer used."""
    parts: list[dict[str, Any]] = [{"text": text}] if text else []
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
    usage = {"promptTokenCount": reply.prompt_tokens, "totalTokenCount": reply.prompt_tokens}
    if last:
        parts += [_call(call) for call in reply.tool_calls]
        candidate["finishReason"] = "MAX_TOKENS" if reply.finish == "length" else "STOP"
        usage["candidatesTokenCount"] = reply.completion_tokens
        usage["totalTokenCount"] += reply.completion_tokens
    body = {"candidates": [candidate], "modelVersion": reply.model, "responseId": reply.id}
    return {**body, "usageMetadata": usage} if reply.tells_usage else body


def _call(call: ToolCall) -> dict[str, Any]:
    return {"functionCall": {"name": call.name, "args": json.loads(call.arguments)}}


def _error(refusal: Refusal) -> dict[str, Any]:
    status, message = refusal.status, refusal.message
    details: list[dict[str, Any]] = []
    if refusal.reason == "key":
        status, message = 400, "API key not valid. Please pass a valid API key."
        details.append(
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "API_KEY_INVALID",
                "domain": "googleapis.com",
                "metadata": {"service": "generativelanguage.googleapis.com"},
            }
        )
    elif status == 529:
        status = 503
    if status == 429 and refusal.retry_after_s is not None and refusal.retry_form is None:
        delay = f"{refusal.retry_after_s:.3f}".rstrip("0").rstrip(".")
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{delay}s"})
    name = _STATUSES.get(status, "INVALID_ARGUMENT" if status < 500 else "UNAVAILABLE")
    error: dict[str, Any] = {"code": status, "message": message, "status": name}
    return {"error": {**error, "details": details} if details else error}


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + encoded(body) + b"\r\n\r\n"

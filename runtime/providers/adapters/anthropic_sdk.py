"""The adapter for Anthropic's messages, over the `anthropic` SDK.

JSON by schema has three ways. `output_config.format` holds the model to the schema, but only models since Claude 4.5
have it, and it takes no open-ended objects. Older models are made to call a tool whose parameters are the schema, and
its arguments are the reply; that bars the caller's own tools. What is left gets the schema in the system text.
Source: platform.claude.com/docs/en/build-with-claude/structured-outputs and /agents-and-tools/tool-use/overview.
"""

import json
import re
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any

from runtime.errors import MasterbuilderError, ProviderRefusedError
from runtime.ids import CallId
from runtime.keys.keys import KeyLimits, Lease
from runtime.providers.adapters.clients import (
    Clients,
    answering,
    as_record,
    as_records,
    broken_off,
    call_headers,
    in_words,
    no_json,
    of_stream,
    turns,
)
from runtime.providers.chat import (
    ChatEvent,
    ChatReply,
    ChatRequest,
    Embeddings,
    EmbedRequest,
    Finish,
    Finished,
    Image,
    Message,
    Text,
    TextDelta,
    ToolCall,
    ToolCallBegin,
    ToolCallDelta,
    ToolResult,
    UsageSoFar,
)
from runtime.providers.failures import (
    TRY_LATER,
    BrokenReplyError,
    clean,
    limits_of,
    no_connection,
    no_content,
    refusal,
    timed_out,
)
from runtime.providers.tool_arguments import arguments_of
from runtime.providers.usage import Usage, anthropic_usage_of

if TYPE_CHECKING:
    import httpx2
    from anthropic import AsyncAnthropic

VERSION = "2023-06-01"
"""The SDK's own, 2026-10-21, refuses temperature and top_p for every model."""
OUTPUT_TOKENS = 4_096
"""Where the request sets no limit: Anthropic wants one, and every model can write this much."""
TEMPERATURE_MAX = 1.0
"""Half of what OpenAI's wire allows; what is above means the most there is."""
FINISH: Mapping[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "refused",
}
STATUS_OF_TYPE: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "overloaded_error": 529,
}
"""An error inside a stream has no status of its own; any other type counts as 500."""
_BEFORE_OUTPUT_FORMAT = re.compile(r"claude-(2|3|instant|(opus|sonnet)-4(-0|-1)?(-20\d{6})?$)")
# Models since 4.7 refuse temperature and top_p: what they are set to is left out, because their own way of sampling is
# nearer to what was asked than no answer. Source: platform.claude.com/docs/en/api/migration-2026-10-21.
_TAKES_SAMPLING = re.compile(r"claude-(2|3|instant|(opus|sonnet|haiku)-4(-[0-6])?(-20\d{6})?$)")
_NOT_IN_AN_ID = re.compile(r"[^a-zA-Z0-9_-]")


class AnthropicSdk:
    """Implements `Adapter`. `timeout_s` bounds a whole reply, and the wait for each piece of a stream."""

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._clients = Clients("anthropic", self._client, timeout_s=timeout_s)

    async def complete(self, lease: Lease, call: CallId, request: ChatRequest) -> ChatReply:
        client = await self._clients.of(lease)
        import httpx2

        body, reply_tool = body_of(request, lease)
        async with answering(lease, self._timeout_s, _failure_of):
            response = await client.post(
                "/v1/messages", cast_to=httpx2.Response, body=body, options={"headers": call_headers(call)}
            )
            reply = response.json()
        if not isinstance(reply, dict):
            raise no_json(lease)
        usage = anthropic_usage_of(reply)
        if usage is None:
            raise BrokenReplyError(f"{lease.provider} did not say how many tokens it used.", TRY_LATER)
        parts = [part for block in as_records(reply.get("content")) for part in _parts_of(block, reply_tool)]
        if not parts:
            raise no_content(lease, usage)
        return ChatReply(
            id=str(reply.get("id") or call),
            model=str(reply.get("model") or lease.model),
            parts=tuple(parts),
            finish=_finish_of(reply.get("stop_reason"), has_calls=any(isinstance(part, ToolCall) for part in parts)),
            usage=usage,
            limits=limits_of(response.headers),
        )

    async def stream(self, lease: Lease, call: CallId, request: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
        client = await self._clients.of(lease)
        from anthropic import AsyncStream

        body, reply_tool = body_of(request, lease)
        async with answering(lease, self._timeout_s, _failure_of):
            chunks = await client.post(
                "/v1/messages",
                cast_to=object,
                body={**body, "stream": True},
                options={"headers": call_headers(call)},
                stream=True,
                stream_cls=AsyncStream[object],
            )
        reader = _Reader(reply_tool, limits_of(chunks.response.headers))
        try:
            while True:
                async with answering(lease, self._timeout_s, reader.failure_of):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    break
                for event in reader.read(as_record(chunk)):
                    yield event
        finally:
            await chunks.close()
        yield reader.end(lease)

    async def embed(self, lease: Lease, call: CallId, request: EmbedRequest) -> Embeddings:
        raise ProviderRefusedError(f"{lease.provider} makes no embeddings.", "Choose a model of another provider.")

    async def close(self) -> None:
        await self._clients.close()

    def _client(self, lease: Lease, http: "httpx2.AsyncClient") -> "AsyncAnthropic":
        from anthropic import AsyncAnthropic, Omit

        # The older way to show a key, which every service that speaks this wire understands.
        headers: Any = {"anthropic-version": VERSION, "X-Api-Key": lease.key, "Authorization": Omit()}
        return AsyncAnthropic(
            api_key=lease.key,
            base_url=lease.base_url.removesuffix("/v1"),
            max_retries=0,
            timeout=self._timeout_s,
            http_client=http,
            default_headers=headers,
            open_telemetry=False,
        )


def body_of(request: ChatRequest, lease: Lease) -> tuple[dict[str, Any], str | None]:
    """The request on Anthropic's wire, and the name of the tool whose arguments are the reply, where there is one."""
    system, reply_tool = list(request.system), None
    body: dict[str, Any] = {
        "model": lease.model,
        "max_tokens": request.output_tokens_max or OUTPUT_TOKENS,
        "messages": [_message(message) for message in turns(request.messages)],
    }
    if request.tools:
        body["tools"] = [
            {"name": tool.name, "description": tool.description, "input_schema": tool.parameters}
            for tool in request.tools
        ]
        body["tool_choice"] = {"auto": {"type": "auto"}, "none": {"type": "none"}, "required": {"type": "any"}}.get(
            request.tool_choice, {"type": "tool", "name": request.tool_choice}
        )
    if shape := request.json:
        has_format = not _BEFORE_OUTPUT_FORMAT.match(lease.model)
        if has_format and shape.schema is not None and (schema := _strict(shape.schema)) is not None:
            body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        elif not has_format and not request.tools and shape.schema and shape.schema.get("type") == "object":
            reply_tool = shape.name
            tool = {"name": shape.name, "description": "Gives the answer.", "input_schema": shape.schema}
            body |= {"tools": [tool], "tool_choice": {"type": "tool", "name": shape.name}}
        else:
            system.append(in_words(shape))
    if system:
        body["system"] = "\n\n".join(system)
    if _TAKES_SAMPLING.match(lease.model):
        if request.temperature is not None:
            body["temperature"] = min(request.temperature, TEMPERATURE_MAX)
        if request.top_p is not None:
            body["top_p"] = request.top_p
    if request.stop:
        body["stop_sequences"] = list(request.stop)
    return body, reply_tool


def _message(message: Message) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    for part in message.parts:
        match part:
            case Text(text=text):
                content.append({"type": "text", "text": text})
            case Image(media_type=media_type, data=data):
                source = {"type": "base64", "media_type": media_type, "data": data}
                content.append({"type": "image", "source": source})
            case ToolCall(id=id, name=name, arguments=arguments):
                content.append({"type": "tool_use", "id": _id(id), "name": name, "input": arguments_of(arguments)})
            case ToolResult(call_id=id, text=text, is_error=is_error):
                block: dict[str, Any] = {"type": "tool_result", "tool_use_id": _id(id), "content": text}
                content.append({**block, "is_error": True} if is_error else block)
    return {"role": message.role, "content": content}


def _id(id: str) -> str:
    """Other providers' ids may hold what Anthropic refuses."""
    return _NOT_IN_AN_ID.sub("_", id)


def _strict(schema: dict[str, Any]) -> dict[str, Any] | None:
    """The schema as `output_config.format` takes it; None where that would change what fits it."""
    from anthropic import transform_schema

    if _is_open(schema):
        return None
    try:
        return dict(transform_schema(schema))
    except (ValueError, TypeError, AttributeError, AssertionError, RecursionError):
        return None


def _is_open(schema: Any) -> bool:
    """Whether an object in it may have properties that are not named."""
    if isinstance(schema, list):
        return any(_is_open(one) for one in schema)
    if not isinstance(schema, dict):
        return False
    if schema.get("type") == "object" and (schema.get("additionalProperties") or not schema.get("properties")):
        return True
    return any(_is_open(value) for value in schema.values())


class _Reader:
    """Reads the events of one stream."""

    def __init__(self, reply_tool: str | None, limits: KeyLimits | None) -> None:
        self._reply_tool = reply_tool
        self._limits = limits
        self._usage: Usage | None = None
        self._is_final = self._ended = self._said = False
        self._stop_reason: Any = None
        self._calls = 0
        self._call_of_block: dict[Any, int | None] = {}
        """Of the blocks that are tool calls; None for the call whose arguments are the reply."""
        self._with_arguments: set[Any] = set()

    def read(self, event: dict[str, Any]) -> list[ChatEvent]:
        events: list[ChatEvent] = []
        block = event.get("index")
        match event.get("type"):
            case "message_start":
                events = self._usage_of(as_record(event.get("message")))
            case "content_block_start":
                events = self._begin(block, as_record(event.get("content_block")))
            case "content_block_delta":
                events = self._delta(block, as_record(event.get("delta")))
            case "content_block_stop" if block in self._call_of_block and block not in self._with_arguments:
                events = self._arguments(block, "{}")
            case "message_delta":
                self._stop_reason = as_record(event.get("delta")).get("stop_reason") or self._stop_reason
                events = self._usage_of(event)
                self._is_final = self._is_final or bool(events)
            case "message_stop":
                self._ended = True
        self._said = self._said or any(not isinstance(event, UsageSoFar) for event in events)
        return events

    def end(self, lease: Lease) -> Finished:
        if not self._ended or self._stop_reason is None:
            raise broken_off(lease)
        if not self._said:
            raise no_content(lease, self._usage)
        if self._usage is None or not self._is_final:
            raise BrokenReplyError(f"{lease.provider} did not say how many tokens it used.", TRY_LATER)
        finish = _finish_of(self._stop_reason, has_calls=self._calls > 0)
        return Finished(finish=finish, usage=self._usage, limits=self._limits)

    def failure_of(self, lease: Lease, error: Exception) -> MasterbuilderError | None:
        return of_stream(lease, error, _failure_of(lease, error), said=self._said)

    def _usage_of(self, given: dict[str, Any]) -> list[ChatEvent]:
        usage = anthropic_usage_of(given, self._usage)
        if usage is None:
            return []
        self._usage = usage
        return [UsageSoFar(usage=usage)]

    def _begin(self, block: Any, content: dict[str, Any]) -> list[ChatEvent]:
        if content.get("type") == "text" and isinstance(text := content.get("text"), str) and text:
            return [TextDelta(text=text)]
        if content.get("type") != "tool_use" or not isinstance(block, int):
            return []
        begun: list[ChatEvent] = []
        if content.get("name") == self._reply_tool:
            self._call_of_block[block] = None
        else:
            self._call_of_block[block] = self._calls
            begun.append(ToolCallBegin(index=self._calls, id=str(content.get("id")), name=str(content.get("name"))))
            self._calls += 1
        if given := as_record(content.get("input")):
            begun += self._arguments(block, json.dumps(given, ensure_ascii=False))
        return begun

    def _delta(self, block: Any, delta: dict[str, Any]) -> list[ChatEvent]:
        text, arguments = delta.get("text"), delta.get("partial_json")
        if delta.get("type") == "text_delta" and isinstance(text, str) and text:
            return [TextDelta(text=text)]
        if delta.get("type") == "input_json_delta" and isinstance(arguments, str) and arguments:
            return self._arguments(block, arguments)
        return []

    def _arguments(self, block: Any, arguments: str) -> list[ChatEvent]:
        if block not in self._call_of_block:
            return []
        self._with_arguments.add(block)
        call = self._call_of_block[block]
        return [TextDelta(text=arguments) if call is None else ToolCallDelta(index=call, arguments=arguments)]


def _parts_of(block: dict[str, Any], reply_tool: str | None) -> list[Text | ToolCall]:
    """Thoughts, and whatever else a model may put between, are no part of the answer."""
    if block.get("type") == "text" and isinstance(text := block.get("text"), str) and text:
        return [Text(text=text)]
    if block.get("type") != "tool_use":
        return []
    arguments = json.dumps(as_record(block.get("input")), ensure_ascii=False)
    if block.get("name") == reply_tool:
        return [Text(text=arguments)]
    return [ToolCall(id=str(block.get("id")), name=str(block.get("name")), arguments=arguments)]


def _finish_of(reason: Any, *, has_calls: bool) -> Finish:
    finish: Finish = FINISH.get(reason, "stop") if isinstance(reason, str) else "stop"
    return "stop" if finish == "tool_calls" and not has_calls else finish


def _failure_of(lease: Lease, error: Exception) -> MasterbuilderError | None:
    import anthropic

    if isinstance(error, anthropic.APIStatusError):
        told = as_record(as_record(error.body).get("error"))
        kind = told.get("type")
        status = error.status_code
        if status < 300:
            status = STATUS_OF_TYPE.get(kind, 500) if isinstance(kind, str) else 500
        message = told.get("message")
        return refusal(
            lease,
            status=status,
            code=kind if isinstance(kind, str) else None,
            message=message if isinstance(message, str) else error.message,
            headers=error.response.headers,
        )
    if isinstance(error, anthropic.APITimeoutError):
        return timed_out(lease)
    if isinstance(error, anthropic.APIConnectionError):
        return no_connection(lease)
    if isinstance(error, anthropic.APIError):
        return broken_off(lease, clean(error.message, lease))
    return None

"""The adapter for every service that speaks OpenAI's chat completions, over the `openai` SDK.

It makes one attempt per call; retries, keys and money are `runtime.providers.calls`'. Replies are read as plain JSON,
because services differ from what the SDK's types promise. The SDK takes 0.3 s to import, which a host that was killed
does not have: the first call does it.
"""

import json
import math
import secrets
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any

from runtime.catalogue.endpoints import SERVICES, JsonMode, Service, json_mode, limit_name
from runtime.errors import MasterbuilderError
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
    JsonShape,
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
    OutageError,
    clean,
    limits_of,
    no_connection,
    no_content,
    refusal,
    timed_out,
)
from runtime.providers.usage import TOKENS_MAX, Usage, usage_of

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

FINISH: Mapping[str, Finish] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "refused",
}
"""Any other word counts as `stop`: services invent some (`eos`, `end_turn`)."""


class OpenAISdk:
    """Implements `Adapter`. `timeout_s` bounds a whole reply, and the wait for each piece of a stream."""

    def __init__(self, *, timeout_s: float, services: Mapping[str, Service] = SERVICES) -> None:
        self._timeout_s = timeout_s
        self._services = services
        self._clients = Clients("openai", self._client, timeout_s=timeout_s)

    async def complete(self, lease: Lease, call: CallId, request: ChatRequest) -> ChatReply:
        reply, limits = await self._post(
            lease, call, "/chat/completions", body_of(request, lease, json_mode(lease.provider, self._services))
        )
        usage = usage_of(reply)
        if usage is None:
            raise BrokenReplyError(f"{lease.provider} did not say how many tokens it used.", TRY_LATER)
        choice = next(iter(as_records(reply.get("choices"))), {})
        message = as_record(choice.get("message"))
        parts: list[Text | ToolCall] = [*_texts_of(message), *_calls_of(message)]
        if not parts:
            raise no_content(lease, usage)
        has_calls = any(isinstance(part, ToolCall) for part in parts)
        return ChatReply(
            id=str(reply.get("id") or call),
            model=str(reply.get("model") or lease.model),
            parts=tuple(parts),
            finish=_finish_of(choice.get("finish_reason"), has_calls=has_calls, refuses=bool(message.get("refusal"))),
            usage=usage,
            limits=limits,
        )

    async def stream(self, lease: Lease, call: CallId, request: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
        client = await self._clients.of(lease)
        from openai import AsyncStream

        body = {
            **body_of(request, lease, json_mode(lease.provider, self._services)),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        async with answering(lease, self._timeout_s, _failure_of):
            chunks = await client.post(
                "/chat/completions",
                cast_to=object,
                body=body,
                options={"headers": call_headers(call)},
                stream=True,
                stream_cls=AsyncStream[object],
            )
        reader = _Reader(limits_of(chunks.response.headers))
        try:
            while True:
                async with answering(lease, self._timeout_s, reader.failure_of):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    break
                if not isinstance(chunk, dict):
                    raise OutageError(f"{lease.provider} sent a piece that is not a JSON object.", TRY_LATER)
                for event in reader.read(chunk):
                    yield event
        finally:
            await chunks.close()
        for event in reader.end(lease):
            yield event

    async def embed(self, lease: Lease, call: CallId, request: EmbedRequest) -> Embeddings:
        body: dict[str, Any] = {"model": lease.model, "input": list(request.texts), "encoding_format": "float"}
        if request.dimensions is not None:
            body["dimensions"] = request.dimensions
        reply, limits = await self._post(lease, call, "/embeddings", body)
        tokens = as_record(reply.get("usage")).get("prompt_tokens")
        if type(tokens) is not int or not 0 <= tokens <= TOKENS_MAX:
            raise BrokenReplyError(f"{lease.provider} did not say how many tokens it used.", TRY_LATER)
        usage = Usage(input_tokens=tokens, output_tokens=0)
        rows = as_records(reply.get("data"))
        if any("index" in row for row in rows):
            rows = _in_order(rows, lease, usage)
        return Embeddings(
            model=str(reply.get("model") or lease.model),
            vectors=vectors_of([row.get("embedding") for row in rows], len(request.texts), lease, usage),
            usage=usage,
            limits=limits,
        )

    async def close(self) -> None:
        await self._clients.close()

    async def _post(
        self, lease: Lease, call: CallId, path: str, body: dict[str, Any]
    ) -> tuple[dict[str, Any], KeyLimits | None]:
        client = await self._clients.of(lease)
        import httpx2

        async with answering(lease, self._timeout_s, _failure_of):
            response = await client.post(
                path, cast_to=httpx2.Response, body=body, options={"headers": call_headers(call)}
            )
            reply = response.json()
        if not isinstance(reply, dict):
            raise no_json(lease)
        return reply, limits_of(response.headers)

    def _client(self, lease: Lease, http: "httpx2.AsyncClient") -> "AsyncOpenAI":
        from openai import AsyncOpenAI

        return AsyncOpenAI(
            api_key=lease.key, base_url=lease.base_url, max_retries=0, timeout=self._timeout_s, http_client=http
        )


def body_of(request: ChatRequest, lease: Lease, mode: JsonMode) -> dict[str, Any]:
    """The request on OpenAI's wire. A service whose `response_format` knows no schemas gets it in the system text."""
    system = list(request.system)
    shape = request.json
    if shape and shape.schema is not None and mode == "json_object":
        system.append(in_words(shape))
    body: dict[str, Any] = {
        "model": lease.model,
        "messages": [{"role": "system", "content": text} for text in system]
        + [given for message in request.messages for given in _messages_of(message)],
    }
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
            }
            for tool in request.tools
        ]
        body["tool_choice"] = (
            request.tool_choice
            if request.tool_choice in ("auto", "none", "required")
            else {"type": "function", "function": {"name": request.tool_choice}}
        )
    if shape:
        body["response_format"] = _response_format(shape, mode)
    optional = {
        limit_name(lease.provider): request.output_tokens_max,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop": list(request.stop) or None,
    }
    return body | {name: value for name, value in optional.items() if value is not None}


def _in_order(rows: list[dict[str, Any]], lease: Lease, usage: Usage) -> list[dict[str, Any]]:
    """By their `index`. Raises BrokenReplyError unless each text has one: nobody would see a wrong one."""
    by_index = {row.get("index"): row for row in rows if type(row.get("index")) is int}
    if by_index.keys() != set(range(len(rows))):
        raise BrokenReplyError(f"{lease.provider} did not say which vector is whose.", TRY_LATER, usage=usage)
    return [by_index[number] for number in range(len(rows))]


def vectors_of(given: list[Any], count: int, lease: Lease, usage: Usage) -> tuple[tuple[float, ...], ...]:
    """Raises BrokenReplyError unless there are `count` lists of finite numbers, all of one length."""
    vectors = tuple(tuple(one) if isinstance(one, list) else () for one in given)
    good = all(len(one) == len(vectors[0]) > 0 and all(map(_is_finite, one)) for one in vectors)
    if len(vectors) != count or not good:
        raise BrokenReplyError(f"{lease.provider} did not answer one vector a text.", TRY_LATER, usage=usage)
    return vectors


def _is_finite(number: Any) -> bool:
    return isinstance(number, int | float) and math.isfinite(number)


def _messages_of(message: Message) -> list[dict[str, Any]]:
    if message.role == "assistant":
        calls = [
            {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": part.arguments}}
            for part in message.parts
            if isinstance(part, ToolCall)
        ]
        said = "".join(part.text for part in message.parts if isinstance(part, Text))
        given: dict[str, Any] = {"role": "assistant", "content": said or None}
        return [{**given, "tool_calls": calls} if calls else given]
    messages: list[dict[str, Any]] = [
        {"role": "tool", "tool_call_id": part.call_id, "content": part.text}
        for part in message.parts
        if isinstance(part, ToolResult)
    ]
    content: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, Text):
            content.append({"type": "text", "text": part.text})
        elif isinstance(part, Image):
            url = f"data:{part.media_type};base64,{part.data}"
            content.append({"type": "image_url", "image_url": {"url": url}})
    if len(content) == 1 and content[0]["type"] == "text":
        messages.append({"role": "user", "content": content[0]["text"]})
    elif content:
        messages.append({"role": "user", "content": content})
    return messages


def _response_format(shape: JsonShape, mode: JsonMode) -> dict[str, Any]:
    if shape.schema is None or mode == "json_object":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": shape.name, "schema": shape.schema}}


class _Reader:
    """Reads the chunks of one stream. Calls are counted anew: some services number all of theirs 0."""

    def __init__(self, limits: KeyLimits | None) -> None:
        self._limits = limits
        self._usage: Usage | None = None
        self._finish: str | None = None
        self._said = self._refuses = False
        self._calls: list[str] = []
        self._newest: dict[int, int] = {}
        """Our number of the newest call that has this index there."""
        self._with_arguments: set[int] = set()

    def read(self, chunk: dict[str, Any]) -> list[ChatEvent]:
        events: list[ChatEvent] = []
        if (usage := usage_of(chunk)) is not None:
            self._usage = usage
            events.append(UsageSoFar(usage=usage))
        for choice in as_records(chunk.get("choices"))[:1]:
            delta = as_record(choice.get("delta"))
            self._refuses = self._refuses or bool(delta.get("refusal"))
            events += [TextDelta(text=part.text) for part in _texts_of(delta)]
            for piece in as_records(delta.get("tool_calls")):
                events += self._call(piece)
            if isinstance(reason := choice.get("finish_reason"), str) and reason:
                self._finish = reason
        self._said = self._said or any(not isinstance(event, UsageSoFar) for event in events)
        return events

    def end(self, lease: Lease) -> list[ChatEvent]:
        if self._finish is None:
            raise broken_off(lease)
        if not self._said:
            raise no_content(lease, self._usage)
        if self._usage is None:
            raise BrokenReplyError(f"{lease.provider} did not say how many tokens it used.", TRY_LATER)
        silent = [index for index in range(len(self._calls)) if index not in self._with_arguments]
        finish = _finish_of(self._finish, has_calls=bool(self._calls), refuses=self._refuses)
        return [
            *(ToolCallDelta(index=index, arguments="{}") for index in silent),
            Finished(finish=finish, usage=self._usage, limits=self._limits),
        ]

    def failure_of(self, lease: Lease, error: Exception) -> MasterbuilderError | None:
        return of_stream(lease, error, _failure_of(lease, error), said=self._said)

    def _call(self, piece: dict[str, Any]) -> list[ChatEvent]:
        events: list[ChatEvent] = []
        function = as_record(piece.get("function"))
        id, name, theirs = piece.get("id"), function.get("name"), piece.get("index")
        number = self._newest.get(theirs if type(theirs) is int else 0)
        if isinstance(name, str) and name and (number is None or (id and id != self._calls[number])):
            number = len(self._calls)
            self._calls.append(str(id or f"call_{secrets.token_hex(12)}"))
            self._newest[theirs if type(theirs) is int else 0] = number
            events.append(ToolCallBegin(index=number, id=self._calls[number], name=name))
        arguments = _arguments_of(function)
        if number is not None and arguments:
            self._with_arguments.add(number)
            events.append(ToolCallDelta(index=number, arguments=arguments))
        return events


def _texts_of(message: dict[str, Any]) -> list[Text]:
    """Of a message or a delta: its content, text or parts of text, and its refusal."""
    content = message.get("content")
    texts = [content] if isinstance(content, str) else [part.get("text") for part in as_records(content)]
    return [Text(text=text) for text in (*texts, message.get("refusal")) if isinstance(text, str) and text]


def _calls_of(message: dict[str, Any]) -> list[ToolCall]:
    calls: list[ToolCall] = []
    for given in as_records(message.get("tool_calls")):
        function = as_record(given.get("function"))
        if isinstance(name := function.get("name"), str) and name:
            id = str(given.get("id") or f"call_{secrets.token_hex(12)}")
            calls.append(ToolCall(id=id, name=name, arguments=_arguments_of(function) or "{}"))
    return calls


def _arguments_of(function: dict[str, Any]) -> str:
    """Text, or an object where a service means it well."""
    arguments = function.get("arguments")
    if isinstance(arguments, dict):
        return json.dumps(arguments, ensure_ascii=False)
    return arguments if isinstance(arguments, str) else ""


def _finish_of(reason: Any, *, has_calls: bool, refuses: bool) -> Finish:
    finish: Finish = FINISH.get(reason, "stop") if isinstance(reason, str) else "stop"
    if finish == "stop" and (has_calls or refuses):
        return "tool_calls" if has_calls else "refused"
    return "stop" if finish == "tool_calls" and not has_calls else finish


def _failure_of(lease: Lease, error: Exception) -> MasterbuilderError | None:
    import openai

    if isinstance(error, openai.APIStatusError):
        body = error.body
        told = body.get("message") if isinstance(body, dict) else body
        return refusal(
            lease,
            status=error.status_code,
            code=error.code if isinstance(error.code, str) else None,
            message=told if isinstance(told, str) else error.message,
            headers=error.response.headers,
        )
    if isinstance(error, openai.APITimeoutError):
        return timed_out(lease)
    if isinstance(error, openai.APIConnectionError):
        return no_connection(lease)
    if isinstance(error, openai.APIError):
        return broken_off(lease, clean(error.message, lease))
    return None

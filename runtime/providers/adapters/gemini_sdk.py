"""The adapter for Google's Gemini, over the `google-genai` SDK.

Gemini knows the roles `user` and `model`, and answers to functions by their name. Its models since 3 want the signature
of their own thoughts back with each function call; no other wire has a place for one, so calls go back with the words
that Google accepts instead. Source: ai.google.dev/api/generate-content and /gemini-api/docs/thought-signatures.
"""

import base64
import json
import re
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any

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
    of_stream,
    turns,
    words_in,
)
from runtime.providers.adapters.openai_sdk import vectors_of
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
from runtime.providers.failures import TRY_LATER, BrokenReplyError, clean, limits_of, refusal
from runtime.providers.tool_arguments import arguments_of
from runtime.providers.usage import TOKENS_MAX, Usage

if TYPE_CHECKING:
    import httpx2
    from google import genai
    from google.genai import types
    from google.genai.models import AsyncModels

API_VERSION = "v1beta"
TOKENS_PER_WORD = 2
"""Where Gemini reports no usage. Source: spec/assistant.md §2.3."""
NO_SIGNATURE = b"skip_thought_signature_validator"
FINISH: Mapping[str, Finish] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    "SAFETY": "refused",
    "RECITATION": "refused",
    "BLOCKLIST": "refused",
    "PROHIBITED_CONTENT": "refused",
    "SPII": "refused",
    "LANGUAGE": "refused",
}
"""Any other reason is a failure of the model; what it had said by then counts as a reply that stopped."""
_ANSWERS: "ContextVar[list[httpx2.Response] | None]" = ContextVar("_ANSWERS", default=None)
"""Where the stream that is being opened in this context wants its HTTP answer noted."""
_VERSION = re.compile(r"/(v\d+\w*)/?$")
_RETRY_DELAY = re.compile(r"\d{1,6}(?:\.\d{1,9})?s")


class GeminiSdk:
    """Implements `Adapter`. `timeout_s` bounds a whole reply, and the wait for each piece of a stream."""

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._clients = Clients("google.genai", _client, timeout_s=timeout_s, on_answer=_remember)

    async def complete(self, lease: Lease, call: CallId, request: ChatRequest) -> ChatReply:
        models = await self._models(lease)
        contents, config = body_of(request, lease, call)
        async with answering(lease, self._timeout_s, _failure_of):
            response = await models.generate_content(model=lease.model, contents=contents, config=config)
        reader = _Reader(request)
        parts: list[Text | ToolCall] = []
        for event in reader.read(response):
            match event:
                case TextDelta(text=text):
                    parts.append(Text(text=text))
                case ToolCallBegin(id=id, name=name):
                    parts.append(ToolCall(id=id, name=name, arguments="{}"))
                case ToolCallDelta(arguments=arguments):
                    call_ = parts[-1]
                    assert isinstance(call_, ToolCall)
                    parts[-1] = replace(call_, arguments=arguments)
        end = reader.end(lease)
        return ChatReply(
            id=response.response_id or call,
            model=response.model_version or lease.model,
            parts=tuple(parts),
            finish=end.finish,
            usage=end.usage,
            limits=end.limits,
        )

    async def stream(self, lease: Lease, call: CallId, request: ChatRequest) -> AsyncGenerator[ChatEvent, None]:
        models = await self._models(lease)
        contents, config = body_of(request, lease, call)
        chunks: Any = await models.generate_content_stream(model=lease.model, contents=contents, config=config)
        reader = _Reader(request)
        answers: list[httpx2.Response] = []
        chunk: Any = chunks
        try:
            while chunk is not None:
                async with answering(lease, self._timeout_s, reader.failure_of):
                    before = _ANSWERS.set(answers)
                    try:
                        chunk = await anext(chunks, None)
                    finally:
                        _ANSWERS.reset(before)
                if chunk is not None:
                    for event in reader.read(chunk):
                        yield event
        finally:
            # The SDK leaves an answer nobody reads to the garbage collector.
            for answer in answers:
                await answer.aclose()
            await chunks.aclose()
        yield reader.end(lease)

    async def embed(self, lease: Lease, call: CallId, request: EmbedRequest) -> Embeddings:
        """Gemini reports no usage of embeddings: it is estimated from the words."""
        models = await self._models(lease)
        contents: Any = [{"parts": [{"text": text}]} for text in request.texts]
        config: Any = {"http_options": _options(lease, call)}
        if request.dimensions is not None:
            config["output_dimensionality"] = request.dimensions
        async with answering(lease, self._timeout_s, _failure_of):
            response = await models.embed_content(model=lease.model, contents=contents, config=config)
        usage = Usage(input_tokens=TOKENS_PER_WORD * words_in(request.texts), output_tokens=0, estimated=True)
        values = [embedding.values for embedding in response.embeddings or ()]
        return Embeddings(
            model=lease.model,
            vectors=vectors_of(values, len(request.texts), lease, usage),
            usage=usage,
            limits=limits_of(_headers_of(response)),
        )

    async def close(self) -> None:
        await self._clients.close()

    async def _models(self, lease: Lease) -> "AsyncModels":
        """One client for all keys, because each costs 80 ms and 2 MB; the key goes with the request."""
        client = await self._clients.of(replace(lease, key_id="", key="with-the-request"))
        return client.aio.models


def body_of(request: ChatRequest, lease: Lease, call: CallId) -> tuple[Any, Any]:
    """Contents and configuration, as the SDK takes them.

    Gemini cannot both call functions and be held to a schema: with tools, the schema stands in the system text.
    """
    system = list(request.system)
    config: dict[str, Any] = {
        "max_output_tokens": request.output_tokens_max,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop_sequences": list(request.stop) or None,
        # One call of ours is one call of theirs: the SDK would make more by itself, which nobody has paid for.
        "automatic_function_calling": {"disable": True},
        "automatic_continuation": False,
        "http_options": _options(lease, call),
    }
    if request.tools:
        config["tools"] = [{"function_declarations": [
            {"name": tool.name, "description": tool.description, "parameters_json_schema": tool.parameters}
            for tool in request.tools
        ]}]  # fmt: skip
        mode = {"auto": "AUTO", "none": "NONE"}.get(request.tool_choice, "ANY")
        calling: dict[str, Any] = {"mode": mode}
        if request.tool_choice not in ("auto", "none", "required"):
            calling["allowed_function_names"] = [request.tool_choice]
        config["tool_config"] = {"function_calling_config": calling}
    if request.json and request.tools:
        system.append(in_words(request.json))
    elif request.json:
        config["response_mime_type"] = "application/json"
        config["response_json_schema"] = request.json.schema
    if system:
        config["system_instruction"] = "\n\n".join(system)
    return [_content(message) for message in turns(request.messages)], config


def _content(message: Message) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    for part in message.parts:
        match part:
            case Text(text=text):
                parts.append({"text": text})
            case Image(media_type=media_type, data=data):
                parts.append({"inline_data": {"mime_type": media_type, "data": base64.b64decode(data)}})
            case ToolCall(id=id, name=name, arguments=arguments):
                call = {"id": id, "name": name, "args": arguments_of(arguments)}
                parts.append({"function_call": call, "thought_signature": NO_SIGNATURE})
            case ToolResult(call_id=id, name=name, text=text, is_error=is_error):
                response = {"error" if is_error else "output": text}
                parts.append({"function_response": {"id": id, "name": name, "response": response}})
    return {"role": "model" if message.role == "assistant" else "user", "parts": parts}


class _Reader:
    """Reads a whole response, or the chunks of a stream, each of which is one with less in it."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._reported: types.GenerateContentResponseUsageMetadata | None = None
        self._limits: KeyLimits | None = None
        self._reason = self._blocked = ""
        self._calls = self._words = 0
        self._said = False

    def read(self, chunk: "types.GenerateContentResponse") -> list[ChatEvent]:
        events: list[ChatEvent] = []
        self._limits = limits_of(_headers_of(chunk)) or self._limits
        if chunk.prompt_feedback and chunk.prompt_feedback.block_reason:
            self._blocked = chunk.prompt_feedback.block_reason.value
        for candidate in (chunk.candidates or ())[:1]:
            if candidate.finish_reason:
                self._reason = candidate.finish_reason.value
            for part in (candidate.content.parts if candidate.content else None) or ():
                events += self._part(part)
        if chunk.usage_metadata is not None:
            self._reported = chunk.usage_metadata
            events.append(UsageSoFar(usage=self._usage(tokens_per_word=0)))
        return events

    def end(self, lease: Lease) -> Finished:
        if self._blocked and not self._said:
            raise BrokenReplyError(
                f"{lease.provider} declined to answer ({self._blocked}).", TRY_LATER, usage=self._usage()
            )
        if not self._reason:
            raise broken_off(lease)
        if not self._said:
            raise BrokenReplyError(
                f"{lease.provider} answered without any content ({self._reason}).", TRY_LATER, usage=self._usage()
            )
        finish = FINISH.get(self._reason, "stop")
        if finish == "stop" and self._calls:
            finish = "tool_calls"
        return Finished(finish=finish, usage=self._usage(), limits=self._limits)

    def failure_of(self, lease: Lease, error: Exception) -> MasterbuilderError | None:
        return of_stream(lease, error, _failure_of(lease, error), said=self._said)

    def _part(self, part: "types.Part") -> list[ChatEvent]:
        if part.function_call is not None:
            name, arguments = part.function_call.name or "", part.function_call.args or {}
            index, self._calls, self._said = self._calls, self._calls + 1, True
            written = json.dumps(arguments, ensure_ascii=False)
            self._words += words_in((name, written))
            id = part.function_call.id or f"call_{secrets.token_hex(12)}"
            return [ToolCallBegin(index=index, id=id, name=name), ToolCallDelta(index=index, arguments=written)]
        if part.text and not part.thought:
            self._said = True
            self._words += words_in((part.text,))
            return [TextDelta(text=part.text)]
        return []

    def _usage(self, tokens_per_word: int = TOKENS_PER_WORD) -> Usage:
        """What Gemini reports; where it does not, from the words. Thoughts are written by the model, and paid."""
        said = self._reported
        prompt = _count(said.prompt_token_count) if said else None
        written = _count(said.candidates_token_count) if said else None
        thoughts = (_count(said.thoughts_token_count) or 0) if said else 0
        estimated = prompt is None or written is None
        if prompt is None:
            asked = [part for message in self._request.messages for part in message.parts]
            prompt = tokens_per_word * words_in([*self._request.system, *asked])
        elif said:
            prompt += _count(said.tool_use_prompt_token_count) or 0
        if written is None:
            written = tokens_per_word * self._words
        return Usage(input_tokens=prompt, output_tokens=written + thoughts, estimated=estimated)


def _count(tokens: int | None) -> int | None:
    return tokens if tokens is not None and 0 <= tokens <= TOKENS_MAX // 4 else None


def _client(lease: Lease, http: "httpx2.AsyncClient") -> "genai.Client":
    from google import genai
    from google.genai import types

    version = _VERSION.search(lease.base_url)
    options = types.HttpOptions(
        base_url=lease.base_url[: version.start()] if version else lease.base_url,
        api_version=version[1] if version else API_VERSION,
        httpx_async_client=http,
    )
    return genai.Client(vertexai=False, api_key=lease.key, http_options=options)


async def _remember(answer: "httpx2.Response") -> None:
    if (answers := _ANSWERS.get()) is not None:
        answers.append(answer)


def _options(lease: Lease, call: CallId) -> dict[str, Any]:
    return {"headers": {"x-goog-api-key": lease.key, **call_headers(call)}}


def _headers_of(response: Any) -> Mapping[str, str]:
    http = response.sdk_http_response
    return {name.lower(): value for name, value in ((http.headers if http else None) or {}).items()}


def _failure_of(lease: Lease, error: Exception) -> MasterbuilderError | None:
    from google.genai import errors

    if not isinstance(error, errors.APIError):
        return None
    told = as_record(as_record(error.details).get("error"))
    details = as_records(told.get("details"))
    headers = {name.lower(): value for name, value in (getattr(error.response, "headers", None) or {}).items()}
    delay = next((str(one["retryDelay"]) for one in details if "retryDelay" in one), "")
    if _RETRY_DELAY.fullmatch(delay):
        headers.setdefault("retry-after", delay.removesuffix("s"))
    reason = next((str(one["reason"]) for one in details if "reason" in one), None)
    return refusal(
        lease,
        status=error.code if isinstance(error.code, int) and error.code >= 300 else 500,
        code=reason or error.status,
        message=clean(str(error.message or ""), lease),
        headers=headers,
    )

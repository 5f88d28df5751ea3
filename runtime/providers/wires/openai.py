"""OpenAI's chat completions and embeddings, as clients send and expect them.

Source: platform.openai.com/docs/api-reference/chat, /chat-streaming and /embeddings.
"""

import base64
import json
import re
import struct
from collections.abc import Iterable, Mapping
from typing import Any

from runtime.errors import BadInputError
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
    Tool,
    ToolCall,
    ToolCallBegin,
    ToolCallDelta,
    ToolResult,
    UsageSoFar,
)
from runtime.providers.usage import Usage
from runtime.providers.wires import fields
from runtime.providers.wires.fields import bad

DONE = b"data: [DONE]\n\n"
TEXTS_MAX = 2_048
DIMENSIONS_MAX = 65_536
NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}
FINISH: Mapping[Finish, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "refused": "content_filter",
}

_READ = {
    "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "tools", "tool_choice",
    "response_format",
}  # fmt: skip
# What says who asks, or how the answer travels, but nothing about the answer itself.
_BESIDE = {"model", "stream", "stream_options", "user", "metadata", "safety_identifier", "prompt_cache_key"}
_HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "n": (1,), "logprobs": (False,), "top_logprobs": (0,), "frequency_penalty": (0,), "presence_penalty": (0,),
    "logit_bias": ({},), "parallel_tool_calls": (True,), "store": (False,), "service_tier": ("auto", "default"),
    "modalities": (["text"],), "functions": ([],), "function_call": ("none", "auto"),
}  # fmt: skip
_DATA_URL = re.compile(r"data:([a-z]+/[a-z+.-]+);base64,")


def request_of(body: dict[str, Any]) -> ChatRequest:
    """Raises BadInputError that names the field, for what is malformed and for what another wire has no place for.

    `strict` schemas are passed on as schemas; how strictly they are kept to is the provider's business.
    """
    fields.no_others(body, _READ | _BESIDE | _HARMLESS.keys(), "")
    fields.only_value(body, _HARMLESS)
    fields.flag(body, "stream")
    fields.record(body.get("stream_options") or {}, "stream_options")
    system: list[str] = []
    messages: list[Message] = []
    names: dict[str, str] = {}
    for number, given in enumerate(fields.items(body.get("messages"), "messages")):
        _read_message(fields.record(given, f"messages[{number}]"), f"messages[{number}]", system, messages, names)
    if not messages:
        raise bad("messages", "must hold at least one message of the user")
    tools = tuple(_tool(tool, f"tools[{i}]") for i, tool in enumerate(fields.items(body.get("tools") or [], "tools")))
    limits = [fields.count(body, name) for name in ("max_completion_tokens", "max_tokens")]
    return ChatRequest(
        system=tuple(system),
        messages=tuple(messages),
        tools=tools,
        tool_choice=_tool_choice(body.get("tool_choice"), [tool.name for tool in tools]),
        json=_json_shape(body.get("response_format")),
        output_tokens_max=next((limit for limit in limits if limit is not None), None),
        temperature=fields.number(body, "temperature", 2),
        top_p=fields.number(body, "top_p", 1),
        stop=fields.stops(body.get("stop"), "stop"),
    )


def reply_body(reply: ChatReply, *, created: int) -> dict[str, Any]:
    """`created` in seconds since 1970."""
    calls = [
        {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": part.arguments}}
        for part in reply.parts
        if isinstance(part, ToolCall)
    ]
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": FINISH[reply.finish]}
    return {
        "id": reply.id,
        "object": "chat.completion",
        "created": created,
        "model": reply.model,
        "choices": [choice],
        "usage": _usage(reply.usage),
    }


class ReplyStream:
    """Writes one answer's events. Ask `written` for each; what it gives belongs on the wire in that order."""

    def __init__(self, *, id: str, model: str, created: int, wants_usage: bool) -> None:
        self._frame = {"id": id, "object": "chat.completion.chunk", "created": created, "model": model}
        self._wants_usage = wants_usage
        self._begun = False

    def written(self, event: ChatEvent) -> list[bytes]:
        """No bytes for an event the client does not see; `[DONE]` closes those of the last."""
        match event:
            case TextDelta(text=text):
                return [*self._begin(), self._chunk({"content": text})]
            case ToolCallBegin(index=index, id=id, name=name):
                call: dict[str, Any] = {"index": index, "id": id, "type": "function"}
                call["function"] = {"name": name, "arguments": ""}
                return [*self._begin(), self._chunk({"tool_calls": [call]})]
            case ToolCallDelta(index=index, arguments=arguments):
                piece = {"index": index, "function": {"arguments": arguments}}
                return [*self._begin(), self._chunk({"tool_calls": [piece]})]
            case UsageSoFar():
                return []
            case Finished(finish=finish, usage=usage):
                last = [self._chunk({}, FINISH[finish])]
                if self._wants_usage:
                    last.append(_event({**self._frame, "choices": [], "usage": _usage(usage)}))
                return [*self._begin(), *last, DONE]

    def _begin(self) -> list[bytes]:
        if self._begun:
            return []
        self._begun = True
        return [self._chunk({"role": "assistant", "content": ""})]

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunk = {**self._frame, "choices": [choice]}
        return _event({**chunk, "usage": None} if self._wants_usage else chunk)


def error_body(
    *, kind: str, status: int, message: str, request_id: str, extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """`kind` is our own code for what happened, `extra` what else stands beside it. The status travels outside."""
    return {
        "error": {
            "message": message, "type": kind, "code": kind, "param": None, "request_id": request_id, **(extra or {})
        }
    }  # fmt: skip


def error_event(
    *, kind: str, status: int, message: str, request_id: str, extra: Mapping[str, Any] | None = None
) -> bytes:
    """For a stream that has begun, and ends with this: OpenAI's SDKs raise it."""
    return _event(error_body(kind=kind, status=status, message=message, request_id=request_id, extra=extra))


def embed_request_of(body: dict[str, Any]) -> EmbedRequest:
    """Raises BadInputError; `encoding_format` is checked and stays with the caller."""
    fields.no_others(body, ("model", "input", "dimensions", "encoding_format", "user"), "")
    if body.get("encoding_format") not in (None, "float", "base64"):
        raise bad("encoding_format", "must be float or base64")
    given = body.get("input")
    texts = fields.items([given] if isinstance(given, str) else given, "input")
    if not 1 <= len(texts) <= TEXTS_MAX:
        raise bad("input", f"must hold 1 to {TEXTS_MAX} texts")
    if any(isinstance(one, int | list) for one in texts):
        raise bad("input", "must be texts, not tokens", "Send the texts themselves.")
    if not all(texts):
        raise bad("input", "must not hold an empty text")
    return EmbedRequest(
        texts=tuple(fields.text(one, f"input[{i}]") for i, one in enumerate(texts)),
        dimensions=fields.count(body, "dimensions", DIMENSIONS_MAX),
    )


def embeddings_body(embeddings: Embeddings, *, encoding_format: str = "float") -> dict[str, Any]:
    """`base64` is of little-endian float32, as OpenAI's SDKs ask for it by default."""
    tokens = embeddings.usage.input_tokens
    return {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": index,
                "embedding": _packed(vector) if encoding_format == "base64" else list(vector),
            }
            for index, vector in enumerate(embeddings.vectors)
        ],
        "model": embeddings.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _read_message(
    given: dict[str, Any], where: str, system: list[str], messages: list[Message], names: dict[str, str]
) -> None:
    """Appends what the message says. `names` are the tools of the calls made so far, by call id."""
    role = given.get("role")
    if role in ("system", "developer"):
        fields.no_others(given, ("role", "content"), f"{where}.")
        parts = _parts(given.get("content"), f"{where}.content", with_images=False)
        system.extend(part.text for part in parts if isinstance(part, Text))
    elif role == "user":
        fields.no_others(given, ("role", "content"), f"{where}.")
        parts = _parts(given.get("content"), f"{where}.content", with_images=True)
        if not parts:
            raise bad(f"{where}.content", "must not be empty")
        messages.append(Message(role="user", parts=tuple(parts)))
    elif role == "assistant":
        if said := _assistant_parts(given, where):
            names.update({part.id: part.name for part in said if isinstance(part, ToolCall)})
            messages.append(Message(role="assistant", parts=tuple(said)))
    elif role == "tool":
        result = _tool_result(given, where, names)
        before = messages[-1] if messages else None
        if before and before.role == "user" and isinstance(before.parts[-1], ToolResult):
            messages[-1] = Message(role="user", parts=(*before.parts, result))
        else:
            messages.append(Message(role="user", parts=(result,)))
    else:
        raise bad(f"{where}.role", "must be system, developer, user, assistant or tool")


def _parts(content: Any, where: str, *, with_images: bool) -> list[Text | Image]:
    """Without the empty texts, which say nothing and which other providers refuse."""
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]

    def read(part: dict[str, Any], name: str) -> Iterable[Text | Image]:
        kind = part.get("type")
        if kind == "text":
            fields.no_others(part, ("type", "text", "cache_control", "annotations"), f"{name}.")
            return [Text(text=said)] if (said := fields.text(part.get("text"), f"{name}.text")) else []
        if kind == "image_url" and with_images:
            fields.no_others(part, ("type", "image_url", "cache_control"), f"{name}.")
            return [_image(part.get("image_url"), f"{name}.image_url")]
        raise bad(f"{name}.type", f"must be {'text or image_url' if with_images else 'text'}")

    return list(fields.blocks(content, where, read))


def _image(given: Any, where: str) -> Image:
    source = fields.record(given, where)
    fields.no_others(source, ("url", "detail"), f"{where}.")
    if source.get("detail") not in (None, "auto", "low", "high", "original"):
        raise bad(f"{where}.detail", "must be auto, low or high")
    url = fields.text(source.get("url"), f"{where}.url")
    if (head := _DATA_URL.match(url[:100])) is None:
        raise bad(
            f"{where}.url",
            "must be a data URL in base64: pictures behind an address are not fetched",
            "Send the picture's data: data:image/png;base64,...",
        )
    return fields.image(head[1], url[head.end() :], f"{where}.url")


def _assistant_parts(given: dict[str, Any], where: str) -> list[Text | ToolCall]:
    fields.no_others(given, ("role", "content", "refusal", "tool_calls", "reasoning_content"), f"{where}.")
    said: list[Text | ToolCall] = []
    content = given.get("content")
    if isinstance(content, list):
        content = [
            {"type": "text", "text": part.get("refusal")}
            if isinstance(part, dict) and part.get("type") == "refusal"
            else part
            for part in content
        ]
    if content is not None:
        said += [part for part in _parts(content, f"{where}.content", with_images=False) if isinstance(part, Text)]
    if given.get("refusal") is not None and (refusal := fields.text(given["refusal"], f"{where}.refusal")):
        said.append(Text(text=refusal))
    for number, call in enumerate(fields.items(given.get("tool_calls") or [], f"{where}.tool_calls")):
        said.append(_tool_call(call, f"{where}.tool_calls[{number}]"))
    return said


def _tool_call(given: Any, where: str) -> ToolCall:
    call = fields.record(given, where)
    fields.no_others(call, ("id", "type", "function", "index"), f"{where}.")
    if call.get("type", "function") != "function":
        raise bad(f"{where}.type", "must be function")
    function = fields.record(call.get("function"), f"{where}.function")
    fields.no_others(function, ("name", "arguments"), f"{where}.function.")
    id = fields.text(call.get("id"), f"{where}.id")
    if not id:
        raise bad(f"{where}.id", "must not be empty")
    return ToolCall(
        id=id,
        name=fields.tool_name(function.get("name"), f"{where}.function.name"),
        arguments=fields.text(function.get("arguments"), f"{where}.function.arguments") or "{}",
    )


def _tool_result(given: dict[str, Any], where: str, names: Mapping[str, str]) -> ToolResult:
    fields.no_others(given, ("role", "content", "tool_call_id", "name"), f"{where}.")
    id = fields.text(given.get("tool_call_id"), f"{where}.tool_call_id")
    if id not in names:
        raise bad(f"{where}.tool_call_id", "must be the id of a tool call before it")
    parts = _parts(given.get("content"), f"{where}.content", with_images=False)
    return ToolResult(call_id=id, name=names[id], text="".join(part.text for part in parts if isinstance(part, Text)))


def _tool(given: Any, where: str) -> Tool:
    tool = fields.record(given, where)
    fields.no_others(tool, ("type", "function", "cache_control"), f"{where}.")
    if tool.get("type") != "function":
        raise bad(f"{where}.type", "must be function")
    function = fields.record(tool.get("function"), f"{where}.function")
    fields.no_others(function, ("name", "description", "parameters", "strict"), f"{where}.function.")
    fields.flag(function, "strict")
    parameters = function.get("parameters")
    return Tool(
        name=fields.tool_name(function.get("name"), f"{where}.function.name"),
        description=fields.text(function.get("description") or "", f"{where}.function.description"),
        parameters=NO_PARAMETERS if parameters is None else fields.schema(parameters, f"{where}.function.parameters"),
    )


def _tool_choice(given: Any, tools: list[str]) -> str:
    if given is None or given == "auto" or given == "none":
        return given or "auto"
    if given == "required":
        if not tools:
            raise bad("tool_choice", "requires a tool, but there are none")
        return "required"
    choice = fields.record(given, "tool_choice")
    fields.no_others(choice, ("type", "function"), "tool_choice.")
    if choice.get("type") != "function":
        raise bad("tool_choice.type", "must be function")
    function = fields.record(choice.get("function"), "tool_choice.function")
    return fields.chosen_tool(function.get("name"), "tool_choice.function.name", tools)


def _json_shape(given: Any) -> JsonShape | None:
    if given is None:
        return None
    shape = fields.record(given, "response_format")
    kind = shape.get("type")
    if kind not in ("text", "json_object", "json_schema"):
        raise bad("response_format.type", "must be text, json_object or json_schema")
    fields.no_others(shape, ("type", "json_schema") if kind == "json_schema" else ("type",), "response_format.")
    if kind == "text":
        return None
    if kind == "json_object":
        return JsonShape(name="reply", schema=None)
    where = "response_format.json_schema"
    named = fields.record(shape.get("json_schema"), where)
    fields.no_others(named, ("name", "schema", "strict", "description"), f"{where}.")
    fields.flag(named, "strict")
    return JsonShape(
        name=fields.tool_name(named.get("name"), f"{where}.name"),
        schema=fields.schema(named.get("schema"), f"{where}.schema"),
    )


def _usage(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _packed(vector: tuple[float, ...]) -> str:
    try:
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    except (OverflowError, struct.error) as error:
        raise BadInputError("A vector does not fit into float32.", "Ask for encoding_format float.") from error


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode(errors="replace") + b"\n\n"

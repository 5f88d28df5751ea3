"""Anthropic's messages, as clients send and expect them.

Source: platform.claude.com/docs/en/api/messages, /build-with-claude/streaming and /api/errors.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from runtime.providers.chat import (
    ChatEvent,
    ChatReply,
    ChatRequest,
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
from runtime.providers.tool_arguments import arguments_of
from runtime.providers.usage import Usage
from runtime.providers.wires import fields
from runtime.providers.wires.fields import bad

STOP_REASON: Mapping[Finish, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "refused": "refusal",
}
ERROR_TYPE: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}

_READ = {
    "messages", "system", "max_tokens", "temperature", "top_p", "stop_sequences", "tools", "tool_choice",
    "output_config",
}  # fmt: skip
# What says who asks, or how the request travels and is stored, but nothing about the answer itself.
_BESIDE = {"model", "stream", "metadata", "cache_control"}
_HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "thinking": ({"type": "disabled"},), "service_tier": ("auto", "standard_only"), "speed": ("standard",),
}  # fmt: skip

Part = Text | Image | ToolCall | ToolResult


def request_of(body: dict[str, Any]) -> ChatRequest:
    """Raises BadInputError that names the field, for what is malformed and for what another wire has no place for.

    Thoughts of earlier turns are left out: only the model that had them could read them. A picture in a tool's result
    stands behind the results.
    """
    fields.no_others(body, _READ | _BESIDE | _HARMLESS.keys(), "")
    fields.only_value(body, _HARMLESS)
    fields.flag(body, "stream")
    fields.record(body.get("metadata") or {}, "metadata")
    output_tokens_max = fields.count(body, "max_tokens")
    if output_tokens_max is None:
        raise bad("max_tokens", "is missing")
    system = list(_texts(body.get("system"), "system")) if body.get("system") is not None else []
    messages: list[Message] = []
    names: dict[str, str] = {}
    for number, given in enumerate(fields.items(body.get("messages"), "messages")):
        _read_message(fields.record(given, f"messages[{number}]"), f"messages[{number}]", system, messages, names)
    if not messages:
        raise bad("messages", "must hold at least one message of the user")
    tools = tuple(_tool(tool, f"tools[{i}]") for i, tool in enumerate(fields.items(body.get("tools") or [], "tools")))
    return ChatRequest(
        system=tuple(system),
        messages=tuple(messages),
        tools=tools,
        tool_choice=_tool_choice(body.get("tool_choice"), [tool.name for tool in tools]),
        json=_json_shape(body.get("output_config")),
        output_tokens_max=output_tokens_max,
        temperature=fields.number(body, "temperature", 1),
        top_p=fields.number(body, "top_p", 1),
        stop=fields.stops(body.get("stop_sequences"), "stop_sequences"),
    )


def reply_body(reply: ChatReply, *, created: int) -> dict[str, Any]:
    """`created` has no place in this wire. Arguments that are no JSON object come as {"INVALID_JSON": text}."""
    content: list[dict[str, Any]] = [
        {"type": "text", "text": part.text}
        if isinstance(part, Text)
        else {"type": "tool_use", "id": part.id, "name": part.name, "input": arguments_of(part.arguments)}
        for part in reply.parts
    ]
    return {
        **_frame(reply.id, reply.model),
        "content": content,
        "stop_reason": STOP_REASON[reply.finish],
        "stop_sequence": None,
        "usage": _usage(reply.usage),
    }


class ReplyStream:
    """Writes one answer's events. Ask `written` for each; what it gives belongs on the wire in that order.

    `message_start` tells the input tokens where they are known by then, else 0; `message_delta` always does.
    """

    def __init__(self, *, id: str, model: str, created: int, wants_usage: bool) -> None:
        self._message = _frame(id, model)
        self._usage = Usage(input_tokens=0, output_tokens=0)
        self._begun = False
        self._blocks = 0
        self._open: int | None = None
        self._open_is_text = False
        self._block_of_call: dict[int, int] = {}

    def written(self, event: ChatEvent) -> list[bytes]:
        """No bytes for an event the client does not see; `message_stop` closes those of the last."""
        match event:
            case TextDelta(text=text):
                head = self._begin() if self._open_is_text else self._new_block({"type": "text", "text": ""})
                self._open_is_text = True
                return [*head, self._delta(self._open, {"type": "text_delta", "text": text})]
            case ToolCallBegin(index=index, id=id, name=name):
                head = self._new_block({"type": "tool_use", "id": id, "name": name, "input": {}})
                self._block_of_call[index] = self._blocks - 1
                return head
            case ToolCallDelta(index=index, arguments=arguments):
                piece = {"type": "input_json_delta", "partial_json": arguments}
                return [self._delta(self._block_of_call[index], piece)]
            case UsageSoFar(usage=usage):
                self._usage = usage
                return []
            case Finished(finish=finish, usage=usage):
                delta = {"stop_reason": STOP_REASON[finish], "stop_sequence": None}
                return [
                    *self._begin(),
                    *self._close_block(),
                    _event("message_delta", {"delta": delta, "usage": _usage(usage)}),
                    _event("message_stop", {}),
                ]

    def _begin(self) -> list[bytes]:
        if self._begun:
            return []
        self._begun = True
        message = {**self._message, "content": [], "stop_reason": None, "stop_sequence": None}
        message["usage"] = {"input_tokens": self._usage.input_tokens, "output_tokens": 0}
        return [_event("message_start", {"message": message})]

    def _new_block(self, block: dict[str, Any]) -> list[bytes]:
        begun = [*self._begin(), *self._close_block()]
        self._open, self._open_is_text = self._blocks, False
        self._blocks += 1
        return [*begun, _event("content_block_start", {"index": self._open, "content_block": block})]

    def _close_block(self) -> list[bytes]:
        if self._open is None:
            return []
        closed, self._open, self._open_is_text = self._open, None, False
        return [_event("content_block_stop", {"index": closed})]

    def _delta(self, block: int | None, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", {"index": block, "delta": delta})


def error_body(
    *, kind: str, status: int, message: str, request_id: str, extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """`kind` is our own code for what happened, `extra` what else stands beside it; the type follows `status`."""
    type_ = ERROR_TYPE.get(status) or ("invalid_request_error" if 400 <= status < 500 else "api_error")
    return {
        "type": "error",
        "error": {"type": type_, "message": message, "code": kind, **(extra or {})},
        "request_id": request_id,
    }


def error_event(
    *, kind: str, status: int, message: str, request_id: str, extra: Mapping[str, Any] | None = None
) -> bytes:
    """For a stream that has begun, and ends with this."""
    return _event("error", error_body(kind=kind, status=status, message=message, request_id=request_id, extra=extra))


def _read_message(
    given: dict[str, Any], where: str, system: list[str], messages: list[Message], names: dict[str, str]
) -> None:
    """Appends what the message says. `names` are the tools of the calls made so far, by call id."""
    fields.no_others(given, ("role", "content"), f"{where}.")
    role, content = given.get("role"), given.get("content")
    if role == "system":
        system.extend(_texts(content, f"{where}.content"))
        return
    if role not in ("user", "assistant"):
        raise bad(f"{where}.role", "must be user or assistant")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]

    def read(block: dict[str, Any], name: str) -> Iterable[Part]:
        return _user_parts(block, name, names) if role == "user" else _assistant_parts(block, name, names)

    parts: tuple[Part, ...] = fields.blocks(content, f"{where}.content", read)
    if parts:
        results = tuple(part for part in parts if isinstance(part, ToolResult))
        others = tuple(part for part in parts if not isinstance(part, ToolResult))
        messages.append(Message(role="user" if role == "user" else "assistant", parts=results + others))
    elif role == "user":
        raise bad(f"{where}.content", "must not be empty")


def _user_parts(block: dict[str, Any], where: str, names: Mapping[str, str]) -> Iterable[Part]:
    kind = block.get("type")
    if kind == "text":
        return _text(block, where)
    if kind == "image":
        return [_image(block, where)]
    if kind == "tool_result":
        return _tool_result(block, where, names)
    raise bad(f"{where}.type", "must be text, image or tool_result: nothing else can be carried over to this model")


def _assistant_parts(block: dict[str, Any], where: str, names: dict[str, str]) -> Iterable[Part]:
    kind = block.get("type")
    if kind == "text":
        return _text(block, where)
    if kind in ("thinking", "redacted_thinking"):
        return []
    if kind == "tool_use":
        call = _tool_call(block, where)
        names[call.id] = call.name
        return [call]
    raise bad(f"{where}.type", "must be text or tool_use: nothing else can be carried over to this model")


def _texts(given: Any, where: str) -> Iterable[str]:
    if isinstance(given, str):
        return [fields.text(given, where)] if given else []

    def read(block: dict[str, Any], name: str) -> Iterable[str]:
        if block.get("type") != "text":
            raise bad(f"{name}.type", "must be text")
        return [part.text for part in _text(block, name)]

    return fields.blocks(given, where, read)


def _text(block: dict[str, Any], where: str) -> list[Text]:
    """Without the empty ones, which say nothing and which providers refuse."""
    fields.no_others(block, ("type", "text", "cache_control"), f"{where}.")
    return [Text(text=said)] if (said := fields.text(block.get("text"), f"{where}.text")) else []


def _image(block: dict[str, Any], where: str) -> Image:
    fields.no_others(block, ("type", "source", "cache_control"), f"{where}.")
    source = fields.record(block.get("source"), f"{where}.source")
    if source.get("type") != "base64":
        raise bad(
            f"{where}.source.type",
            "must be base64: pictures behind an address or an id are not fetched",
            "Send the picture's data.",
        )
    fields.no_others(source, ("type", "media_type", "data"), f"{where}.source.")
    return fields.image(source.get("media_type"), source.get("data"), f"{where}.source")


def _tool_call(block: dict[str, Any], where: str) -> ToolCall:
    fields.no_others(block, ("type", "id", "name", "input", "cache_control", "caller"), f"{where}.")
    id = fields.text(block.get("id"), f"{where}.id")
    if not id:
        raise bad(f"{where}.id", "must not be empty")
    given = fields.record(block.get("input"), f"{where}.input")
    return ToolCall(
        id=id,
        name=fields.tool_name(block.get("name"), f"{where}.name"),
        arguments=fields.written(given, f"{where}.input"),
    )


def _tool_result(block: dict[str, Any], where: str, names: Mapping[str, str]) -> list[Part]:
    fields.no_others(block, ("type", "tool_use_id", "content", "is_error", "cache_control"), f"{where}.")
    id = fields.text(block.get("tool_use_id"), f"{where}.tool_use_id")
    if id not in names:
        raise bad(f"{where}.tool_use_id", "must be the id of a tool_use before it")
    content = block.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]

    def read(inner: dict[str, Any], name: str) -> Iterable[Part]:
        if inner.get("type") == "image":
            return [_image(inner, name)]
        if inner.get("type") == "text":
            return _text(inner, name)
        raise bad(f"{name}.type", "must be text or image")

    parts: tuple[Part, ...] = fields.blocks(content or [], f"{where}.content", read)
    said = "".join(part.text for part in parts if isinstance(part, Text))
    result = ToolResult(call_id=id, name=names[id], text=said, is_error=fields.flag(block, "is_error"))
    return [result, *(part for part in parts if isinstance(part, Image))]


def _tool(given: Any, where: str) -> Tool:
    tool = fields.record(given, where)
    if tool.get("type") not in (None, "custom"):
        raise bad(f"{where}.type", "must be custom: the provider's own tools cannot be carried over to this model")
    fields.no_others(tool, ("type", "name", "description", "input_schema", "cache_control", "strict"), f"{where}.")
    fields.flag(tool, "strict")
    return Tool(
        name=fields.tool_name(tool.get("name"), f"{where}.name"),
        description=fields.text(tool.get("description") or "", f"{where}.description"),
        parameters=fields.schema(tool.get("input_schema"), f"{where}.input_schema"),
    )


def _tool_choice(given: Any, tools: list[str]) -> str:
    if given is None:
        return "auto"
    choice = fields.record(given, "tool_choice")
    fields.no_others(choice, ("type", "name", "disable_parallel_tool_use"), "tool_choice.")
    if fields.flag(choice, "disable_parallel_tool_use"):
        raise bad("tool_choice.disable_parallel_tool_use", "cannot be carried over to this model's provider")
    kind = choice.get("type")
    if kind == "auto" or kind == "none":
        return str(kind)
    if kind == "any":
        if not tools:
            raise bad("tool_choice", "requires a tool, but there are none")
        return "required"
    if kind == "tool":
        return fields.chosen_tool(choice.get("name"), "tool_choice.name", tools)
    raise bad("tool_choice.type", "must be auto, any, tool or none")


def _json_shape(given: Any) -> JsonShape | None:
    if given is None:
        return None
    config = fields.record(given, "output_config")
    fields.no_others(config, ("format",), "output_config.")
    if config.get("format") is None:
        return None
    shape = fields.record(config["format"], "output_config.format")
    fields.no_others(shape, ("type", "schema"), "output_config.format.")
    if shape.get("type") != "json_schema":
        raise bad("output_config.format.type", "must be json_schema")
    return JsonShape(name="reply", schema=fields.schema(shape.get("schema"), "output_config.format.schema"))


def _frame(id: str, model: str) -> dict[str, Any]:
    return {"id": id, "type": "message", "role": "assistant", "model": model}


def _usage(usage: Usage) -> dict[str, int]:
    return {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}


def _event(name: str, data: dict[str, Any]) -> bytes:
    written = json.dumps({"type": name, **data}, ensure_ascii=False, separators=(",", ":"))
    return f"event: {name}\ndata: ".encode() + written.encode(errors="replace") + b"\n\n"

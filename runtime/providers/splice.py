"""A client's request as it passes through to a provider of the same wire: checked and bounded, but never rebuilt.

Only the top level of its JSON is taken apart. What a provider bills beyond text tokens and the pictures we can count
(audio, files, web search, priority tiers, hour-long caches) has no bound here, so a request for it is refused.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Raw, Struct

from runtime.catalogue.endpoints import limit_name
from runtime.errors import BadInputError
from runtime.providers.bounds import Size

Wire = Literal["openai", "anthropic"]
Path = Literal["/chat/completions", "/embeddings", "/messages"]
"""Below `/v1`, as both services name it."""

WIRES: Mapping[Path, Wire] = {"/chat/completions": "openai", "/embeddings": "openai", "/messages": "anthropic"}
FIELDS: Mapping[Path, frozenset[str]] = {
    "/chat/completions": frozenset({
        "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "temperature",
        "top_p", "stop", "seed", "user", "frequency_penalty", "presence_penalty", "logit_bias", "logprobs",
        "top_logprobs", "tools", "tool_choice", "parallel_tool_calls", "functions", "function_call",
        "response_format", "reasoning_effort", "verbosity", "metadata", "safety_identifier", "prompt_cache_key",
        "top_k", "min_p", "repetition_penalty",
    }),
    "/embeddings": frozenset({"model", "input", "encoding_format", "dimensions", "user"}),
    "/messages": frozenset({
        "model", "messages", "max_tokens", "system", "stream", "temperature", "top_p", "top_k", "stop_sequences",
        "tools", "tool_choice", "metadata", "thinking", "output_config",
    }),
}  # fmt: skip
CHOICES_MAX = 8
TOKENS_MAX = 10_000_000
EMBEDDED_TEXTS_MAX = 2_048
CORRECT = "Correct it and send it again."

_ROLES: Mapping[Wire, frozenset[str]] = {
    "openai": frozenset({"system", "developer", "user", "assistant", "tool", "function"}),
    "anthropic": frozenset({"user", "assistant"}),
}
_PARTS: Mapping[Wire, frozenset[str]] = {
    "openai": frozenset({"text", "refusal", "image_url"}),
    "anthropic": frozenset({"text", "image", "tool_use", "tool_result", "thinking", "redacted_thinking"}),
}
_PICTURE = re.compile(r"data:image/(jpeg|png|gif|webp);base64,", re.IGNORECASE)

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spliced:
    """A request that may be sent on. `model` is what the client asked for."""

    path: Path
    model: str
    streams: bool
    wants_usage: bool
    """The client of an OpenAI stream asked for usage."""
    size: Size
    tools: bool
    images: bool
    json_schema: bool
    body: bytes = field(repr=False)
    fields: Mapping[str, Raw] = field(repr=False)

    @property
    def wire(self) -> Wire:
        return WIRES[self.path]

    def sent(self, provider: str, model: str, cut_to: int | None = None) -> bytes:
        """For this model of a provider. Everything else stays as the client wrote it, but for the output limit: its
        name where the provider would not know it, and its figure where it was cut. What is held must be a limit there
        too."""
        fields: dict[str, Any] = {**self.fields, "model": model}
        limit = "max_tokens" if self.wire == "anthropic" else limit_name(provider)
        if cut_to is not None:
            fields.pop("max_completion_tokens", None)
            fields.pop("max_tokens", None)
            fields[limit] = cut_to
        elif limit == "max_tokens" and fields.pop("max_completion_tokens", None) is not None:
            fields["max_tokens"] = self.size.output_tokens_max
        if self.streams and self.wire == "openai":
            options = msgspec.json.decode(self.fields["stream_options"]) if "stream_options" in self.fields else None
            fields["stream_options"] = {**(options or {}), "include_usage": True}
        return msgspec.json.encode(fields)

    def document(self) -> dict[str, Any]:
        """The whole of it, for a provider of another wire."""
        try:
            document: dict[str, Any] = json.loads(self.body)
        except (ValueError, RecursionError):
            raise BadInputError("A number of the request is too long, or it is nested too deep.", CORRECT) from None
        return document

    def last_user_text(self) -> str:
        """What the user said last; empty where that was no text."""
        messages = msgspec.json.decode(self.fields["messages"]) if "messages" in self.fields else ()
        content = next((message.get("content") for message in reversed(messages) if message["role"] == "user"), None)
        if isinstance(content, str):
            return content
        texts = [part.get("text") for part in content or () if part.get("type") == "text"]
        return "\n".join(text for text in texts if isinstance(text, str))


def splice(body: bytes, path: Path) -> Spliced:
    """Raises BadInputError, naming the field, for what is malformed, unknown, or cannot be bounded."""
    try:
        body.decode()
        fields = _TOP.decode(body)
    except UnicodeDecodeError:
        raise BadInputError("The body is not UTF-8 text.", CORRECT) from None
    except msgspec.ValidationError:
        raise BadInputError("The body must be an object: names and values.", CORRECT) from None
    except msgspec.DecodeError as error:
        raise BadInputError(f"The body is not JSON: {error}.", CORRECT) from None
    except RecursionError:
        raise BadInputError("The body is nested too deep.", CORRECT) from None
    if unknown := sorted(name[:40] for name in fields.keys() - FIELDS[path]):
        raise BadInputError(f"Not supported here: {', '.join(unknown)[:300]}.", "Leave it out and send the rest.")
    # LiteLLM's client writes null for what it does not ask; OpenAI takes that, the services like it do not.
    fields = {name: raw for name, raw in fields.items() if raw != _NULL}
    model = _read(fields, "model", str)
    if not model:
        raise BadInputError("model must be a model's name.", "GET /v1/models lists them.")
    if path == "/embeddings":
        return _embeddings(body, fields, model)
    return _chat(body, fields, model, path)


class _Cache(Struct):
    ttl: Literal["5m"] = "5m"
    """An hour costs more to write than input does."""


class _Source(Struct):
    data: str
    type: Literal["base64"]


class _ImageUrl(Struct):
    url: str


class _Leaf(Struct):
    type: str
    text: str | None = None
    image_url: _ImageUrl | None = None
    source: _Source | None = None
    cache_control: _Cache | None = None


class _Part(_Leaf):
    content: str | list[_Leaf] | None = None
    """Of a tool's result, which may hold pictures."""


class _Message(Struct):
    role: str
    content: str | list[_Part] | None = None
    audio: None = None


class _Tool(Struct):
    type: str | None = None
    name: str | None = None
    cache_control: _Cache | None = None


class _StreamOptions(Struct):
    include_usage: bool | None = None


class _ResponseFormat(Struct):
    type: str


class _Thinking(Struct):
    budget_tokens: int | None = None


_TOP = msgspec.json.Decoder(dict[str, Raw])
_NULL = Raw(b"null")
_DECODERS: dict[Any, "msgspec.json.Decoder[Any]"] = {
    type_: msgspec.json.Decoder(type_ | None)
    for type_ in (
        str, int, bool, list[_Message], list[_Tool], _StreamOptions, _ResponseFormat, _Thinking, str | list[_Part],
        str | list[str | int | list[int]],
    )
}  # fmt: skip


def _chat(body: bytes, fields: Mapping[str, Raw], model: str, path: Path) -> Spliced:
    wire = WIRES[path]
    counted = _Counted(wire)
    messages = _read(fields, "messages", list[_Message])
    if not messages:
        raise BadInputError("messages must be a list with at least one message.", "Add one and send it again.")
    for message in messages:
        counted.message(message)
    tools = _read(fields, "tools", list[_Tool]) or []
    kinds = ("function",) if wire == "openai" else (None, "custom")
    if any(tool.type not in kinds for tool in tools):
        raise BadInputError("tools may hold functions of your own only.", "Leave the provider's own tools out.")
    if wire == "anthropic":
        counted.parts(_read(fields, "system", str | list[_Part]))
        limits = [_count(fields, "max_tokens", TOKENS_MAX)]
        if limits == [None]:
            raise BadInputError("max_tokens is missing.", "Say how long the reply may be.")
    else:
        limits = [_count(fields, name, TOKENS_MAX) for name in ("max_completion_tokens", "max_tokens")]
    stated = [limit for limit in limits if limit is not None]
    options = _read(fields, "stream_options", _StreamOptions)
    shape = _read(fields, "response_format", _ResponseFormat)
    thinking = _read(fields, "thinking", _Thinking)
    return Spliced(
        path=path,
        model=model,
        streams=bool(_read(fields, "stream", bool)),
        wants_usage=bool(options and options.include_usage),
        size=Size(
            text_bytes=len(body) - counted.picture_bytes,
            frames=counted.frames,
            images=counted.pictures,
            tools=len(tools),
            output_tokens_max=max(stated) if stated else None,
            choices=_count(fields, "n", CHOICES_MAX) or 1,
            said_bytes=counted.said_bytes,
            thinking_tokens=max(0, (thinking and thinking.budget_tokens) or 0),
        ),
        tools=bool(tools) or "functions" in fields,
        images=counted.pictures > 0,
        json_schema=bool(shape and shape.type == "json_schema"),
        body=body,
        fields=fields,
    )


def _embeddings(body: bytes, fields: Mapping[str, Raw], model: str) -> Spliced:
    texts = _read(fields, "input", str | list[str | int | list[int]])
    if not texts:
        raise BadInputError("input must be a text, or a list of texts.", CORRECT)
    frames = 1 if isinstance(texts, str) or isinstance(texts[0], int) else len(texts)
    if frames > EMBEDDED_TEXTS_MAX:
        raise BadInputError(f"input may hold at most {EMBEDDED_TEXTS_MAX} texts.", "Send them in several requests.")
    return Spliced(
        path="/embeddings",
        model=model,
        streams=False,
        wants_usage=False,
        size=Size(text_bytes=len(body), frames=frames, images=0, tools=0, output_tokens_max=0),
        tools=False,
        images=False,
        json_schema=False,
        body=body,
        fields=fields,
    )


class _Counted:
    """What the messages hold. Raises BadInputError for a role or a part that is not of this wire."""

    def __init__(self, wire: Wire) -> None:
        self.frames = self.pictures = self.picture_bytes = self.said_bytes = 0
        self._roles = _ROLES[wire]
        self._types = _PARTS[wire]

    def message(self, message: _Message) -> None:
        if message.role not in self._roles:
            raise BadInputError(f"A message has the role {message.role[:40]!r}, which is none.", CORRECT)
        self.frames += 1
        self.parts(message.content)

    def parts(self, content: str | Sequence[_Leaf] | None) -> None:
        if content is None:
            return
        if isinstance(content, str):
            self._text(content)
            return
        self.frames += len(content)
        for part in content:
            if part.text:
                self._text(part.text)
            if part.type not in self._types:
                raise BadInputError(
                    f"Messages may hold text and pictures; {part.type[:40]!r} is not supported here.",
                    "Describe the content in words.",
                )
            if part.type == "image_url":
                self._picture(part.image_url.url if part.image_url else "", needs_prefix=True)
            elif part.type == "image":
                self._picture(part.source.data if part.source else "", needs_prefix=False)
            if isinstance(part, _Part):
                self.parts(part.content)

    def _text(self, text: str) -> None:
        self.said_bytes += len(text) if text.isascii() else len(text.encode(errors="replace"))

    def _picture(self, data: str, *, needs_prefix: bool) -> None:
        if not data or (needs_prefix and not _PICTURE.match(data)):
            raise BadInputError(
                "A picture must be in the request itself, as base64 of a JPEG, PNG, GIF or WebP.",
                "Send the data; pictures behind an address are not fetched.",
            )
        self.pictures += 1
        self.picture_bytes += len(data)


def _read(fields: Mapping[str, Raw], name: str, type_: Any) -> Any:
    """The field's value, None where it is null or not there."""
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return _DECODERS[type_].decode(raw)
    except msgspec.ValidationError as error:
        raise BadInputError(f"{name} does not fit: {str(error)[:200]}.", CORRECT) from None


def _count(fields: Mapping[str, Raw], name: str, most: int) -> int | None:
    count: int | None = _read(fields, name, int)
    if count is not None and not 1 <= count <= most:
        raise BadInputError(f"{name} must be a whole number from 1 to {most}.", CORRECT)
    return count

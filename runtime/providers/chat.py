"""A model call in one shape: what is asked, what is answered, and the pieces of an answer that streams.

Every wire format is translated into this shape and every provider's adapter out of it; texts are never changed.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from runtime.keys.keys import KeyLimits
from runtime.providers.usage import Usage

Finish = Literal["stop", "length", "tool_calls", "refused"]
"""Why the model ended: it was done, at its output limit, wants tools called, or declined (content filter, refusal)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """`data` is base64 of a JPEG, PNG, GIF or WebP; pictures behind an address are not fetched."""

    media_type: str
    data: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """`arguments` is JSON text as the model wrote it, which may be malformed; `{}` where it wrote none."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    call_id: str
    name: str
    """Of the tool: Gemini wants it, and it is looked up from the call where a wire leaves it out."""
    text: str
    is_error: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """`user` messages hold texts, images and tool results; `assistant` messages hold texts and tool calls."""

    role: Literal["user", "assistant"]
    parts: tuple[Text | Image | ToolCall | ToolResult, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    name: str
    description: str
    parameters: dict[str, Any]
    """JSON schema of an object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonShape:
    """The reply must be JSON: of this schema, or any object where `schema` is None."""

    name: str
    schema: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """What a model is asked. The model itself is named beside it, because a route may try several."""

    system: tuple[str, ...]
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: Literal["auto", "none", "required"] | str = "auto"
    """Any other text is the name of the one tool that must be called."""
    json: JsonShape | None = None
    output_tokens_max: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()


def last_user_text(request: ChatRequest) -> str:
    """What the user said last; empty where that was no text."""
    last = next((message for message in reversed(request.messages) if message.role == "user"), None)
    return "\n".join(part.text for part in last.parts if isinstance(part, Text)) if last else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatReply:
    """A whole answer. `parts` is never empty: an empty answer is a failure."""

    id: str
    model: str
    parts: tuple[Text | ToolCall, ...]
    finish: Finish
    usage: Usage
    limits: KeyLimits | None = None
    """What the provider's headers said of the key."""

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, Text))


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallBegin:
    """`index` counts the answer's tool calls from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallDelta:
    """The next piece of the arguments' JSON text."""

    index: int
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSoFar:
    """What a provider says in the middle: final where nothing newer comes."""

    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Always the last event of a stream that was not cut off."""

    finish: Finish
    usage: Usage
    limits: KeyLimits | None = None


ChatEvent = TextDelta | ToolCallBegin | ToolCallDelta | UsageSoFar | Finished


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRequest:
    """One vector a text, in their order."""

    texts: tuple[str, ...]
    dimensions: int | None = None
    """That the provider is asked for; None where it gives as many as the model has."""
    length: int | None = None
    """Of each vector, where only that is of use: an answer of another is a broken one, and costs the user nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """float32[n, d] as lists; `usage.output_tokens` is 0."""

    model: str
    vectors: tuple[tuple[float, ...], ...]
    usage: Usage
    limits: KeyLimits | None = None

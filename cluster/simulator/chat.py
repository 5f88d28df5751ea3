"""A model call as the simulator sees it, whichever wire it came over."""

import base64
import binascii
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cluster.simulator.refusal import Refusal
from cluster.simulator.usage import text_tokens

WireName = Literal["openai", "anthropic", "gemini"]

PICTURE_TOKENS = 85
"""Our own rule: every picture counts this much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    media_type: str
    size_bytes: int
    digest: str
    """First 8 hex digits of its SHA-256; empty for a picture behind an address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    id: str
    name: str
    arguments: str
    """JSON text of an object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    call_id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    role: Literal["system", "user", "assistant"]
    text: str = ""
    pictures: tuple[Picture, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_results: tuple[ToolResult, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    name: str
    description: str
    parameters: dict[str, Any]
    """JSON schema of an object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """What a model is asked, as far as the simulator looks at it."""

    model: str
    messages: Sequence[Message]
    prompt_tokens: int
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    """`auto`, `none`, `required`, or the name of the one tool that must be called after a colon: `tool:name`."""
    schema: dict[str, Any] | None = None
    """The answer must be JSON of this schema; `{}` is any object, None is text."""
    tokens_max: int | None = None
    stream: bool = False
    usage_in_stream: bool = True
    user: str = ""
    """Whom the client says it calls for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """What is to be embedded."""

    model: str
    texts: tuple[str, ...]
    dimensions: int | None = None
    base64: bool = False
    single: bool = False
    """Asked for one text alone, where a wire tells the difference."""

    @property
    def prompt_tokens(self) -> int:
        return sum(text_tokens(text) for text in self.texts)


def prompt_tokens(messages: Iterable[Message], tools: Iterable[Tool] = ()) -> int:
    """ceil(UTF-8 bytes / 4) of each message (role, text, calls and results of tools) and of each tool, plus the
    pictures. Our own rule, the same over every wire: no tokenizer is needed."""
    total = 0
    for message in messages:
        text = message.role + message.text
        if message.tool_calls or message.tool_results or message.pictures:
            text += "".join(call.name + call.arguments for call in message.tool_calls)
            text += "".join(result.text for result in message.tool_results)
            total += PICTURE_TOKENS * len(message.pictures)
        total += text_tokens(text)
    return total + sum(text_tokens(tool.name + tool.description + json.dumps(tool.parameters)) for tool in tools)


def picture(media_type: str, data: str) -> Picture:
    """From base64, standard or URL-safe. Raises Refusal where it is none."""
    try:
        content = base64.b64decode(data.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(400, "Invalid base64 data in an image.") from error
    if not content:
        raise Refusal(400, "An image is empty.")
    return Picture(media_type=media_type, size_bytes=len(content), digest=hashlib.sha256(content).hexdigest()[:8])


def picture_at(address: str) -> Picture:
    """From a data URL, or of one behind an address, which is not fetched."""
    head, comma, data = address.partition(";base64,")
    if comma and head.startswith("data:"):
        return picture(head.removeprefix("data:"), data)
    if not address.startswith(("http://", "https://")):
        raise Refusal(400, "An image URL must be a data URL in base64, or start with http:// or https://.")
    return Picture(media_type="url", size_bytes=0, digest="")


def check_tool_results(messages: Sequence[Message]) -> None:
    """Every tool call is answered in the message that follows, once, and nothing else is. Raises Refusal: this is what
    all three providers refuse."""
    pending: Counter[str] = Counter()
    for message in messages:
        answered = Counter(result.call_id for result in message.tool_results)
        if answered != pending:
            unanswered, unasked = pending - answered, answered - pending
            if unanswered:
                raise Refusal(400, f"Tool calls without a result right after them: {', '.join(unanswered)}.")
            raise Refusal(400, f"Tool results without a call right before them: {', '.join(unasked)}.")
        pending = Counter(call.id for call in message.tool_calls)
    if pending:
        raise Refusal(400, f"Tool calls without a result right after them: {', '.join(pending)}.")

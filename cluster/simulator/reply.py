"""What a model says, and that as the answer to one request."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cluster.simulator.chat import Chat, ToolCall
from cluster.simulator.usage import cut_to_tokens, text_tokens

SCENARIO_PIECE_CHARS = 400
_WRONG_USAGE_FACTOR = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Bytes that leave together. `text` is what a client has of the answer's text or arguments once they arrived."""

    data: bytes
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speech:
    """What the model would say if nothing bounded it, and how fast. Of tool calls the ids are not used."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    piece_chars: int = SCENARIO_PIECE_CHARS
    delay_s: float | None = None
    """Before the first byte; None is the server's own latency."""
    piece_s: float = 0.0
    """Before each piece of a stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer, whole."""

    id: str
    created: int
    """Seconds since 1970."""
    model: str
    text: str
    tool_calls: tuple[ToolCall, ...]
    finish: Literal["stop", "length", "tool_calls"]
    prompt_tokens: int
    completion_tokens: int
    piece_chars: int
    tells_usage: bool = True

    def pieces(self) -> Sequence[str]:
        return pieces_of(self.text, self.piece_chars)

    def with_wrong_usage(self) -> "Reply":
        return replace(
            self,
            prompt_tokens=self.prompt_tokens * _WRONG_USAGE_FACTOR,
            completion_tokens=self.completion_tokens * _WRONG_USAGE_FACTOR,
        )


def pieces_of(text: str, chars: int) -> Sequence[str]:
    return [text[start : start + chars] for start in range(0, len(text), chars)]


def reply_to(chat: Chat, speech: Speech, id: str, created: int) -> Reply:
    """Bounded by the tokens allowed: text is cut; tool calls that do not fit become their text, cut."""
    calls = speech.tool_calls
    used = text_tokens(speech.text) + sum(text_tokens(call.name + call.arguments) for call in calls)
    text, finish = speech.text, "tool_calls" if calls else "stop"
    if chat.tokens_max is not None and used > chat.tokens_max:
        text = cut_to_tokens(text + "".join(f"{call.name}({call.arguments})" for call in calls), chat.tokens_max)
        calls, finish, used = (), "length", text_tokens(text)
    return Reply(
        id=id,
        created=created,
        model=chat.model,
        text=text,
        tool_calls=tuple(replace(call, id=f"{id}_{number}") for number, call in enumerate(calls)),
        finish=finish,  # type: ignore[arg-type]
        prompt_tokens=chat.prompt_tokens,
        completion_tokens=used,
        piece_chars=speech.piece_chars,
    )

"""Answers that are made up from what the request itself orders, for tests and load: no scenario, no state.

The last text of the user starts with a line such as

    synthetic tokens=50 delay_ms=50 piece_ms=5 piece_tokens=1 seed=7     so much text, at this pace
    synthetic tool=NAME args={"a": 1} tool=OTHER args={}                 calls tools, then quotes their results
    synthetic json                                                       JSON that fits the schema asked for
    synthetic echo                                                       the user's text
    synthetic image                                                      which pictures came

`user=NAME` may be added to any: the report counts by it. What follows the line is only ballast, or what is echoed.
"""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

from cluster.simulator.chat import Chat, Message, ToolCall
from cluster.simulator.filler import fill
from cluster.simulator.refusal import Refusal
from cluster.simulator.reply import SCENARIO_PIECE_CHARS, Speech

_FIRST = re.compile(r"synthetic(?=[ \t\r]|$)")
_WORD = re.compile(r"[ \t]+(?:(\w+)=|(\w+)(?=[ \t\r]|$))")
_VALUE = re.compile(r"[^ \t\r]+")
_TOKENS = 16
_BOUNDS = {
    "tokens": 200_000, "delay_ms": 3_600_000, "piece_ms": 600_000, "piece_tokens": 100_000, "seed": 2**63,
}  # fmt: skip
_TOKEN_CHARS = 4
_WORDS = (
    "alp",
    "bit",
    "cog",
    "dam",
    "elm",
    "fir",
    "gum",
    "hop",
    "ink",
    "jet",
    "key",
    "log",
    "map",
    "net",
    "oak",
    "pin",
)
"""Three letters and a space are a token by our own rule."""

Kind = Literal["text", "tool", "json", "echo", "image"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the line orders."""

    kind: Kind
    tokens: int
    delay_s: float | None
    piece_s: float
    piece_tokens: int | None
    seed: int
    user: str
    tool_calls: tuple[ToolCall, ...]


def read_order(messages: Sequence[Message]) -> Order | None:
    """None where the user's last text orders nothing synthetic. Raises Refusal for a line that cannot be read."""
    text = _last_text(messages)
    return _read_line(text.split("\n", 1)[0]) if text.startswith("synthetic") else None


def speech_for(order: Order, chat: Chat) -> Speech:
    text = ""
    calls: tuple[ToolCall, ...] = ()
    if _wants_tool(order, chat):
        calls = order.tool_calls if order.kind == "tool" else (_forced_call(chat),)
        missing = [call.name for call in calls if call.name not in {tool.name for tool in chat.tools}]
        if missing:
            text, calls = f"The tool {', '.join(missing)} is not offered.", ()
    elif results := chat.messages[-1].tool_results:
        text = "The tools answered: " + " | ".join(result.text for result in results)
    elif order.kind == "echo":
        text = _last_text(chat.messages)
    elif order.kind == "image":
        text = _pictures_seen(chat)
    elif order.kind == "json" or chat.schema is not None:
        text = json.dumps(fill(chat.schema or {"type": "object"}), ensure_ascii=False)
    else:
        text = _text(order.tokens, order.seed)
    chars = order.piece_tokens * _TOKEN_CHARS if order.piece_tokens else SCENARIO_PIECE_CHARS
    return Speech(text=text, tool_calls=calls, piece_chars=chars, delay_s=order.delay_s, piece_s=order.piece_s)


def _last_text(messages: Sequence[Message]) -> str:
    return next((message.text for message in reversed(messages) if message.role == "user" and message.text), "")


@lru_cache(maxsize=4096)
def _read_line(line: str) -> Order | None:
    found = _FIRST.match(line)
    if found is None:
        return None
    at = found.end()
    kind: Kind = "text"
    numbers: dict[str, int] = {}
    user = ""
    calls: list[ToolCall] = []
    while at < len(line.rstrip()):
        word = _WORD.match(line, at)
        if word is None:
            raise _unreadable(line, at)
        at = word.end()
        name, flag = word[1], word[2]
        if flag is not None:
            if flag not in get_args(Kind):
                raise _unreadable(line, word.start())
            kind = flag  # type: ignore[assignment]
            continue
        if name == "args":
            if not calls:
                raise _unreadable(line, word.start())
            end = _json_end(line, at)
            calls[-1] = ToolCall(id="", name=calls[-1].name, arguments=line[at:end])
            at = end
            continue
        value = _VALUE.match(line, at)
        if value is None:
            raise _unreadable(line, at)
        at = value.end()
        if name == "tool":
            kind = "tool"
            calls.append(ToolCall(id="", name=value[0], arguments="{}"))
        elif name == "user":
            user = value[0]
        elif (
            name in _BOUNDS
            and value[0].isascii()
            and value[0].isdecimal()
            and len(value[0]) < 20
            and int(value[0]) <= _BOUNDS[name]
        ):
            numbers[name] = int(value[0])
        else:
            raise _unreadable(line, word.start())
    if kind == "tool" and not calls:
        raise _unreadable(line, len(line))
    return Order(
        kind=kind,
        tokens=numbers.get("tokens", _TOKENS),
        delay_s=numbers["delay_ms"] / 1000 if "delay_ms" in numbers else None,
        piece_s=numbers.get("piece_ms", 0) / 1000,
        piece_tokens=numbers.get("piece_tokens") or None,
        seed=numbers.get("seed", 0),
        user=user,
        tool_calls=tuple(calls),
    )


def _json_end(line: str, at: int) -> int:
    """Where the JSON object that begins at `at` ends."""
    try:
        value, end = json.JSONDecoder().raw_decode(line, at)
    except (ValueError, RecursionError) as error:
        raise _unreadable(line, at) from error
    if not isinstance(value, dict):
        raise _unreadable(line, at)
    return end


def _unreadable(line: str, at: int) -> Refusal:
    return Refusal(
        400,
        f"A synthetic order cannot be read from {line[at : at + 40]!r} on: write `synthetic`, then any of tokens=, "
        "delay_ms=, piece_ms=, piece_tokens=, seed=, user=, and tool=NAME args={...}, json, echo or image.",
    )


def _wants_tool(order: Order, chat: Chat) -> bool:
    """Once a turn: whoever got results does not call again, unless it must."""
    if chat.tool_choice == "none":
        return False
    if chat.tools and chat.tool_choice != "auto":
        return True
    return order.kind == "tool" and not chat.messages[-1].tool_results


def _forced_call(chat: Chat) -> ToolCall:
    """Of the tool that was named, else of the first."""
    named = chat.tool_choice.partition(":")[2]
    tool = next((tool for tool in chat.tools if tool.name == named), chat.tools[0])
    return ToolCall(id="", name=tool.name, arguments=json.dumps(fill(tool.parameters or {"type": "object"})))


def _pictures_seen(chat: Chat) -> str:
    seen = [picture for message in chat.messages for picture in message.pictures]
    told = ", ".join(f"{each.media_type} {each.size_bytes} bytes {each.digest}".strip() for each in seen)
    return f"{len(seen)} images: {told}" if seen else "0 images"


@lru_cache(maxsize=256)
def _text(tokens: int, seed: int) -> str:
    return "".join(f"{word} " for word in random.Random(seed).choices(_WORDS, k=tokens))

"""Text and its entities: lengths and places are UTF-16 units, as Telegram counts them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_FOUND = re.compile(
    r"(?<![\w/@])(?:(/\w{1,64}(?:@\w{3,32})?)(?!\w)|(@[A-Za-z]\w{3,31})(?!\w)|(https?://[^\s<>]+))", re.ASCII
)
_KINDS = ("bot_command", "mention", "url")


def utf16_length(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


@dataclass(frozen=True, slots=True)
class Marked:
    """A text without its markup, and its entities by their place."""

    text: str
    entities: tuple[dict[str, Any], ...] = ()

    @property
    def length(self) -> int:
        return utf16_length(self.text)


def found_entities(text: str) -> tuple[dict[str, Any], ...]:
    """What Telegram finds by itself in what somebody types: commands, names and addresses."""
    return tuple(
        {"type": _KINDS[match.lastindex - 1], **place(text, match.start(), match.end())}
        for match in _FOUND.finditer(text)
        if match.lastindex
    )


def place(text: str, start: int, end: int) -> dict[str, int]:
    """`offset` and `length` of a slice in characters."""
    return {"offset": utf16_length(text[:start]), "length": utf16_length(text[start:end])}


def trimmed(marked: Marked) -> Marked:
    """Without white space around it, which Telegram does not keep."""
    text = marked.text.strip()
    cut = utf16_length(marked.text[: len(marked.text) - len(marked.text.lstrip())])
    end = utf16_length(text)
    kept = []
    for entity in marked.entities:
        start = max(0, entity["offset"] - cut)
        stop = min(end, entity["offset"] + entity["length"] - cut)
        if start < stop:
            kept.append({**entity, "offset": start, "length": stop - start})
    return Marked(text, tuple(kept))


def pieces(text: str, units_max: int) -> Sequence[str]:
    """A long text as a person's Telegram sends it: in parts that fit."""
    parts, part, used = [], "", 0
    for character in text:
        units = utf16_length(character)
        if used + units > units_max:
            parts.append(part)
            part, used = "", 0
        part += character
        used += units
    return [*parts, part] if part else parts

"""Reading a client's JSON: each field by its name, of its type, or a BadInputError that names it."""

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from runtime.errors import BadInputError
from runtime.providers.chat import Image

CORRECT = "Correct it and send it again."
TOKENS_MAX = 10_000_000
STOPS_MAX = 16
ITEMS_MAX = 100_000
IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
CHOICES = ("auto", "none", "required")


def bad(name: str, what: str, next_step: str = CORRECT) -> BadInputError:
    return BadInputError(f"{name} {what}.", next_step)


def no_others(given: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Refuses what is neither known nor empty: SDKs send a reply back with every field it did not have."""
    names = frozenset(known)
    others = sorted(name for name, value in given.items() if name not in names and value not in (None, [], {}))
    if others:
        listed = ", ".join(f"{where}{name[:40]}" for name in others[:10])
        raise BadInputError(
            f"Not supported with this model: {_printable(listed)}.", "Leave it out, or choose a model of this wire."
        )


def only_value(given: Mapping[str, Any], values: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuses what cannot be carried to another provider, unless it has a value that changes nothing."""
    for name, harmless in values.items():
        value = given.get(name)
        if value is None or any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in harmless):
            continue
        raise BadInputError(
            f"{name} cannot be carried over to this model's provider.", "Leave it out, or choose a model of this wire."
        )


def text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise bad(name, "must be text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise bad(name, "holds half a surrogate pair, which is not text") from None
    return value


def tool_name(value: Any, name: str) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise bad(name, "must be a name of 1 to 64 letters, digits, _ and -")
    return value


def chosen_tool(value: Any, name: str, tools: Iterable[str]) -> str:
    """A tool that must be called. The words for the other choices cannot name one."""
    chosen = tool_name(value, name)
    if chosen in CHOICES or chosen not in tools:
        raise bad(name, f"names {chosen!r}, which is not one of the tools that can be asked for by name")
    return chosen


def flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name)
    if value is not None and not isinstance(value, bool):
        raise bad(name, "must be true or false")
    return bool(value)


def count(given: Mapping[str, Any], name: str, most: int = TOKENS_MAX) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= most:
        raise bad(name, f"must be a whole number from 1 to {most}")
    return value


def number(given: Mapping[str, Any], name: str, most: float) -> float | None:
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most or math.isnan(value):
        raise bad(name, f"must be a number from 0 to {most:g}")
    return float(value)


def stops(value: Any, name: str) -> tuple[str, ...]:
    if value is None:
        return ()
    given = items([value] if isinstance(value, str) else value, name)
    if len(given) > STOPS_MAX or not all(given):
        raise bad(name, f"must be at most {STOPS_MAX} texts, none of them empty")
    return tuple(text(one, name) for one in given)


def items(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > ITEMS_MAX:
        raise bad(name, "must be a list")
    return value


def record(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise bad(name, "must be an object")
    return value


def schema(value: Any, name: str) -> dict[str, Any]:
    """A JSON object that can be written as JSON in UTF-8."""
    given = record(value, name)
    written(given, name)
    return given


def written(value: Any, name: str) -> str:
    try:
        encoded = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        encoded.encode()
    except (ValueError, RecursionError):
        raise bad(name, "cannot be written as JSON (nested too deep, not a number, or half a surrogate pair)") from None
    return encoded


def image(media_type: Any, data: Any, name: str) -> Image:
    """Of base64 data. Raises BadInputError for other kinds of pictures, and for what is not base64."""
    if media_type not in IMAGE_TYPES:
        raise bad(name, f"must be one of {', '.join(IMAGE_TYPES)}")
    try:
        if not isinstance(data, str) or not base64.b64decode(data, validate=True):
            raise bad(name, "must hold the picture's data in base64")
    except (binascii.Error, ValueError):
        raise bad(name, "must hold the picture's data in base64") from None
    return Image(media_type=media_type, data=data)


def blocks(value: Any, name: str, read: Callable[[dict[str, Any], str], Iterable[Any]]) -> tuple[Any, ...]:
    """Reads a list of objects, each of which stands for any number of things."""
    found: list[Any] = []
    for number_, block in enumerate(items(value, name)):
        where = f"{name}[{number_}]"
        found += read(record(block, where), where)
    return tuple(found)


def _printable(words: str) -> str:
    return words.encode(errors="replace").decode()

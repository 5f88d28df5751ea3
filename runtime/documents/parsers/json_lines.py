"""JSON: a line `path.to.key: value` for each value, so that a value is found together with what it is."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from runtime.documents.parsers.refusal import Budget, Refusal
from runtime.documents.section import Section

DEPTH_MAX = 200
"""Of arrays and objects in each other."""
KEY_CHARACTERS_MAX = 100
PATH_CHARACTERS_MAX = 200
"""A longer path is shown by its end; long paths to many values would come to far more than the file."""


def sections_of(path: Path, budget: Budget) -> Sequence[Section]:
    """`path` is UTF-8. A key that comes twice is shown twice; numbers are as written."""
    text = path.read_text("utf-8")
    try:
        # Objects as tuples of pairs, arrays as lists: less memory than dictionaries, and nothing is overwritten.
        value = json.loads(text, object_pairs_hook=tuple, parse_int=str, parse_float=str, parse_constant=str)
    except json.JSONDecodeError as error:
        raise Refusal(f"is no valid JSON: {error.msg} in line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise _too_deep() from error
    return [Section(text="".join(budget.spend(line) for line in _lines(value)))]


def _lines(value: Any) -> Iterator[str]:
    """In the file's order, without recursion: the way down is `ways`."""
    ways: list[Iterator[tuple[str, Any]]] = [iter([("", value)])]
    while ways:
        path, here = next(ways[-1], (None, None))
        if path is None:
            ways.pop()
        elif not isinstance(here, list | tuple):
            yield _line(path, _shown(here))
        elif isinstance(here, list) and not any(isinstance(each, list | tuple) for each in here):
            if here:
                yield _line(path, ", ".join(map(_shown, here)))
        else:
            if len(ways) > DEPTH_MAX:
                raise _too_deep()
            if isinstance(here, tuple):
                yield from _long_keys(here)
            ways.append(_inside(path, here))


def _inside(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        return ((_cut(f"{path}[{number}]"), each) for number, each in enumerate(value))
    return ((_joined(path, key), each) for key, each in value)


def _long_keys(pairs: Any) -> Iterator[str]:
    """Keys that are texts of their own, which a path shows in part."""
    return (f"{key}\n" for key, _ in pairs if len(key) > KEY_CHARACTERS_MAX)


def _joined(path: str, key: str) -> str:
    named = " ".join(key[:KEY_CHARACTERS_MAX].split())
    return _cut(f"{path}.{named}" if path else named)


def _cut(path: str) -> str:
    return path if len(path) <= PATH_CHARACTERS_MAX else f"…{path[-PATH_CHARACTERS_MAX:]}"


def _line(path: str, shown: str) -> str:
    return f"{path}: {shown}\n" if path else f"{shown}\n"


def _shown(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
    return str(value)


def _too_deep() -> Refusal:
    return Refusal(f"is nested deeper than {DEPTH_MAX} levels")

"""`TODO.md` read back, by the rules of spec/builder.md §7, whoever wrote it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

_HEADING = re.compile(r"^#{2,6}\s+(?P<text>.+?)\s*#*$")
_ITEM = re.compile(r"^(?P<indent>[ \t]*)[-*+] \[(?P<mark>.)\] (?P<text>.*)$")
_ID = re.compile(r"^(?P<id>[A-Z]+-\d+)\b[:.]?\s*(?P<rest>.*)$")
_STRUCK = re.compile(r"^~~(?P<title>.*?)~~(?: \(struck: (?P<reason>.*)\))?$")
_GROUP = re.compile(r"^(?P<text>.*?) \((?P<name>depends|accepted by): (?P<value>[^()]*)\)$")
_TAB_COLUMNS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One item as the file shows it. `level` 0 is an item that is no part of another."""

    heading: str
    id: str
    """Empty where the text begins with none."""
    title: str
    done: bool
    """Ticked, and every part of it too. Whatever stands in the box but `x` is open."""
    level: int = 0
    struck: str | None = None
    depends: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()


def read_todo(text: str) -> Sequence[Line]:
    """The items, in the order of the file; an empty list is a plan that cannot be carried out."""
    lines: list[Line] = []
    indents: list[int] = []
    heading = ""
    for written in text.splitlines():
        if found := _HEADING.match(written):
            heading, indents = found["text"], []
        elif found := _ITEM.match(written):
            column = len(found["indent"].expandtabs(_TAB_COLUMNS))
            while indents and indents[-1] >= column:
                indents.pop()
            lines.append(_line(heading, found["mark"], found["text"], len(indents)))
            indents.append(column)
    return _with_open_parts(lines)


def _line(heading: str, mark: str, text: str, level: int) -> Line:
    found = _ID.match(text)
    id, rest = (found["id"], found["rest"]) if found else ("", text.strip())
    if struck := _STRUCK.match(rest):
        return Line(
            heading=heading, id=id, title=struck["title"], done=False, level=level, struck=struck["reason"] or ""
        )
    groups: dict[str, tuple[str, ...]] = {}
    while group := _GROUP.match(rest):
        groups[group["name"]] = tuple(part.strip() for part in group["value"].split(","))
        rest = group["text"]
    return Line(
        heading=heading,
        id=id,
        title=rest,
        done=mark in "xX",
        level=level,
        depends=groups.get("depends", ()),
        tests=groups.get("accepted by", ()),
    )


def _with_open_parts(lines: Sequence[Line]) -> list[Line]:
    """Takes the tick from every item that has an open part; struck parts count as closed."""
    open_below: dict[int, bool] = {}
    result: list[Line] = []
    for line in reversed(lines):
        has_open_part = open_below.pop(line.level + 1, False)
        seen = replace(line, done=line.done and not has_open_part)
        is_open = has_open_part or (line.struck is None and not seen.done)
        open_below[line.level] = open_below.get(line.level, False) or is_open
        result.append(seen)
    result.reverse()
    return result

"""Where lines stand in a file: exactly so, or else but for white space, if that leaves one place only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Lines = Sequence[str]
"""Whole lines without their ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What `first` to `last` (excluded) are to be replaced with; `count` places fit, and only one can be meant."""

    count: int
    first: int = 0
    last: int = 0
    replace: Lines = ()


def find_place(lines: Lines, search: Lines, replace: Lines) -> Place:
    """The first of three ways in which anything fits decides: exactly; but for white space at the lines' ends; but
    for one indentation that all of them have more, or less, than the file's, which the replacement then gets too.
    """
    for key in (_as_it_is, str.rstrip):
        if found := _all_places(lines, search, key):
            last = found[0] + len(search)
            return Place(count=len(found), first=found[0], last=last, replace=replace)
    shifted = [
        (first, moved)
        for first in _all_places(lines, search, str.strip)
        if (moved := _shifted(lines[first : first + len(search)], search, replace)) is not None
    ]
    if not shifted:
        return Place(count=0)
    first, moved = shifted[0]
    return Place(count=len(shifted), first=first, last=first + len(search), replace=moved)


def nearest(lines: Lines, search: Lines, around: int) -> Lines:
    """The file's lines around the first that holds the longest line of `search` found in it; none when none does."""
    stripped = {line.strip(): number for number, line in reversed(list(enumerate(lines)))}
    known = [line.strip() for line in search if line.strip() in stripped]
    longest = max(known, key=len, default="")
    if not longest:
        return ()
    at = stripped[longest]
    return lines[max(0, at - around) : at + around + 1]


def _as_it_is(line: str) -> str:
    return line


def _all_places(lines: Lines, search: Lines, key: Callable[[str], str]) -> list[int]:
    """Numbers of the lines where it begins. Searches the joined text, which is quick in large files."""
    text = "\n" + "\n".join(map(key, lines)) + "\n"
    wanted = "\n" + "\n".join(map(key, search)) + "\n"
    found: list[int] = []
    at, counted, number = text.find(wanted), 0, 0
    while at != -1:
        number += text.count("\n", counted, at)
        counted = at
        found.append(number)
        at = text.find(wanted, at + 1)
    return found


def _shifted(found: Lines, search: Lines, replace: Lines) -> Lines | None:
    """`replace` with the file's indentation, if all lines differ from the file's by the same one; else None."""
    pairs = {
        (_indentation(ours), _indentation(theirs)) for ours, theirs in zip(found, search, strict=True) if ours.strip()
    }
    more = {ours.removesuffix(theirs) for ours, theirs in pairs if ours.endswith(theirs)}
    if len(more) == 1 and all(ours.endswith(theirs) for ours, theirs in pairs):
        return [_more_indented(line, next(iter(more))) for line in replace]
    less = {theirs.removesuffix(ours) for ours, theirs in pairs if theirs.endswith(ours)}
    if len(less) == 1 and all(theirs.endswith(ours) for ours, theirs in pairs):
        extra = next(iter(less))
        if all(line.startswith(extra) for line in replace if line.strip()):
            return [line.removeprefix(extra) if line.strip() else line for line in replace]
    return None


def _more_indented(line: str, extra: str) -> str:
    return extra + line if line.strip() else line


def _indentation(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]

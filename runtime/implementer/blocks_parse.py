"""A model's reply, read as edits. Nothing of it is guessed: what is not whole and plain is refused.

The notation is that of Aider's `diff` edit format, so one reply serves both engines: a path alone on its line, a fence,
`<<<<<<< SEARCH`, lines, `=======`, lines, `>>>>>>> REPLACE`. Removals and renames are as in `moves`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.implementer.moves import read_move

BLOCKS_MAX = 500

_BEGIN = re.compile(r"(<{5,9}) SEARCH")
_END = re.compile(r"(>{5,9}) REPLACE")
_FENCE = ("```", "~~~")


class MalformedReplyError(Exception):
    """The reply holds something that is no edit and no prose; its text says what and where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replace:
    """Puts `replace` in the place of `search`, or, without that, at the end of the file or in a new one.

    Both are whole lines without their ends.
    """

    path: str
    search: Sequence[str]
    replace: Sequence[str]

    @property
    def has_no_search(self) -> bool:
        return not any(line.strip() for line in self.search)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rename:
    path: str
    new_path: str


Edit = Replace | Delete | Rename


def parse(reply: str) -> list[Edit]:
    """All edits in their order; none when the reply is prose alone. Raises MalformedReplyError."""
    return _Reader(reply).read()


class _Reader:
    def __init__(self, reply: str) -> None:
        self._lines = reply.replace("\r\n", "\n").split("\n")
        self._edits: list[Edit] = []
        self._path = ""
        """Of the last block: another may follow it with nothing but fences between."""
        self._above = ""
        """The last line since that block that is neither empty nor a fence."""

    def read(self) -> list[Edit]:
        number = 0
        while number < len(self._lines):
            line = self._lines[number].rstrip()
            if begin := _BEGIN.fullmatch(line):
                number = self._block(number, len(begin[1]))
            elif _END.fullmatch(line):
                raise MalformedReplyError(f"Line {number + 1} ends a block that was not begun.")
            elif move := read_move(line):
                path, new_path = move
                self._add(Delete(path=path) if new_path is None else Rename(path=path, new_path=new_path))
                self._path = self._above = ""
            elif line and not line.lstrip().startswith(_FENCE):
                self._above = line
            number += 1
        return self._edits

    def _block(self, begin: int, size: int) -> int:
        """Reads the block whose first line is number `begin`; returns its last line's number."""
        path = _path_in(self._above) if self._above else self._path
        if not path:
            raise MalformedReplyError(f"The block on line {begin + 1} has no path on the line above it or its fence.")
        where = f"The block for {path} on line {begin + 1}"
        divider = self._marker(begin + 1, "=" * size, size, where)
        end = self._marker(divider + 1, ">" * size + " REPLACE", size, where)
        self._add(
            Replace(
                path=path,
                search=tuple(self._lines[begin + 1 : divider]),
                replace=tuple(self._lines[divider + 1 : end]),
            )
        )
        self._path, self._above = path, ""
        return end

    def _marker(self, number: int, wanted: str, size: int, where: str) -> int:
        markers = ("<" * size + " SEARCH", "=" * size, ">" * size + " REPLACE")
        for at in range(number, len(self._lines)):
            line = self._lines[at].rstrip()
            if line == wanted:
                return at
            if line in markers:
                raise MalformedReplyError(
                    f"{where} has `{line}` on line {at + 1} where `{wanted}` was to come. Where the file's "
                    "own lines look so, make all three markers of the block longer, up to nine characters."
                )
        raise MalformedReplyError(f"{where} is not ended: `{wanted}` is missing.")

    def _add(self, edit: Edit) -> None:
        if len(self._edits) == BLOCKS_MAX:
            raise MalformedReplyError(f"There are more than {BLOCKS_MAX} edits.")
        self._edits.append(edit)


def _path_in(line: str) -> str:
    """A path may be wrapped as models like to: `**src/app.py**`, "### `src/app.py`:"."""
    return line.strip().lstrip("#").strip().rstrip(":").strip("*`")

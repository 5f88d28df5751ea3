"""The load's own memory of what it sent and what was answered: lines that reach the kernel before anybody goes on.

A line is its length and a pickled pair of a kind and a value. What kill -9 cut off at the end is no line.
"""

import os
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tests.chaos.ledger.operations import Operation

_LENGTH = struct.Struct("<I")


class Line(NamedTuple):
    """`sent` (an operation), `acknowledged` (id, answer), `refused` (id, the error's name), `mark` (what, a number)."""

    kind: str
    value: Any


class Diary:
    """Appends only; several threads may write."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def sent(self, operation: "Operation") -> None:
        self._write("sent", operation)

    def acknowledged(self, id: str, answer: object) -> None:
        self._write("acknowledged", (id, answer))

    def refused(self, id: str, error: str) -> None:
        self._write("refused", (id, error))

    def mark(self, what: str, number: int) -> None:
        self._write("mark", (what, number))

    def _write(self, kind: str, value: object) -> None:
        data = pickle.dumps((kind, value), 5)
        os.write(self._descriptor, _LENGTH.pack(len(data)) + data)


def read(path: Path) -> list[Line]:
    """Cuts a torn line off, so that the next writer begins on a whole one."""
    content = path.read_bytes() if path.exists() else b""
    lines, whole = [], 0
    for line, end in _lines(content):
        lines.append(line)
        whole = end
    if whole < len(content):
        os.truncate(path, whole)
    return lines


def _lines(content: bytes) -> Iterator[tuple[Line, int]]:
    start = 0
    while start + _LENGTH.size <= len(content):
        (length,) = _LENGTH.unpack_from(content, start)
        end = start + _LENGTH.size + length
        if end > len(content):
            return
        kind, value = pickle.loads(content[start + _LENGTH.size : end])
        yield Line(kind, value), end
        start = end

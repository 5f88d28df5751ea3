"""Counting tokens, and the file that says what was served."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtime.errors import BadInputError

_BYTES_PER_TOKEN = 4


def text_tokens(text: str) -> int:
    """ceil(UTF-8 bytes / 4)"""
    return -(-len(text.encode()) // _BYTES_PER_TOKEN)


def cut_to_tokens(text: str, tokens_max: int) -> str:
    """The longest beginning of the text that counts at most `tokens_max`."""
    return text.encode()[: tokens_max * _BYTES_PER_TOKEN].decode(errors="ignore")


def fingerprint(key: str) -> str:
    """First 8 hex digits of its SHA-256: names the key without telling it."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedCall:
    """One line of the usage file."""

    time: str
    """UTC, ISO 8601."""
    call_id: str | None
    """The client's own id of the request (header X-Client-Request-Id); a retry may bring the same one again."""
    model: str
    task: str
    id: str
    attempt: int
    prompt_tokens: int
    completion_tokens: int
    complete: bool
    """False when the answer was cut: then `completion_tokens` counts what had been sent."""
    wire: str = "openai"
    key: str = ""
    """Its fingerprint."""
    status: int = 200
    user: str = ""
    """Whom the client says it called for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    calls: int
    prompt_tokens: int
    completion_tokens: int

    @classmethod
    def of(cls, calls: Sequence[ServedCall]) -> "Totals":
        return cls(
            calls=len(calls),
            prompt_tokens=sum(call.prompt_tokens for call in calls),
            completion_tokens=sum(call.completion_tokens for call in calls),
        )


class UsageFile:
    """Appends one JSON line for each call served, in a single write(), which a `kill -9` of the server cannot undo.

    The file is the truth: nothing is kept in memory, and totals are read from it. Raises BadInputError when it cannot
    be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise BadInputError(
                f"The usage file {path} cannot be written: {error.strerror}.", "Choose another file with --usage-file."
            ) from error

    def record(self, call: ServedCall) -> None:
        """Raises OSError when the disk does not take the whole line; the answer must then not be completed.

        Blocks for the microseconds that a page cache takes: a thread for it would cost ten times as much.
        """
        line = _ENCODE({name: getattr(call, name) for name in ServedCall.__slots__}).encode() + b"\n"
        if os.write(self._descriptor, line) != len(line):
            raise OSError(f"{self._path} took only a part of a line")

    def calls(self) -> list[ServedCall]:
        return [ServedCall(**json.loads(line)) for line in self._path.read_text().splitlines()]

    def close(self) -> None:
        os.close(self._descriptor)


def usage_report(calls: Sequence[ServedCall]) -> dict[str, Any]:
    """`{"totals": {...}, "by_call": {call id: {...}}}`; calls without an id only count in the totals."""
    by_call: dict[str, list[ServedCall]] = {}
    for call in calls:
        if call.call_id is not None:
            by_call.setdefault(call.call_id, []).append(call)
    return {
        "totals": asdict(Totals.of(calls)),
        "by_call": {call_id: asdict(Totals.of(same)) for call_id, same in by_call.items()},
    }


_ENCODE = json.JSONEncoder().encode

"""Which messages an entity has seen: the keys of its events, in eight bytes each."""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

KEYS_KEPT = 512
KEPT_S = 300.0
"""Longer than any caller of ours goes on repeating a message."""
MARK_BYTES = 8


class Keys:
    """A set of keys that forgets the oldest, but none within `KEPT_S` and none of the newest `KEYS_KEPT`.

    It keeps two generations, and drops the older one when the younger is old and large enough. A mark is 64 bits of a
    hash: with a million keys an entity, two of them share one with a chance of 1 in 37 million.
    """

    __slots__ = ("_marks", "_old", "_since")

    def __init__(self, frozen: Mapping[str, Any] | None = None) -> None:
        self._marks = bytearray(base64.b64decode(frozen["marks"])) if frozen else bytearray()
        self._old: int = frozen["old"] if frozen else 0
        """Bytes of the older generation."""
        self._since: float = frozen["since"] if frozen else 0.0
        """When the younger one began, in seconds since 1970."""

    def __contains__(self, key: str) -> bool:
        mark, start = _mark(key), 0
        while (found := self._marks.find(mark, start)) % MARK_BYTES:
            if found < 0:
                return False
            start = found + 1
        return True

    def __len__(self) -> int:
        return len(self._marks) // MARK_BYTES

    def add(self, key: str, at: float) -> None:
        """`at`: seconds since 1970, by the event."""
        if len(self._marks) - self._old >= KEYS_KEPT * MARK_BYTES and at - self._since > KEPT_S:
            del self._marks[: self._old]
            self._old = len(self._marks)
            self._since = at
        self._marks += _mark(key)

    def frozen(self) -> Mapping[str, Any]:
        return {"marks": base64.b64encode(self._marks).decode(), "old": self._old, "since": self._since}


def _mark(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=MARK_BYTES).digest()

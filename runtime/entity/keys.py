"""Which messages an entity has seen: the keys of its events, in eight bytes each."""

import base64
import hashlib

KEYS_KEPT = 512
MARK_BYTES = 8


class Keys:
    """A set of keys that may forget the oldest. A mark is 64 bits of a hash: with a million keys an entity, two of
    them share one with a chance of 1 in 37 million.
    """

    __slots__ = ("_marks",)

    def __init__(self, frozen: str = "") -> None:
        self._marks = bytearray(base64.b64decode(frozen))

    def __contains__(self, key: str) -> bool:
        mark, start = _mark(key), 0
        while (found := self._marks.find(mark, start)) % MARK_BYTES:
            if found < 0:
                return False
            start = found + 1
        return True

    def __len__(self) -> int:
        return len(self._marks) // MARK_BYTES

    def add(self, key: str) -> None:
        self._marks += _mark(key)

    def frozen(self) -> str:
        """The newest KEYS_KEPT as text. Older ones are forgotten, here too: what is in memory and what survives it
        are the same, give or take a snapshot.
        """
        del self._marks[: -KEYS_KEPT * MARK_BYTES]
        return base64.b64encode(self._marks).decode()


def _mark(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=MARK_BYTES).digest()

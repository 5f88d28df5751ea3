"""What a process printed, within a bound."""


class BoundedOutput:
    """Keeps the first and the last half of `limit_bytes`; never holds more, however much is added."""

    def __init__(self, limit_bytes: int) -> None:
        self._head_limit = limit_bytes // 2
        self._tail_limit = limit_bytes - self._head_limit
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0

    def add(self, chunk: bytes) -> None:
        room = self._head_limit - len(self._head)
        self._head += chunk[:room]
        self._tail += chunk[room:]
        surplus = len(self._tail) - self._tail_limit
        if surplus > 0:
            del self._tail[:surplus]
            self._dropped += surplus

    def text(self) -> str:
        """As UTF-8, with a mark where something was cut out; what is not UTF-8 is replaced."""
        cut = f"\n[... {self._dropped} bytes cut ...]\n" if self._dropped else ""
        if not cut:
            return (self._head + self._tail).decode(errors="replace")
        return self._head.decode(errors="replace") + cut + self._tail.decode(errors="replace")

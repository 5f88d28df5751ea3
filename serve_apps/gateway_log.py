"""One JSON line a request, written together with its neighbours: each on its own would cost more than it says."""

import asyncio
import logging
from datetime import UTC, datetime

import msgspec

from serve_apps.door import logger

WRITE_EVERY_S = 0.25
LINES_MAX = 2_000


class RequestLog:
    """Lines are written within a quarter of a second; a `kill -9` may lose those of the last."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._writing: asyncio.TimerHandle | None = None

    def request(self, *, request_id: str, method: str, route: str | None, status: int, duration_ms: float) -> None:
        if not logger.isEnabledFor(logging.INFO):
            return
        self._lines.append(
            msgspec.json.encode(
                {
                    "at": datetime.now(UTC).isoformat(),
                    "event": "request",
                    "request_id": request_id,
                    "method": method,
                    "route": route,
                    "status": status,
                    "duration_ms": round(duration_ms, 1),
                }
            )
        )
        if len(self._lines) >= LINES_MAX:
            self.write()
        elif self._writing is None:
            self._writing = asyncio.get_running_loop().call_later(WRITE_EVERY_S, self.write)

    def write(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        if self._lines:
            lines, self._lines = self._lines, []
            logger.info(b"\n".join(lines).decode())

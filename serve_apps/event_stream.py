"""Server-sent events over HTTP: never buffered on the way, closed as soon as the client is gone."""

from collections.abc import AsyncGenerator

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

HEADERS = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}


class EventStream(StreamingResponse):
    """Closes its source when it ends for whatever reason, so that what the source holds open is let go at once."""

    def __init__(self, source: AsyncGenerator[bytes, None]) -> None:
        super().__init__(source, media_type="text/event-stream", headers=HEADERS)
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._source.aclose()

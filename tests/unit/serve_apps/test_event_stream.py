import asyncio
from collections.abc import AsyncGenerator

import pytest
from starlette.requests import ClientDisconnect

from serve_apps.event_stream import EventStream


async def test_stream__whose_client_is_gone_lets_go_of_its_source_at_once():
    let_go = False

    async def source() -> AsyncGenerator[bytes, None]:
        nonlocal let_go
        try:
            while True:
                yield b"data: x\n\n"
        finally:
            let_go = True

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.body":
            raise OSError("the connection is closed")

    events = source()
    scope = {"type": "http", "asgi": {"spec_version": "2.4"}, "method": "GET", "path": "/", "headers": []}
    with pytest.raises(ClientDisconnect):
        await EventStream(events)(scope, asyncio.Event().wait, send)  # type: ignore[arg-type]
    assert let_go

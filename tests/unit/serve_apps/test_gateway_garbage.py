"""A refused call is gone when it is over: what it left in cycles would pile up until a pause stops all others."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from runtime.catalogue.catalogue import CATALOGUE
from runtime.catalogue.market import Market
from runtime.catalogue.routes import Routes
from runtime.config import Settings
from runtime.ids import UserId
from runtime.keys.permits import Permits
from runtime.ledger.port import Hold, Identity, Meter
from runtime.providers.calls import ModelCalls
from serve_apps.gateway_routes import create_app
from tests.uncounted import Uncounted
from tests.unit.garbage import frames_left_by
from tests.unit.keys.key_world import PoolProcess, key

BODY = json.dumps({"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5})
SCOPE = {
    "type": "http", "method": "POST", "path": "/chat/completions", "raw_path": b"/chat/completions", "root_path": "",
    "query_string": b"", "headers": [(b"authorization", b"Bearer x"), (b"content-type", b"application/json")],
}  # fmt: skip


class Payment:
    async def hold(self, hold: Hold) -> None: ...

    async def meter(self, meter: Meter) -> None: ...

    async def authenticate(self, token_sha256: str) -> Identity:
        return Identity(user=UserId("ann"), is_admin=False, kind="user")


async def test_call_that_gets_no_key__leaves_no_cycle(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    pool = PoolProcess(tmp_path, [key("a", requests_per_minute=1, tokens_per_minute=1)], loop)
    permits = Permits("openai", pool.exchange, clock=loop.time)
    market = Market(Routes(CATALOGUE), configured=("openai",))
    calls = ModelCalls(Payment(), permits, market, Settings(key_wait_seconds=0.0))
    app = create_app(SimpleNamespace(calls=calls, ledger=Payment(), entities=Uncounted()))  # type: ignore[arg-type]
    statuses: list[int] = []

    async def call() -> None:
        to_come = [{"type": "http.request", "body": BODY.encode(), "more_body": False}]

        async def receive() -> dict[str, Any]:
            if not to_come:
                await asyncio.Event().wait()
            return to_come.pop()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        await app(dict(SCOPE), receive, send)

    assert await frames_left_by(call) == {}
    assert set(statuses) == {503}
    await permits.close()

"""Our own gateway as `masterbuilder up` starts it: durable ledger, full metering, one replica."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from cluster.environment import clean_environment
from cluster.instance import Instance
from cluster.launch import down, up
from cluster.processes import owned
from runtime.config import Secrets, Settings
from tests.bench.gateway.running import Running, wait_until_it_answers

NAME = "masterbuilder"
CREDITS = 1_000_000
SETTLED_S = 2.0
"""A batch takes a tenth of that."""


class Ours:
    """`account` tells what was charged: the gateway meters what the load says it got."""

    def __init__(self, running: Running, settings: Settings, token: str) -> None:
        self.running = running
        self._client = httpx.AsyncClient(
            base_url=settings.api_url, headers={"authorization": f"Bearer {token}"}, trust_env=False, timeout=30.0
        )

    async def balance_ucredits(self) -> int:
        """Once it stays the same: calls are settled in batches, a moment after they are answered."""
        before, told = -1, await self._balance()
        while told != before:
            await asyncio.sleep(SETTLED_S)
            before, told = told, await self._balance()
        return told

    async def mismatches(self) -> list[str]:
        told = (await self._client.post("/api/v1/admin/check")).raise_for_status().json()
        return [f"{found['subject']}: {found['text']}" for found in told["mismatches"]]

    async def _balance(self) -> int:
        told = (await self._client.get("/api/v1/me")).raise_for_status().json()
        return int(told["balance_ucredits"])


@asynccontextmanager
async def start(folder: Path, port: int, dashboard_port: int, delayed: int, instant: int) -> AsyncIterator[Ours]:
    environment = {
        **clean_environment(os.environ),
        "DATA_DIR": str(folder / "data"),
        "HTTP_PORT": str(port),
        "DASHBOARD_PORT": str(dashboard_port),
        "INITIAL_FREE_CREDITS": str(CREDITS),
        "OPENAI_BASE_URL": f"http://127.0.0.1:{delayed}/v1",
        "OPENAI_API_KEY": "sk-bench-delayed",
        "DEEPSEEK_BASE_URL": f"http://127.0.0.1:{instant}/v1",
        "DEEPSEEK_API_KEY": "sk-bench-instant",
    }
    settings = Settings.from_environment(environment)
    instance = Instance(data_dir=settings.data_dir)
    try:
        await asyncio.to_thread(up, settings, environment, lambda _: None)
        token = Secrets.load(settings.data_dir, environment).admin_token
        models = {"delayed": "openai/gpt-4o-mini", "instant": "deepseek/deepseek-chat"}
        running = Running(
            name=NAME,
            port=port,
            models=models,
            headers={upstream: {"authorization": f"Bearer {token}"} for upstream in models},
            processes=lambda: owned(instance),
        )
        await wait_until_it_answers(running)
        yield Ours(running, settings, token)
    finally:
        await asyncio.to_thread(down, instance, lambda _: None)

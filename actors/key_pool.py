"""One pool of keys per provider, because a provider's rate limits are a fact about the whole cluster."""

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from ray.actor import ActorHandle

from actors.handles import call, ensure
from actors.ledger import LedgerHandle
from runtime.config import Secrets, Settings
from runtime.entity.vitals import KeyPoolVitals
from runtime.providers.catalogue import canonical_provider
from runtime.providers.keys import KeyOutcome, KeyRing, Lease, open_key

NAME = "key-pool-"


class KeyPoolActor:
    """Owns one provider's keys in the clear, their turns and their cooldowns.

    Called by processes that call providers. A restart reads the sealed keys from the ledger again and forgets
    cooldowns, which the provider then teaches anew. Lease and report may be repeated.
    """

    def __init__(self, settings: Settings, provider: str) -> None:
        self._settings = settings
        self._provider = provider
        self._ledger = LedgerHandle.ensure(settings)
        self._loading = asyncio.Lock()
        self._ring: KeyRing | None = None

    async def lease(self, wait_s: float) -> Lease:
        ring = self._ring or await self._load()
        return await ring.lease(self._provider, wait_s)

    async def report(self, lease: Lease, outcome: KeyOutcome) -> None:
        if self._ring is not None:
            await self._ring.report(lease, outcome)

    async def reload(self) -> None:
        """Reads the keys again, because they were replaced."""
        self._ring = None

    async def vitals(self) -> KeyPoolVitals:
        return (self._ring or await self._load()).vitals(self._provider)

    async def _load(self) -> KeyRing:
        async with self._loading:
            if self._ring is None:
                secrets = Secrets.load(self._settings.data_dir, os.environ)
                sealed = await self._ledger.keys(self._provider)
                keys = [open_key(each, secrets.api_key_encryption_key) for each in sealed]
                ring = KeyRing(keys, cooldown_s=self._settings.key_cooldown_seconds)
                if not keys:
                    return ring
                self._ring = ring
            return self._ring


class KeyPools:
    """Implements `KeyLeases` over the pools of all providers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pools: dict[str, ActorHandle[Any]] = {}

    async def lease(self, provider: str, wait_s: float) -> Lease:
        pool = self._pool(provider)
        return await call(lambda: pool.lease.remote(wait_s), what=f"The key pool of {provider}")

    async def report(self, lease: Lease, outcome: KeyOutcome) -> None:
        pool = self._pool(lease.provider)
        await call(lambda: pool.report.remote(lease, outcome), what=f"The key pool of {lease.provider}")

    async def reload(self, providers: Sequence[str]) -> None:
        for provider in providers:
            pool = self._pool(provider)
            await call(pool.reload.remote, what=f"The key pool of {provider}")

    def _pool(self, provider: str) -> ActorHandle[Any]:
        name = canonical_provider(provider)
        if name not in self._pools:
            self._pools[name] = ensure(f"{NAME}{name}", KeyPoolActor, self._settings, name)
        return self._pools[name]

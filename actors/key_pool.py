"""One pool of keys per provider, because a provider's rate limits are a fact about the whole cluster."""

import asyncio
import logging
import os
import re
import secrets
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ray.actor import ActorHandle

from actors.handles import KEY_POOL, call, ensure, find, names, once
from actors.ledger import NODE_WITH_THE_DISK, LedgerHandle
from actors.process import prepare_process
from runtime.catalogue.endpoints import Endpoint, no_provider
from runtime.catalogue.model import canonical_provider
from runtime.config import Settings
from runtime.entity.vitals import KeyPoolVitals
from runtime.errors import BadInputError, MasterbuilderError, NotFoundError
from runtime.keys import office
from runtime.keys.desk import Answer, Ask, KeyDesk
from runtime.keys.environment import FoundKey
from runtime.keys.keys import KeyOutcome, Lease, ProviderKey, Wish, open_key, seal_key
from runtime.keys.log import PoolLog
from runtime.keys.masters import MasterKeys
from runtime.keys.office import KeyFacts, Rotated
from runtime.keys.permits import Permits
from runtime.keys.pool import KeyState, Pool
from runtime.ledger.port import KeyRotation
from runtime.providers.calls import longest_call_s

PROVIDER = re.compile(r"[a-z0-9][a-z0-9_.-]{0,60}")
LOOK_S_MAX = 3.0

log = logging.getLogger(__name__)


class KeyPoolActor:
    """Owns one provider's keys in the clear, their windows, turns and rests, and `<data_dir>/pools/<provider>.log`.

    Called by processes that call providers, a few times a second each at most. One runs, on the node with the disk. A
    restart reads the sealed keys from the ledger and what was used of them from its log; processes then go on where
    they were, and who waits, asks again. Everything may be repeated but `exchange`, whose callers know how. The
    constructor never raises.
    """

    def __init__(self, settings: Settings, provider: str) -> None:
        prepare_process()
        self._settings = settings
        self._provider = provider
        self._ledger = LedgerHandle.ensure(settings)
        self._loading = asyncio.Lock()
        self._pool: Pool | None = None
        self._desk: KeyDesk | None = None

    async def exchange(self, ask: Ask) -> Answer:
        desk = self._desk or await self._load()
        return await desk.exchange(ask)

    async def reload(self) -> None:
        """Reads the keys again, because they were changed."""
        desk = self._desk or await self._load()
        assert self._pool is not None
        try:
            self._pool.set_keys(await self._keys())
        except BadInputError:
            self._pool.set_keys(())
            raise
        finally:
            desk.turn()

    async def vitals(self) -> KeyPoolVitals:
        await self._load()
        assert self._pool is not None
        return self._pool.vitals(time.monotonic())

    async def states(self) -> Sequence[KeyState]:
        await self._load()
        assert self._pool is not None
        return self._pool.states(time.monotonic())

    async def add(self, endpoint: Endpoint, label: str, limits: str, expires_at: datetime | None) -> str:
        """Seals and keeps a key, and uses it from now on. Its id."""
        data_dir = self._settings.data_dir
        key_id = await office.add_key(self._ledger, data_dir, os.environ, endpoint, label, limits, expires_at)
        await self.reload()
        return key_id

    async def replace(self, found: Sequence[FoundKey]) -> None:
        """Makes these, of every provider, the keys that came from the environment. The pools are not told."""
        masters = await asyncio.to_thread(MasterKeys.load, self._settings.data_dir, os.environ)
        sealed = [
            seal_key(each.endpoint, masters.newest, limits=each.limits, expires_at=each.expires_at) for each in found
        ]
        await self._ledger.replace_keys(sealed)

    async def rotate(self, new_master: bytes | None) -> Rotated:
        """Seals the keys of all providers anew. Any pool can do it; pools that run need not be told."""
        return await office.rotate(self._ledger, self._settings.data_dir, os.environ, new_master)

    async def _load(self) -> KeyDesk:
        async with self._loading:
            if self._desk is None:
                keys = await self._keys()
                note_log = PoolLog(self._settings.data_dir / "pools" / f"{self._provider}.log")
                pool = Pool(
                    self._provider,
                    cooldown_s=self._settings.key_cooldown_seconds,
                    call_s_max=longest_call_s(self._settings),
                    note=note_log.note,
                    first_id=time.time_ns(),
                )
                pool.set_keys(keys)
                await asyncio.to_thread(note_log.open, pool)
                self._pool = pool
                self._desk = KeyDesk(pool, note_log, secrets.token_hex(8), time.monotonic)
                self._desk.turn()
            return self._desk

    async def _keys(self) -> Sequence[ProviderKey]:
        """Those that can be opened. Raises BadInputError where there are some and none can."""
        masters = await asyncio.to_thread(MasterKeys.load, self._settings.data_dir, os.environ)
        keys: list[ProviderKey] = []
        refusal: BadInputError | None = None
        for sealed in await self._ledger.keys(self._provider):
            try:
                keys.append(open_key(sealed, *masters.all))
            except BadInputError as error:
                refusal = error
                log.warning("the key %s is out of use: %s", sealed.key_id, error)
        if refusal is not None and not keys:
            raise refusal
        return keys


class KeyPools:
    """Implements `KeyLeases` over the pools of all providers; and what an operator does with keys. Used from one event
    loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ledger: LedgerHandle | None = None
        self._permits: dict[str, Permits] = {}
        self._pools: dict[str, ActorHandle[Any]] = {}

    async def lease(self, wish: Wish, wait_s: float) -> Lease:
        permits = self._permits.get(wish.provider) or self._permits_of(wish.provider)
        return await permits.lease(wish, wait_s)

    def report(self, lease: Lease, outcome: KeyOutcome) -> None:
        permits = self._permits.get(lease.provider)
        if permits is not None:
            permits.report(lease, outcome)

    async def close(self) -> None:
        """Gives back what is in stock; for a moment at most."""
        await asyncio.gather(*(permits.close() for permits in self._permits.values()))

    # What an operator does

    async def reload(self, providers: Sequence[str]) -> None:
        for provider in providers:
            pool = await self._pool(provider)
            await call(pool.reload.remote, what=f"The key pool of {provider}")

    async def replace(self, found: Sequence[FoundKey]) -> None:
        """Makes these the keys that came from the environment, in the ledger and in the pools."""
        if not found:
            return
        providers = list(dict.fromkeys(each.endpoint.provider for each in found))
        pool = await self._pool(providers[0])
        await call(lambda: pool.replace.remote(found), what=f"The key pool of {providers[0]}")
        await self.reload([*providers, *(name for name in await self._running() if name not in providers)])

    async def add(self, endpoint: Endpoint, label: str, limits: str, expires_at: datetime | None = None) -> str:
        pool = await self._pool(endpoint.provider)
        what = f"The key pool of {endpoint.provider}"
        key_id: str = await call(lambda: pool.add.remote(endpoint, label, limits, expires_at), what=what)
        return key_id

    async def set_disabled(self, key_id: str, disabled: bool) -> None:
        """Raises NotFoundError. Enabling a key that its provider refused has it tried again."""
        ledger = self._store()
        if not await ledger.set_key_disabled(key_id, disabled):
            raise NotFoundError(f"There is no key {key_id[:80]}.", "`masterbuilder keys list` shows the ids.")
        owners = {key.provider for key in await ledger.all_keys() if key.key_id == key_id}
        await self.reload(sorted(owners))

    async def rotate(self, new_master: bytes | None) -> Rotated:
        """Raises BadInputError where the master key comes from the environment and no new one is given."""
        keys = await self._store().all_keys()
        pool = await self._pool(keys[0].provider if keys else "openai")
        rotated: Rotated = await call(lambda: pool.rotate.remote(new_master), what="The key pool")
        return rotated

    async def listed(self) -> Sequence[KeyFacts]:
        ledger = self._store()
        keys, uses, running = await asyncio.gather(ledger.all_keys(), ledger.key_uses(), self._running())
        states = await asyncio.gather(*(self._states(provider) for provider in running))
        answered = [provider for provider, of in zip(running, states, strict=True) if of is not None]
        return office.facts(keys, uses, [state for of in states for state in of or ()], answered)

    async def rotations(self) -> Sequence[KeyRotation]:
        """Newest first."""
        return await self._store().key_rotations()

    async def _running(self) -> Sequence[str]:
        """The providers whose pools there are."""
        return [name.removeprefix(KEY_POOL) for name in await asyncio.to_thread(names) if name.startswith(KEY_POOL)]

    async def _states(self, provider: str) -> Sequence[KeyState] | None:
        try:
            async with asyncio.timeout(LOOK_S_MAX):
                pool = await asyncio.to_thread(find, f"{KEY_POOL}{provider}")
                states: Sequence[KeyState] = await once(pool.states.remote, what=f"The key pool of {provider}")
                return states
        except (MasterbuilderError, TimeoutError):
            return None

    def _store(self) -> LedgerHandle:
        if self._ledger is None:
            self._ledger = LedgerHandle.ensure(self._settings)
        return self._ledger

    def _permits_of(self, provider: str) -> Permits:
        name = canonical_provider(provider)
        if name not in self._permits:

            async def exchange(ask: Ask) -> Answer:
                pool = await self._pool(name)
                answer: Answer = await once(lambda: pool.exchange.remote(ask), what=f"The key pool of {name}")
                return answer

            self._permits[name] = Permits(name, exchange)
        return self._permits[name]

    async def _pool(self, provider: str) -> ActorHandle[Any]:
        name = canonical_provider(provider)
        if not PROVIDER.fullmatch(name):
            raise no_provider(provider)
        if name not in self._pools:
            on_disk = {NODE_WITH_THE_DISK: 0.001}
            self._pools[name] = await asyncio.to_thread(
                ensure, f"{KEY_POOL}{name}", KeyPoolActor, self._settings, name, resources=on_disk
            )
        return self._pools[name]

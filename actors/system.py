"""The whole, as a door or a command sees it."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from actors.entities import EntitiesHandle
from actors.handles import KEY_POOL, ROUTER, call, find, names, once
from actors.implementers import POOL as IMPLEMENTERS
from actors.implementers import ImplementersHandle
from actors.key_pool import KeyPools
from actors.ledger import LedgerHandle
from actors.model_calls import model_calls
from actors.router import ensure_router
from runtime.config import Secrets, Settings
from runtime.entity.journal import Journal
from runtime.entity.vitals import SystemVitals
from runtime.errors import MasterbuilderError
from runtime.ids import LOCAL_ADMIN, EntityId, new_call_id
from runtime.ledger.port import NewToken
from runtime.ledger.purse import Purse
from runtime.ledger.settling import settle_orphans
from runtime.ledger.spool import Spool
from runtime.providers.calls import ModelCalls, longest_call_s
from runtime.reports.port import Reporting
from runtime.store.keeping import Keeping
from runtime.tokens import token_hash

VITALS_S_MAX = 3.0

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RaySystem:
    """Implements `serve_apps.system.System` over the actors, which it makes where they are not there yet."""

    settings: Settings
    entities: EntitiesHandle
    ledger: LedgerHandle
    journal: Journal
    keeper: Keeping
    reports: Reporting
    keys: KeyPools
    calls: ModelCalls
    purse: Purse
    implementers: ImplementersHandle

    async def health(self) -> Mapping[str, str]:
        """`ledger` is `ok` or what is wrong with it; `provider` names the configured ones, or is `none`."""
        try:
            keys = await self.ledger.all_keys()
        except MasterbuilderError as error:
            return {"ledger": str(error), "provider": "unknown"}
        found = dict.fromkeys(key.provider for key in keys if key.active and not key.disabled)
        return {"ledger": "ok", "provider": ", ".join(found) or "none"}

    async def pardon(self, entity: EntityId) -> bool:
        """Lifts an entity's quarantine; False when there was none. Raises UnavailableError when nobody can say."""
        return await self.entities.pardon(entity)

    async def close(self) -> None:
        """Ends what this process has under way: what its calls used is with the ledger, what it drew is given back."""
        await self.calls.close()
        await self.keys.close()
        await self.purse.close()

    async def vitals(self) -> SystemVitals:
        """Asks every part at once and waits a few seconds at most: a part that did not answer is named in `silent`."""
        pools = [name for name in await asyncio.to_thread(names) if name.startswith(KEY_POOL)]
        router, store, implementers, *key_pools = await asyncio.gather(
            _in_time(_ask(ROUTER)),
            _in_time(self.ledger.vitals()),
            _in_time(self.implementers.vitals()),
            *(_in_time(_ask(name)) for name in pools),
        )
        asked = {
            ROUTER: router,
            "ledger": store,
            IMPLEMENTERS: implementers,
            **dict(zip(pools, key_pools, strict=True)),
        }
        return SystemVitals(
            hosts=router.hosts if router else (),
            map_version=router.map_version if router else 0,
            moving=router.moving if router else 0,
            store=store,
            implementers=implementers,
            key_pools=[pool for pool in key_pools if pool is not None],
            silent=[*(name for name, answer in asked.items() if answer is None), *(router.silent if router else ())],
        )


async def connect(settings: Settings) -> RaySystem:
    """Makes or finds every actor; registers the local admin and its token. Safe to repeat from many processes."""
    ledger = LedgerHandle.ensure(settings)
    secrets = Secrets.load(settings.data_dir, os.environ)
    router = ensure_router(settings)
    await call(lambda: router.route.remote(0, 0.0), what="The router")
    await ledger.open_wallet(LOCAL_ADMIN, True)
    await ledger.add_token(
        NewToken(token_sha256=token_hash(secrets.admin_token), user=LOCAL_ADMIN, kind="user", label="local admin")
    )
    entities = EntitiesHandle()
    entities.start_following()
    keys = KeyPools(settings)
    spool = Spool(settings.data_dir, f"{os.getpid()}-{new_call_id()}")
    purse = Purse(ledger, spool, settings.tariff, call_s_max=longest_call_s(settings))
    _begun.add(asyncio.create_task(_settle_left(settings, ledger)))
    return RaySystem(
        settings=settings,
        entities=entities,
        ledger=ledger,
        journal=ledger,
        keeper=ledger,
        reports=ledger,
        keys=keys,
        calls=model_calls(settings, ledger, keys, purse),
        purse=purse,
        implementers=ImplementersHandle(settings),
    )


_begun: set["asyncio.Task[None]"] = set()
"""For as long as the process lives: the loop itself keeps no task."""


async def _settle_left(settings: Settings, ledger: LedgerHandle) -> None:
    """What died on this node has left its spool here, where the ledger may not reach."""
    try:
        await settle_orphans(settings.data_dir, ledger)
    except (MasterbuilderError, OSError) as error:
        log.warning("spools of dead processes are not settled yet: %s", error)


async def _ask(name: str) -> Any:
    actor = await asyncio.to_thread(find, name)
    return await once(actor.vitals.remote, what=name)


async def _in_time(answer: Awaitable[T]) -> T | None:
    try:
        async with asyncio.timeout(VITALS_S_MAX):
            return await answer
    except (MasterbuilderError, TimeoutError):
        return None

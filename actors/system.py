"""The whole, as a door or a command sees it."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from actors.entities import EntitiesHandle
from actors.handles import ROUTER, call, ensure
from actors.implementers import ImplementersHandle
from actors.key_pool import KeyPools
from actors.ledger import LedgerHandle
from actors.router import RouterActor
from runtime.config import Secrets, Settings
from runtime.entity.journal import Journal
from runtime.errors import MasterbuilderError
from runtime.ids import LOCAL_ADMIN
from runtime.ledger.port import NewToken
from runtime.providers.calls import ModelCalls
from runtime.providers.catalogue import CATALOGUE
from runtime.providers.endpoints import SERVICES, Endpoint
from runtime.providers.keys import seal_key
from runtime.tokens import token_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class RaySystem:
    """Implements `serve_apps.system.System` over the actors, which it makes where they are not there yet."""

    settings: Settings
    entities: EntitiesHandle
    ledger: LedgerHandle
    journal: Journal
    calls: ModelCalls
    implementers: ImplementersHandle

    async def health(self) -> Mapping[str, str]:
        """`ledger` is `ok` or what is wrong with it; `provider` names the configured ones, or is `none`."""
        try:
            found = [name for name in SERVICES if await self.ledger.keys(name)]
        except MasterbuilderError as error:
            return {"ledger": str(error), "provider": "unknown"}
        return {"ledger": "ok", "provider": ", ".join(found) or "none"}


async def connect(settings: Settings) -> RaySystem:
    """Makes or finds every actor; registers the local admin and its token. Safe to repeat from many processes."""
    ledger = LedgerHandle.ensure(settings)
    secrets = Secrets.load(settings.data_dir, os.environ)
    router = ensure(ROUTER, RouterActor, settings)
    await call(lambda: router.route.remote(), what="The router")
    await ledger.open_wallet(LOCAL_ADMIN, True)
    await ledger.add_token(
        NewToken(token_sha256=token_hash(secrets.admin_token), user=LOCAL_ADMIN, kind="user", label="local admin")
    )
    return RaySystem(
        settings=settings,
        entities=EntitiesHandle(),
        ledger=ledger,
        journal=ledger,
        calls=ModelCalls(ledger, KeyPools(settings), CATALOGUE, settings),
        implementers=ImplementersHandle(settings),
    )


def import_keys(settings: Settings, endpoints: Sequence[Endpoint]) -> None:
    """Seals the environment's provider keys and makes them the ones in use. Needs a connected Ray."""
    asyncio.run(_import_keys(settings, endpoints))


async def _import_keys(settings: Settings, endpoints: Sequence[Endpoint]) -> None:
    secrets = Secrets.load(settings.data_dir, os.environ)
    ledger = LedgerHandle.ensure(settings)
    await ledger.replace_keys([seal_key(endpoint, secrets.api_key_encryption_key) for endpoint in endpoints])
    await KeyPools(settings).reload([endpoint.provider for endpoint in endpoints])

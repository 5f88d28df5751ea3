"""The process where entities live."""

import logging
import os
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from actors.entities import EntitiesHandle
from actors.implementers import ImplementersHandle
from actors.key_pool import KeyPools
from actors.ledger import LedgerHandle
from runtime.config import Secrets, Settings
from runtime.entity.host import Factory, Host
from runtime.entity.journal import EventRecord
from runtime.ids import PARTITION_COUNT, EntityId
from runtime.index.embedder import choose_embedder
from runtime.index.entity import IndexEntity
from runtime.project.project import Project
from runtime.project.workshop import Workshop
from runtime.providers.calls import ModelCalls
from runtime.providers.catalogue import CATALOGUE
from runtime.session.session import UserSession
from runtime.store.seal import Seal

log = logging.getLogger(__name__)

INDEX_ONLY = ("index",)
"""Shards are CPU and parsers, which would stall sessions; they journal nothing, git is their journal."""


class EntityHostActor:
    """Owns the entities of the kinds it was made for, one owner per id, fenced by epochs in the store.

    Called by doors and by entities. A restart is a new incarnation: it claims the partitions again, which fences off
    whatever the old process still tries, and wakes every entity with unfinished work. Messages carry keys, so callers
    repeat those that were in flight.
    """

    def __init__(self, settings: Settings, name: str, kinds: Sequence[str]) -> None:
        logging.basicConfig(level=logging.INFO)
        ledger = LedgerHandle.ensure(settings)
        entities = EntitiesHandle()
        self._host = Host(
            name=name,
            incarnation=f"{ray.get_runtime_context().get_actor_id()}/{secrets.token_hex(8)}",
            journal=ledger,
            factories=_factories(settings, kinds, ledger, entities),
            partitions=() if tuple(kinds) == INDEX_ONLY else range(PARTITION_COUNT),
        )

    async def start(self) -> None:
        """Claims and wakes. Whoever notices a restarted host says it first; the rest changes nothing."""
        await self._host.start()

    async def ask(self, entity: EntityId, message: Any, timeout_s: float) -> Any:
        return await self._host.ask(entity, message, timeout_s=timeout_s)

    async def events(self, entity: EntityId, after_seq: int, wait_s: float) -> Sequence[EventRecord]:
        return await self._host.events(entity, after_seq, wait_s)


def _factories(
    settings: Settings, kinds: Sequence[str], ledger: LedgerHandle, entities: EntitiesHandle
) -> Mapping[str, Factory]:
    """How each kind is made, for the kinds that live here."""
    if tuple(kinds) == INDEX_ONLY:
        embedder = choose_embedder(settings.models_dir)
        folder = settings.data_dir / "index"
        seal = Seal(Secrets.load(settings.data_dir, os.environ).data_encryption_key)
        return {"index": lambda entity: IndexEntity(entity, ledger, embedder, folder, seal)}
    workshop = Workshop(
        settings=settings,
        ledger=ledger,
        calls=ModelCalls(ledger, KeyPools(settings), CATALOGUE, settings),
        implementers=ImplementersHandle(settings),
        entities=entities,
        scratch_dir=Path(tempfile.mkdtemp(prefix="mb-host-")),
    )
    return {
        "project": lambda entity: Project(entity, workshop),
        "user": lambda entity: UserSession(entity, settings, ledger, ledger, entities, workshop.implementers),
    }

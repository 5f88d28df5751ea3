"""The process where entities live."""

import asyncio
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
        """Only remembers: what can fail is done by the first message, for a constructor must not raise."""
        logging.basicConfig(level=logging.INFO)
        self._settings = settings
        self._name = name
        self._kinds = tuple(kinds)
        self._incarnation = f"{ray.get_runtime_context().get_actor_id()}/{secrets.token_hex(8)}"
        self._opening = asyncio.Lock()
        self._opened: Host | None = None

    async def start(self) -> None:
        """Claims and wakes. The router says it again and again; what is awake already stays as it is."""
        await (await self._host()).start()

    async def ask(self, entity: EntityId, message: Any, timeout_s: float) -> Any:
        return await (await self._host()).ask(entity, message, timeout_s=timeout_s)

    async def events(self, entity: EntityId, after_seq: int, wait_s: float) -> Sequence[EventRecord]:
        return await (await self._host()).events(entity, after_seq, wait_s)

    async def _host(self) -> Host:
        async with self._opening:
            if self._opened is None:
                ledger = LedgerHandle.ensure(self._settings)
                factories = await asyncio.to_thread(_factories, self._settings, self._kinds, self._name, ledger)
                self._opened = Host(
                    name=self._name,
                    incarnation=self._incarnation,
                    journal=ledger,
                    factories=factories,
                    partitions=() if self._kinds == INDEX_ONLY else range(PARTITION_COUNT),
                )
            return self._opened


def _factories(settings: Settings, kinds: tuple[str, ...], name: str, ledger: LedgerHandle) -> Mapping[str, Factory]:
    """Blocking. How each kind is made, for the kinds that live here."""
    if kinds == INDEX_ONLY:
        embedder = choose_embedder(settings.models_dir)
        folder = settings.data_dir / "index"
        seal = Seal(Secrets.load(settings.data_dir, os.environ).data_encryption_key)
        return {"index": lambda entity: IndexEntity(entity, ledger, embedder, folder, seal)}
    entities = EntitiesHandle()
    workshop = Workshop(
        settings=settings,
        ledger=ledger,
        calls=ModelCalls(ledger, KeyPools(settings), CATALOGUE, settings),
        implementers=ImplementersHandle(settings),
        entities=entities,
        scratch_dir=Path(tempfile.gettempdir()) / f"mb-{name}",
    )
    return {
        "project": lambda entity: Project(entity, workshop),
        "user": lambda entity: UserSession(entity, settings, ledger, ledger, entities, workshop.implementers),
    }

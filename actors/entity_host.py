"""The process where entities live."""

import asyncio
import importlib
import logging
import os
import pickle
import secrets
import shutil
import tempfile
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.entities import EntitiesHandle
from actors.handles import this_node
from actors.implementers import ImplementersHandle
from actors.key_pool import KeyPools
from actors.ledger import LedgerHandle
from actors.process import prepare_process
from runtime.catalogue.catalogue import Catalogue
from runtime.config import Secrets, Settings
from runtime.entity.host import Factory, Host, Limits
from runtime.entity.vitals import HostVitals
from runtime.ids import EntityId, vectors_entity
from runtime.routing.desk import Desks
from runtime.routing.routed import Pardon, Watch
from runtime.store.seal import Seal

log = logging.getLogger(__name__)

INDEX_ONLY = ("index", "documents", "repository", "vectors")
"""Shards are CPU and parsers, which would stall sessions; they journal nothing: git, libraries and repositories do."""
VECTOR_THREADS = 2
"""For the files of kept vectors."""
SLOW_TO_IMPORT = "openai"
"""Imported beside the first work, so that a host that was killed answers again without waiting for it."""

Here = Callable[[EntityId, Any], Awaitable[Any]]
"""Asks an entity of the same process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReport:
    vitals: HostVitals
    owned: Mapping[int, int]
    """Partition -> the epoch under which this process writes it."""


class EntityHostActor:
    """Owns the entities of the kinds it was made for, in the partitions that the router gave it.

    Called by doors and by entities through `EntitiesHandle`, and by the router. As many run as the router makes. A
    restart is a new incarnation that owns nothing until the router gives it partitions again; claiming them fences off
    whatever the old process still tries, and wakes every entity with unfinished work. Messages carry keys, so callers
    repeat those that were in flight.
    """

    def __init__(self, settings: Settings, name: str, kinds: Sequence[str]) -> None:
        """Only remembers: what can fail is done by the first message, for a constructor must not raise."""
        prepare_process()
        self._settings = settings
        self._name = name
        self._kinds = tuple(kinds)
        self._incarnation = secrets.token_hex(16)
        self._opening = asyncio.Lock()
        self._opened: tuple[Host, Desks] | None = None
        self._running: asyncio.Task[None] | None = None

    async def exchange(self, call: bytes) -> bytes:
        """A pickled `Exchange`; the pickled `Exchanged`."""
        _, desks = self._opened or await self._open()
        return pickle.dumps(await desks.exchange(pickle.loads(call)), 5)

    async def acquire(self, partitions: Mapping[int, int]) -> Mapping[int, int]:
        host, _ = self._opened or await self._open()
        return await host.acquire(partitions)

    async def release(self, partitions: Sequence[int], drain_s: float) -> None:
        host, _ = self._opened or await self._open()
        await host.release(partitions, drain_s)

    async def report(self) -> HostReport:
        host, _ = self._opened or await self._open()
        return HostReport(vitals=host.vitals(), owned=dict(host.owned))

    async def _open(self) -> tuple[Host, Desks]:
        async with self._opening:
            if self._opened is None:
                ledger = await asyncio.to_thread(LedgerHandle.ensure, self._settings)
                entities = EntitiesHandle()
                loop = asyncio.get_running_loop()

                def here(entity: EntityId, message: Any) -> Awaitable[Any]:
                    return host.ask(entity, message)

                host = Host(
                    name=self._name,
                    incarnation=self._incarnation,
                    node=this_node(),
                    journal=ledger,
                    factories=await asyncio.to_thread(self._factories, ledger, entities, here, loop),
                    limits=Limits.of(self._settings),
                    journaled=self._kinds != INDEX_ONLY,
                )
                self._opened = host, Desks(self._incarnation, lambda *message: _post(host, *message))
                entities.start_following()
                self._running = asyncio.create_task(host.run())
            return self._opened

    def _factories(
        self, ledger: LedgerHandle, entities: EntitiesHandle, here: Here, loop: asyncio.AbstractEventLoop
    ) -> Mapping[str, Factory]:
        """Blocking. How each kind is made, for the kinds that live here. Only these are imported: it takes time."""
        if self._kinds == INDEX_ONLY:
            return _index(self._settings, ledger, here, loop)
        scratch_dir = Path(tempfile.gettempdir()) / f"mb-{self._name}"
        made = _product(self._settings, ledger, entities, scratch_dir)
        return made | _probes(entities) if self._settings.probe_entities else made


def _post(host: Host, entity: EntityId, message: Any, timeout_s: float) -> "asyncio.Future[Any]":
    match message:
        case Watch(after_seq=after_seq, wait_s=wait_s):
            return asyncio.ensure_future(host.events(entity, after_seq, wait_s))
        case Pardon():
            return asyncio.ensure_future(_pardon(host, entity))
        case _:
            return host.post(entity, message, timeout_s)


async def _pardon(host: Host, entity: EntityId) -> bool:
    return host.pardon(entity)


def _index(settings: Settings, ledger: LedgerHandle, here: Here, loop: asyncio.AbstractEventLoop) -> dict[str, Factory]:
    from actors.embedding import reach
    from runtime.documents.entity import DocumentsEntity
    from runtime.documents.reading import DocumentReader
    from runtime.implementer.sandbox import Sandbox
    from runtime.index.embedder import Embedders, for_passages
    from runtime.index.entity import IndexEntity
    from runtime.index.vectors_entity import VectorsEntity
    from runtime.repositories.entity import CLONES_MAX, RepositoryEntity

    def vectors(message: Any) -> Awaitable[Any]:
        # The threads that wait for it may be all that a way through Ray would need.
        return here(vectors_entity(message.owner), message)

    embedders = Embedders(settings.models_dir, default=settings.embedder, reach=reach(settings, ledger, vectors, loop))
    default, named = embedders.default, embedders.named
    folder = settings.data_dir / "index"
    seal = Seal(Secrets.load(settings.data_dir, os.environ).data_encryption_key)
    scratch, clones = settings.scratch_folder / "repositories", asyncio.Semaphore(CLONES_MAX)
    shutil.rmtree(scratch, ignore_errors=True)  # Of an earlier incarnation, in plain text.
    reader, reading = DocumentReader(Sandbox()), for_passages(default)
    threads = ThreadPoolExecutor(VECTOR_THREADS, thread_name_prefix="vectors")

    def documents(entity: EntityId) -> DocumentsEntity:
        return DocumentsEntity(entity, ledger, reading, folder, seal, reader, named=named, vectors=vectors)

    def repository(entity: EntityId) -> RepositoryEntity:
        return RepositoryEntity(entity, default, folder, seal, scratch, clones, named=named, vectors=vectors)

    return {
        "index": lambda entity: IndexEntity(entity, ledger, default, folder, seal, ledger, named=named),
        "documents": documents,
        "repository": repository,
        "vectors": lambda entity: VectorsEntity(entity, folder, seal, threads),
    }


def _chats(
    settings: Settings, ledger: LedgerHandle, entities: EntitiesHandle, catalogue: Callable[[], Catalogue]
) -> Factory:
    from actors.telegram import TelegramHandle
    from runtime.telegram.chat import Chat
    from runtime.telegram.desk import desk_of
    from runtime.telegram.dialogue import Dialogue
    from runtime.telegram.following import Telling

    secrets = Secrets.load(settings.data_dir, os.environ)
    api = TelegramHandle(settings)
    desk = desk_of(settings, secrets, ledger, entities, ledger, ledger, KeyPools(settings), api, catalogue)
    telling = Telling(entities, ledger, desk.speak, desk.link, ledger.get_blob)
    dialogue = Dialogue(desk)
    return lambda entity: Chat(entity, api, dialogue, telling)


def _probes(entities: EntitiesHandle) -> dict[str, Factory]:
    from runtime.testing import probes

    return dict(probes.factories(entities))


def _product(
    settings: Settings, ledger: LedgerHandle, entities: EntitiesHandle, scratch_dir: Path
) -> dict[str, Factory]:
    from actors.model_calls import model_calls
    from runtime.documents.library import Library
    from runtime.project.project import Project
    from runtime.project.workshop import Workshop
    from runtime.repositories.github import ForgeApi
    from runtime.repositories.repositories import Repositories
    from runtime.session.session import UserSession

    threading.Thread(target=importlib.import_module, args=(SLOW_TO_IMPORT,), daemon=True).start()
    shutil.rmtree(scratch_dir, ignore_errors=True)  # Working copies of an earlier incarnation: caches, in plain text.
    workshop = Workshop(
        settings=settings,
        ledger=ledger,
        calls=model_calls(settings, ledger, KeyPools(settings), ledger),
        implementers=ImplementersHandle(settings),
        entities=entities,
        scratch_dir=scratch_dir,
    )
    chat = _chats(settings, ledger, entities, lambda: workshop.calls.catalogue)
    return {
        "project": lambda entity: Project(entity, workshop),
        "chat": chat,
        "library": lambda entity: Library(entity, ledger, entities),
        "repositories": lambda entity: Repositories(entity, entities, ForgeApi()),
        "user": lambda entity: UserSession(entity, settings, ledger, ledger, entities, workshop.implementers),
    }

"""What an index host is, in one process: real ledger, entities, SDKs, calls; the provider is the simulator, over HTTP.

`crash` is what `kill -9` of the host comes to: nothing of it runs on, and files alone are left.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from cluster.simulator.server import Simulator
from runtime.catalogue.catalogue import CATALOGUE
from runtime.catalogue.endpoints import Endpoint
from runtime.catalogue.market import Market
from runtime.catalogue.routes import Routes
from runtime.config import Secrets, Settings
from runtime.documents.entity import DocumentsEntity
from runtime.documents.library import Library
from runtime.documents.messages import AddDocument, Item, LibraryFound, ListDocuments, SearchLibrary
from runtime.documents.reading import DocumentReader
from runtime.entity.entity import Entity
from runtime.entity.host import Host
from runtime.entity.journal import EventRecord, Moves
from runtime.errors import UnavailableError
from runtime.ids import (
    LOCAL_ADMIN,
    EntityId,
    ProjectId,
    UserId,
    index_entity,
    library_entity,
    project_entity,
    vectors_entity,
)
from runtime.implementer.sandbox import Sandbox
from runtime.index.embedder import Embedder, Embedders, Reach, for_passages
from runtime.index.entity import IndexEntity
from runtime.index.from_threads import LoopCalls, LoopVectors
from runtime.index.hit import IndexStatus
from runtime.index.messages import DescribeIndex, Found, SearchIndex, UpdateIndex
from runtime.index.vector_cache import CachedEmbedder
from runtime.index.vectors_entity import VectorsEntity
from runtime.keys.keys import provider_key, seal_key
from runtime.keys.ring import KeyRing
from runtime.ledger.port import Adjustment
from runtime.project.facts import project_facts
from runtime.project.repository import Author, ProjectRepository
from runtime.providers.calls import ModelCalls
from runtime.reports.port import Asked
from runtime.store.seal import Seal
from runtime.store.store import Store

ANN, BOB = UserId("ann"), UserId("bob")
SMALL = "openai/text-embedding-3-small"
AUTHOR = Author(name="Ann", email="ann@example.com")
PROVIDERS = ("openai", "gemini")


class EmbeddingWorld:
    def __init__(
        self,
        folder: Path,
        simulator: Simulator,
        usage_file: Path,
        embedder: str = SMALL,
        openai_url: str = "",
        local: Embedder | None = None,
    ) -> None:
        """`openai_url`: of another server than the simulator; `local`: what stands in for the model of the machine."""
        self.folder = folder
        self.simulator = simulator
        self.embedder = embedder
        self.local = local
        self.urls = {"openai": openai_url or simulator.base_url, "gemini": simulator.root_url}
        self.settings = Settings(data_dir=folder / "data", http_port=1, key_wait_seconds=5, call_timeout_s=5)
        self.secrets = Secrets.load(self.settings.data_dir, {})
        self.seal = Seal(self.secrets.data_encryption_key)
        self.store = Store(self.settings, self.secrets, facts_of=project_facts)
        self.index_folder = self.settings.data_dir / "index"
        self.calls: ModelCalls
        self.host: Host
        self.embedders: Embedders
        self.vectors_answer = True
        self._usage_file = usage_file
        self._incarnations = 0
        self._reader = DocumentReader(Sandbox())
        self._threads = ThreadPoolExecutor(2)

    async def open(self) -> None:
        await self.store.open()
        await self.store.books.open_wallet(LOCAL_ADMIN, True)
        for user in (ANN, BOB):
            await self.store.books.open_wallet(user, False)
        endpoints = [Endpoint(provider=name, base_url=self.urls[name], key=f"sim-{name}") for name in PROVIDERS]
        sealed = [seal_key(each, self.secrets.api_key_encryption_key) for each in endpoints]
        await self.store.books.replace_keys(sealed)
        keys = KeyRing([provider_key(each) for each in endpoints], cooldown_s=0.1)
        market = Market(Routes(CATALOGUE), source=self.store.books)
        self.calls = ModelCalls(self.store.books, keys, market, self.settings)
        await self.start()

    async def start(self) -> None:
        self._incarnations += 1
        loop = asyncio.get_running_loop()
        host: Host

        def vectors(message: Any) -> Awaitable[Any]:
            if not self.vectors_answer:
                raise UnavailableError("The kept vectors do not answer.")
            return host.ask(vectors_entity(message.owner), message)

        reach = Reach(calls=LoopCalls(loop, lambda: self.calls), vectors=LoopVectors(loop, vectors))
        self.embedders = Embedders(self.settings.models_dir, default=self.embedder, reach=reach)
        books, default, named = self.store.books, self.embedders.default, self.embedders.named
        if self.local is not None:
            default = CachedEmbedder(self.local, reach.vectors)
        host = Host(
            name="host-0",
            incarnation=str(self._incarnations),
            journal=self.store.journal,
            factories={
                "index": lambda entity: IndexEntity(entity, books, default, self.index_folder, self.seal, named=named),
                "library": lambda entity: Library(entity, books, self),  # type: ignore[arg-type]
                "documents": lambda entity: DocumentsEntity(
                    entity,
                    books,
                    for_passages(default),
                    self.index_folder,
                    self.seal,
                    self._reader,
                    named=named,
                    vectors=vectors,
                ),
                "vectors": lambda entity: VectorsEntity(entity, self.index_folder, self.seal, self._threads),
                "project": Ceiling,
            },
        )
        self.host = host
        await self.host.acquire_all()

    async def crash(self) -> None:
        await self.host.stop()
        await self.start()

    async def close(self) -> None:
        await self.host.stop()
        await self.calls.close()
        await self.store.close()

    # What happens in it

    async def ask(self, entity: EntityId, message: Any, *, timeout_s: float = 30.0) -> Any:
        return await self.host.ask(entity, message, timeout_s=timeout_s)

    async def upload(self, name: str, text: str, owner: UserId = ANN) -> Item:
        """Read to its end."""
        add = AddDocument(owner=owner, filename=name, ending=".txt", content=text.encode())
        added: Item = await self.ask(library_entity(owner), add)
        for _ in range(1_000):
            items: Sequence[Item] = await self.ask(library_entity(owner), ListDocuments(owner=owner))
            item = next(each for each in items if each.id == added.id)
            if item.status not in ("pending", "processing"):
                return item
            await asyncio.sleep(0.02)
        raise AssertionError(f"{name} is not read yet")

    async def passages(self, query: str, owner: UserId = ANN) -> LibraryFound:
        found: LibraryFound = await self.ask(library_entity(owner), SearchLibrary(owner=owner, query=query))
        return found

    async def commit(self, files: dict[str, str], name: str = "repository") -> tuple[str, Any]:
        """Of a repository: the commit, and its bundle in the store."""
        folder = self.folder / name
        if folder.exists():
            bundle = await asyncio.to_thread((self.folder / f"{name}.bundle").read_bytes)
            repository = ProjectRepository.from_bundle(self.folder / f"{name}-{len(bundle)}", bundle)
        else:
            repository = ProjectRepository.init(folder, AUTHOR)
        made = repository.write_and_commit(files, "more", AUTHOR)
        (self.folder / f"{name}.bundle").write_bytes(repository.bundle())
        return made, await self.store.books.put_blob(repository.bundle())

    async def update(
        self, project: ProjectId, commit: tuple[str, Any], owner: UserId = ANN, under: ProjectId | None = None
    ) -> IndexStatus:
        update = UpdateIndex(owner=owner, commit=commit[0], bundle=commit[1], project=under)
        status: IndexStatus = await self.host.ask(index_entity(project), update, timeout_s=60)
        return status

    async def status(self, project: ProjectId, owner: UserId = ANN) -> IndexStatus:
        status: IndexStatus = await self.host.ask(index_entity(project), DescribeIndex(owner=owner))
        return status

    async def search(self, project: ProjectId, query: str, owner: UserId = ANN) -> Found:
        search = SearchIndex(owner=owner, query=query, limit=5)
        found: Found = await self.host.ask(index_entity(project), search, timeout_s=60)
        return found

    async def set_ceiling(self, project: ProjectId, ucredits: int) -> None:
        await self.host.ask(project_entity(project), SetCeiling(ANN, ucredits))

    async def give(self, user: UserId, ucredits: int) -> None:
        """So that it has exactly this."""
        balance = await self.store.books.balance(user)
        change = ucredits - balance.balance_ucredits
        if change:
            adjustment = Adjustment(
                id=f"{user}-{change}-{balance.balance_ucredits}", user=user, amount_ucredits=change, reason="a test",
                made_by=LOCAL_ADMIN,
            )  # fmt: skip
            await self.store.books.adjust(adjustment)

    async def fault(self, kind: str, **more: Any) -> None:
        async with httpx.AsyncClient() as http:
            url = f"{self.simulator.root_url}/simulator/faults"
            (await http.post(url, json={"kind": kind, "task": "embeddings", **more})).raise_for_status()

    # What is seen of it

    def served(self) -> dict[str, dict[str, Any]]:
        """The provider's own count: call id -> tokens."""
        lines = self._usage_file.read_text().splitlines() if self._usage_file.exists() else []
        return {record["call_id"]: record for record in map(json.loads, lines)}

    async def usage(self) -> Sequence[dict[str, Any]]:
        report = await self.store.reports.report(Asked(name="usage"))
        return [dict(zip(report.columns, row, strict=True)) for row in report.rows]


class SetCeiling:
    def __init__(self, owner: UserId, ucredits: int) -> None:
        self.owner = owner
        self.ucredits = ucredits


class Ceiling(Entity[int]):
    """As much of a project as the ledger needs: who sets its ceiling."""

    kind = "project"

    def __init__(self, entity: EntityId) -> None:
        pass

    def initial(self) -> int:
        return 0

    def fold(self, state: int, event: EventRecord) -> int:
        return state + 1

    def head(self, state: int) -> dict[str, Any]:
        return {}

    def is_open(self, state: int) -> bool:
        return False

    async def receive(self, message: SetCeiling) -> None:
        moves = Moves(ceiling_ucredits=message.ucredits)
        await self.activation.emit("project.ceiling", f"ceiling/{self.state}", {}, lambda state: moves)


@asynccontextmanager
async def embedding_world(
    folder: Path, embedder: str = SMALL, openai_url: str = "", local: Embedder | None = None
) -> AsyncIterator[EmbeddingWorld]:
    usage_file = folder / "usage.jsonl"
    async with Simulator(usage_file=usage_file) as simulator:
        world = EmbeddingWorld(folder, simulator, usage_file, embedder, openai_url, local)
        await world.open()
        try:
            yield world
        finally:
            await world.close()

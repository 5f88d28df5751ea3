"""One shard made anew while the world goes on: what it is brought to, and what is never handed over."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from runtime.documents.entity import DocumentsEntity
from runtime.documents.messages import Item, ListDocuments, SearchDocuments, SearchLibrary, UpdateDocuments, version_of
from runtime.errors import NotEmbeddedError, NotFoundError, UnavailableError
from runtime.ids import BlobId, DocumentId, EntityId, ProjectId, UserId, index_entity, project_entity
from runtime.index import rebuilding
from runtime.index.chunk import Chunk
from runtime.index.entity import IndexEntity
from runtime.index.hit import IndexStatus
from runtime.index.messages import AdoptIndex, DescribeIndex, FetchIndex, SearchIndex, UpdateIndex
from runtime.index.rebuilding import Rebuilder, Shard, every_shard, shard_of
from runtime.index.source import Reading
from runtime.project.messages import Describe
from runtime.project.repository import Author, ProjectRepository
from runtime.store.seal import Seal
from tests.unit.index.test_adopting import Named
from tests.unit.index.test_shard import CountingEmbedder

ANN = UserId("ann")
PROJECT = ProjectId("6f1c0000-0000-0000-0000-000000000000")
CODE = Shard(kind="project", name=PROJECT, owner=ANN)
PAPERS = Shard(kind="documents", name=ANN, owner=ANN)
AUTHOR = Author(name="Ann", email="ann@example.com")
SEAL = Seal(bytes(32))


class World:
    """A project with its repository, and its index as an entity: what the ledger and the entities are to a worker."""

    def __init__(self, folder: Path) -> None:
        self.named = Named()
        self.repository = ProjectRepository.init(folder / "repository", AUTHOR)
        self.commit = ""
        self.blobs: dict[BlobId, bytes] = {}
        self.index = IndexEntity(
            index_entity(PROJECT), cast("Any", self), self.named.lexical, folder, SEAL, named=self.named
        )
        self.asked: list[Any] = []
        self.before: dict[type, Callable[[], Awaitable[None]]] = {}
        """Happens once, before the next message of the kind is received."""
        self.is_purged = False

    def commits(self, **files: str) -> str:
        named = {f"{name}.py": text for name, text in files.items()}
        self.commit = self.repository.write_and_commit(named, "more", AUTHOR)
        self.blobs[BlobId(self.commit)] = self.repository.bundle()
        return self.commit

    async def get_blob(self, blob: BlobId) -> bytes:
        if blob not in self.blobs:
            raise NotFoundError("It is gone.")
        return self.blobs[blob]

    async def ask(self, entity: EntityId, message: Any, *, timeout_s: float = 30.0) -> Any:
        self.asked.append(message)
        if (happens := self.before.pop(type(message), None)) is not None:
            await happens()
        if isinstance(message, Describe):
            assert entity == project_entity(PROJECT)
            return SimpleNamespace(commit=self.commit, bundle=None if self.is_purged else BlobId(self.commit))
        return await self.index.receive(message)

    async def update(self) -> None:
        await self.index.receive(UpdateIndex(owner=ANN, commit=self.commit, bundle=BlobId(self.commit)))

    def handed_over(self) -> int:
        return sum(isinstance(message, AdoptIndex) for message in self.asked)

    async def status(self) -> Any:
        return await self.index.receive(DescribeIndex(owner=ANN))


@pytest.fixture
async def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.commits(cart="def total():\n    return 1\n")
    await world.update()
    return world


def rebuilder(world: Any, embedder: CountingEmbedder, generation: str = "job") -> Rebuilder:
    return Rebuilder(world, world, embedder, generation)


async def test_project__is_made_anew_with_the_jobs_embedder_and_bears_its_name(world: World) -> None:
    embedder = CountingEmbedder()
    rebuilt = await rebuilder(world, embedder).rebuild(CODE)
    status = await world.status()
    assert (rebuilt.outcome, rebuilt.chunks) == ("done", status.chunks)
    assert (status.commit, status.embedder, status.generation) == (world.commit, "counting", "job")
    assert len(embedder.asked) == status.chunks


async def test_project__that_has_the_jobs_name_is_skipped_and_nothing_is_embedded(world: World) -> None:
    await rebuilder(world, CountingEmbedder()).rebuild(CODE)
    world.commits(tax="def tax():\n    return 2\n")
    await world.update()

    embedder = CountingEmbedder()
    again = await rebuilder(world, embedder).rebuild(CODE)
    other = await rebuilder(world, embedder, "another").rebuild(CODE)

    assert (again.outcome, other.outcome) == ("skipped", "done")
    assert len(embedder.asked) == other.chunks


async def test_project__whose_index_moves_on_is_brought_after_it_embedding_only_the_change(world: World) -> None:
    async def moves_on() -> None:
        world.commits(tax="def tax():\n    return 2\n")
        await world.update()

    world.before[AdoptIndex] = moves_on
    embedder = CountingEmbedder()
    rebuilt = await rebuilder(world, embedder).rebuild(CODE)

    status = await world.status()
    assert (rebuilt.outcome, status.commit, status.generation) == ("done", world.commit, "job")
    assert world.handed_over() == 2
    assert len(embedder.asked) == status.chunks
    found = await world.index.receive(SearchIndex(owner=ANN, query="tax", limit=1))
    assert (cast("Any", found).commit, cast("Any", found).hits[0].path) == (world.commit, "tax.py")


class Poor(CountingEmbedder):
    def embed(self, texts: Sequence[str]) -> Any:
        raise NotEmbeddedError("Your credits are spent.")


async def test_project__that_cannot_be_embedded_whole_keeps_its_index(world: World) -> None:
    before = await world.status()
    with pytest.raises(UnavailableError, match="credits are spent") as failed:
        await rebuilder(world, Poor()).rebuild(CODE)
    assert "Resume" in failed.value.next_step
    assert (world.handed_over(), await world.status()) == (0, before)


async def test_project__whose_index_is_lost_or_behind_is_brought_to_main(world: World) -> None:
    world.commits(tax="def tax():\n    return 2\n")
    assert (await rebuilder(world, CountingEmbedder()).rebuild(CODE)).outcome == "done"
    assert (await world.status()).commit == world.commit


async def test_project__that_is_purged_while_it_is_made_is_not_handed_over(world: World) -> None:
    describes = 0

    async def purged() -> None:
        world.is_purged = True

    async def first() -> None:
        nonlocal describes
        describes += 1
        world.before[Describe] = purged

    world.before[Describe] = first
    rebuilt = await rebuilder(world, CountingEmbedder()).rebuild(CODE)
    assert (rebuilt.outcome, describes, world.handed_over()) == ("skipped", 1, 0)


async def test_project__whose_files_go_before_it_says_so_is_looked_at_again(world: World) -> None:
    async def purged() -> None:
        world.is_purged = True

    async def first() -> None:
        world.blobs.clear()
        world.before[Describe] = purged

    world.before[Describe] = first
    assert (await rebuilder(world, CountingEmbedder()).rebuild(CODE)).outcome == "skipped"


async def test_project__that_never_rests_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuilding, "LOOKS_MAX", 4)

    async def moves_on() -> None:
        world.commits(tax=f"def tax():\n    return {world.handed_over()}\n")
        await world.update()
        world.before[AdoptIndex] = moves_on

    world.before[AdoptIndex] = moves_on
    with pytest.raises(UnavailableError, match="faster"):
        await rebuilder(world, CountingEmbedder()).rebuild(CODE)
    assert (await world.status()).embedder == "lexical"


def item(number: int) -> Item:
    return Item(
        id=DocumentId(f"d{number}"),
        filename="notes.txt",
        ending=".txt",
        size_bytes=9,
        content_sha256="0" * 16,
        blob=BlobId("0" * 64),
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        status="indexed",
    )


class Papers:
    """A library and its index; the files themselves are not there."""

    def __init__(self, folder: Path) -> None:
        self.named = Named()
        self.items: Sequence[Item] = [item(1), item(2)]
        self.index = DocumentsEntity(
            EntityId(f"documents:{ANN}"),
            cast("Any", None),
            self.named.lexical,
            folder,
            SEAL,
            cast("Any", None),
            named=self.named,
        )
        self.before: dict[type, Callable[[], None]] = {}

    async def fill(self) -> None:
        texts = {item.id: f"The lighthouse {item.id} is green." for item in self.items}
        self.index._shard.update(Passages(texts))

    async def ask(self, entity: EntityId, message: Any, *, timeout_s: float = 30.0) -> Any:
        if (happens := self.before.pop(type(message), None)) is not None:
            happens()
        match message:
            case ListDocuments():
                return self.items
            case SearchLibrary():
                return await self.index.receive(UpdateDocuments(owner=ANN, documents=cast("Any", tuple(self.items))))
            case _:
                return await self.index.receive(message)


@dataclass
class Passages:
    texts: Mapping[DocumentId, str]

    @property
    def commit(self) -> str:
        return version_of(self.texts)

    @property
    def ids(self) -> Mapping[str, str]:
        return {str(document): str(document) for document in self.texts}

    def read(self, paths: Any) -> Mapping[str, Reading]:
        return {path: Reading(chunks=[passage(path, self.texts[path])]) for path in paths}


def passage(path: str, text: str) -> Chunk:
    return Chunk(path=path, start_line=1, end_line=1, symbol="", docstring="", text=text, kind="passage", page=3)


@pytest.fixture
async def papers(tmp_path: Path) -> Papers:
    papers = Papers(tmp_path)
    await papers.fill()
    return papers


async def test_documents__are_embedded_anew_without_their_files_being_read(papers: Papers) -> None:
    embedder = CountingEmbedder()
    rebuilt = await rebuilder(papers, embedder).rebuild(PAPERS)

    status = await papers.index.receive(DescribeIndex(owner=ANN))
    assert (rebuilt.outcome, rebuilt.chunks, len(embedder.asked)) == ("done", 2, 2)
    assert status == IndexStatus(
        commit=version_of(["d1", "d2"]), chunks=2, embedder="counting", embedded=0, generation="job"
    )
    found = await papers.index.receive(SearchDocuments(owner=ANN, query="lighthouse", limit=5, score_min=-1))
    assert {hit.page for hit in cast("Any", found).hits} == {3}


async def test_documents__one_that_is_deleted_meanwhile_does_not_come_back(papers: Papers) -> None:
    def deleted() -> None:
        papers.items = papers.items[:1]
        papers.index._shard.update(Passages({DocumentId("d1"): "The lighthouse d1 is green."}))

    papers.before[AdoptIndex] = deleted
    assert (await rebuilder(papers, CountingEmbedder()).rebuild(PAPERS)).outcome == "done"
    assert papers.index._shard.chunk_counts == {"d1": 1}


async def test_documents__whose_index_is_behind_are_brought_to_what_the_library_has_first(papers: Papers) -> None:
    papers.items = papers.items[:1]
    assert (await rebuilder(papers, CountingEmbedder()).rebuild(PAPERS)).outcome == "done"
    assert papers.index._shard.chunk_counts == {"d1": 1}


async def test_documents__of_somebody_who_is_erased_meanwhile_are_not_handed_over(papers: Papers) -> None:
    def erased() -> None:
        papers.items = []

    papers.before[FetchIndex] = erased
    assert (await rebuilder(papers, CountingEmbedder()).rebuild(PAPERS)).outcome == "skipped"
    assert (await papers.index.receive(DescribeIndex(owner=ANN))).embedder == "lexical"


class Heads:
    async def heads(self, kind: str, owner: UserId | None) -> Sequence[Any]:
        made: Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]] = {
            "project": [("project:p1", {"status": "failed"}), ("project:p2", {"status": "purged"})],
            "library": [("library:ann", {"documents": 2}), ("library:bob", {"documents": 0})],
            "repositories": [("repositories:ann", {"searched": ["r1"]}), ("repositories:bob", {"searched": []})],
        }
        return [SimpleNamespace(entity=EntityId(entity), owner=ANN, data=data) for entity, data in made[kind]]

    async def head(self, entity: EntityId) -> Any:
        return next((head for head in await self.heads("project", None) if head.entity == entity), None)


async def test_shards__are_projects_that_were_not_purged_and_libraries_with_documents() -> None:
    heads = cast("Any", Heads())
    assert [(shard.index, shard.file) for shard in await every_shard(heads)] == [
        ("index:p1", "p1.index"),
        ("documents:ann", "library-ann.index"),
        ("repository:ann:r1", "repository-ann-r1.index"),
    ]
    assert await shard_of(heads, ProjectId("p1")) == Shard(kind="project", name="p1", owner=ANN)
    with pytest.raises(NotFoundError):
        await shard_of(heads, ProjectId("p3"))

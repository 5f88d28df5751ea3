"""Makes whole indexes from nothing, and puts each in the place of the one that is searched."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, assert_never

from runtime.documents.messages import Item, ListDocuments, SearchLibrary, version_of
from runtime.entity.journal import Journal
from runtime.entity.port import Entities
from runtime.errors import ConflictError, NotFoundError, UnavailableError
from runtime.ids import (
    EntityId,
    ProjectId,
    RepositoryId,
    UserId,
    documents_entity,
    index_entity,
    library_entity,
    name_of,
    project_entity,
    repositories_entity,
    repository_entity,
)
from runtime.index.embedder import Embedder, for_passages
from runtime.index.entity import update_from_bundle
from runtime.index.hit import IndexStatus
from runtime.index.messages import AdoptIndex, DescribeIndex, FetchIndex
from runtime.index.saved import SavedReadings, UnusableIndexError
from runtime.index.shard import IndexShard
from runtime.ledger.port import Ledger
from runtime.project.messages import Describe, ProjectView, Status
from runtime.repositories.entity import file_stem
from runtime.repositories.messages import ListRepositories, Repository, SearchRepository

LOOKS_MAX = 100
"""How often a shard may turn out to be behind again before it is given up."""
LOOK_EVERY_S = 0.5
MOVE_S_MAX = 300.0
"""For a message that holds a whole index."""

log = logging.getLogger(__name__)

Outcome = Literal["done", "skipped", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The unit of work."""

    kind: Literal["project", "documents", "repository"]
    name: str
    """The project's id, the id of whoever has the documents, or that and the repository's, as `ann:6f1c...`."""
    owner: UserId

    @property
    def index(self) -> EntityId:
        match self.kind:
            case "project":
                return index_entity(ProjectId(self.name))
            case "documents":
                return documents_entity(UserId(self.name))
            case "repository":
                return repository_entity(self.owner, self.repository)
            case _:
                assert_never(self.kind)

    @property
    def repository(self) -> RepositoryId:
        return RepositoryId(self.name.rpartition(":")[2])

    @property
    def file(self) -> str:
        """The name of the file that its entity keeps it in."""
        match self.kind:
            case "project":
                return f"{self.name}.index"
            case "documents":
                return f"library-{self.name}.index"
            case "repository":
                return f"{file_stem(self.name)}.index"
            case _:
                assert_never(self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    outcome: Outcome
    chunks: int = 0
    why: str = ""
    """Of what was skipped or failed."""


async def every_shard(journal: Journal) -> Sequence[Shard]:
    """Of every project that was not purged, every library with documents, and every repository that is searched."""
    projects = [
        Shard(kind="project", name=name_of(head.entity), owner=head.owner)
        for head in await journal.heads("project", None)
        if head.data.get("status") != Status.PURGED
    ]
    libraries = [
        Shard(kind="documents", name=name_of(head.entity), owner=head.owner)
        for head in await journal.heads("library", None)
        if head.data.get("documents")
    ]
    repositories = [
        Shard(kind="repository", name=f"{head.owner}:{repository}", owner=head.owner)
        for head in await journal.heads("repositories", None)
        for repository in head.data.get("searched", ())
    ]
    return [*projects, *libraries, *repositories]


async def shard_of(journal: Journal, project: ProjectId) -> Shard:
    """Raises NotFoundError."""
    head = await journal.head(project_entity(project))
    if head is None:
        raise NotFoundError(f"There is no project {project}.", "`masterbuilder projects` lists yours.")
    return Shard(kind="project", name=project, owner=head.owner)


class Rebuilder:
    """Works for one job, whose `generation` every index that it makes bears: what bears it already is left alone.

    The index in place is searched, and updated, all the while. Ours is brought after what it is made of until both
    agree at one look, and only then handed over; so what was purged or erased meanwhile does not come back.
    """

    def __init__(self, ledger: Ledger, entities: Entities, embedder: Embedder, generation: str) -> None:
        self._ledger = ledger
        self._entities = entities
        self._embedder = embedder
        self._generation = generation

    async def rebuild(self, shard: Shard) -> Rebuilt:
        """Raises what source, embedder and entities raise; the index in place is then what it was. May be repeated."""
        content = self._content(shard)
        embedder = for_passages(self._embedder) if shard.kind == "documents" else self._embedder
        made = IndexShard(embedder, generation=self._generation)
        saved = b""
        for _ in range(LOOKS_MAX):
            present: IndexStatus = await self._entities.ask(shard.index, DescribeIndex(owner=shard.owner))
            if present.generation == self._generation:
                return Rebuilt(outcome="skipped", chunks=present.chunks, why="this job has made it already")
            newest = await content.newest()
            if newest is None:
                return Rebuilt(outcome="skipped", why="there is nothing to search")
            before = made.status.commit
            if before == newest:
                adopt = AdoptIndex(owner=shard.owner, saved=saved, instead_of=present.commit)
                try:
                    taken: IndexStatus = await self._entities.ask(shard.index, adopt, timeout_s=MOVE_S_MAX)
                except ConflictError as error:
                    log.info("%s moved on: %s", shard.index, error)
                    continue
                return Rebuilt(outcome="done", chunks=taken.chunks)
            await content.bring(made)
            if made.status.waits:
                raise UnavailableError(made.status.waits, "Resume the job when that is mended: nothing is paid twice.")
            if made.status.commit == before:
                await asyncio.sleep(LOOK_EVERY_S)
            saved = await asyncio.to_thread(made.dumps)
        raise UnavailableError(f"{shard.index} changed faster than it could be made.", "Resume the job later.")

    def _content(self, shard: Shard) -> "_Content":
        match shard.kind:
            case "project":
                return _Code(self._ledger, self._entities, ProjectId(shard.name))
            case "documents":
                return _Passages(self._entities, UserId(shard.name))
            case "repository":
                return _Repository(self._entities, shard.owner, shard.repository)
            case _:
                assert_never(shard.kind)


class _Content(Protocol):
    """What an index is made of, as it changes."""

    async def newest(self) -> str | None:
        """What an index of it should stand at now; None when there is nothing, or no more."""

    async def bring(self, made: IndexShard) -> None:
        """Makes `made` newer, to what was newest when it was last asked; leaves it where that is not possible yet."""


class _Code:
    """Chunks and vectors are made anew, from the git bundle."""

    def __init__(self, ledger: Ledger, entities: Entities, project: ProjectId) -> None:
        self._ledger = ledger
        self._entities = entities
        self._project = project
        self._view: ProjectView | None = None

    async def newest(self) -> str | None:
        try:
            self._view = await self._entities.ask(project_entity(self._project), Describe())
        except NotFoundError:
            return None
        return self._view.commit if self._view.bundle is not None else None

    async def bring(self, made: IndexShard) -> None:
        assert self._view is not None
        assert self._view.bundle is not None
        try:
            bundle = await self._ledger.get_blob(self._view.bundle)
        except NotFoundError:
            return  # It is being purged.
        await asyncio.to_thread(update_from_bundle, made, self._view.commit, bundle)


class _Passages:
    """Vectors are made anew; the passages are those of the index in place, for the files were read in the sandbox."""

    def __init__(self, entities: Entities, user: UserId) -> None:
        self._entities = entities
        self._user = user
        self._newest = ""

    async def newest(self) -> str | None:
        items: Sequence[Item] = await self._entities.ask(library_entity(self._user), ListDocuments(owner=self._user))
        indexed = [item.id for item in items if item.status == "indexed"]
        self._newest = version_of(indexed)
        return self._newest if indexed else None

    async def bring(self, made: IndexShard) -> None:
        index = documents_entity(self._user)
        present: IndexStatus = await self._entities.ask(index, DescribeIndex(owner=self._user))
        if present.commit != self._newest:
            # A library that is asked something brings its index to what it has, first.
            ask = SearchLibrary(owner=self._user, query="", limit=1)
            await self._entities.ask(library_entity(self._user), ask, timeout_s=MOVE_S_MAX)
        await _bring_from(self._entities, index, self._user, made)


class _Repository:
    """Vectors are made anew; the chunks are those of the index in place."""

    def __init__(self, entities: Entities, user: UserId, repository: RepositoryId) -> None:
        self._entities = entities
        self._user = user
        self._id = repository
        self._item: Repository | None = None

    async def newest(self) -> str | None:
        list_them = ListRepositories(owner=self._user)
        items: Sequence[Repository] = await self._entities.ask(repositories_entity(self._user), list_them)
        self._item = next((item for item in items if item.id == self._id), None)
        return (self._item.indexed_commit or None) if self._item else None

    async def bring(self, made: IndexShard) -> None:
        assert self._item is not None
        index = repository_entity(self._user, self._id)
        present: IndexStatus = await self._entities.ask(index, DescribeIndex(owner=self._user))
        if present.commit != self._item.indexed_commit:
            # Whoever is asked for one that was lost makes it again, first.
            ask = SearchRepository(owner=self._user, name=self._item.name, query="", limit=1)
            await self._entities.ask(repositories_entity(self._user), ask, timeout_s=MOVE_S_MAX)
        await _bring_from(self._entities, index, self._user, made)


async def _bring_from(entities: Entities, index: EntityId, owner: UserId, made: IndexShard) -> None:
    """Raises UnavailableError where what the index in place holds came damaged."""
    saved: bytes = await entities.ask(index, FetchIndex(owner=owner), timeout_s=MOVE_S_MAX)
    try:
        readings = SavedReadings(saved)
    except UnusableIndexError as error:
        raise UnavailableError(f"What {index} holds came damaged: {error}.") from error
    if readings.commit:
        await asyncio.to_thread(made.update, readings)

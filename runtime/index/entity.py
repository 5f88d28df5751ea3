"""A project's index as an entity: it has no journal, because git is its journal."""

import asyncio
import logging
import tempfile
import time
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from runtime.errors import MasterbuilderError
from runtime.ids import EntityId, ProjectId, name_of
from runtime.index.embedder import Embedder, Named, no_other
from runtime.index.messages import Change, Found, RelateSymbol, SearchIndex, UpdateIndex
from runtime.index.shard import IndexShard
from runtime.index.shard_entity import ShardEntity
from runtime.index.source import Reading, read_file
from runtime.ledger.port import Ledger
from runtime.project.repository import ProjectRepository
from runtime.reports.port import IndexFigures, Reporting
from runtime.store.seal import Seal

log = logging.getLogger(__name__)

PLAN = "TODO.md"
"""Every merge ticks it, and it answers no question about code: it is not searched."""


class IndexEntity(ShardEntity):
    """Holds one shard. Git is its journal: what is not saved yet when its process dies is read from there again."""

    kind = "index"
    read_only = (SearchIndex, RelateSymbol, *ShardEntity.read_only)

    def __init__(
        self,
        entity: EntityId,
        ledger: Ledger,
        embedder: Embedder,
        folder: Path,
        seal: Seal,
        reports: Reporting | None = None,
        *,
        named: Named = no_other,
    ) -> None:
        super().__init__(folder / f"{name_of(entity)}.index", seal, embedder, named)
        self._project = ProjectId(name_of(entity))
        self._reports = reports
        self._query_ms: list[int] = []
        """Since the last update."""
        self._ledger = ledger

    async def receive(self, message: Any) -> Any:
        match message:
            case SearchIndex():
                return await self._search(message)
            case RelateSymbol(symbol=symbol):
                return await asyncio.to_thread(self._shard.related, symbol)
            case UpdateIndex(owner=owner, commit=commit, project=project):
                if self._shard.status.commit != commit:
                    began_s = time.monotonic()
                    await self._update(message)
                    self._kept.save_soon()
                    await self._report(_ms_since(began_s))
                else:
                    self._complete_soon(owner, project)
                return self._shard.status
            case _:
                return await super().receive(message)

    async def _update(self, it: UpdateIndex) -> None:
        ids = self._shard.content_ids
        if it.change is not None and it.change.since == self._shard.status.commit and all(ids.values()):
            source = ChangedSource(it.commit, ids, it.change)
            await self._embedding(it.owner, it.project, partial(self._shard.update, source))
            return
        bundle = await self._ledger.get_blob(it.bundle)
        await self._embedding(it.owner, it.project, partial(update_from_bundle, self._shard, it.commit, bundle))

    async def _search(self, it: SearchIndex) -> Found:
        began_s = time.monotonic()
        found = await self._found(it)
        self._query_ms.append(_ms_since(began_s))
        return found

    async def _report(self, update_ms: int) -> None:
        """A figure that is lost spoils no index."""
        asked, self._query_ms = self._query_ms, []
        if self._reports is None:
            return
        figures = IndexFigures(
            project=self._project,
            commit=self._shard.status.commit,
            chunks=self._shard.status.chunks,
            update_ms=update_ms,
            queries=len(asked),
            query_ms=sum(asked),
            query_ms_max=max(asked, default=0),
        )
        try:
            await self._reports.indexed(figures)
        except MasterbuilderError as error:
            log.warning("figures of the index of %s are lost: %s", self._project, error)


def update_from_bundle(shard: IndexShard, commit: str, bundle: bytes) -> None:
    """Brings it to `commit`, the head of the git bundle. Blocks; raises what reading and embedding raise."""
    with tempfile.TemporaryDirectory(prefix="mb-index-") as folder:
        repository = ProjectRepository.from_bundle(Path(folder) / "repository", bundle, writes_files=False)
        shard.update(RepositorySource(commit, repository))


def _ms_since(began_s: float) -> int:
    return round((time.monotonic() - began_s) * 1000)


class ChangedSource:
    """What an index has, and a change since, but for the plan."""

    def __init__(self, commit: str, ids: Mapping[str, str], change: Change) -> None:
        self.commit = commit
        self._files = {path: file for path, file in change.files.items() if path != PLAN}
        stays = {path: blob for path, blob in ids.items() if path not in change.removed}
        self.ids = {**stays, **{path: blob for path, (blob, _) in self._files.items()}}

    def read(self, paths: Collection[str]) -> Mapping[str, Reading]:
        return {path: read_file(path, self._files[path][1]) for path in paths}


class RepositorySource:
    """The head of a project's main branch, but for its plan."""

    def __init__(self, commit: str, repository: ProjectRepository) -> None:
        self.commit = commit
        self.ids = {path: blob for path, blob in repository.blobs().items() if path != PLAN}
        self._repository = repository

    def read(self, paths: Collection[str]) -> Mapping[str, Reading]:
        contents = self._repository.contents(paths)
        return {path: read_file(path, content) for path, content in contents.items()}

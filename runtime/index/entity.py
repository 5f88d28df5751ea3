"""A project's index as an entity: it has no journal, because git is its journal."""

import asyncio
import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.entity.entity import Entity
from runtime.entity.journal import EventRecord
from runtime.errors import BadInputError, MasterbuilderError
from runtime.ids import BlobId, EntityId, ProjectId, UserId, name_of
from runtime.index.embedder import Embedder
from runtime.index.hit import Hit, IndexStatus
from runtime.index.shard import IndexShard
from runtime.ledger.port import Ledger
from runtime.project.repository import ProjectRepository
from runtime.reports.port import IndexFigures, Reporting
from runtime.store.seal import Seal

log = logging.getLogger(__name__)

PLAN = "TODO.md"
"""Every merge ticks it, and it answers no question about code: it is not searched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateIndex:
    """Brings the index to a commit of the bundle. Repeating it costs nothing."""

    owner: UserId
    commit: str
    bundle: BlobId


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchIndex:
    """Answers a list of `Hit`, best first. Served beside a running update, from the state before it."""

    owner: UserId
    query: str
    limit: int


class IndexEntity(Entity[None]):
    """Holds one shard; saves it after each update, and builds it again from git when the file is gone."""

    kind = "index"
    read_only = (SearchIndex,)

    def __init__(
        self,
        entity: EntityId,
        ledger: Ledger,
        embedder: Embedder,
        folder: Path,
        seal: Seal,
        reports: Reporting | None = None,
    ) -> None:
        self._project = ProjectId(name_of(entity))
        self._reports = reports
        self._query_ms: list[int] = []
        """Since the last update."""
        self._ledger = ledger
        self._file = folder / f"{name_of(entity)}.index"
        self._seal = seal
        self._shard = IndexShard(embedder)

    def initial(self) -> None:
        return None

    def fold(self, state: None, event: EventRecord) -> None:
        return None

    def head(self, state: None) -> Mapping[str, Any]:
        return {}

    def is_open(self, state: None) -> bool:
        return False

    async def wake(self) -> None:
        await asyncio.to_thread(self._shard.load, self._file, self._seal)

    async def receive(self, message: Any) -> IndexStatus | list[Hit]:
        match message:
            case SearchIndex(query=query, limit=limit):
                began_s = time.monotonic()
                hits = await asyncio.to_thread(self._shard.search, query, limit)
                self._query_ms.append(_ms_since(began_s))
                return hits
            case UpdateIndex(commit=commit, bundle=bundle):
                if self._shard.status.commit != commit:
                    began_s = time.monotonic()
                    files = await asyncio.to_thread(_files_of, await self._ledger.get_blob(bundle))
                    await asyncio.to_thread(self._shard.update, commit, files)
                    await asyncio.to_thread(self._shard.save, self._file, self._seal)
                    await self._report(_ms_since(began_s))
                return self._shard.status
            case _:
                raise BadInputError(f"An index does not understand {type(message).__name__}.")

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


def _ms_since(began_s: float) -> int:
    return round((time.monotonic() - began_s) * 1000)


def _files_of(bundle: bytes) -> dict[str, bytes]:
    """Blocking. The tracked files of the bundle's main branch, but for its plan."""
    with tempfile.TemporaryDirectory(prefix="mb-index-") as folder:
        repository = ProjectRepository.from_bundle(Path(folder) / "repository", bundle, writes_files=False)
        files = repository.contents()
    files.pop(PLAN, None)
    return files

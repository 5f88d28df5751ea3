"""A project's index as an entity: it has no journal, because git is its journal."""

import asyncio
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.entity.entity import Entity
from runtime.entity.journal import EventRecord
from runtime.errors import BadInputError
from runtime.ids import BlobId, EntityId, UserId, name_of
from runtime.index.embedder import Embedder
from runtime.index.hit import Hit, IndexStatus
from runtime.index.shard import IndexShard
from runtime.ledger.port import Ledger
from runtime.project.repository import ProjectRepository
from runtime.store.seal import Seal


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

    def __init__(self, entity: EntityId, ledger: Ledger, embedder: Embedder, folder: Path, seal: Seal) -> None:
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
                return await asyncio.to_thread(self._shard.search, query, limit)
            case UpdateIndex(commit=commit, bundle=bundle):
                if self._shard.status.commit != commit:
                    files = await asyncio.to_thread(_files_of, await self._ledger.get_blob(bundle))
                    await asyncio.to_thread(self._shard.update, commit, files)
                    await asyncio.to_thread(self._shard.save, self._file, self._seal)
                return self._shard.status
            case _:
                raise BadInputError(f"An index does not understand {type(message).__name__}.")


def _files_of(bundle: bytes) -> dict[str, bytes]:
    """Blocking. The tracked files of the bundle's main branch."""
    with tempfile.TemporaryDirectory(prefix="mb-index-") as folder:
        return ProjectRepository.from_bundle(Path(folder) / "repository", bundle).contents()

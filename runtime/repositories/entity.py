"""One repository of one person as an entity: its copy, and the index of it. It has no journal."""

import asyncio
import time
from functools import partial
from pathlib import Path
from typing import Any

from runtime.ids import EntityId, UserId, name_of
from runtime.index.embedder import Embedder, Named, no_other
from runtime.index.messages import SearchIndex
from runtime.index.shard_entity import ShardEntity
from runtime.index.vector_cache import AskVectors, ForgetVectors
from runtime.repositories.content import RepositoryContent
from runtime.repositories.copy import CopyFacts, RepositoryCopy, scratch_folder
from runtime.repositories.git import BareRepository, Remote
from runtime.repositories.messages import (
    LEFT_OUT_SHOWN_MAX,
    CopyIndexed,
    FetchCopy,
    Fetched,
    ForgetCopy,
    IndexCopy,
)
from runtime.store.seal import Seal

CLONE_S_MAX = 120.0
"""Source: spec/assistant.md §12."""
CLONES_MAX = 2
"""That one process downloads at the same time; further ones wait, and their time with them."""


class RepositoryEntity(ShardEntity):
    """Holds one shard and one copy, each in a file. Lost, they are made again, and downloaded again.

    Only the owner's `Repositories` asks it.
    """

    kind = "repository"
    read_only = (SearchIndex, *ShardEntity.read_only)

    def __init__(
        self,
        entity: EntityId,
        embedder: Embedder,
        folder: Path,
        seal: Seal,
        scratch: Path,
        clones: asyncio.Semaphore,
        *,
        named: Named = no_other,
        vectors: AskVectors | None = None,
    ) -> None:
        """`vectors`: what keeps those of its texts, if they are kept."""
        stem = file_stem(name_of(entity))
        super().__init__(folder / f"{stem}.index", seal, embedder, named)
        self._copy = RepositoryCopy(folder / f"{stem}.copy", seal, scratch)
        self._scratch = scratch
        self._clones = clones
        self._owner = UserId(name_of(entity).rpartition(":")[0])
        self._vectors = vectors

    async def receive(self, message: Any) -> Any:
        match message:
            case SearchIndex():
                return await self._found(message)
            case FetchCopy():
                return await self._fetch(message)
            case IndexCopy(commit=commit):
                indexed = await self._embedding(self._owner, None, partial(self._index, commit))
                self._kept.save_soon()
                return indexed
            case ForgetCopy():
                if self._vectors is not None:
                    await self._vectors(ForgetVectors(owner=self._owner, shard=self._name))
                await self._kept.forget()
                await asyncio.to_thread(self._copy.remove)
                return True
            case _:
                return await super().receive(message)

    async def _fetch(self, it: FetchCopy) -> Fetched | None:
        until_s = time.monotonic() + CLONE_S_MAX
        async with self._clones:
            remote = Remote(it.clone_url, until_s)
            with scratch_folder(self._scratch) as folder:
                tip = await remote.tip(it.branch, folder)
                if tip is None:
                    return None
                here = await asyncio.to_thread(self._copy.facts)
                if here is None or (here.clone_url, here.branch, here.commit) != (it.clone_url, it.branch, tip):
                    here = await self._download(remote, it, folder / "repository")
        return Fetched(commit=here.commit, size_bytes=here.size_bytes)

    async def _download(self, remote: Remote, it: FetchCopy, folder: Path) -> CopyFacts:
        """From nothing: whatever is in the copy of before, it cannot matter to this one."""
        pack = await remote.download(it.branch, folder, it.bytes_max)
        commit = await asyncio.to_thread(BareRepository(folder).head)
        facts = CopyFacts(clone_url=it.clone_url, branch=it.branch, commit=commit, size_bytes=pack.stat().st_size)
        await asyncio.to_thread(self._copy.keep, facts, pack)
        return facts

    def _index(self, commit: str) -> CopyIndexed:
        with self._copy.opened(commit) as repository:
            content = RepositoryContent.of(commit, repository)
            self._shard.update(content)
        skipped, counts = self._shard.skipped, self._shard.chunk_counts
        left_out = {**skipped, **content.over}
        return CopyIndexed(
            file_count=sum(count > 0 for count in counts.values()),
            chunk_count=sum(counts.values()),
            left_out_count=len(left_out),
            left_out=dict(list(left_out.items())[:LEFT_OUT_SHOWN_MAX]),
        )


def file_stem(name: str) -> str:
    """Of the files of `repository:<user>:<id>`; `runtime.store.erasing` finds a person's by it."""
    user, _, repository = name.rpartition(":")
    return f"repository-{user}-{repository}"

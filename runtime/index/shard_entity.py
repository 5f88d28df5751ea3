"""An entity that holds a shard: of a project's code, or of a person's documents."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from runtime.entity.unjournaled import Unjournaled
from runtime.errors import BadInputError
from runtime.ids import ProjectId, UserId
from runtime.index.behalf import Behalf, on_behalf
from runtime.index.embedder import Embedder, Named, is_paid
from runtime.index.kept import KeptShard
from runtime.index.messages import AdoptIndex, DescribeIndex, FetchIndex, Found, SearchIndex
from runtime.store.seal import Seal

WAITING_THREADS = 32
"""For indexes whose embedder is a provider's: they wait there, in threads that nobody else needs."""
COMPLETE_EVERY_S = 60.0
"""How often at most an index that waits for its vectors tries again, while it is asked something."""

T = TypeVar("T")

_waiting = ThreadPoolExecutor(WAITING_THREADS, thread_name_prefix="provider-embedding")


class ShardEntity(Unjournaled):
    """What it embeds is paid, and what it waits for completed, on behalf of whoever owns it."""

    read_only: ClassVar[tuple[type, ...]] = (DescribeIndex, FetchIndex)

    def __init__(self, file: Path, seal: Seal, embedder: Embedder, named: Named) -> None:
        """`embedder` is for what is new; what was made with another goes on with that one, as it is `named`."""
        self._kept = KeptShard(file, seal, embedder, named)
        self._shard = self._kept.shard
        self._name = file.name
        self._completing: asyncio.Task[None] | None = None
        self._completed_s = 0.0

    async def wake(self) -> None:
        await self._kept.load()

    async def receive(self, message: Any) -> Any:
        match message:
            case DescribeIndex():
                return self._shard.status
            case FetchIndex():
                return await asyncio.to_thread(self._shard.dumps)
            case AdoptIndex(saved=saved, instead_of=commit):
                return await self._kept.adopt(saved, commit)
            case _:
                raise BadInputError(f"An index does not understand {type(message).__name__}.")

    async def _found(self, it: SearchIndex) -> Found:
        commit = self._shard.status.commit
        self._complete_soon(it.owner, it.project)
        asked = partial(self._shard.search, it.query, it.limit, it.wanted, it.score_min)
        hits = await self._embedding(it.owner, it.project, asked)
        return Found(commit=commit, hits=hits, waits=self._shard.status.waits)

    async def _embedding(self, owner: UserId, project: ProjectId | None, work: Callable[[], T]) -> T:
        """Work that may embed, in a thread, on behalf of the index's owner."""
        with on_behalf(Behalf(owner=owner, shard=self._name, project=project)):
            if not is_paid(self._shard.status.embedder):
                return await asyncio.to_thread(work)
            run = partial(copy_context().run, work)
        return await asyncio.get_running_loop().run_in_executor(_waiting, run)

    def _complete_soon(self, owner: UserId, project: ProjectId | None) -> None:
        """Has embedded what the index waits for, beside what comes next, if it waits."""
        is_running = self._completing is not None and not self._completing.done()
        if not self._shard.status.waits or is_running or time.monotonic() < self._completed_s + COMPLETE_EVERY_S:
            return
        self._completed_s = time.monotonic()
        self._completing = self.activation.spawn(self._complete(owner, project), "vectors")

    async def _complete(self, owner: UserId, project: ProjectId | None) -> None:
        status = await self._embedding(owner, project, self._shard.complete)
        if not status.waits:
            self._kept.save_soon()

    async def saved(self) -> None:
        """Waits until the last update is in the file, or cannot be."""
        await self._kept.saved()

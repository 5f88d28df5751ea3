"""A shard and its file."""

import asyncio
import logging
from pathlib import Path

from runtime.errors import MasterbuilderError
from runtime.index.embedder import Embedder
from runtime.index.shard import IndexShard
from runtime.store.seal import Seal

log = logging.getLogger(__name__)


class KeptShard:
    """Belongs to one entity. What it holds can be made again, so nobody waits for the disk."""

    def __init__(self, file: Path, seal: Seal, embedder: Embedder) -> None:
        self.shard = IndexShard(embedder)
        self._file = file
        self._seal = seal
        self._saving: asyncio.Task[None] | None = None
        self._saved = ""
        """The commit that the file stands at."""

    async def load(self) -> None:
        self._saved = (await asyncio.to_thread(self.shard.load, self._file, self._seal)).commit

    def save_soon(self) -> None:
        """Beside what comes next. Updates that come meanwhile are saved together, once."""
        if self._saving is None or self._saving.done():
            self._saving = asyncio.create_task(self._save())

    async def saved(self) -> None:
        """Waits until the last update is in the file, or cannot be."""
        if self._saving is not None:
            await self._saving

    async def _save(self) -> None:
        while self._saved != (commit := self.shard.status.commit):
            try:
                await asyncio.to_thread(self.shard.save, self._file, self._seal)
            except MasterbuilderError as error:
                log.warning("%s is kept in memory alone: %s", self._file.name, error)
            self._saved = commit

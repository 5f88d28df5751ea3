"""A shard and its file."""

import asyncio
import logging
from pathlib import Path

from runtime.errors import MasterbuilderError
from runtime.files import remove_whole
from runtime.index.embedder import Embedder, Named
from runtime.index.hit import IndexStatus
from runtime.index.shard import IndexShard
from runtime.store.seal import Seal

log = logging.getLogger(__name__)


class KeptShard:
    """Belongs to one entity. What it holds can be made again, so nobody waits for the disk."""

    def __init__(self, file: Path, seal: Seal, embedder: Embedder, named: Named) -> None:
        self.shard = IndexShard(embedder, named=named)
        self._file = file
        self._seal = seal
        self._saving: asyncio.Task[None] | None = None
        self._saved = self.shard.state
        """What the file holds. A commit would not tell: what a job made anew stands at the same one."""

    async def load(self) -> None:
        await asyncio.to_thread(self.shard.load, self._file, self._seal)
        self._saved = self.shard.state

    async def adopt(self, saved: bytes, instead_of: str) -> IndexStatus:
        """As `IndexShard.adopt`. It is in the file when this returns, or cannot be."""
        status = await asyncio.to_thread(self.shard.adopt, saved, instead_of)
        self.save_soon()
        await self.saved()
        return status

    async def forget(self) -> None:
        """Holds nothing afterwards, and has no file. Raises OSError."""
        self.shard.loads(b"")
        await self.saved()
        self._saved = self.shard.state
        await asyncio.to_thread(remove_whole, self._file)

    def save_soon(self) -> None:
        """Beside what comes next. Updates that come meanwhile are saved together, once."""
        if self._saving is None or self._saving.done():
            self._saving = asyncio.create_task(self._save())

    async def saved(self) -> None:
        """Waits until the last update is in the file, or cannot be."""
        if self._saving is not None:
            await self._saving

    async def _save(self) -> None:
        while self._saved is not (state := self.shard.state):
            try:
                await asyncio.to_thread(self.shard.save, self._file, self._seal)
            except MasterbuilderError as error:
                log.warning("%s is kept in memory alone: %s", self._file.name, error)
            self._saved = state

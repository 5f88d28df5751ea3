"""An entity that holds a shard: of a project's code, or of a person's documents."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from runtime.entity.entity import Entity
from runtime.entity.journal import EventRecord
from runtime.errors import BadInputError
from runtime.index.embedder import Embedder, Named
from runtime.index.kept import KeptShard
from runtime.index.messages import AdoptIndex, DescribeIndex, FetchIndex
from runtime.store.seal import Seal


class ShardEntity(Entity[None]):
    """It has no journal: what it holds is made from what others have, and made again where it is lost."""

    read_only: ClassVar[tuple[type, ...]] = (DescribeIndex, FetchIndex)

    def __init__(self, file: Path, seal: Seal, embedder: Embedder, named: Named) -> None:
        """`embedder` is for what is new; what was made with another goes on with that one, as it is `named`."""
        self._kept = KeptShard(file, seal, embedder, named)
        self._shard = self._kept.shard

    def initial(self) -> None:
        return None

    def fold(self, state: None, event: EventRecord) -> None:
        return None

    def head(self, state: None) -> Mapping[str, Any]:
        return {}

    def is_open(self, state: None) -> bool:
        return False

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

    async def saved(self) -> None:
        """Waits until the last update is in the file, or cannot be."""
        await self._kept.saved()

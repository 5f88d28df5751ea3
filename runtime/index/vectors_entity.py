"""One owner's kept vectors as an entity: the one writer of their file. No journal: what is lost is made again."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, TypeVar

from runtime.entity.unjournaled import Unjournaled
from runtime.errors import BadInputError
from runtime.ids import EntityId, UserId, name_of
from runtime.index.vector_cache import FindVectors, ForgetVectors, KeepVectors
from runtime.index.vector_file import VectorFile, vectors_file
from runtime.store.seal import Seal

T = TypeVar("T")


class VectorsEntity(Unjournaled):
    """Asked by the indexes of its owner, from threads that wait for it: so it needs threads of its own."""

    kind = "vectors"

    def __init__(self, entity: EntityId, folder: Path, seal: Seal, threads: Executor) -> None:
        owner = UserId(name_of(entity))
        self._owner = owner
        self._file = VectorFile(folder / vectors_file(owner), owner, seal)
        self._threads = threads

    async def receive(self, message: Any) -> Any:
        """Raises BadInputError for what is another owner's, and StoreUnavailableError."""
        if getattr(message, "owner", None) != self._owner:
            raise BadInputError("These vectors are somebody else's.")
        match message:
            case FindVectors(embedder=embedder, hashes=hashes, shard=shard):
                return await self._run(lambda: self._file.find(embedder, hashes, shard))
            case KeepVectors(embedder=embedder, vectors=vectors, shard=shard):
                return await self._run(lambda: self._file.keep(embedder, vectors, shard))
            case ForgetVectors(shard=shard):
                return await self._run(lambda: self._file.forget(shard))
            case _:
                raise BadInputError(f"Kept vectors do not understand {type(message).__name__}.")

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

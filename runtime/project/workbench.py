"""The project's working copy: a cache of the newest bundle, and the merge queue's one place at a time."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from runtime.entity.activation import Activation
from runtime.ids import BlobId
from runtime.ledger.port import Ledger
from runtime.project.repository import Author, ProjectRepository
from runtime.project.state import State

PRODUCT_AUTHOR = Author(name="Masterbuilder", email="builder@masterbuilder.invalid")
IMPLEMENTER_AUTHOR = Author(name="Masterbuilder implementer", email="implementer@masterbuilder.invalid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A commit that is safe: its bundle is in the blob store. It counts once an event names it."""

    commit: str
    bundle: BlobId

    def fields(self) -> dict[str, str]:
        return {"commit": self.commit, "bundle": self.bundle}


class Workbench:
    """Whoever has it alone may change the main branch; it always starts from the commit that the journal names."""

    def __init__(self, activation: Activation[State], ledger: Ledger, folder: Path) -> None:
        self._activation = activation
        self._ledger = ledger
        self._folder = folder
        self._alone = asyncio.Lock()
        self._repository: ProjectRepository | None = None

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[ProjectRepository]:
        """The repository at the journal's commit, for one user at a time. Its methods block: call them in threads."""
        async with self._alone:
            repository = self._repository or await self._restore()
            self._repository = repository
            if self._activation.state.commit:
                await asyncio.to_thread(repository.reset_hard, self._activation.state.commit)
            yield repository

    async def bundle(self) -> bytes:
        """The bundle of the journal's commit."""
        bundle = self._activation.state.bundle
        assert bundle is not None, "the project has no commit yet"
        return await self._ledger.get_blob(bundle)

    async def keep(self, commit: str, bundle: bytes) -> Committed:
        """Puts a commit's bundle on disk. Nothing counts before an event names it."""
        return Committed(commit=commit, bundle=await self._ledger.put_blob(bundle))

    async def commit_files(self, files: Mapping[str, str], message: str) -> Committed:
        """Writes files of the product's own and commits them; where they say the same already, nothing is committed."""
        async with self.alone() as repository:
            if self._activation.state.bundle is not None and await asyncio.to_thread(_holds, repository, files):
                return Committed(commit=self._activation.state.commit, bundle=self._activation.state.bundle)
            commit = await asyncio.to_thread(repository.write_and_commit, files, message, PRODUCT_AUTHOR)
            return await self.keep(commit, await asyncio.to_thread(repository.bundle))

    async def _restore(self) -> ProjectRepository:
        if self._folder.exists():
            await asyncio.to_thread(shutil.rmtree, self._folder)
        if self._activation.state.bundle is None:
            return await asyncio.to_thread(ProjectRepository.init, self._folder, PRODUCT_AUTHOR)
        bundle = await self.bundle()
        return await asyncio.to_thread(ProjectRepository.from_bundle, self._folder, bundle)


def _holds(repository: ProjectRepository, files: Mapping[str, str]) -> bool:
    """Blocking. Whether the tree has these files with these texts."""
    tracked = set(repository.files())
    return all(path in tracked and repository.read(path) == text.encode() for path, text in files.items())

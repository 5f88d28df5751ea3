"""The project's working copy: a cache of the newest bundle, and the merge queue's one place at a time."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from runtime.entity.activation import Activation
from runtime.ids import BlobId
from runtime.ledger.port import Ledger
from runtime.project.repository import Author, ProjectRepository
from runtime.project.state import State
from runtime.project.tree import Tree, TreeAt

T = TypeVar("T")

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
        self._stands_at = ""
        """The commit that the working copy holds and nothing else; empty when that is not known."""
        self._tree = TreeAt("", {})
        """What is known of the newest commit: every task that starts needs it."""

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[ProjectRepository]:
        """The repository at the journal's commit, for one user at a time. Its methods block: use `in_thread`."""
        async with self._alone:
            repository = self._repository or await self._restore()
            self._repository = repository
            commit, stood_at, self._stands_at = self._activation.state.commit, self._stands_at, ""
            if commit and commit != stood_at:
                await in_thread(repository.reset_hard, commit)
            yield repository

    async def tree(self) -> TreeAt:
        """The journal's commit and its files. Waits for whoever is alone, unless they are known already."""
        assert self._activation.state.commit, "the project has no commit yet"
        while self._tree.commit != self._activation.state.commit:
            async with self.alone() as repository:
                # While it is read, and before, the journal may go on.
                self._tree = await in_thread(lambda: TreeAt(repository.head, repository.contents()))
                self._stands_at = self._tree.commit
        return self._tree

    async def keep(self, commit: str, bundle: bytes, files: Tree | None = None) -> Committed:
        """Puts the newest commit's bundle on disk, by whoever is alone. Nothing counts before an event names it.

        `files` are the commit's, where they were read anyway.
        """
        committed = Committed(commit=commit, bundle=await self._ledger.put_blob(bundle))
        self._stands_at = commit
        if files is not None:
            self._tree = TreeAt(commit, files)
        return committed

    async def commit_files(self, files: Mapping[str, str | bytes], message: str) -> Committed:
        """Writes files of the product's own and commits them; where they say the same already, nothing is committed."""
        async with self.alone() as repository:
            if self._activation.state.bundle is not None and await in_thread(_holds, repository, files):
                return Committed(commit=self._activation.state.commit, bundle=self._activation.state.bundle)
            commit = await in_thread(repository.write_and_commit, files, message, PRODUCT_AUTHOR)
            return await self.keep(commit, await in_thread(repository.bundle))

    async def _restore(self) -> ProjectRepository:
        if self._folder.exists():
            await in_thread(shutil.rmtree, self._folder)
        if self._activation.state.bundle is None:
            return await in_thread(ProjectRepository.init, self._folder, PRODUCT_AUTHOR)
        bundle = await self._ledger.get_blob(self._activation.state.bundle)
        return await in_thread(ProjectRepository.from_bundle, self._folder, bundle)


async def in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """Like `asyncio.to_thread`, but a cancelled caller waits for the thread's end: whoever has the working copy next
    must not meet a git that is still at work in it.
    """
    running = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with suppress(asyncio.CancelledError):  # Again, by somebody else.
                await asyncio.wait((running,))
        raise


def _holds(repository: ProjectRepository, files: Mapping[str, str | bytes]) -> bool:
    """Blocking. Whether the tree has these files with these contents."""
    tracked = set(repository.files())
    return all(path in tracked and repository.read(path) == _bytes(content) for path, content in files.items())


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content

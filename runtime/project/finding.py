"""A project's way to its index: keep it fresh, and fetch the code that is near to a question."""

import asyncio
import logging
from collections.abc import Collection, Iterable
from contextlib import suppress

from runtime.entity.activation import Activation
from runtime.entity.port import Entities
from runtime.errors import ConflictError, MasterbuilderError
from runtime.ids import index_entity
from runtime.index.context import context_for
from runtime.index.hit import Hit, IndexStatus
from runtime.index.messages import Found, SearchIndex, UpdateIndex
from runtime.project.messages import IndexedStatus
from runtime.project.state import State
from runtime.project.tree import TreeAt, change_between
from runtime.project.workbench import Workbench

log = logging.getLogger(__name__)

HITS_PER_QUESTION = 4
CONTEXT_BYTES_MAX = 8_000


class CodeFinder:
    """The index helps, it does not decide: where it fails, the build goes on with less context and says so."""

    def __init__(self, activation: Activation[State], entities: Entities, workbench: Workbench) -> None:
        self._activation = activation
        self._entities = entities
        self._workbench = workbench
        self._entity = index_entity(activation.state.id)
        self._refreshing = asyncio.Lock()
        self._indexed = TreeAt("", {})
        """What the index was last brought to; its files are empty where they are not known here."""

    async def refresh(self) -> None:
        """Brings the index to the newest commit, and tells when its status changes with that.

        Commits that come while it is brought to one are taken together.
        """
        async with self._refreshing:
            state = self._activation.state
            if state.bundle is None or state.commit == self._indexed.commit:
                return
            if state.index_status == "not_indexed":
                await self._tell("indexing")
            try:
                await self._update()
            except MasterbuilderError as error:
                log.warning("index of %s was not updated: %s", state.id, error)
                await self._tell("error")
            else:
                await self._tell("indexed")

    async def near(self, question: str, *, leave_out: Collection[str] = ()) -> str:
        """Code near to one question, ready for a prompt."""
        return context_for(await self._hits(question, leave_out), CONTEXT_BYTES_MAX)

    async def evidence(self, questions: Iterable[str]) -> str:
        """Code near to any of several questions, each chunk once."""
        found: dict[tuple[str, int], Hit] = {}
        for question in questions:
            for hit in await self._hits(question, ()):
                found.setdefault((hit.path, hit.start_line), hit)
        ordered = sorted(found.values(), key=lambda hit: (hit.path, hit.start_line))
        return context_for(ordered, 2 * CONTEXT_BYTES_MAX)

    async def _update(self) -> None:
        tree = await self._newest()
        state = self._activation.state
        assert state.bundle is not None, "a commit has a bundle"
        update = UpdateIndex(
            owner=state.owner,
            commit=tree.commit,
            bundle=state.bundle,
            change=change_between(self._indexed, tree) if self._indexed.files and tree.files else None,
            project=state.id,
        )
        status: IndexStatus = await self._entities.ask(self._entity, update, timeout_s=120)
        if status.waits:
            log.warning("index of %s goes by words for now: %s", state.id, status.waits)
        self._indexed = tree

    async def _newest(self) -> TreeAt:
        """Main's newest commit, with its files where they are known or worth reading: the first update goes by the
        bundle whatever they are, and a flow that only waits needs no working copy."""
        if self._indexed.commit:
            try:
                return await self._workbench.tree()
            except MasterbuilderError as error:
                log.info("the files of %s are not known: %s", self._activation.state.id, error)
        return TreeAt(self._activation.state.commit, {})

    async def _tell(self, status: IndexedStatus) -> None:
        """A project that ended meanwhile is told nothing."""
        if self._activation.state.index_status != status and not self._activation.state.status.terminal:
            with suppress(ConflictError):
                key = f"index/{status}/{self._activation.last_seq}"
                await self._activation.emit("project.index", key, {"index_status": status})

    async def _hits(self, question: str, leave_out: Collection[str]) -> list[Hit]:
        try:
            found = await self._search(question)
            if found.commit != self._indexed.commit:
                # Its process died and lost what was not saved yet.
                self._indexed = TreeAt(found.commit, {})
                await self.refresh()
                found = await self._search(question)
        except MasterbuilderError as error:
            log.warning("index of %s did not answer: %s", self._activation.state.id, error)
            return []
        return [hit for hit in found.hits if hit.path not in leave_out]

    async def _search(self, question: str) -> Found:
        state = self._activation.state
        search = SearchIndex(owner=state.owner, query=question, limit=HITS_PER_QUESTION, project=state.id)
        found: Found = await self._entities.ask(self._entity, search)
        return found

"""The merge queue: one change at a time onto the newest main, and nothing that is red there."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from runtime.entity.activation import Activation
from runtime.entity.journal import NO_MOVES, Moves
from runtime.errors import BadInputError, ConflictError
from runtime.implementer.work import CheckReport, CheckWork
from runtime.project import prompts
from runtime.project.repository import MergeConflictError, ProjectRepository
from runtime.project.state import State
from runtime.project.todo import Item
from runtime.project.workbench import IMPLEMENTER_AUTHOR, Workbench, in_thread

log = logging.getLogger(__name__)

CheckedTree = tuple[str, tuple[str, ...]]
"""A commit and the commands that were run on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One attempt's change, green on the tree it was made on."""

    item: Item
    attempt: int
    patch: bytes
    base: str
    """The commit that it was made and checked on; empty when that is not known."""


class NotWantedError(ConflictError):
    """The change cannot land: its item was struck while it was being merged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """The change did not land: it is to be made again on what main is now."""

    cause: Literal["conflict", "merged tree"]
    reason: str


class MergeQueue:
    """Each landed change is one commit on top of the last: linear, green, with its tick and its `Task:` trailer.

    A commit counts once the event `task.merged` names its bundle. A crash before that leaves nothing behind but a
    file that no event names: the change is merged anew. After it, the attempt's outcome says that it landed.
    """

    def __init__(
        self,
        activation: Activation[State],
        workbench: Workbench,
        check: Callable[[CheckWork], Awaitable[CheckReport]],
        work: Callable[[bytes, tuple[str, ...]], CheckWork],
        spent_ucredits: Callable[[], Awaitable[int]],
    ) -> None:
        """`work` says how a bundle's tree is checked, with these test files."""
        self._activation = activation
        self._workbench = workbench
        self._check = check
        self._work = work
        self._spent_ucredits = spent_ucredits
        self.last_check: tuple[CheckedTree, CheckReport] | None = None
        """What was last found green on main."""

    async def land(self, change: Change) -> Returned | None:
        """None when it is on main, also when it was before, or not wanted any more. In the order in which they come.

        Where main is still what the change was made and checked on, it is not checked again: the trees are the same.
        """
        item = change.item
        if self._has_landed(change):
            return None
        async with self._workbench.alone() as repository:
            if self._activation.state.plan.item(item.id).struck is not None:
                return None
            try:
                commit = await in_thread(self._commit, repository, change)
            except (MergeConflictError, BadInputError) as error:
                return Returned(cause="conflict", reason=f"It did not fit the newer main branch: {error.message}")
            bundle = await in_thread(repository.bundle)
            spending = asyncio.ensure_future(self._spent_ucredits())
            try:
                if change.base != self._activation.state.commit:
                    report = await self._checked(commit, bundle, item)
                    if not report.passed:
                        return Returned(
                            cause="merged tree", reason=f"Red on the merged tree:\n{prompts.steady(report)}"
                        )
                committed = await self._workbench.keep(commit, bundle)
                spent_ucredits = await spending
            finally:
                spending.cancel()
            ticked = self._activation.state.plan.ticked(item.id)

            def moves(state: State) -> Moves:
                if state.plan.item(item.id).struck is not None:
                    raise NotWantedError(f"{item.id} was struck in the last moment.")
                return NO_MOVES

            with suppress(NotWantedError):
                await self._activation.emit(
                    "task.merged",
                    f"task/{item.id}/{change.attempt}/merged",
                    {
                        **committed.fields(),
                        "task": item.id,
                        "title": item.title,
                        "attempt": change.attempt,
                        "done": ticked.done_count(),
                        "total": len(ticked.wanted()),
                        "spent_ucredits": spent_ucredits,
                    },
                    moves,
                )
        log.info("merged %s as %s", item.id, commit[:10])
        return None

    def _has_landed(self, change: Change) -> bool:
        tries = self._activation.state.attempts.get(change.item.id, ())
        return any(each.number == change.attempt and each.outcome == "merged" for each in tries)

    def _commit(self, repository: ProjectRepository, change: Change) -> str:
        """Blocking. The code and its tick are one commit, by the implementer that made it."""
        item, state = change.item, self._activation.state
        repository.apply_patch(change.patch)
        todo = state.plan.ticked(item.id).render(state.title)
        return repository.write_and_commit(
            {"TODO.md": todo},
            f"{item.id}: {item.title}\n\nTask: {item.id}/{change.attempt}",
            IMPLEMENTER_AUTHOR,
        )

    async def _checked(self, commit: str, bundle: bytes, item: Item) -> CheckReport:
        work = self._work(bundle, self._activation.state.plan.tests_with(item.id))
        report = await self._check(work)
        if report.passed:
            self.last_check = ((commit, tuple(work.commands)), report)
        return report

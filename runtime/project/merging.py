"""The merge queue: changes onto the newest main, and nothing that is red there."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from runtime.entity.activation import Activation
from runtime.entity.journal import NO_MOVES, Moves, NewEvent
from runtime.errors import BadInputError, ConflictError
from runtime.implementer.work import CheckReport, CheckWork
from runtime.project import prompts
from runtime.project.repository import MergeConflictError, ProjectRepository
from runtime.project.state import State, edit_step
from runtime.project.todo import Item, Todo
from runtime.project.tree import Tree
from runtime.project.workbench import IMPLEMENTER_AUTHOR, Committed, Workbench, in_thread

log = logging.getLogger(__name__)

TOGETHER_MAX = 16
"""Changes that are checked as one."""

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
    """A change cannot land: its item was struck while it was being merged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """The change did not land: it is to be made again on what main is now."""

    cause: Literal["conflict", "merged tree"]
    reason: str


class _Landing:
    """A change in the queue, and what became of it once that is known."""

    def __init__(self, change: Change) -> None:
        loop = asyncio.get_running_loop()
        self.change = change
        self.paid: asyncio.Future[bool] = loop.create_future()
        """Whether its attempt's step is in the journal; False once it was withdrawn before."""
        self.ended: asyncio.Future[Returned | None] = loop.create_future()

    def end(self, returned: Returned | None = None) -> None:
        if not self.ended.done():
            self.ended.set_result(returned)

    def fail(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)
            self.ended.exception()  # Whoever withdrew it meanwhile does not ask.

    def withdraw(self) -> None:
        """Nobody waits for it any more; where its attempt is in the journal it may land all the same."""
        if not self.paid.done():
            self.paid.set_result(False)


@dataclass(frozen=True, slots=True)
class _Applied:
    landing: _Landing
    commit: str


class MergeQueue:
    """Each landed change is one commit on top of the last: linear, with its tick and its `Task:` trailer.

    Changes that wait together land together: the tree with all of them is checked once. Where it is red, the first half
    of them is tried next, until one alone is red. What does not fit behind others waits until it is the first.

    A change may come before its attempt's step is in the journal: it is applied and checked meanwhile, and lands after.

    A commit counts once the event `task.merged` names its bundle. A crash before that leaves nothing behind but a
    file that no event names: the change is merged anew. After it, the attempt's outcome says that it landed.
    """

    def __init__(
        self,
        activation: Activation[State],
        workbench: Workbench,
        check: Callable[[CheckWork], Awaitable[CheckReport]],
        work: Callable[[Tree, tuple[str, ...]], CheckWork],
        spent_ucredits: Callable[[], Awaitable[int]],
    ) -> None:
        """`work` says how a tree is checked, with these test files."""
        self._activation = activation
        self._workbench = workbench
        self._check = check
        self._work = work
        self._spent_ucredits = spent_ucredits
        self._waiting: list[_Landing] = []
        self._rounds: asyncio.Task[None] | None = None
        """Runs while somebody waits."""
        self._together_max = TOGETHER_MAX
        self.last_check: tuple[CheckedTree, CheckReport] | None = None
        """What was last found green on main."""

    async def land(self, change: Change) -> Returned | None:
        """None when it is on main, also when it was before, or not wanted any more.

        In the order in which they come, but for what does not fit behind one before it.

        Where main is still what the change was made and checked on, it is not checked again: the trees are the same.
        """
        step = edit_step(change.item.id, change.attempt)
        landing = _Landing(change)
        self._waiting.append(landing)
        if self._rounds is None or self._rounds.done():
            self._rounds = asyncio.create_task(self._run(), name="merge queue")
        try:
            await self._activation.changed(lambda: step in self._activation.state.steps.results)
            landing.paid.set_result(True)
            return await landing.ended
        finally:
            landing.withdraw()
            self._waiting.remove(landing)
            if not self._waiting:
                await self._stop()

    async def _run(self) -> None:
        """Round after round. What breaks one off is for everybody who waits."""
        try:
            while any(not landing.ended.done() for landing in self._waiting):
                async with self._workbench.alone() as repository:
                    await self._land_together(repository)
        except Exception as error:
            for landing in self._waiting:
                landing.fail(error)

    async def _stop(self) -> None:
        rounds, self._rounds = self._rounds, None
        if rounds is not None:
            rounds.cancel()
            await asyncio.wait((rounds,))

    async def _land_together(self, repository: ProjectRepository) -> None:
        """One round: lands what is green, or finds out that less must be tried."""
        applied = await self._apply(repository)
        if not applied:
            return
        tip = applied[-1]
        files = await in_thread(repository.contents)
        bundling = asyncio.ensure_future(in_thread(repository.bundle))  # Beside the check, which does not need it.
        try:
            if await self._is_green(files, applied) and await _all_paid(applied):
                committed, spent_ucredits = await asyncio.gather(
                    self._workbench.keep(tip.commit, await bundling, files), self._spent_ucredits()
                )
                await self._tell(applied, committed, spent_ucredits)
        finally:
            bundling.cancel()
            await asyncio.wait((bundling,))  # Its git must have ended before the next round's begins.

    async def _is_green(self, files: Tree, applied: Sequence[_Applied]) -> bool:
        """Where one alone is red it has come to its end; where several are, less is tried next."""
        tip = applied[-1]
        if len(applied) == 1 and tip.landing.change.base == self._activation.state.commit:
            return True
        report = await self._checked(files, applied)
        if not report.passed and len(applied) > 1:
            self._together_max = len(applied) // 2
            return False
        self._together_max = TOGETHER_MAX
        if not report.passed:
            reason = f"Red on the merged tree:\n{prompts.steady(report)}"
            tip.landing.end(Returned(cause="merged tree", reason=reason))
        return report.passed

    async def _apply(self, repository: ProjectRepository) -> Sequence[_Applied]:
        """Those that wait, as commits one upon the other."""
        applied: list[_Applied] = []
        plan = self._activation.state.plan
        for landing in tuple(self._waiting):
            change, item = landing.change, landing.change.item
            if landing.ended.done():
                continue
            if self._has_landed(change) or self._activation.state.plan.item(item.id).struck is not None:
                landing.end()
                continue
            if len(applied) == self._together_max or any(each.landing.change.item.id == item.id for each in applied):
                continue
            ticked = plan.ticked(item.id)
            try:
                commit = await in_thread(self._commit, repository, change, ticked)
            except (MergeConflictError, BadInputError) as error:
                if not applied:
                    reason = f"It did not fit the newer main branch: {error.message}"
                    landing.end(Returned(cause="conflict", reason=reason))
                continue
            applied.append(_Applied(landing, commit))
            plan = ticked
        return applied

    async def _tell(self, applied: Sequence[_Applied], tip: Committed, spent_ucredits: int) -> None:
        def moves(state: State) -> Moves:
            for each in applied:
                if state.plan.item(each.landing.change.item.id).struck is not None:
                    raise NotWantedError(f"{each.landing.change.item.id} was struck in the last moment.")
            return NO_MOVES

        plan = self._activation.state.plan
        events: list[NewEvent] = []
        for each in applied:
            change = each.landing.change
            plan = plan.ticked(change.item.id)
            data = {
                **replace(tip, commit=each.commit).fields(),
                "task": change.item.id,
                "title": change.item.title,
                "attempt": change.attempt,
                "done": plan.done_count(),
                "total": len(plan.wanted()),
                "spent_ucredits": spent_ucredits,
            }
            key = f"task/{change.item.id}/{change.attempt}/merged"
            events.append(NewEvent(type="task.merged", key=key, data=data))
        with suppress(NotWantedError):
            await self._activation.emit_all(events, moves)
            for each in applied:
                each.landing.end()
                log.info("merged %s as %s", each.landing.change.item.id, each.commit[:10])

    def _has_landed(self, change: Change) -> bool:
        tries = self._activation.state.attempts.get(change.item.id, ())
        return any(each.number == change.attempt and each.outcome == "merged" for each in tries)

    def _commit(self, repository: ProjectRepository, change: Change, ticked: Todo) -> str:
        """Blocking. The code and its tick are one commit, by the implementer that made it."""
        item = change.item
        repository.apply_patch(change.patch)
        try:
            return repository.write_and_commit(
                {"TODO.md": ticked.render(self._activation.state.title)},
                f"{item.id}: {item.title}\n\nTask: {item.id}/{change.attempt}",
                IMPLEMENTER_AUTHOR,
            )
        except BadInputError:
            repository.reset_hard("HEAD")  # The next change finds a clean tree.
            raise

    async def _checked(self, files: Tree, applied: Sequence[_Applied]) -> CheckReport:
        ids = [each.landing.change.item.id for each in applied]
        work = self._work(files, self._activation.state.plan.tests_with(*ids))
        report = await self._check(work)
        if report.passed:
            self.last_check = ((applied[-1].commit, tuple(work.commands)), report)
        return report


async def _all_paid(applied: Sequence[_Applied]) -> bool:
    """Waits until each attempt is in the journal; False when one of them was withdrawn, so that none may land as one
    of these."""
    paid = [each.landing.paid for each in applied]
    await asyncio.wait(paid)
    return all(each.result() for each in paid)

"""What is not going to be built: what could not be made to pass costs nothing, and ends the project where a must-have
needs it; what the owner skipped is listed beside it.

Source: DESIGN §11, "What failed".
"""

from collections.abc import Collection, Mapping, Sequence

from runtime.entity.activation import Activation
from runtime.errors import ConflictError, RefusedError
from runtime.ids import UserId
from runtime.ledger.port import CallRefund, CallRow, Ledger
from runtime.project.architect import Architect
from runtime.project.repository import ProjectRepository
from runtime.project.schemas import Requirement
from runtime.project.state import State
from runtime.project.todo import Todo
from runtime.project.workbench import PRODUCT_AUTHOR, Workbench, in_thread

GAPS_FILE = "docs/known_gaps.md"
REASON_CHARACTERS_MAX = 600
GIVEN_BACK = "What it cost was given back."
NOT_GIVEN_BACK = "What was charged for it until then stays charged."
REFUNDED_BY = UserId("masterbuilder")


class Gaps:
    """Gives up on tasks, and gives back what they cost. Everything here may be repeated after a crash."""

    def __init__(
        self, activation: Activation[State], architect: Architect, workbench: Workbench, ledger: Ledger
    ) -> None:
        self._activation = activation
        self._architect = architect
        self._workbench = workbench
        self._ledger = ledger

    async def give_up(self, reasons: Mapping[str, str]) -> None:
        """Strikes these items, and every open one that cannot be made without them, in one commit; refunds them.

        Raises RefusedError, and strikes nothing, when a must-have requirement needs one of them or nothing would be
        left to deliver.
        """
        requirements = self._architect.subject().requirements
        async with self._workbench.alone() as repository:
            todo = self._state.plan
            given_up = _with_waiting(todo, reasons)
            if not given_up:
                return
            must = _needed_by(todo, given_up, [each for each in requirements if each.priority == "must"])
            after = todo.struck(given_up)
            if not must and after.wanted():
                gaps = {**self._state.gaps, **given_up}
                files = {
                    "TODO.md": after.render(self._state.title),
                    GAPS_FILE: known_gaps_document(after, gaps, self._state.skipped, requirements),
                }
                commit = await in_thread(_commit, repository, files, given_up)
                kept = await self._workbench.keep(commit, await in_thread(repository.bundle))
                lost = [each.id for each in _needed_by(todo, given_up, requirements)]
                await self._activation.emit(
                    "plan.gap", f"gap/{'+'.join(given_up)}", {**kept.fields(), "items": given_up, "requirements": lost}
                )
        if must:
            why = "; ".join(f"{id} {todo.item(id).title} {reason}" for id, reason in reasons.items())
            names = ", ".join(f"{each.id} ({each.text[:80]})" for each in must)
            await self.fail(f"{why}. The must-have {names} cannot be met without it.")
        if not after.wanted():
            await self.fail("No task of the plan could be made to pass.")
        await self.refund()

    async def write_down(self) -> None:
        """Has `TODO.md` and the list of gaps say what was struck since the last commit."""
        state = self._state
        files = {"TODO.md": state.plan.render(state.title)}
        if state.gaps or state.skipped:
            requirements = self._architect.subject().requirements
            files[GAPS_FILE] = known_gaps_document(state.plan, state.gaps, state.skipped, requirements)
        committed = await self._workbench.commit_files(files, "todo: what is not going to be built")
        await self._activation.emit("repository.committed", f"repository/{committed.commit}", committed.fields())

    async def fail(self, reason: str) -> None:
        """Gives back what the verification loop cost beyond the quote, then raises RefusedError with the reason."""
        await self._refund_beyond_quote()
        raise RefusedError(reason, "The log of the project shows every attempt and every verdict.")

    async def refund(self) -> None:
        """Gives back every call of the tasks that became gaps, once."""
        if not self._state.gaps:
            return
        receipt = await self._ledger.receipt(self._state.id)
        known = {row.call for row in receipt.refunds}
        for row in receipt.charged:
            if row.task in self._state.gaps and row.call not in known:
                await self._give_back(row, f"{row.task} is a known gap of the project")

    async def _refund_beyond_quote(self) -> None:
        receipt = await self._ledger.receipt(self._state.id)
        known = {row.call for row in receipt.refunds}
        beyond = receipt.net_ucredits - (self._state.quote_ucredits or 0)
        for row in sorted(receipt.charged, key=lambda row: row.at, reverse=True):
            if beyond <= 0:
                return
            if _is_of_the_loop(row) and row.call not in known:
                await self._give_back(row, "The project failed: its verification loop beyond the quote is not charged")
                beyond -= row.credits_ucredits

    async def _give_back(self, row: CallRow, reason: str) -> None:
        if not row.credits_ucredits:
            return
        try:
            await self._ledger.refund_call(CallRefund(call=row.call, reason=reason, made_by=REFUNDED_BY))
        except ConflictError:  # its user was erased meanwhile, and has no wallet any more
            return

    @property
    def _state(self) -> State:
        return self._activation.state


def known_gaps_document(
    todo: Todo, gaps: Mapping[str, str], skipped: Mapping[str, str], requirements: Sequence[Requirement]
) -> str:
    """The text of `docs/known_gaps.md`."""
    lines = ["# Known gaps", "", "What these tasks would have added is missing from the project.", ""]
    by_id = {each.id: each for each in requirements}
    for id, reason in {**gaps, **skipped}.items():
        item = todo.item(id)
        lines += [f"## {id} {' '.join(item.title.split())}", "", f"Why: {' '.join(reason.split())}", ""]
        lines += [GIVEN_BACK if id in gaps else NOT_GIVEN_BACK, ""]
        lines += [f"- {each}: {' '.join(by_id[each].text.split())}" for each in item.requirements if each in by_id]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _with_waiting(todo: Todo, reasons: Mapping[str, str]) -> dict[str, str]:
    """The items themselves and what waits for them, without what is struck already, in the order of the plan."""
    given_up = {id: reason[-REASON_CHARACTERS_MAX:] for id, reason in reasons.items() if todo.item(id).struck is None}
    waiting = {
        item.id: f"it needs {id}, which is a known gap" for id in list(given_up) for item in todo.waiting_for(id)
    }
    both = {**waiting, **given_up}
    return {item.id: both[item.id] for item in todo.items if item.id in both}


def _needed_by(todo: Todo, items: Collection[str], requirements: Sequence[Requirement]) -> list[Requirement]:
    """The requirements that one of these items serves."""
    served = {requirement for item in todo.items if item.id in items for requirement in item.requirements}
    return [each for each in requirements if each.id in served]


def _is_of_the_loop(row: CallRow) -> bool:
    """Verdicts, and every attempt at a task after its first."""
    return row.task_type in ("verification", "review") or (row.task_type == "coding" and row.attempt > 1)


def _commit(repository: ProjectRepository, files: Mapping[str, str], items: Collection[str]) -> str:
    """Blocking."""
    return repository.write_and_commit(files, f"todo: known gaps {', '.join(items)}", PRODUCT_AUTHOR)

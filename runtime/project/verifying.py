"""The architect's verdict on a phase and on the whole, from requirements, documents, code and test output."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runtime.entity.activation import Activation
from runtime.errors import NotFoundError, ReplyRejectedError
from runtime.implementer.work import CheckReport
from runtime.ledger.port import Receipt
from runtime.project import prompts
from runtime.project.architect import Architect
from runtime.project.building import Building
from runtime.project.evidence import ItemJudgement, cited_files, judged, trial_faults, tried
from runtime.project.finding import CodeFinder
from runtime.project.gaps import Gaps
from runtime.project.plan_checks import edit_faults
from runtime.project.prompts import Prompt
from runtime.project.repository import ProjectRepository
from runtime.project.schemas import Finding, TodoEdit, VerdictReply
from runtime.project.state import FINAL_REVIEW, State
from runtime.project.todo import Item, Todo, added_tasks
from runtime.project.workbench import Workbench

DETAIL_CHARACTERS_MAX = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What one verdict is about. `edits_phase` is the phase that its edits join."""

    step: str
    prompt: Prompt
    phase: int
    edits_phase: int
    round: int
    items: Sequence[Item]
    report: CheckReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """What a verdict is worth, after everything in it that can be looked up was.

    `objections` say in words why it is no use as it stands; `plan` is what its edits make of the plan, None where they
    cannot be used.
    """

    passed: bool
    judged: Sequence[ItemJudgement]
    findings: Sequence[Finding]
    edits: Sequence[TodoEdit]
    plan: Todo | None
    objections: Sequence[str]


class Verifying:
    """A verdict changes the plan only through its TODO edits, which are committed before anything acts on them.

    Nothing passes on a model's word: its evidence is looked up in the tree and in the report, and the checks are green.
    """

    def __init__(
        self,
        activation: Activation[State],
        architect: Architect,
        building: Building,
        workbench: Workbench,
        finder: CodeFinder,
        gaps: Gaps,
        fix_rounds_max: int,
    ) -> None:
        self._activation = activation
        self._architect = architect
        self._building = building
        self._workbench = workbench
        self._finder = finder
        self._gaps = gaps
        self._fix_rounds_max = fix_rounds_max

    async def verify_phase(self, phase: int) -> None:
        """One verdict on one phase. After MAX_FIX_ROUNDS failed ones what failed becomes a known gap.

        Raises RefusedError when a must-have needs it, or nobody can say what failed.
        """
        if await self._gave_up(phase):
            return
        round = self._round(phase)
        report = await self._building.checks()
        todo = self._building.todo
        prompt = prompts.verify_phase(
            self._architect.subject(), todo, phase, round, report, await self._code(todo.wanted(phase))
        )
        await self._conclude(
            Asked(
                step=f"verify/P{phase}/{round}",
                prompt=prompt,
                phase=phase,
                edits_phase=phase,
                round=round,
                items=todo.wanted(phase),
                report=report,
            )
        )

    async def review(self, report: CheckReport) -> None:
        """One verdict on the whole project, given its final proof; what it adds joins the last phase."""
        if await self._gave_up(FINAL_REVIEW):
            return
        round = self._round(FINAL_REVIEW)
        todo = self._building.todo
        prompt = prompts.qa_review(self._architect.subject(), todo, round, report, await self._code(todo.wanted()))
        await self._conclude(
            Asked(
                step=f"qa/{round}",
                prompt=prompt,
                phase=FINAL_REVIEW,
                edits_phase=len(todo.phases),
                round=round,
                items=todo.wanted(),
                report=report,
            )
        )

    def passed(self, phase: int) -> bool:
        """True when the newest verdict on the phase is a pass and nothing in it is open, or nothing in it is wanted."""
        verdicts = self._activation.state.verdicts.get(phase, ())
        todo = self._building.todo
        if not todo.wanted(phase or None):
            return True
        return bool(verdicts) and verdicts[-1] == "pass" and todo.is_closed(phase or None)

    def _round(self, phase: int) -> int:
        return len(self._activation.state.verdicts.get(phase, ())) + 1

    async def _gave_up(self, phase: int) -> bool:
        """True when the phase failed too often and what its last verdict failed is a known gap now."""
        state = self._activation.state
        failures = state.verdicts.get(phase, ())[state.forgiven.get(phase, 0) :].count("fail")
        if failures <= self._fix_rounds_max:
            return False
        name = f"Phase {phase}" if phase else "The whole project"
        failing = {
            id: f"failed its verification {failures} times, last because: {reason}"
            for id, reason in state.failing.get(phase, {}).items()
            if self._building.todo.item(id).struck is None
        }
        if not failing:
            why = state.verdict_text or "its verdicts could not be relied on"
            await self._gaps.fail(f"{name} failed its verification {failures} times: {why}")
        await self._gaps.give_up(failing)
        return True

    async def _trial_faults(self, verdict: VerdictReply, items: Sequence[ItemJudgement]) -> dict[str, str]:
        """Runs the trials of items that would pass; by item, what a failed one showed."""
        passing = {each.id for each in items if each.verdict == "pass"}
        trials = [trial for trial in verdict.trials if trial.id in passing]
        if not trials:
            return {}
        return trial_faults(trials, await self._building.tried([trial.command for trial in trials]))

    async def _code(self, items: Sequence[Item]) -> str:
        await self._finder.refresh()
        return await self._finder.evidence(f"{item.title} {item.detail}" for item in items)

    async def _conclude(self, asked: Asked) -> None:
        began_s = time.monotonic()
        weighed = await self._verdict(asked)
        before = self._building.todo
        edits, after = _effect(weighed, asked, before)
        state = self._activation.state
        committed = await self._workbench.commit_files(
            {"TODO.md": after.render(state.title)}, f"todo: edits of {asked.prompt.task} round {asked.round}"
        )
        receipt = await self._building.receipt()
        await self._activation.emit(
            "verify.finished",
            f"{asked.step}/verdict",
            {
                **committed.fields(),
                "phase": before.phases[asked.phase - 1] if asked.phase else "Final review",
                "phase_number": asked.phase,
                "edits_phase": asked.edits_phase,
                "round": asked.round,
                "items": len(asked.items),
                "verdict": "pass" if weighed.passed else "fail",
                "judged": [
                    {"id": each.id, "verdict": each.verdict, "reason": each.reason, "evidence": list(each.evidence)}
                    for each in weighed.judged
                ],
                "objections": list(weighed.objections),
                "findings": [
                    {"severity": each.severity, "file": each.file, "line": each.line, "text": each.text}
                    for each in weighed.findings
                ],
                "edits": [edit.model_dump(mode="json") for edit in edits],
                "added": added_tasks(edits, before.phases[asked.edits_phase - 1]),
                "reopened": [edit.id for edit in edits if edit.op == "reopen"],
                "duration_ms": round((time.monotonic() - began_s) * 1_000),
                **_cost(receipt, asked),
                "spent_ucredits": receipt.total_ucredits,
            },
        )

    async def _verdict(self, asked: Asked) -> Weighed:
        """A verdict that is of use, or the second one, whatever it is. One that cannot be read is a fail."""
        try:
            first = await self._weigh(await self._ask(asked.step, asked.prompt, asked), asked)
            if not first.objections:
                return first
            told = prompts.verdict_again(asked.prompt, first.objections)
            return await self._weigh(await self._ask(f"{asked.step}/again", told, asked), asked, again=True)
        except ReplyRejectedError as error:
            return Weighed(
                passed=False, judged=(), findings=(), edits=(), plan=None,
                objections=(f"the verdict could not be read: {error.message}",),
            )  # fmt: skip

    async def _ask(self, step: str, prompt: Prompt, asked: Asked) -> VerdictReply:
        return await self._architect.ask(step, prompt, VerdictReply, attempt=asked.round)

    async def _weigh(self, verdict: VerdictReply, asked: Asked, *, again: bool = False) -> Weighed:
        async with self._workbench.alone() as repository:
            lines = await asyncio.to_thread(_line_counts, repository, cited_files(verdict))
        items = judged(verdict, asked.items, lines, asked.report)
        if faults := await self._trial_faults(verdict, items):
            items = tried(items, faults, again=again)
        says_pass = verdict.verdict == "pass" and not any(each.verdict == "fail" for each in items)
        passed = says_pass and asked.report.passed and all(each.verdict == "pass" for each in items)
        objections: list[str] = []
        plan: Todo | None = None
        try:
            plan = self._building.todo.edited(verdict.todo_edits, asked.edits_phase)
            objections += edit_faults(self._building.todo, plan)
        except ReplyRejectedError as error:
            objections.append(error.message)
        if objections:
            plan = None
        if says_pass and asked.report.passed:
            objections += [f"{each.id}: {each.reason}" for each in items if each.verdict == "none"]
        elif not verdict.todo_edits and not any(each.verdict == "fail" for each in items):
            red = "" if asked.report.passed else f"The checks are red: {_red(asked.report)}. "
            objections.append(f"{red}A fail names the item that failed, or the edits of the plan that would mend it")
        return Weighed(
            passed=passed,
            judged=items,
            findings=verdict.findings,
            edits=verdict.todo_edits,
            plan=plan,
            objections=() if passed else tuple(objections),
        )


def _effect(weighed: Weighed, asked: Asked, before: Todo) -> tuple[Sequence[TodoEdit], Todo]:
    """The edits that count and the plan after them. A fail that names items and no edit reopens those items."""
    if weighed.passed:
        return (), before
    if weighed.edits and weighed.plan is not None:
        return weighed.edits, weighed.plan
    reopened = [_reopening(before.item(each.id), each.reason) for each in weighed.judged if each.verdict == "fail"]
    return reopened, before.edited(reopened, asked.edits_phase)


def _red(report: CheckReport) -> str:
    return "; ".join(f"`{each.command}` {each.ended}" for each in report.results if not each.passed)


def _reopening(item: Item, reason: str) -> TodoEdit:
    found = f"\nThe verification found: {reason}"
    return TodoEdit(
        op="reopen",
        id=item.id,
        title=item.title,
        detail=item.detail[: max(0, DETAIL_CHARACTERS_MAX - len(found))] + found[:DETAIL_CHARACTERS_MAX],
        depends=list(item.depends),
        files=list(item.files),
    )


def _line_counts(repository: ProjectRepository, files: frozenset[str]) -> dict[str, int]:
    """Blocking. The files that are in the tree, each with how many lines it has."""
    counts: dict[str, int] = {}
    for file in files.intersection(repository.files()):
        try:
            counts[file] = len(repository.read(file).splitlines())
        except NotFoundError:
            continue
    return counts


def _cost(receipt: Receipt, asked: Asked) -> dict[str, Any]:
    """What this cycle's calls used. Those of a verdict that could not be read are the platform's loss."""
    task = asked.prompt.shown
    rows = [row for row in receipt.charged if row.task == task and row.attempt == asked.round]
    return {
        "models": sorted({f"{row.provider}/{row.model}" for row in rows}),
        "input_tokens": sum(row.input_tokens for row in rows),
        "output_tokens": sum(row.output_tokens for row in rows),
        "cost_pusd": sum(row.cost_pusd for row in rows),
    }

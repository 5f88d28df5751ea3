"""The architect's verdict on a phase and on the whole, from requirements, documents, code and test output."""

from dataclasses import replace

from runtime.entity.activation import Activation
from runtime.errors import RefusedError, ReplyRejectedError
from runtime.implementer.work import CheckReport
from runtime.project import prompts
from runtime.project.architect import Architect
from runtime.project.building import Building
from runtime.project.finding import CodeFinder
from runtime.project.prompts import Prompt
from runtime.project.schemas import TodoEdit, VerdictReply
from runtime.project.state import State
from runtime.project.todo import Todo
from runtime.project.workbench import Workbench

FINAL_REVIEW = 0
"""The phase number under which the final review's verdicts are counted."""


class Verifying:
    """A verdict changes the plan only through its TODO edits, which are committed before anything acts on them."""

    def __init__(
        self,
        activation: Activation[State],
        architect: Architect,
        building: Building,
        workbench: Workbench,
        finder: CodeFinder,
        fix_rounds_max: int,
    ) -> None:
        self._activation = activation
        self._architect = architect
        self._building = building
        self._workbench = workbench
        self._finder = finder
        self._fix_rounds_max = fix_rounds_max

    async def verify_phase(self, phase: int) -> None:
        """One verdict on one phase. Raises RefusedError after MAX_FIX_ROUNDS failed ones."""
        round = self._next_round(phase)
        report = await self._building.checks()
        prompt = prompts.verify_phase(
            self._architect.subject(),
            self._building.todo,
            phase,
            round,
            report,
            await self._code(phase),
        )
        await self._conclude(f"verify/P{phase}/{round}", prompt, phase, report, edits_phase=phase)

    async def review(self, report: CheckReport) -> None:
        """One verdict on the whole project, given its final proof; what it adds joins the last phase."""
        round = self._next_round(FINAL_REVIEW)
        prompt = prompts.qa_review(
            self._architect.subject(),
            self._building.todo,
            round,
            report,
            await self._code(FINAL_REVIEW),
        )
        last = len(self._building.todo.phases)
        await self._conclude(f"qa/{round}", prompt, FINAL_REVIEW, report, edits_phase=last)

    def passed(self, phase: int) -> bool:
        """True when the newest verdict on the phase is a pass and nothing in it is open."""
        verdicts = self._activation.state.verdicts.get(phase, ())
        items = self._building.todo.in_phase(phase) if phase else self._building.todo.items
        return bool(verdicts) and verdicts[-1] == "pass" and all(item.done for item in items)

    def _next_round(self, phase: int) -> int:
        verdicts = self._activation.state.verdicts.get(phase, ())
        failures = verdicts.count("fail")
        if failures > self._fix_rounds_max:
            name = f"Phase {phase}" if phase else "The whole project"
            raise RefusedError(f"{name} failed its verification {failures} times.", "See its findings.")
        return len(verdicts) + 1

    async def _code(self, phase: int) -> str:
        await self._finder.refresh()
        items = self._building.todo.in_phase(phase) if phase else self._building.todo.items
        return await self._finder.evidence(f"{item.title} {item.detail}" for item in items)

    async def _workable(self, step: str, prompt: Prompt, round: int, phase: int) -> tuple[VerdictReply, Todo]:
        """A verdict whose edits leave a plan that can be carried out, and that plan; a second try has the reasons."""
        verdict = await self._architect.ask(step, prompt, VerdictReply, attempt=round)
        try:
            return verdict, self._building.todo.edited(verdict.todo_edits, phase)
        except ReplyRejectedError as error:
            told = replace(prompt, user=f"{prompt.user}\nYour last edits were refused: {error.message}")
            verdict = await self._architect.ask(f"{step}/again", told, VerdictReply, attempt=round)
            return verdict, self._building.todo.edited(verdict.todo_edits, phase)

    async def _conclude(self, step: str, prompt: Prompt, phase: int, report: CheckReport, *, edits_phase: int) -> None:
        round = self._next_round(phase)
        verdict, after = await self._workable(step, prompt, round, edits_phase)
        passed = verdict.verdict == "pass" and report.passed
        edits = [] if passed else verdict.todo_edits
        if not passed and not edits:
            raise RefusedError(
                "The verification failed and named no task that would mend it: "
                + ("; ".join(finding.text for finding in verdict.findings) or "the checks are red."),
                "See the project's events, then start it again with a more detailed brief.",
            )
        state, before = self._activation.state, self._building.todo
        after = before if passed else after
        committed = await self._workbench.commit_files(
            {"TODO.md": after.render(state.title)}, f"todo: edits of {prompt.task} round {round}"
        )
        await self._activation.emit(
            "verify.finished",
            f"{step}/verdict",
            {
                **committed.fields(),
                "phase": before.phases[phase - 1] if phase else "Final review",
                "phase_number": phase,
                "edits_phase": edits_phase,
                "round": round,
                "items": len(before.in_phase(phase) if phase else before.items),
                "verdict": "pass" if passed else "fail",
                "findings": [
                    {"severity": each.severity, "file": each.file, "line": each.line, "text": each.text}
                    for each in verdict.findings
                ],
                "edits": [edit.model_dump(mode="json") for edit in edits],
                "added": _added(edits, before.phases[edits_phase - 1]),
                "reopened": [edit.id for edit in edits if edit.op == "reopen"],
                "spent_ucredits": await self._building.spent_ucredits(),
            },
        )


def _added(edits: list[TodoEdit], phase: str) -> list[dict[str, object]]:
    return [
        {"id": edit.id, "title": edit.title, "phase": phase, "depends": edit.depends}
        for edit in edits
        if edit.op == "add"
    ]

"""Whether what a verdict cites is there: a file with those lines in the tree, a test in the report; how trials went.

Nothing here believes a model; a citation that cannot be looked up is as good as none.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

from runtime.implementer.work import CheckReport
from runtime.project.schemas import CodeEvidence, ItemVerdict, TestEvidence, Trial, VerdictReply
from runtime.project.todo import Item

Judgement = Literal["pass", "fail", "none"]
SHOWN_CHARACTERS_MAX = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemJudgement:
    """What one item's verdict is worth. `none`: there is none, or it passes without evidence that holds; `reason` says
    why."""

    id: str
    verdict: Judgement
    reason: str
    evidence: tuple[str, ...] = ()
    """What was looked up and found, in words: `src/app.py:3-9`, `tests/test_app.py`."""


def cited_files(verdict: VerdictReply) -> frozenset[str]:
    return frozenset(each.file for item in verdict.items for each in item.evidence if isinstance(each, CodeEvidence))


def judged(
    verdict: VerdictReply, items: Iterable[Item], lines: Mapping[str, int], report: CheckReport
) -> tuple[ItemJudgement, ...]:
    """Every item's verdict after its evidence was looked up. `lines`: how many each cited file of the tree has.

    Of two verdicts on one item the worse counts; verdicts on items that were not asked about count for nothing.
    """
    by_id: dict[str, list[ItemVerdict]] = {}
    for given in verdict.items:
        by_id.setdefault(given.id, []).append(given)
    return tuple(_judgement(item.id, by_id.get(item.id, []), lines, report) for item in items)


def _judgement(id: str, given: Sequence[ItemVerdict], lines: Mapping[str, int], report: CheckReport) -> ItemJudgement:
    if not given:
        return ItemJudgement(id=id, verdict="none", reason="it has no verdict")
    if failed := next((each for each in given if each.verdict == "fail"), None):
        return ItemJudgement(id=id, verdict="fail", reason=failed.reason)
    cited = [evidence for each in given for evidence in each.evidence]
    faults = [fault for evidence in cited if (fault := fault_of(evidence, lines, report))]
    if not cited:
        faults = ["its pass cites no evidence"]
    if faults:
        return ItemJudgement(id=id, verdict="none", reason="; ".join(dict.fromkeys(faults)))
    shown = tuple(_shown(evidence) for evidence in cited)
    return ItemJudgement(id=id, verdict="pass", reason=given[0].reason, evidence=shown)


def tried(judged: Iterable[ItemJudgement], faults: Mapping[str, str], *, again: bool) -> tuple[ItemJudgement, ...]:
    """The judgements after the trials. `faults`: by item, what its failed trial showed.

    At first a pass whose trial failed counts as none: the trial may be what is wrong, and its author is asked again.
    """
    verdict: Judgement = "fail" if again else "none"
    return tuple(
        ItemJudgement(id=each.id, verdict=verdict, reason=faults[each.id])
        if each.verdict == "pass" and each.id in faults
        else each
        for each in judged
    )


def trial_faults(trials: Sequence[Trial], report: CheckReport) -> dict[str, str]:
    """By item, what its first failed trial showed. `report` has a result for each, in their order."""
    faults: dict[str, str] = {}
    for trial, result in zip(trials, report.results, strict=False):
        if not result.passed or trial.shows not in result.output:
            wanted = f"does not show {trial.shows!r}" if result.passed else result.ended
            shown = " ".join(result.output.split())[-SHOWN_CHARACTERS_MAX:]
            faults.setdefault(trial.id, f"the trial `{trial.command}` {wanted}; it shows: {shown or 'nothing'}")
    return faults


def fault_of(evidence: CodeEvidence | TestEvidence, lines: Mapping[str, int], report: CheckReport) -> str:
    """Why a citation does not hold, in words; empty where it does."""
    match evidence:
        case CodeEvidence(file=file, from_line=first, to_line=last):
            if file not in lines:
                return f"there is no file {file}"
            if not 1 <= first <= last <= lines[file]:
                return f"{file} has lines 1 to {lines[file]}, not {first} to {last}"
            return ""
        case TestEvidence(test=test):
            return "" if _ran(test, report) else f"no command that passed ran {test}"
        case _:
            assert_never(evidence)


def _ran(test: str, report: CheckReport) -> bool:
    """Whether a command that passed names the test, or its output does, as a whole word."""
    word = re.compile(rf"(?<![\w./-]){re.escape(test)}(?![\w/-]|\.\w)")
    return any(word.search(text) for each in report.results if each.passed for text in (each.command, each.output))


def _shown(evidence: CodeEvidence | TestEvidence) -> str:
    if isinstance(evidence, TestEvidence):
        return evidence.test
    return f"{evidence.file}:{evidence.from_line}-{evidence.to_line}"

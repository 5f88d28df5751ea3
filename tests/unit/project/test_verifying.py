"""Nothing passes on a model's word: evidence is looked up, edits are checked, red tests are red."""

from pathlib import Path
from typing import Any

import pytest

from runtime.errors import ReplyRejectedError
from runtime.implementer.work import CheckReport, CommandResult
from runtime.project.evidence import fault_of, trial_faults
from runtime.project.schemas import CodeEvidence, TestEvidence, Trial
from tests.unit.project.scripted import PROJECT, Scripted, edit, item, passes, plan

REPORT = CheckReport(
    results=[
        CommandResult(
            command="run tests/test_a.py tests/b/test_b.py", exit_status=0, duration_s=0, output="ok adds up\n"
        ),
        CommandResult(command="run tests/test_red.py", exit_status=1, duration_s=0, output=""),
    ]
)


def says(*items: dict[str, Any], verdict: str = "pass", edits: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return {"verdict": verdict, "items": list(items), "findings": [], "todo_edits": list(edits)}


def one(verdict: str, *evidence: dict[str, Any], id: str = "T-001") -> dict[str, Any]:
    return {"id": id, "verdict": verdict, "reason": f"because {verdict}", "evidence": list(evidence)}


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (CodeEvidence(file="a.py", from_line=1, to_line=3), ""),
        (CodeEvidence(file="a.py", from_line=2, to_line=4), "lines 1 to 3"),
        (CodeEvidence(file="a.py", from_line=3, to_line=2), "lines 1 to 3"),
        (CodeEvidence(file="a.py", from_line=0, to_line=2), "lines 1 to 3"),
        (CodeEvidence(file="../etc/passwd", from_line=1, to_line=1), "no file"),
        (TestEvidence(test="tests/test_a.py"), ""),
        (TestEvidence(test="tests/b/test_b.py"), ""),
        (TestEvidence(test="test_b.py"), "no command"),
        (TestEvidence(test="tests/test_a"), "no command"),
        (TestEvidence(test="adds up"), ""),
        (TestEvidence(test="tests/test_red.py"), "no command that passed"),
        (TestEvidence(test="tests/test_c.py"), "no command"),
    ],
)
def test_evidence__holds_only_where_it_can_be_found(evidence: CodeEvidence | TestEvidence, words: str) -> None:
    fault = fault_of(evidence, {"a.py": 3}, REPORT)
    assert words in fault
    assert bool(fault) == bool(words)


@pytest.mark.parametrize(
    "useless",
    [
        says(),
        says(one("pass")),
        says(one("pass", {"file": "src/T-001.py", "from_line": 1, "to_line": 99})),
        says(one("pass", {"file": "src/nowhere.py", "from_line": 1, "to_line": 1})),
        says(one("pass", {"test": "tests/test_other.py"})),
        says(one("pass", {"test": "tests/test_T-001.py"}, {"test": "tests/test_other.py"})),
        says(one("pass", {"test": "tests/test_T-001.py"}, id="T-009")),
    ],
)
async def test_pass__without_evidence_that_holds_is_asked_for_again_and_then_is_a_fail(
    tmp_path: Path, useless: dict[str, Any]
) -> None:
    build = Scripted(tmp_path, {"verify.phase": [useless, useless, passes("T-001")]})
    await build.start()
    events = await build.until("verify.finished", 2)
    verdicts = [event.data for event in events if event.type == "verify.finished"]
    assert [each["verdict"] for each in verdicts] == ["fail", "pass"]
    assert "T-001: " in build.calls.users("verify.phase")[1]
    assert verdicts[0]["judged"][0]["verdict"] == "none"
    assert verdicts[0]["objections"]
    assert verdicts[1]["judged"][0]["evidence"] == ["tests/test_T-001.py"]


async def test_pass__whose_second_try_has_evidence_is_one_cycle_that_passes(tmp_path: Path) -> None:
    good = says(one("pass", {"file": "src/T-001.py", "from_line": 1, "to_line": 1}))
    build = Scripted(tmp_path, {"verify.phase": [says(one("pass")), good]})
    await build.start()
    event = next(each for each in await build.until("verify.finished") if each.type == "verify.finished")
    assert event.data["verdict"] == "pass"
    assert event.data["models"]
    assert event.data["cost_pusd"] > 0
    assert (event.data["input_tokens"], event.data["output_tokens"]) == (2_000, 1_000)
    assert event.data["duration_ms"] >= 0


TRIED = says(one("pass", {"test": "tests/test_T-001.py"})) | {
    "trials": [{"id": "T-001", "command": "python3 -m app 5", "shows": "70"}]
}


async def test_pass__whose_trial_fails_twice_reopens_its_item_with_what_the_trial_showed(tmp_path: Path) -> None:
    build = Scripted(tmp_path, {"verify.phase": [TRIED, TRIED, passes("T-001")]})
    await build.start()
    events = await build.until("project.finished")
    first = next(each.data for each in events if each.type == "verify.finished")
    assert (first["verdict"], first["reopened"]) == ("fail", ["T-001"])
    told = "the trial `python3 -m app 5` does not show '70'; it shows: OK"
    assert told in build.calls.users("verify.phase")[1]
    assert told in build.implementers.instructions[1]
    assert events[-1].data["status"] == "completed"


async def test_trial__that_was_wrong_itself_can_be_withdrawn(tmp_path: Path) -> None:
    build = Scripted(tmp_path, {"verify.phase": [TRIED, passes("T-001")]})
    await build.start()
    events = await build.until("verify.finished")
    assert next(each.data["verdict"] for each in events if each.type == "verify.finished") == "pass"


@pytest.mark.parametrize(
    ("shows", "exit_status", "output", "words"),
    [
        ("70", 0, "it is 70\n", ""),
        ("", 0, "", ""),
        ("70", 0, "71\n", "does not show '70'; it shows: 71"),
        ("70", 1, "70\n", "exit 1; it shows: 70"),
        ("", 3, "", "exit 3; it shows: nothing"),
    ],
)
def test_trial__holds_by_status_and_output(shows: str, exit_status: int, output: str, words: str) -> None:
    result = CommandResult(command="x", exit_status=exit_status, duration_s=0.0, output=output)
    faults = trial_faults([Trial(id="T-001", command="x", shows=shows)], CheckReport(results=[result]))
    assert words in faults.get("T-001", "")
    assert bool(faults) == bool(words)


async def test_verdict__that_cannot_be_read_is_a_fail_and_not_the_end(tmp_path: Path) -> None:
    build = Scripted(tmp_path, {"verify.phase": [ReplyRejectedError("no JSON"), passes("T-001")]})
    await build.start()
    events = await build.until("project.finished")
    verdicts = [event.data for event in events if event.type == "verify.finished"]
    assert [each["verdict"] for each in verdicts] == ["fail", "pass", "pass"]
    assert "could not be read" in verdicts[0]["objections"][0]
    assert events[-1].data["status"] == "completed"
    losses = (await build.ledger.receipt(PROJECT)).losses
    assert [row.task for row in losses] == ["verify.phase P1"]


async def test_pass__on_red_checks_never_passes_however_well_it_cites_the_code(tmp_path: Path) -> None:
    cites = says(one("pass", {"file": "src/T-001.py", "from_line": 1, "to_line": 1}))
    build = Scripted(tmp_path, {"qa.review": [cites]})
    build.implementers.red = lambda work: bool(work.tools)  # The proof of the whole, which starts the product.
    await build.start()
    events = await build.until("project.finished")
    reviews = [e.data["verdict"] for e in events if e.type == "verify.finished" and e.data["phase_number"] == 0]
    assert reviews == ["fail"] * 4
    assert "The checks are red" in build.calls.users("qa.review")[1]
    assert events[-1].data["status"] == "failed"
    assert "failed its verification 4 times" in events[-1].data["reason"]


async def test_fail__without_an_edit_reopens_what_it_failed(tmp_path: Path) -> None:
    build = Scripted(tmp_path, {"verify.phase": [says(one("fail"), verdict="fail"), passes("T-001")]})
    await build.start()
    events = await build.until("project.finished")
    assert next(e.data["reopened"] for e in events if e.type == "verify.finished") == ["T-001"]
    assert "because fail" in build.implementers.instructions[1]
    assert sum(e.type == "task.merged" for e in events) == 2
    assert events[-1].data["status"] == "completed"


async def test_verdict__whose_item_fails_is_a_fail_whatever_it_says_of_the_whole(tmp_path: Path) -> None:
    build = Scripted(tmp_path, {"verify.phase": [says(one("fail"), verdict="pass"), passes("T-001")]})
    await build.start()
    first = next(each for each in await build.until("verify.finished") if each.type == "verify.finished")
    assert first.data["verdict"] == "fail"


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (edit("add", "T-001"), "T-001, which exists"),
        (edit("reopen", "T-009"), "T-009, which does not exist"),
        (edit("add", "T-002", tests=["tests/test_none.py"]), "tests/test_none.py, which no task writes"),
        (edit("add", "T-002", files=["docs/x.md", "tests/test_T-002.py"]), "docs/x.md, which the product writes"),
        (edit("strike", "T-001"), "R-01 has no task any more"),
    ],
)
async def test_edits__that_cannot_be_used_are_sent_back_and_then_count_for_nothing(
    tmp_path: Path, refused: dict[str, Any], reason: str
) -> None:
    build = Scripted(tmp_path, {"verify.phase": [says(verdict="fail", edits=(refused,))] * 2 + [passes("T-001")]})
    await build.start()
    first = next(each for each in await build.until("verify.finished") if each.type == "verify.finished")
    assert reason in build.calls.users("verify.phase")[1]
    assert (first.data["verdict"], first.data["edits"]) == ("fail", [])


async def test_edits__strike_revise_and_add_are_committed_and_the_file_says_so(tmp_path: Path) -> None:
    edits = (edit("strike", "T-002", detail="nobody needs it"), edit("add", "T-003"), edit("revise", "T-004", "T-003"))
    first, second = [item("T-001"), item("T-002")], [item("T-004", "T-001")]
    build = Scripted(
        tmp_path / "b",
        {
            "plan.todo": [plan(first, second)],
            "verify.phase P1": [says(verdict="fail", edits=edits), passes("T-001", "T-003")],
            "verify.phase P2": [passes("T-004")],
            "qa.review": [passes("T-001", "T-003", "T-004")],
        },
    )
    await build.start()
    events = await build.until("project.finished")
    assert events[-1].data["status"] == "completed"
    text = (await build.repository(tmp_path / "clone")).read("TODO.md").decode()
    assert "- [ ] T-002 ~~title of T-002~~ (struck: nobody needs it)" in text
    assert "- [x] T-003 mended" in text
    assert "- [x] T-004 mended (depends: T-003)" in text
    assert "T-002" not in text.replace("T-002 ~~title of T-002~~", "")

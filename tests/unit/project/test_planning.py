"""A plan is checked before it is paid for: refused once with all its faults, then the project fails with them."""

from pathlib import Path

import pytest

from tests.unit.project.scripted import PROJECT, Scripted, item, plan, requirement

CYCLE = plan(
    [item("T-001", "T-002"), item("T-002", "T-001"), item("T-003", files=["README.md"], tests=["tests/no.py"])]
)
STACK = {
    "choices": [{"layer": "language", "choice": "Python", "reason": "it is there"}],
    "commands": {"install": "", "build": "", "test": "Please run the tests", "run": "python3 app.py"},
}


async def test_plan__that_fails_is_sent_back_with_every_reason_and_only_the_good_one_is_paid(tmp_path: Path) -> None:
    build = Scripted(tmp_path, {"plan.todo": [CYCLE, plan([item("T-001")])]})
    await build.start()
    events = await build.until("project.finished")
    assert events[-1].data["status"] == "completed"
    assert [line.split()[3] for line in build.calls.lines("plan.todo")] == ["attempt=1", "attempt=2"]
    told = build.calls.users("plan.todo")[1]
    for reason in ("is a cycle", "README.md, which the product writes", "tests/no.py, which no task writes"):
        assert reason in told
    receipt = await build.ledger.receipt(PROJECT)
    assert [(row.task, row.attempt) for row in receipt.charged if row.task == "plan.todo"] == [("plan.todo", 2)]
    assert [(row.task, row.attempt) for row in receipt.losses] == [("plan.todo", 1)]


async def test_plan__that_fails_twice_ends_the_project_with_the_reasons(tmp_path: Path) -> None:
    build = Scripted(tmp_path, {"plan.todo": [CYCLE]})
    await build.start()
    end = (await build.until("project.finished"))[-1].data
    assert end["status"] == "failed"
    assert "is a cycle" in end["reason"]
    assert "tests/no.py" in end["reason"]
    assert len(build.calls.lines("plan.todo")) == 2
    assert not [row for row in (await build.ledger.receipt(PROJECT)).charged if row.task == "plan.todo"]
    assert not build.implementers.instructions


@pytest.mark.parametrize(
    ("task", "replies", "reason"),
    [
        ("plan.stack", [STACK], "the test command"),
        (
            "plan.requirements",
            [{"title": "T", "summary": "s", "requirements": [requirement("R-01"), requirement("R-01")]}],
            "R-01 stands twice",
        ),
    ],
)
async def test_other_replies__of_the_planning_are_checked_alike(
    tmp_path: Path, task: str, replies: list[dict[str, object]], reason: str
) -> None:
    build = Scripted(tmp_path, {task: replies})
    await build.start()
    end = (await build.until("project.finished"))[-1].data
    assert (end["status"], reason in end["reason"]) == ("failed", True)
    assert reason in build.calls.users(task)[1]


async def test_refusal__is_remembered_over_a_restart(tmp_path: Path) -> None:
    build = Scripted(tmp_path, {"plan.todo": [CYCLE]})
    await build.start()
    await build.until("plan.refused")
    await build.host.stop()
    await build.live()
    await build.until("project.finished")
    refused = [e.data["attempt"] for e in await build.events() if e.type == "plan.refused"]
    assert refused == [1, 2]

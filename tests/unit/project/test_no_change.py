"""An item that is marked so may be ticked without a change, when its checks pass; nobody is paid for it."""

from pathlib import Path
from typing import Any

from runtime.implementer.work import CheckWork
from tests.unit.project.scripted import PROJECT, Scripted, item, passes, plan

MARKED: dict[str, Any] = {"no_change_needed": True}
REPLIES: dict[str, Any] = {
    "plan.todo": [plan([item("T-001"), item("T-002", "T-001", **MARKED)])],
    "verify.phase": [passes("T-001", "T-002")],
    "qa.review": [passes("T-001", "T-002")],
}


async def test_marked_item__is_ticked_by_its_checks_alone(tmp_path: Path) -> None:
    build = Scripted(tmp_path / "b", REPLIES)
    await build.start()
    events = await build.until("project.finished")
    assert events[-1].data["status"] == "completed"
    assert len(build.implementers.instructions) == 1
    assert not [row for row in (await build.ledger.receipt(PROJECT)).charged if row.task == "T-002"]
    assert "- [x] T-002" in (await build.repository(tmp_path / "clone")).read("TODO.md").decode()


async def test_marked_item__whose_checks_are_red_is_given_to_an_implementer(tmp_path: Path) -> None:
    build = Scripted(tmp_path, REPLIES)
    red = iter([True])

    def is_red(work: CheckWork) -> bool:
        return any("test_T-002" in command for command in work.commands) and next(red, False)

    build.implementers.red = is_red
    await build.start()
    events = await build.until("project.finished")
    assert events[-1].data["status"] == "completed"
    assert [each.split(" attempt=")[0].split()[-1] for each in build.implementers.instructions] == [
        "id=T-001",
        "id=T-002",
    ]
    assert [e.data["attempt"] for e in events if e.type == "task.started" and e.data["task"] == "T-002"] == [1, 2]

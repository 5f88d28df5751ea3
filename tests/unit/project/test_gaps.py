"""What cannot be made to pass: a must-have ends the project, anything less is listed and given back."""

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import UnavailableError
from runtime.ledger.money import UCREDITS_PER_CREDIT
from runtime.project import interview, project
from runtime.project.messages import Describe, Resume, Status
from tests.unit.project.scripted import PROJECT, Scripted, item, passes, plan, requirement

WANTED = {"title": "Thing", "summary": "s", "requirements": [requirement("R-01"), requirement("R-02", "should")]}
EXTRA: dict[str, Any] = {"requirements": ["R-02"]}
REPLIES: dict[str, Any] = {
    "plan.requirements": [WANTED],
    "plan.todo": [plan([item("T-001"), item("T-002", **EXTRA), item("T-003", "T-002", **EXTRA)])],
    "verify.phase": [passes("T-001")],
    "qa.review": [passes("T-001")],
}

FAILS = {
    "verdict": "fail",
    "items": [{"id": "T-001", "verdict": "fail", "reason": "it is wrong"}],
    "findings": [],
    "todo_edits": [],
}


async def build_with(folder: Path, bad: set[str], **replies: Any) -> Scripted:
    build = Scripted(folder, {**REPLIES, **replies})
    build.implementers.bad = bad
    await build.start()
    return build


async def test_gap__is_struck_listed_refunded_and_what_waits_for_it_goes_with_it(tmp_path: Path) -> None:
    build = await build_with(tmp_path / "b", {"T-002"})
    events = await build.until("project.finished")
    assert events[-1].data["status"] == "completed"
    gap = next(event.data for event in events if event.type == "plan.gap")
    assert list(gap["items"]) == ["T-002", "T-003"]
    assert gap["requirements"] == ["R-02"]

    repository = await build.repository(tmp_path / "clone")
    todo, gaps = repository.read("TODO.md").decode(), repository.read("docs/known_gaps.md").decode()
    assert "- [x] T-001" in todo
    assert "- [ ] T-002 ~~title of T-002~~ (struck: could not be made to pass in 4 attempts" in todo
    assert "T-003 ~~title of T-003~~ (struck: it needs T-002" in todo
    assert "## T-002 title of T-002" in gaps
    assert "R-02: text of R-02" in gaps

    receipt = await build.ledger.receipt(PROJECT)
    cost = sum(row.credits_ucredits for row in receipt.charged if row.task == "T-002")
    assert cost > 0
    assert receipt.refunded_ucredits == cost
    assert events[-1].data["spent_ucredits"] == receipt.net_ucredits
    assert not await build.ledger.mismatches()


def cut_off_the_second_refund(build: Scripted) -> None:
    real, failures = build.ledger.refund_call, iter([None, UnavailableError("away"), None])

    async def refund_call(refund: Any) -> int:
        if (error := next(failures, None)) is not None:
            raise error
        return await real(refund)

    build.ledger.refund_call = refund_call  # type: ignore[method-assign]


async def test_gap__is_refunded_once_however_often_the_refund_is_cut_off(tmp_path: Path) -> None:
    build = Scripted(tmp_path, REPLIES)
    build.implementers.bad = {"T-002"}
    cut_off_the_second_refund(build)
    await build.start()
    await build.until("plan.gap")
    await build.until_status(Status.PAUSED)
    await build.tell(Resume(key="on"))
    await build.until("project.finished")
    receipt = await build.ledger.receipt(PROJECT)
    assert receipt.refunded_ucredits == sum(row.credits_ucredits for row in receipt.charged if row.task == "T-002")
    assert len(receipt.refunds) == 4


async def test_must_have__that_cannot_be_met_ends_the_project_with_the_reason(tmp_path: Path) -> None:
    build = await build_with(tmp_path, {"T-001"})
    end = (await build.until("project.finished"))[-1].data
    assert end["status"] == "failed"
    assert "T-001 title of T-001 could not be made to pass in 4 attempts" in end["reason"]
    assert "FAIL: it broke" in end["reason"]
    assert "must-have R-01" in end["reason"]


async def test_failed_project__gives_what_exists_and_says_what_is_missing(tmp_path: Path) -> None:
    todo = plan([item("T-001"), item("T-002", **EXTRA)], [item("T-003")])
    build = await build_with(tmp_path, {"T-002", "T-003"}, **{"plan.todo": [todo]})
    await build.until("project.finished")
    view = await build.tell(Describe())
    assert (view.status, view.completed_at) == (Status.FAILED, None)
    assert view.package is not None
    assert view.package.partial
    files = unpacked(await build.ledger.get_blob(view.package.blob))
    assert {"src/T-001.py", "TODO.md", "RECEIPT.txt", "docs/known_gaps.md"} <= set(files)
    told = files["UNFINISHED.md"]
    assert "This is not a finished project. It failed: T-003 title of T-003 could not be made to pass" in told
    assert "1 of 2 tasks are in it." in told
    assert "- T-002 title of T-002: could not be made to pass" in told
    assert "Requirements that these tasks served: R-02." in told
    assert "## Not built yet\n\n- T-003 title of T-003\n" in told


async def test_failed_project__that_cannot_be_packed_fails_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*asked: Any) -> None:
        raise UnavailableError("The disk does not answer.")

    monkeypatch.setattr(project, "pack_what_exists", away)
    build = await build_with(tmp_path, {"T-001"})
    events = await build.until("project.finished")
    assert events[-1].data["status"] == "failed"
    assert "What exists could not be packed: The disk does not answer." in [
        event.data["text"] for event in events if event.type == "project.notice"
    ]


def unpacked(data: bytes) -> dict[str, str]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name.partition("/")[2]: archive.read(name).decode() for name in archive.namelist()}


@pytest.mark.parametrize("quote_credits", [1, 9])
async def test_failed_project__pays_nothing_of_its_verification_loop_beyond_the_quote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quote_credits: int
) -> None:
    # given a quote below what planning costs, or between that and the whole, and a refund that is cut off
    quote = quote_credits * UCREDITS_PER_CREDIT
    monkeypatch.setattr(interview, "quote_ucredits", lambda *known: quote)
    build = Scripted(tmp_path, {**REPLIES, "verify.phase": [FAILS]}, quote_ceiling_factor=100)
    cut_off_the_second_refund(build)
    # when its only must-have fails one verification after the other
    await build.start()
    await build.until_status(Status.PAUSED)
    await build.tell(Resume(key="on"))
    end = (await build.until("project.finished"))[-1].data
    # then the newest calls of the loop are given back, as many as it takes, each once, and never those before it
    assert end["status"] == "failed"
    receipt = await build.ledger.receipt(PROJECT)
    assert end["spent_ucredits"] == receipt.net_ucredits
    loop = [
        row
        for row in receipt.charged
        if row.task_type == "verification" or (row.task_type == "coding" and row.attempt > 1)
    ]
    newest_first = [row.call for row in sorted(loop, key=lambda row: row.at, reverse=True)]
    refunded = {row.call: row.amount_ucredits for row in receipt.refunds}
    assert len(refunded) == len(receipt.refunds) >= 2
    assert set(refunded) == set(newest_first[: len(refunded)])
    if quote_credits == 1:
        assert set(refunded) == {row.call for row in loop}
        assert receipt.net_ucredits > quote, "planning and first attempts are owed all the same"
    else:
        assert 0 < len(refunded) < len(loop)
        assert receipt.net_ucredits <= quote
        assert receipt.net_ucredits + refunded[newest_first[len(refunded) - 1]] > quote
    assert not await build.ledger.mismatches()


async def test_phase__that_fails_again_and_again_gives_up_the_items_that_failed(tmp_path: Path) -> None:
    fail = {
        "verdict": "fail",
        "items": [{"id": "T-002", "verdict": "fail", "reason": "it is wrong"}],
        "findings": [],
        "todo_edits": [],
    }
    todo = plan([item("T-001"), item("T-002", **EXTRA)])
    build = await build_with(tmp_path, set(), **{"plan.todo": [todo], "verify.phase": [fail] * 4 + [passes("T-001")]})
    events = await build.until("project.finished")
    assert events[-1].data["status"] == "completed"
    gap = next(event.data for event in events if event.type == "plan.gap")
    assert "failed its verification 4 times, last because: it is wrong" in gap["items"]["T-002"]
    receipt = await build.ledger.receipt(PROJECT)
    assert receipt.refunded_ucredits == sum(row.credits_ucredits for row in receipt.charged if row.task == "T-002")


async def test_plan__of_which_nothing_is_left_fails(tmp_path: Path) -> None:
    wanted = {**WANTED, "requirements": [requirement("R-01", "should")]}
    build = await build_with(
        tmp_path, {"T-001"}, **{"plan.requirements": [wanted], "plan.todo": [plan([item("T-001")])]}
    )
    end = (await build.until("project.finished"))[-1].data
    assert end["status"] == "failed"
    assert end["reason"].startswith("No task of the plan could be made to pass.")

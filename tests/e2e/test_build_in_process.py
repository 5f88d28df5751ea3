"""A build survives a crash at any append, and the user pays every (task, attempt) once."""

import asyncio
import io
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from git import GitCommandError, Repo

from runtime.catalogue.catalogue import CATALOGUE
from runtime.ids import LOCAL_ADMIN, ProjectId, project_entity
from runtime.ledger.money import UCREDITS_PER_CREDIT
from runtime.project.messages import Answer, Cancel, Status
from runtime.project.schemas import TOPICS
from runtime.reports.port import Asked
from tests.e2e.world import Crash, World, paid_by_call


async def assert_books_agree(world: World, project: ProjectId) -> None:
    """Receipt = ledger = the simulator's own count by call id, to the last picodollar; the rest are listed losses."""
    receipt = await world.store.books.receipt(project)
    served, paid = world.served(), paid_by_call(receipt)
    losses = {row.call for row in receipt.losses}
    assert not receipt.pending
    assert set(served) <= set(paid) | losses
    for call, tokens in paid.items():
        assert tokens == (served[call]["prompt_tokens"], served[call]["completion_tokens"]), call
    cost = sum(
        CATALOGUE.price("openai", row.model).cost_pusd(row.input_tokens, row.output_tokens) for row in receipt.charged
    )
    balance = await world.store.books.balance(LOCAL_ADMIN)
    assert receipt.total_cost_pusd == cost
    assert receipt.total_ucredits == 100 * UCREDITS_PER_CREDIT - balance.balance_ucredits
    assert balance.held_ucredits == 0
    by_attempt = Counter((row.task, row.attempt, row.run) for row in receipt.charged)
    assert max(by_attempt.values()) == 1
    assert len({run for _, _, run in by_attempt}) == len(by_attempt)
    assert len({(task, attempt, _step(run)) for task, attempt, run in by_attempt}) == len(by_attempt)
    assert not await world.store.books.mismatches()


async def assert_reports_agree(world: World, project: ProjectId) -> None:
    """What reports count of a build is what its events and its receipt say."""

    async def rows(name: str) -> dict[tuple[Any, Any], dict[str, Any]]:
        found = await world.store.reports.report(Asked(name=name))
        return {(row[0], row[1]): dict(zip(found.columns, row, strict=True)) for row in found.rows}

    receipt = await world.store.books.receipt(project)
    spend, agents, completion = await rows("spend"), await rows("agents"), await rows("completion")
    lost_pusd = sum(row.cost_pusd for row in receipt.losses)
    assert spend["project", project]["cost_pusd"] == receipt.total_cost_pusd + lost_pusd
    assert completion["status", "completed"]["projects"] == 1
    assert (agents["items", "all"]["passed"], agents["items", "all"]["items"]) == (12, 12)
    verdicts = [row for (part, _), row in agents.items() if part == "verification"]
    by_model = [row for (part, _), row in agents.items() if part == "verification by model"]
    assert sum(row["failed"] for row in verdicts) == 1
    assert [(row["passed"], row["failed"]) for row in by_model] == [
        (sum(row["passed"] for row in verdicts), 1),
    ]


def _step(run: object) -> str:
    return str(run).rpartition("#")[0]


async def test_build__completes_and_every_sum_agrees(world: World) -> None:
    project = (await world.order()).id
    events = await world.until(project, "project.finished")
    assert events[-1].data["status"] == Status.COMPLETED
    await assert_books_agree(world, project)
    await assert_reports_agree(world, project)

    merged = [event.data["task"] for event in events if event.type == "task.merged"]
    assert len(merged) == len(set(merged)) == 12
    assert [event.data["passed"] for event in events if event.type == "task.checked"].count(False) == 1
    assert [event.data["verdict"] for event in events if event.type == "verify.finished"].count("fail") == 1

    package = next(event.data for event in events if event.type == "package.ready")
    with zipfile.ZipFile(io.BytesIO(await world.store.books.get_blob(package["blob"]))) as archive:
        names = {name.removeprefix("generated_project/") for name in archive.namelist()}
        todo = archive.read("generated_project/TODO.md").decode()
        trace = archive.read("generated_project/docs/traceability.md").decode()
    documents = ("requirements", "architecture", "api_documentation", "deployment_guide", "traceability")
    assert {f"docs/{name}.md" for name in documents} <= names
    assert {"README.md", "TODO.md", ".gitignore"} <= names
    assert "- [ ]" not in todo
    assert todo.count("- [x]") == 12
    assert all(f"| R-{number:02} |" in trace for number in range(1, 11))
    assert " passed |" in trace
    assert "| - |" not in trace


@pytest.mark.parametrize("step", [10, 47, 90])
async def test_crash__at_any_append_is_survived_and_nothing_is_charged_twice(world: World, step: int) -> None:
    world.crash_at = step
    crashes = 0
    order = world.order
    try:
        project = (await order()).id
    except Exception:
        await world.crash_and_restart()
        crashes += 1
        project = (await order()).id
    while True:
        try:
            events = await world.until(project, "project.finished")
            break
        except Crash:
            await world.crash_and_restart()
            crashes += 1
            world.crash_at = world.appends + 41
    assert crashes >= 1
    assert events[-1].data["status"] == Status.COMPLETED
    await assert_books_agree(world, project)
    keys = [event.key for event in events]
    assert len(keys) == len(set(keys))


async def test_interview__asks_what_is_missing_and_goes_on_with_the_answers(world: World) -> None:
    project = (await world.order(answers={}, confirmed=False)).id
    entity = project_entity(project)
    for number, topic in enumerate(TOPICS):
        await world.host.events(entity, 0, 5)
        question = await _question(world, project, number)
        assert question == topic
        await world.host.ask(entity, Answer(key=f"answer-{number}", text="you decide"))
    quoted = (await world.until(project, "project.quoted"))[-1].data
    assert quoted["ceiling_ucredits"] == quoted["quote_ucredits"] * 3 // 2
    view = await world.host.ask(entity, Cancel(key="stop"))
    assert view.status is Status.CANCELLED
    await assert_books_agree(world, project)


async def _question(world: World, project: ProjectId, number: int) -> str:
    """From the entity, not from the store, where an event is a moment before the entity's state has it."""
    while True:
        events = [e for e in await world.host.events(project_entity(project), 0, 0.0) if e.type == "project.question"]
        if len(events) > number:
            return str(events[number].data["topic"])
        await asyncio.sleep(0.02)


async def test_change_that_is_red_on_the_merged_tree__does_not_land(world: World) -> None:
    project = (await world.order()).id
    await world.until(project, "verify.finished")
    # The second phase's tasks are made side by side: all but the first to land are checked on a main that has moved.
    # Those that wait together are halved while they are red, so it stays red until one goes back; one that the scenario
    # makes badly at first goes back of itself.
    world.red_checks = 1_000
    await world.until(project, "task.rejected", 2)
    world.red_checks = 0
    events = await world.until(project, "project.finished")
    assert events[-1].data["status"] == Status.COMPLETED
    rejected = [
        event.data for event in events if event.type == "task.rejected" and "merged tree" in event.data["reason"]
    ]
    assert {data["cause"] for data in rejected} == {"merged tree"}
    landed = {event.data["task"]: event.data["attempt"] for event in events if event.type == "task.merged"}
    for data in rejected:
        assert "FAIL: it broke" in data["reason"]
        assert landed[data["task"]] > data["attempt"]


async def test_reverting_any_one_task__turns_a_test_of_the_delivered_project_red(world: World, tmp_path: Path) -> None:
    project = (await world.order()).id
    events = await world.until(project, "project.finished")
    bundle = next(event.data["bundle"] for event in reversed(events) if "bundle" in event.data)
    (tmp_path / "bundle").write_bytes(await world.store.books.get_blob(bundle))
    clone = Repo.clone_from(str(tmp_path / "bundle"), tmp_path / "clone", branch="main")
    test_files = await asyncio.to_thread(delivered_tests, clone)
    assert run_tests(clone, test_files) == 0
    commits = {event.data["task"]: event.data["commit"] for event in events if event.type == "task.merged"}
    assert len(commits) == 12
    for task, commit in commits.items():
        assert f"Task: {task}/" in str(clone.commit(commit).message)
        assert f"- [x] {task} " in clone.git.show(f"{commit}:TODO.md")
        assert f"- [x] {task} " not in clone.git.show(f"{commit}~1:TODO.md")
        revert(clone, commit)
        assert run_tests(clone, test_files) != 0, f"without {task} everything is still green"
        clone.git.reset("--hard", "--quiet")
        clone.git.clean("-ffdxq")


def delivered_tests(clone: Repo) -> list[str]:
    root = Path(clone.working_dir)
    return sorted(str(file.relative_to(root)) for file in root.glob("tests/test_*.py"))


def revert(clone: Repo, commit: str) -> None:
    """Puts every file of the commit back to what it was before; the ticked plan stays as it is."""
    for path in clone.commit(commit).stats.files:
        if path == "TODO.md":
            continue
        try:
            clone.git.checkout(f"{commit}~1", "--", path)
        except GitCommandError:
            clone.git.rm("--quiet", "--force", "--", path)


def run_tests(clone: Repo, test_files: list[str]) -> int:
    """Exit status of the delivered project's own tests, with nothing but Python; a missing test file is red too."""
    command = [sys.executable, "-m", "unittest", *test_files]
    return subprocess.run(command, cwd=clone.working_dir, capture_output=True, check=False).returncode

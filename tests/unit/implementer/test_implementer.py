"""The implementer with an engine that does as it is told, in the real sandbox."""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from runtime.errors import BadInputError
from runtime.implementer import implementer as implementers
from runtime.implementer.engine import EditOutcome, EditRequest
from runtime.implementer.implementer import Implementer
from runtime.implementer.sandbox import Sandbox
from runtime.implementer.work import CheckWork, EditResult, EditWork
from runtime.project.repository import Author, ProjectRepository, patch_between

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")

ANN = Author(name="Ann", email="ann@example.com")


class TellingEngine:
    """Writes what it was told to write, and keeps the requests."""

    def __init__(self) -> None:
        self.files: Mapping[str, bytes] = {}
        self.error = ""
        self.requests: list[EditRequest] = []

    async def start(self) -> None: ...

    async def edit(self, request: EditRequest) -> EditOutcome:
        self.requests.append(request)
        return EditOutcome(files=self.files, error=self.error, log="log", engine="telling 1.0 (pid 1, /python)")

    async def stop(self) -> None: ...


@pytest.fixture
def engine() -> TellingEngine:
    return TellingEngine()


@pytest.fixture
async def implementer(engine: TellingEngine, tmp_path: Path) -> AsyncIterator[Implementer]:
    implementer = Implementer(sandbox=Sandbox(), engine=engine, scratch_dir=tmp_path / "scratch")
    await implementer.start()
    yield implementer
    assert [len(os.listdir(folder)) for folder in os.scandir(tmp_path / "scratch")] == [0]
    await implementer.stop()
    assert os.listdir(tmp_path / "scratch") == []


@pytest.fixture
def repository(tmp_path: Path) -> ProjectRepository:
    repository = ProjectRepository.init(tmp_path / "project", ANN)
    repository.write_and_commit({"a.txt": "one\n", "b.txt": "two\n", ".gitignore": "build/\n"}, "Start", ANN)
    return repository


def has_process(word: str) -> bool:
    return any(word in (process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))


def wait_for_process(word: str) -> None:
    while not has_process(word):
        time.sleep(0.02)


def work(repository: ProjectRepository, files: list[str], checks: list[str], read_only: list[str]) -> EditWork:
    return EditWork(
        tree=repository.contents(),
        instruction="Do it.",
        files=files,
        read_only=read_only,
        model="openai/gpt-4o-mini",
        gateway_url="http://127.0.0.1:1/v1",
        token="mbt-1",
        checks=checks,
        edit_timeout_s=12.0,
    )


async def edit(implementer: Implementer, repository: ProjectRepository, *checks: str) -> EditResult:
    return await implementer.edit(work(repository, ["a.txt", "new/c.txt", "build/d.txt"], list(checks), []))


async def test_edit__hands_the_engine_the_files_and_what_it_needs(
    implementer: Implementer, engine: TellingEngine, repository: ProjectRepository
) -> None:
    await implementer.edit(work(repository, ["a.txt", "new.txt"], [], ["b.txt", "gone.txt", "a.txt"]))
    (request,) = engine.requests
    assert request.files == {"a.txt": b"one\n", "new.txt": None}
    assert request.read_only == {"b.txt": b"two\n"}
    assert (request.instruction, request.model, request.token) == ("Do it.", "openai/gpt-4o-mini", "mbt-1")
    assert request.timeout_s == 12.0


async def test_edit__gives_a_patch_that_applies_to_the_original(
    implementer: Implementer, engine: TellingEngine, repository: ProjectRepository
) -> None:
    engine.files = {"a.txt": b"1\n", "new/c.txt": b"\0\xff", "build/d.txt": b"ignored by git, wanted by the plan\n"}
    result = await edit(implementer, repository)
    repository.apply_patch(result.patch)
    assert list(result.changed) == ["a.txt", "build/d.txt", "new/c.txt"]
    assert repository.read("a.txt") == b"1\n"
    assert repository.read("new/c.txt") == b"\0\xff"
    assert repository.read("build/d.txt").startswith(b"ignored")
    assert result.engine == "telling 1.0 (pid 1, /python)"


async def test_edit__discards_and_tells_what_the_plan_did_not_give(
    implementer: Implementer, engine: TellingEngine, repository: ProjectRepository
) -> None:
    engine.files = {"a.txt": b"1\n", "b.txt": b"2\n", "../up": b"x"}
    result = await edit(implementer, repository, "cat a.txt b.txt")
    assert list(result.changed) == ["a.txt"]
    assert "not among the task's files: ../up, b.txt" in result.engine_log
    assert b"b.txt" not in result.patch
    assert result.checks.results[0].output == "1\ntwo\n"


async def test_next_edit__goes_beside_the_checks_of_the_one_before_and_waits_with_its_own(
    implementer: Implementer, repository: ProjectRepository, engine: TellingEngine
) -> None:
    engine.files = {"a.txt": b"two\n"}
    edited: asyncio.Queue[str] = asyncio.Queue()

    def begun(name: str, check: str) -> "asyncio.Task[EditResult]":
        piece = work(repository, ["a.txt"], [check], [])
        return asyncio.create_task(implementer.edit(piece, lambda: edited.put_nowait(name)))

    async with asyncio.timeout(20):
        first = begun("first", "sleep 1.5")
        assert await edited.get() == "first"
        second = begun("second", "true")
        await asyncio.sleep(0.5)
        assert (len(engine.requests), first.done(), edited.empty()) == (2, False, True), "edited, and not checked yet"
        results = await asyncio.gather(first, second)
    assert await edited.get() == "second"
    assert all(result.checks.passed for result in results)


async def test_edit_without_a_change__waits_for_nobodys_checks_and_says_nothing(
    implementer: Implementer, repository: ProjectRepository, engine: TellingEngine
) -> None:
    edited: asyncio.Queue[str] = asyncio.Queue()
    engine.files = {"a.txt": b"two\n"}
    first = asyncio.create_task(
        implementer.edit(work(repository, ["a.txt"], ["sleep 1.5"], []), lambda: edited.put_nowait("first"))
    )
    assert await edited.get() == "first"
    engine.files = {"a.txt": b"one\n"}
    second = await implementer.edit(work(repository, ["a.txt"], ["true"], []), lambda: edited.put_nowait("second"))
    assert (first.done(), edited.empty(), second.patch) == (False, True, b"")
    assert (await first).checks.passed


async def test_patch__is_made_when_the_engine_could_take_the_next_piece(
    implementer: Implementer, repository: ProjectRepository, engine: TellingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def made(*arguments: Any) -> bytes:
        done.append("patch")
        return patch_between(*arguments)

    monkeypatch.setattr(implementers, "patch_between", made)
    engine.files = {"a.txt": b"two\n"}
    await implementer.edit(work(repository, ["a.txt"], [], []), lambda: done.append("edited"))
    assert done == ["edited", "patch"]


async def test_edit__without_a_change_is_not_checked(
    implementer: Implementer, engine: TellingEngine, repository: ProjectRepository
) -> None:
    engine.files = {"b.txt": b"2\n"}
    engine.error = "The wallet cannot cover this call."
    result = await edit(implementer, repository, "true")
    assert (result.patch, list(result.changed), list(result.checks.results)) == (b"", [], [])
    assert result.engine_log.startswith("error: The wallet cannot cover this call.")


async def test_edit__keeps_the_droppings_of_checks_out_of_the_patch(
    implementer: Implementer, engine: TellingEngine, repository: ProjectRepository
) -> None:
    engine.files = {"a.txt": b"1\n"}
    result = await edit(implementer, repository, "echo x > dropping; echo broken > a.txt; rm b.txt", "cat dropping")
    assert result.checks.passed
    assert b"dropping" not in result.patch
    repository.apply_patch(result.patch)
    assert repository.read("a.txt") == b"1\n"
    assert repository.read("b.txt") == b"two\n"


async def test_edit__stops_at_the_first_check_that_fails(
    implementer: Implementer, engine: TellingEngine, repository: ProjectRepository
) -> None:
    engine.files = {"a.txt": b"1\n"}
    result = await edit(implementer, repository, "true", "exit 3", "echo never")
    assert [check.exit_status for check in result.checks.results] == [0, 3]
    assert not result.checks.passed
    assert result.patch


async def test_check__runs_on_the_trees_files_alone(implementer: Implementer, repository: ProjectRepository) -> None:
    report = await implementer.check(CheckWork(tree=repository.contents(), commands=["ls -A", "cat a.txt"]))
    assert [result.output for result in report.results] == [".gitignore\na.txt\nb.txt\n", "one\n"]


async def test_check__goes_on_past_a_failure_when_told_to(
    implementer: Implementer, repository: ProjectRepository
) -> None:
    tree = repository.contents()
    for keep_going, expected in ((False, [1]), (True, [1, 0])):
        report = await implementer.check(CheckWork(tree=tree, commands=["false", "true"], keep_going=keep_going))
        assert [result.exit_status for result in report.results] == expected
        assert not report.passed


@pytest.mark.parametrize("path", ["../x", "/etc/x", ".git/config", "a/../../x"])
async def test_check__refuses_a_tree_that_leads_out_of_its_folder(implementer: Implementer, path: str) -> None:
    with pytest.raises(BadInputError):
        await implementer.check(CheckWork(tree={path: b"x"}, commands=["true"]))


async def test_check__cleans_up_when_cancelled(implementer: Implementer, repository: ProjectRepository) -> None:
    # given a command that runs
    work = CheckWork(tree=repository.contents(), commands=["sleep 86395"])
    task = asyncio.create_task(implementer.check(work))
    await asyncio.to_thread(wait_for_process, "86395")
    # when
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # then
    assert not has_process("86395")


async def test_start__removes_what_dead_implementers_left(engine: TellingEngine, tmp_path: Path) -> None:
    # given the scratch of a process that is gone, and of one that is not
    root = tmp_path / "scratch"
    for folder in ("999999999-aa", f"{os.getppid()}-aa", "unrelated"):
        (root / folder / "deep").mkdir(parents=True)
    implementer = Implementer(sandbox=Sandbox(), engine=engine, scratch_dir=root)
    # when
    await implementer.start()
    await implementer.stop()
    # then
    assert sorted(os.listdir(root)) == sorted([f"{os.getppid()}-aa", "unrelated"])

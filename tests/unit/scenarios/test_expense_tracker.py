"""The demo's scenario is a project that can really be built, and whose parts are all needed."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from cluster.simulator.scenario import SCENARIOS, Scenario
from runtime.project.schemas import (
    SCHEMAS,
    TOPICS,
    MarkdownReply,
    RequirementsReply,
    StackReply,
    TodoReply,
    VerdictReply,
)
from runtime.project.todo import Item, Todo

SCENARIO = Scenario.load(SCENARIOS / "expense_tracker")
BLOCK = re.compile(
    r"^(?P<path>\S+)\n```[a-z]+\n<<<<<<< SEARCH\n(?P<search>.*?)=======\n(?P<replace>.*?)>>>>>>> REPLACE\n```$",
    re.MULTILINE | re.DOTALL,
)
REQUIREMENTS = RequirementsReply.model_validate_json(SCENARIO.replies["plan.requirements", "project", 1])
COMMANDS = StackReply.model_validate_json(SCENARIO.replies["plan.stack", "project", 1]).commands
PLAN = Todo.from_plan(
    TodoReply.model_validate_json(SCENARIO.replies["plan.todo", "project", 1]),
    [r.id for r in REQUIREMENTS.requirements],
)
FAILED = VerdictReply.model_validate_json(SCENARIO.replies["verify.phase", "P2", 1])
WHOLE = PLAN.edited(FAILED.todo_edits, phase=2)
README = MarkdownReply.model_validate_json(SCENARIO.replies["docs.readme", "project", 1]).markdown


def test_replies__fit_their_schemas() -> None:
    for (task, id, attempt), text in SCENARIO.replies.items():
        if task != "code.edit":
            assert SCHEMAS[task].model_validate_json(text), (task, id, attempt)


def test_interview__has_a_text_for_every_topic() -> None:
    assert set(SCENARIO.answers) == set(TOPICS)
    assert set(SCENARIO.interview.questions) == set(TOPICS)
    assert set(SCENARIO.interview.assumptions) == set(TOPICS)


def test_plan__has_ten_tasks_or_more_and_at_most_five_a_phase() -> None:
    assert len(PLAN.items) >= 10
    assert all(1 <= len(WHOLE.in_phase(number)) <= 5 for number in range(1, len(WHOLE.phases) + 1))


def test_plan__has_an_edit_for_every_task() -> None:
    assert {id for task, id, _ in SCENARIO.replies if task == "code.edit"} == {item.id for item in WHOLE.items}


def test_tasks_that_are_ready_together__touch_different_files() -> None:
    most = 0
    for batch in batches():
        files = [file for item in batch for file in item.files]
        assert len(files) == len(set(files))
        most = max(most, len(batch))
    assert most >= 3


def test_edits__touch_exactly_the_files_of_their_task() -> None:
    for item in WHOLE.items:
        for attempt in attempts(item.id):
            assert {path for path, _, _ in blocks(edit(item.id, attempt))} == set(item.files), (item.id, attempt)


def test_edits__name_no_file_outside_their_task() -> None:
    """Aider takes such a word for a file that it should be given first, and asks again instead of editing."""
    every = {file for item in WHOLE.items for file in item.files} | {"README.md", "TODO.md"}
    for item in WHOLE.items:
        own = {Path(file).name for file in item.files}
        others = {name for file in every for name in (file, Path(file).name) if Path(file).name not in own}
        words = {word.rstrip(",.!;:?").strip("\"'`*_") for word in edit(item.id, 1).split()}
        assert not words & others, item.id


def test_edits__are_read_alike_by_aider() -> None:
    """Aider drops a first line that ends with the file's name, makes no empty file, and ends a block at `=====`."""
    for item in WHOLE.items:
        for path, search, replacement in blocks(edit(item.id, 1)):
            first = replacement.split("\n", 1)[0]
            assert replacement.strip(), path
            assert search or not first.strip().endswith(Path(path).name), path
            assert not re.search(r"^(={5,9}|```)", search + replacement, re.MULTILINE), path


@pytest.mark.parametrize("backwards", [False, True], ids=["in the order of the plan", "against it"])
def test_build__is_green_after_every_task_but_for_the_planned_mistake(tmp_path: Path, backwards: bool) -> None:
    tree = tmp_path / "project"
    tree.mkdir()
    done: list[str] = []
    for batch in batches():
        for item in reversed(batch) if backwards else batch:
            tests = COMMANDS.test.replace("{tests}", " ".join(WHOLE.tests([*done, item.id])))
            for attempt in attempts(item.id)[:-1]:
                spoilt = tmp_path / "spoilt"
                shutil.copytree(tree, spoilt)
                apply(spoilt, edit(item.id, attempt))
                assert run(spoilt, tests).returncode != 0, f"{item.id} attempt {attempt} is green"
                shutil.rmtree(spoilt)
            apply(tree, edit(item.id, attempts(item.id)[-1]))
            checked = run(tree, f"{COMMANDS.build} && {tests}")
            assert checked.returncode == 0, f"{item.id}: {checked.stderr}"
            done.append(item.id)


def test_build__has_one_task_that_succeeds_at_its_second_attempt() -> None:
    assert [item.id for item in WHOLE.items if len(attempts(item.id)) == 2] == ["T-005"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("built") / "project", WHOLE.items)


def test_project__has_more_than_thirty_tests(built: Path) -> None:
    done = run(built, "python3 -m unittest discover -s tests")

    assert done.returncode == 0, done.stderr
    ran = re.search(r"^Ran (\d+) tests", done.stderr, re.MULTILINE)
    assert ran is not None
    assert int(ran[1]) > 30


@pytest.mark.parametrize("left_out", [item.id for item in WHOLE.items])
def test_project__is_red_without_any_one_task(tmp_path: Path, left_out: str) -> None:
    tree = build(tmp_path / "project", [item for item in WHOLE.items if item.id != left_out])

    assert run(tree, "python3 -m unittest discover --failfast -s tests").returncode != 0


def test_readme__has_every_section() -> None:
    sections = re.findall(r"^## (.+)$", README, re.MULTILINE)

    assert sections == [
        "Overview",
        "Prerequisites",
        "Installation",
        "Configuration",
        "Running",
        "Features",
        "Directory overview",
    ]


def test_readme__can_be_followed_line_by_line(built: Path, tmp_path: Path) -> None:
    tree = shutil.copytree(built, tmp_path / "project")
    shown = {}
    for command in readme_commands():
        done = run(tree, command)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        shown[command] = done.stdout

    [promised] = re.findall(r"^```text\n(.*?)```$", README, re.MULTILINE | re.DOTALL)
    assert shown["python3 expenses.py report 2026-03"] == promised
    assert {"add", "list", "edit", "delete", "report", "budget", "import", "export"} <= set(" ".join(shown).split())


def test_project__runs(built: Path) -> None:
    assert run(built, COMMANDS.run).returncode == 0


def test_verification__fails_once_with_evidence_and_a_new_task() -> None:
    verdicts = {key: VerdictReply.model_validate_json(text) for key, text in SCENARIO.replies.items() if verifies(key)}

    assert [key for key, reply in verdicts.items() if reply.verdict == "fail"] == [("verify.phase", "P2", 1)]
    assert [edit.id for edit in FAILED.todo_edits if edit.op == "add"] == ["T-012"]
    [finding] = FAILED.findings
    [(_, _, text)] = [block for block in blocks(edit("T-006", 1)) if block[0] == finding.file]
    assert "store.add(expenses)" in text.splitlines()[finding.line - 1]


def test_verification__judges_every_task_by_something_that_exists(built: Path) -> None:
    for (task, id, attempt), text in SCENARIO.replies.items():
        if not verifies((task, id, attempt)):
            continue
        verdict = VerdictReply.model_validate_json(text)
        todo = PLAN if (id, attempt) == ("P2", 1) else WHOLE
        judged = todo.items if task == "qa.review" else todo.in_phase(int(id.removeprefix("P")))
        assert [item.id for item in verdict.items] == [item.id for item in judged]
        for item in verdict.items:
            cited = re.findall(r"[\w/]+/[\w.]+\.[a-z]+", item.reason)
            if task == "verify.phase" and "Unchanged" not in item.reason:
                assert cited, (id, item.id)
            assert all((built / file).is_file() for file in cited), (id, item.id, cited)


def verifies(key: tuple[str, str, int]) -> bool:
    return key[0] in ("verify.phase", "qa.review")


def batches() -> Iterable[list[Item]]:
    """Tasks that can be worked on together, batch after batch, as a build with workers enough would start them."""
    todo = PLAN
    for phase in range(1, len(PLAN.phases) + 1):
        while batch := todo.ready(phase, busy=()):
            yield list(batch)
            for item in batch:
                todo = todo.ticked(item.id)
            if phase == 2 and len(todo.items) == len(PLAN.items) and not todo.ready(phase, busy=()):
                todo = todo.edited(FAILED.todo_edits, phase=2)
    assert all(item.done for item in todo.items)


def attempts(id: str) -> list[int]:
    return sorted(attempt for task, edited, attempt in SCENARIO.replies if (task, edited) == ("code.edit", id))


def edit(id: str, attempt: int) -> str:
    return SCENARIO.replies["code.edit", id, attempt]


def blocks(text: str) -> list[tuple[str, str, str]]:
    found = [(match["path"], match["search"], match["replace"]) for match in BLOCK.finditer(text)]
    assert len(found) == text.count("<<<<<<< SEARCH")
    return found


def apply(tree: Path, text: str, *, lenient: bool = False) -> None:
    """Carries out an edit: an empty search makes a new file. Lenient: what has nothing to change is passed over."""
    for path, search, replacement in blocks(text):
        file = tree / path
        if search and lenient and not file.exists():
            continue
        old = file.read_text() if search else ""
        assert bool(search) == file.exists(), path
        assert old.count(search) == 1 or not search, path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(old.replace(search, replacement) if search else replacement)


def build(tree: Path, items: Iterable[Item]) -> Path:
    tree.mkdir()
    for item in items:
        apply(tree, edit(item.id, attempts(item.id)[-1]), lenient=True)
    return tree


def readme_commands() -> list[str]:
    fences = re.findall(r"^```sh\n(.*?)```$", README, re.MULTILINE | re.DOTALL)
    lines = [line for fence in fences for line in fence.splitlines() if line.strip()]
    return [line for line in lines if not line.startswith(("git clone ", "docker "))]


def run(tree: Path, command: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(tree.parent)}
    return subprocess.run(["sh", "-c", command], cwd=tree, env=environment, capture_output=True, text=True, timeout=60)

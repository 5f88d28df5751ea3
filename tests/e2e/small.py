"""A scenario that is built in seconds: a calculator of four tasks in two phases, and a wish for a fifth midway."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cluster.simulator.server import Simulator
from runtime.implementer.blocks_engine import BlocksEngine
from runtime.implementer.implementer import Implementer
from runtime.implementer.sandbox import NO_FILES, NOTHING, Sandbox
from runtime.implementer.work import CommandResult, Limits
from runtime.project.schemas import TOPICS
from tests.e2e.world import MeteredDoor, World
from tests.unit.project.scripted import probed

BRIEF = "A calculator for integers: it adds, multiplies and subtracts on the command line."
ANSWERS = dict.fromkeys(TOPICS, "as small as possible")
TASKS = {"T-001": "add", "T-002": "multiply", "T-003": "subtract", "T-004": "negate", "T-005": "power"}
"""Each is one module with one test."""
README = "# Calculator\n\n## Overview\n\nIt counts.\n\n## Features\n\nSums.\n" + "".join(
    f"\n## {title}\n\n```sh\npython3 -m unittest\n```\n"
    for title in ("Prerequisites", "Installation", "Configuration", "Running")
)
FLAWED = "T-003"
"""Its first attempt does not pass."""


@asynccontextmanager
async def playing(folder: Path) -> AsyncIterator[World]:
    """A world in which it is built."""
    usage_file = folder / "usage.jsonl"
    async with Simulator(usage_file=usage_file, latency_ms=20, scenarios=write(folder / "scenarios")) as simulator:
        world = World(folder, simulator, usage_file)
        world.sandbox = ReadingSandbox()
        engine = BlocksEngine(MeteredDoor(world))
        world.implementer = Implementer(sandbox=world.sandbox, engine=engine, scratch_dir=folder / "scratch")
        await world.open()
        yield world
        await world.close()


def write(folder: Path, *, flawed_attempts: int = 1) -> Path:
    """The folder of scenarios, with this one in it."""
    scenario = folder / "calculator"
    replies, edits = scenario / "replies", scenario / "edits"
    replies.mkdir(parents=True)
    edits.mkdir()
    (scenario / "brief.md").write_text(BRIEF)
    (scenario / "answers.yaml").write_text(json.dumps(ANSWERS))
    texts = dict.fromkeys(TOPICS, "Anything to add?")
    summary = "Goal: a calculator. Features: add, multiply, subtract."
    (scenario / "interview.yaml").write_text(
        json.dumps({"questions": texts, "assumptions": dict.fromkeys(TOPICS, "nothing"), "summary": summary})
    )
    for name, reply in _replies().items():
        (replies / f"{name}.json").write_text(json.dumps(reply))
    for name in ("plan.architecture", "docs.api", "docs.deployment"):
        (replies / f"{name}.md").write_text(f"# {name}\n\nOne module a function.\n")
    (replies / "docs.readme.md").write_text(README)
    for task, name in TASKS.items():
        (edits / f"{task}.1.md").write_text(_edit(task, name, flawed=task == FLAWED))
    if flawed_attempts < 100:
        (edits / f"{FLAWED}.{flawed_attempts + 1}.md").write_text(_edit(FLAWED, TASKS[FLAWED], flawed=False))
    return folder


def _replies() -> dict[str, Any]:
    requirements = [_requirement("R-01", "It adds."), _requirement("R-02", "It multiplies, subtracts and negates.")]
    commands = {"install": "", "build": "", "test": "python3 -m unittest {tests}", "run": "python3 -c pass"}
    wish = {
        "title": "Powers",
        "summary": "It raises to a power.",
        "requirements": [_requirement("R-03", "It raises to a power.")],
        "todo_edits": [{"op": "add", **_item("T-005", "R-03", "T-001"), "reason": "Nothing does it yet."}],
    }
    mended = {
        "title": "Adding again",
        "summary": "Adding is looked at again.",
        "requirements": [],
        "todo_edits": [{"op": "reopen", **_item("T-001", "R-01"), "reason": "The owner found it wanting."}],
    }
    return {
        "plan.requirements": {"title": "Calculator", "summary": "Integers.", "requirements": requirements},
        "plan.stack": {
            "choices": [{"layer": "language", "choice": "Python", "reason": "It is there."}],
            "commands": commands,
        },
        "plan.todo": {
            "phases": [
                {"title": "Sums", "items": [_item("T-001", "R-01")]},
                {
                    "title": "The rest",
                    "items": [
                        _item("T-002", "R-02", "T-001"),
                        _item("T-003", "R-02", "T-001"),
                        _item("T-004", "R-02", "T-003"),
                    ],
                },
            ]
        },
        "plan.change.C1": wish,
        "plan.change.C2": mended,
        "verify.phase.P1": _verdict(("T-001", "T-005")),
        "verify.phase.P2": _verdict(("T-002", "T-003", "T-004")),
        "verify.phase.P3": _verdict(("T-005",)),
        "qa.review": _verdict(tuple(TASKS)),
    }


def _requirement(id: str, text: str) -> dict[str, Any]:
    return {"id": id, "text": text, "priority": "must", "acceptance": ["A test shows it."]}


def _item(id: str, requirement: str, *depends: str) -> dict[str, Any]:
    name = TASKS[id]
    return {
        "id": id,
        "title": f"Function {name}",
        "detail": f"Write {name}.py and its test.",
        "depends": list(depends),
        "files": [f"{name}.py", f"tests/test_{name}.py"],
        "requirements": [requirement],
        "tests": [f"tests/test_{name}.py"],
    }


def _verdict(tasks: Sequence[str]) -> dict[str, Any]:
    items = [
        {
            "id": task,
            "verdict": "pass",
            "reason": "Its test is green.",
            "evidence": [{"file": f"{TASKS[task]}.py", "from_line": 1, "to_line": 1}],
        }
        for task in tasks
    ]
    return {"verdict": "pass", "items": items, "findings": [], "todo_edits": []}


def _edit(task: str, name: str, *, flawed: bool) -> str:
    """The file says what made it, so that a second attempt on the same tree changes something too."""
    case = f"class Test(unittest.TestCase):\n    def test_it(self):\n        assert {name}.WORKS is {not flawed}\n"
    test = f"import unittest\n\nimport {name}\n\n\n{case}"
    code, its_test = _block(f"{name}.py", f"# {task}\n"), _block(f"tests/test_{name}.py", test)
    return f"Done.\n\n{code}\n\n{its_test}\n"


def _block(path: str, text: str) -> str:
    return f"{path}\n```python\n<<<<<<< SEARCH\n=======\n{text}>>>>>>> REPLACE\n```"


class ReadingSandbox(Sandbox):
    """Runs nothing: a test passes unless its file says `is False`, and the product starts and does as its README
    says. For tests of what happens between the checks."""

    async def probe(self) -> None:
        return None

    async def run(
        self,
        command: str,
        *,
        workdir: Path,
        limits: Limits,
        env: Mapping[str, str] | None = None,
        read_only: Sequence[Path] = (),
        offered: Mapping[str, Path] = NOTHING,
        writable: Mapping[str, Path] = NOTHING,
        files: Mapping[str, bytes] = NO_FILES,
    ) -> CommandResult:
        orders = [json.loads(data) for path, data in files.items() if path.endswith("/order.json")]
        if orders and "probe.main" in command:
            return CommandResult(command=command, exit_status=0, duration_s=0.0, output=probed(orders[0]))
        tests = [word for word in command.split() if word.startswith("tests/test_")]
        red = [test for test in tests if "is False" in (workdir / test).read_text()]
        output = f"FAILED {' '.join(red)}" if red else f"Ran {len(tests)} tests in 0.001s\n\nOK"
        return CommandResult(command=command, exit_status=bool(red), duration_s=0.0, output=output)

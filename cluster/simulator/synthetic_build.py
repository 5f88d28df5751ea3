"""A build that is made up from one line of its brief, for load: no folder, no state, any number of tasks.

The brief's first line orders it, and every document and task of the build carries that line on:

    synthetic build tasks=60 seed=7 delay_ms=500..5000 width=12 phases=1 wrong=0

`tasks` (20) files are written, each with a test of its own. `seed` (1) draws the graph of the tasks and how long the
implementer thinks about each, within `delay_ms` (0; a number or a range). `width` (a sixth of the tasks, at least 4)
is about how many can be worked on at once. `phases` (1) cuts the plan; more are made where a phase would be too long.
The task of number `wrong` (0: none) never passes its test, however often it is tried.
With `sabotage=KIND,KIND` its second task is done badly, and its third, or something else of the build is: see
`sabotage.py`; `target=` is what some kinds aim at, a path or a port.
What follows in the brief only makes it another brief.
"""

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import get_args

from cluster.simulator.asked import Asked
from cluster.simulator.chat import Message
from cluster.simulator.refusal import Refusal
from cluster.simulator.reply import Speech
from cluster.simulator.sabotage import SABOTAGES, Work, edit_text, reply_text, sabotaged
from runtime.project.schemas import TOPICS, Effort

TASKS_MAX = 999
PHASE_TASKS_MAX = 100
DEPENDS_MAX = 3
EFFORTS: Sequence[Effort] = get_args(Effort)
MISJUDGED = 0.25
"""How many of the tasks the architect takes for larger or smaller than they are, by one of three sizes."""
_DELAY_MS_MAX = 600_000
_LINE = re.compile(r"^synthetic build(?P<words>(?: +[a-z_]+=\S+)*)[ \t\r]*$", re.MULTILINE)
_WORD = re.compile(r"([a-z_]+)=(\d{1,9})(?:\.\.(\d{1,9}))?")
_SABOTAGE = re.compile(r" (sabotage|target)=([\w./:,-]{1,2000})(?= |$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticTask:
    id: str
    depends: tuple[str, ...]
    delay_s: float
    """How long the implementer thinks about its first attempt."""
    effort: Effort = "medium"
    """What the architect takes it for."""
    is_python: bool = False

    @property
    def file(self) -> str:
        return f"src/{self._name}.py" if self.is_python else f"src/{self._name}.txt"

    @property
    def test(self) -> str:
        return f"tests/test_{self._name}.py" if self.is_python else f"tests/{self._name}.sh"

    @property
    def number(self) -> int:
        return 7 * int(self.id.removeprefix("T-"))

    @property
    def _name(self) -> str:
        return self.id.lower().replace("-", "_") if self.is_python else self.id.lower()

    def text(self, number: int) -> str:
        return f"def times(n):\n    return {number} * n\n" if self.is_python else f"{number}\n"

    @property
    def test_text(self) -> str:
        if self.is_python:
            module = self.file.removesuffix(".py").replace("/", ".")
            return (
                f"import unittest\n\nfrom {module} import times\n\n\nclass Times(unittest.TestCase):\n"
                f"    def test_times(self):\n        self.assertEqual(times(1), {self.number})\n"
                f"        self.assertEqual(times(3), {3 * self.number})\n"
            )
        # Builtins of the shell alone: a test that starts no process leaves only our own work to be measured.
        return f'read -r number < {self.file}\n[ "$number" = {self.number} ]\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOrder:
    tasks: int = 20
    seed: int = 1
    delay_ms: tuple[int, int] = (0, 0)
    width: int = 4
    phases: int = 1
    wrong: int = 0
    sabotage: tuple[str, ...] = ()
    target: str = ""

    @property
    def is_python(self) -> bool:
        return any(SABOTAGES[kind].is_python for kind in self.sabotage)

    def sabotage_of(self, task: str) -> str:
        """The kind that spoils this task; empty for an honest one."""
        return next((kind for number, kind in enumerate(self.sabotage) if sabotaged(number) == task), "")

    @property
    def line(self) -> str:
        delay = f"{self.delay_ms[0]}..{self.delay_ms[1]}"
        return (
            f"synthetic build tasks={self.tasks} seed={self.seed} delay_ms={delay} "
            f"width={self.width} phases={self.phases} wrong={self.wrong}"
            + (f" sabotage={','.join(self.sabotage)}" if self.sabotage else "")
            + (f" target={self.target}" if self.target else "")
        )

    def graph(self) -> Sequence[SyntheticTask]:
        """In the order of the plan; the same for the same order. Nothing depends on what comes later."""
        return _graph(self)

    def delay_s(self, task: str, attempt: int) -> float:
        return random.Random(f"{self.seed}/{task}/{attempt}").uniform(*self.delay_ms) / 1000

    def effort(self, task: str) -> Effort:
        """By the third of `delay_ms` that its first attempt falls in, but the architect is one off in some."""
        low, high = (each / 1000 for each in self.delay_ms)
        third = int(3 * (self.delay_s(task, 1) - low) / (high - low)) if high > low else 1
        dice = random.Random(f"effort {self.seed}/{task}")
        if dice.random() < MISJUDGED:
            third += dice.choice((-1, 1))
        return EFFORTS[min(max(third, 0), len(EFFORTS) - 1)]

    def by_phase(self) -> Sequence[Sequence[SyntheticTask]]:
        graph = self.graph()
        count = max(min(self.phases, self.tasks), -(-self.tasks // PHASE_TASKS_MAX))
        cuts = [number * self.tasks // count for number in range(count + 1)]
        return [graph[start:end] for start, end in pairwise(cuts)]


def read_build(messages: Sequence[Message]) -> BuildOrder | None:
    """What the first such line of the request orders; None without one. Raises Refusal for one that makes no sense."""
    for message in messages:
        if "synthetic build" in message.text and (found := _LINE.search(message.text)):
            return parse_build(found[0])
    return None


@lru_cache(maxsize=256)
def parse_build(line: str) -> BuildOrder:
    """Raises Refusal."""
    given: dict[str, tuple[int, int]] = {}
    words = {found[1]: found[2] for found in _SABOTAGE.finditer(line)}
    kinds = tuple(kind for kind in words.get("sabotage", "").split(",") if kind)
    if unknown := [kind for kind in kinds if kind not in SABOTAGES]:
        raise _senseless(unknown[0])
    for word in _SABOTAGE.sub("", line).split()[2:]:
        found = _WORD.fullmatch(word)
        if found is None or found[1] not in BuildOrder.__dataclass_fields__:
            raise _senseless(word)
        given[found[1]] = (int(found[2]), int(found[3] or found[2]))
    tasks = given.get("tasks", (max(20, len(kinds) + 1),) * 2)[0]
    order = BuildOrder(
        tasks=tasks,
        seed=given.get("seed", (1, 1))[0],
        delay_ms=given.get("delay_ms", (0, 0)),
        width=given.get("width", (max(4, tasks // 6),) * 2)[0],
        phases=given.get("phases", (1, 1))[0],
        wrong=given.get("wrong", (0, 0))[0],
        sabotage=kinds,
        target=words.get("target", ""),
    )
    lowest, highest = order.delay_ms
    sizes = 1 <= order.tasks <= TASKS_MAX and 1 <= order.width <= TASKS_MAX and 1 <= order.phases <= 20
    if not sizes or len(kinds) >= order.tasks or not lowest <= highest <= _DELAY_MS_MAX:
        raise _senseless(line)
    return order


def build_speech(order: BuildOrder, asked: Asked) -> Speech:
    """What the model of this task says. Raises Refusal for a task that no build asks."""
    if asked.task == "code.edit":
        task = next((task for task in order.graph() if task.id == asked.id), None)
        if task is None:
            raise Refusal(400, f"The synthetic build has no task {asked.id}.", code="unknown_scenario")
        return Speech(text=_edit(order, task), delay_s=order.delay_s(task.id, asked.attempt))
    reply = _REPLIES.get(asked.task)
    if reply is None:
        raise Refusal(400, f"The synthetic build has no reply to {asked.task}.", code="unknown_scenario")
    honest = reply(order, asked)
    return Speech(text=reply_text(order.sabotage, asked, honest) if order.sabotage else json.dumps(honest))


@lru_cache(maxsize=64)
def _graph(order: BuildOrder) -> Sequence[SyntheticTask]:
    dice = random.Random(f"graph {order.seed}")
    graph: list[SyntheticTask] = []
    for number in range(order.tasks):
        # Far enough back that about `width` tasks have nothing to do with each other, at random distances.
        near = range(max(0, number - 2 * order.width), max(0, number - order.width // 2))
        wanted = min(len(near), dice.randint(1, DEPENDS_MAX))
        depends = sorted(dice.sample(near, wanted))
        if order.sabotage:
            depends = [0] if number else []
        id = f"T-{number + 1:03}"
        graph.append(
            SyntheticTask(
                id=id,
                depends=tuple(graph[each].id for each in depends),
                delay_s=order.delay_s(id, 1),
                effort=order.effort(id),
                is_python=order.is_python,
            )
        )
    return tuple(graph)


def _interview(order: BuildOrder, asked: Asked) -> Mapping[str, object]:
    return {
        "complete": True,
        "question": None,
        "answered": [],
        "assumptions": [{"topic": topic, "text": "It does not matter."} for topic in TOPICS],
        "summary": f"{order.tasks} files of one number each.\n\n{order.line}",
    }


def _requirements(order: BuildOrder, asked: Asked) -> Mapping[str, object]:
    wish = {
        "id": "R-01",
        "text": "Every file holds its number.",
        "priority": "must",
        "acceptance": ["The test of each file passes."],
    }
    less = {**wish, "id": "R-02", "text": "So does the second.", "priority": "should"}
    return {
        "title": f"Synthetic build {order.seed}",
        "summary": f"{order.tasks} files of one number each.",
        "requirements": [wish, less] if order.sabotage else [wish],
    }


def _stack(order: BuildOrder, asked: Asked) -> Mapping[str, object]:
    if order.is_python:
        return {
            "choices": [{"layer": "language", "choice": "Python", "reason": "R-01 needs its standard library alone."}],
            "commands": {"install": "", "build": "", "test": "python3 -m unittest {tests}", "run": "ls src"},
        }
    return {
        "choices": [{"layer": "language", "choice": "POSIX shell", "reason": "R-01 needs no more than its builtins."}],
        "commands": {"install": "", "build": "", "test": "cat {tests} | sh -e", "run": "ls src"},
    }


def _plan(order: BuildOrder, asked: Asked) -> Mapping[str, object]:
    phases = [
        {"title": f"Files, part {number}", "items": [_plan_item(order, task) for task in tasks]}
        for number, tasks in enumerate(order.by_phase(), 1)
    ]
    return {"phases": phases}


def _plan_item(order: BuildOrder, task: SyntheticTask) -> Mapping[str, object]:
    return {
        "id": task.id,
        "title": f"Write {task.file}",
        "detail": f"Write the number {task.number} into {task.file}, and its test.\n{order.line}",
        "depends": task.depends,
        "files": [task.file, task.test],
        "requirements": ["R-02" if order.sabotage_of(task.id) else "R-01"],
        "tests": [task.test],
        "effort": task.effort,
    }


def _verdict(order: BuildOrder, asked: Asked) -> Mapping[str, object]:
    phases = order.by_phase()
    number = int(asked.id[1:]) if re.fullmatch(r"P\d{1,3}", asked.id) else 0
    tasks = phases[number - 1] if 1 <= number <= len(phases) else order.graph()
    return {
        "verdict": "pass",
        "items": [
            {
                "id": task.id,
                "verdict": "pass",
                "reason": f"{task.file}:1 holds {task.number}; {task.test} passed in the test output.",
                "evidence": [{"file": task.file, "from_line": 1, "to_line": 1}, {"test": task.test}],
            }
            for task in tasks
        ],
        "findings": [],
        "todo_edits": [],
    }


def _document(order: BuildOrder, asked: Asked) -> Mapping[str, object]:
    return {"markdown": f"# {asked.task.partition('.')[2].title()}\n\nEach file in src/ has a test.\n\n{order.line}\n"}


def _readme(order: BuildOrder, asked: Asked) -> Mapping[str, object]:
    first = order.graph()[0]
    tested = f"{'python3 -m unittest' if order.is_python else 'sh -e'} {first.test}"
    sections = {
        "Overview": f"{order.tasks} files of one number each.",
        "Prerequisites": "A POSIX shell.",
        "Installation": "```sh\ngit clone <URL> synthetic && cd synthetic\n```",
        "Configuration": "There is nothing to set.",
        "Running": "```sh\nls src\n```",
        "Main features": f"Every number is tested:\n\n```sh\n{tested}\n```",
        "Directory overview": "`src/` holds the numbers, `tests/` their tests.",
    }
    return {
        "markdown": "# Synthetic build\n\n" + "\n\n".join(f"## {name}\n\n{text}" for name, text in sections.items())
    }


_REPLIES: Mapping[str, Callable[[BuildOrder, Asked], Mapping[str, object]]] = {
    "interview.next": _interview,
    "plan.requirements": _requirements,
    "plan.stack": _stack,
    "plan.architecture": _document,
    "plan.todo": _plan,
    "docs.api": _document,
    "docs.deployment": _document,
    "docs.readme": _readme,
    "verify.phase": _verdict,
    "qa.review": _verdict,
}


def _edit(order: BuildOrder, task: SyntheticTask) -> str:
    files = {
        task.file: task.text(task.number + 1 if task.id == f"T-{order.wrong:03}" else task.number),
        task.test: task.test_text,
    }
    kind = order.sabotage_of(task.id)
    if not kind:
        return edit_text(task.id, files)
    return SABOTAGES[kind].edit(
        Work(id=task.id, number=task.number, target=order.target, file=task.file, test=task.test, files=files)
    )


def _senseless(word: str) -> Refusal:
    return Refusal(
        400,
        f"A synthetic build cannot be read from {word[:80]!r}: write `synthetic build`, then any of "
        f"tasks=1..{TASKS_MAX}, seed=, delay_ms=LOW..HIGH, width=, phases= and wrong=.",
    )

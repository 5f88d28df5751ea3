"""A plan is checked before it is paid for: every fault is named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.simulator.scenario import SCENARIOS, Scenario
from runtime.errors import ReplyRejectedError
from runtime.project.plan_checks import ancestors, checked_plan, parallel_owners, plan_faults, requirement_faults
from runtime.project.schemas import Commands, PlanItem, PlanPhase, Requirement, RequirementsReply, StackReply, TodoReply
from runtime.project.todo import Item, Todo
from tests.unit.project import scripted

COMMANDS = Commands(install="", build="", test="python3 -m unittest {tests}", run="python3 app.py --help")


def requirement(id: str = "R-01") -> Requirement:
    return Requirement(id=id, text="it works", priority="must", acceptance=["it does"])


def item(id: str, *depends: str, **changes: object) -> PlanItem:
    return PlanItem.model_validate(scripted.item(id, *depends, **changes))


def faults(*phases: list[PlanItem], requirements: tuple[str, ...] = ("R-01",), commands: Commands = COMMANDS) -> str:
    plan = TodoReply(phases=[PlanPhase(title=f"phase {n}", items=items) for n, items in enumerate(phases, 1)])
    return "; ".join(plan_faults(Todo.unchecked(plan), [requirement(id) for id in requirements], commands))


def test_plan__of_the_demo_has_no_fault() -> None:
    scenario = Scenario.load(SCENARIOS / "expense_tracker")
    plan = TodoReply.model_validate_json(scenario.replies["plan.todo", "project", 1])
    wanted = RequirementsReply.model_validate_json(scenario.replies["plan.requirements", "project", 1]).requirements
    commands = StackReply.model_validate_json(scenario.replies["plan.stack", "project", 1]).commands
    assert requirement_faults(wanted) == []
    assert checked_plan(plan, wanted, commands).items


@pytest.mark.parametrize(
    ("phases", "words"),
    [
        ([[item("T-001", "T-002"), item("T-002", "T-001")]], "cycle"),
        ([[item("T-001", "T-001")]], "cycle"),
        ([[item("T-001", "T-009")]], "T-009, which does not exist"),
        ([[item("T-001"), item("T-001", files=["src/b.py"])]], "T-001 stands twice"),
        ([[item("T-001", "T-002")], [item("T-002")]], "later phase"),
        ([[item("T-001", requirements=["R-02"])]], "R-01 has no task"),
        ([[item("T-001", requirements=["R-01", "R-09"])]], "R-09 is not a requirement"),
        ([[item("T-001", tests=[])]], "R-01 has no test"),
        ([[item("T-001"), item("T-002", requirements=[])]], "T-002 serves no requirement and nothing depends on it"),
        (
            [[item("T-001"), item("T-002", files=["src/T-001.py", "tests/test_T-002.py"])]],
            "T-001 and T-002 both own src/T-001.py",
        ),
        ([[item("T-001", tests=["tests/test_other.py"])]], "tests/test_other.py, which no task writes"),
        (
            [[item("T-001", tests=["tests/test_T-002.py"]), item("T-002")]],
            "T-001 must pass tests/test_T-002.py of T-002, for which it does not wait",
        ),
        ([[item("T-001", files=["tests/test_T-001.py", "README.md"])]], "README.md, which the product writes"),
        ([[item("T-001", files=["tests/test_T-001.py", "Docs/x.md"])]], "Docs/x.md, which the product writes"),
        ([[item("T-001", files=["tests/test_T-001.py", "todo.md"])]], "todo.md, which the product writes"),
        (
            [[item("T-001", files=["tests/test_T-001.py", "src/a", "src/a/b.py"])]],
            "src/a is a file of T-001 and a folder of T-001",
        ),
        ([[item("T-001", parent="T-009")]], "part of T-009, which does not exist"),
        ([[item("T-001")], [item("T-002", parent="T-001")]], "part of T-001, which is in an earlier phase"),
        ([[item("T-001", "T-002", parent="T-002"), item("T-002")]], "cycle"),
        ([[item("T-001", files=[f"src/{n}.py" for n in range(70)])]], "T-001 owns 70 files"),
        ([[item(f"T-{n:03}") for n in range(40)] for _ in range(8)], "320 tasks"),
    ],
)
def test_plan__that_cannot_be_carried_out_is_refused_with_the_reason(phases: list[list[PlanItem]], words: str) -> None:
    assert words in faults(*phases)


def test_plan__is_told_all_its_faults_at_once() -> None:
    told = faults(
        [item("T-001", "T-008"), item("T-002", files=["src/T-001.py", "README.md"], tests=["tests/test_nowhere.py"])],
        requirements=("R-01", "R-02"),
        commands=COMMANDS.model_copy(update={"run": "Run the program"}),
    )
    for words in (
        "T-008",
        "R-02 has no task",
        "README.md",
        "both own src/T-001.py",
        "tests/test_nowhere.py",
        "run com",
    ):
        assert words in told


def test_plan__without_faults_has_none() -> None:
    assert faults([item("T-001"), item("T-002", "T-001", requirements=[]), item("T-003", "T-002")]) == ""


def test_same_file__may_be_owned_one_after_the_other_however_indirectly() -> None:
    shared = ["src/app.py"]
    chain = [
        item("T-001", files=[*shared, "tests/test_T-001.py"]),
        item("T-002", "T-001"),
        item("T-003", "T-002", files=[*shared, "tests/test_T-003.py"]),
    ]
    assert faults(chain) == ""


@pytest.mark.parametrize("command", ["true", ":", "echo all tests pass", "exit 0", "cat {tests}"])
def test_test_command__that_runs_no_test_is_named(command: str) -> None:
    assert "runs no test" in faults([item("T-001")], commands=COMMANDS.model_copy(update={"test": command}))


@pytest.mark.parametrize(
    "command", ["Run the tests", "the usual", "'unclosed", "a b\nc d", "FOO=1", "N/A", "$(reboot)", "<app>", "none"]
)
def test_command__that_no_shell_could_run_is_named(command: str) -> None:
    assert "the test command" in faults([item("T-001")], commands=COMMANDS.model_copy(update={"test": command}))


@pytest.mark.parametrize(
    "command",
    [
        "python3 -m unittest {tests}", "PYTHONPATH=src python3 -m app", "cd web && npm test", "./run.sh",
        "g++ -o a a.cc", "node --test",
        "target/release/app --help", "test -f x && make", "(cd src; make)", ".venv/bin/pytest -q",
    ],
)  # fmt: skip
def test_command__that_a_shell_can_run_is_fine(command: str) -> None:
    assert faults([item("T-001")], commands=COMMANDS.model_copy(update={"run": command})) == ""


def test_requirement__that_stands_twice_is_named() -> None:
    assert requirement_faults([requirement(), requirement()]) == ["R-01 stands twice"]


def test_refusal__bounds_what_it_tells() -> None:
    plan = TodoReply(phases=[PlanPhase(title="p", items=[item(f"T-{n:03}", "T-999") for n in range(50)])])
    with pytest.raises(ReplyRejectedError, match=r"and [0-9]+ more") as refused:
        checked_plan(plan, [requirement()], COMMANDS)
    assert len(refused.value.message) < 5_000


@st.composite
def graphs(draw: st.DrawFn) -> list[Item]:
    """Any acyclic plan of one phase whose tasks own some of four files, in any order of the list."""
    count = draw(st.integers(1, 9))
    items = []
    for n in range(count):
        depends = draw(st.sets(st.integers(0, n - 1), max_size=3)) if n else set()
        files = draw(st.sets(st.sampled_from("abcd"), min_size=1, max_size=2))
        items.append(
            Item(
                id=f"T-{n:03}", phase=1, title="t", detail="d", depends=tuple(f"T-{d:03}" for d in sorted(depends)),
                files=tuple(sorted(files)), requirements=("R-01",), tests=(),
            )
        )  # fmt: skip
    return draw(st.permutations(items))


@given(graphs())
def test_ancestors__are_what_a_walk_finds(items: list[Item]) -> None:
    by_id = {each.id: each for each in items}

    def walk(id: str) -> set[str]:
        return set(by_id[id].depends).union(*(walk(each) for each in by_id[id].depends))

    assert {id: set(found) for id, found in ancestors(items).items()} == {id: walk(id) for id in by_id}


@given(graphs())
def test_parallel_owners__are_exactly_the_pairs_that_some_schedule_runs_side_by_side(items: list[Item]) -> None:
    """Brute force: two tasks can run at once when some set of finished tasks makes both of them ready."""
    together: set[tuple[str, str]] = set()
    seen: set[frozenset[str]] = set()
    states = [frozenset[str]()]
    while states:
        done = states.pop()
        if done in seen:
            continue
        seen.add(done)
        ready = [each.id for each in items if each.id not in done and done.issuperset(each.depends)]
        together |= {(one, other) for one in ready for other in ready if one < other}
        states += [done | {id} for id in ready]
    by_id = {each.id: each for each in items}
    wanted = {
        (one, other, file) for one, other in together for file in set(by_id[one].files).intersection(by_id[other].files)
    }
    told = {tuple(fault.replace(" both own ", " and ").split(" and ")[:3]) for fault in parallel_owners(items)}
    assert {(*sorted(each[:2]), each[2]) for each in told} == wanted

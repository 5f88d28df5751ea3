"""Whether a plan can be carried out, asked before anything of it is paid for.

Every check answers with faults in words: all of them together go back to the architect, once.
"""

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from runtime.errors import ReplyRejectedError
from runtime.project.schemas import Commands, Requirement, TodoReply
from runtime.project.todo import Item, Todo

ITEMS_MAX = 300
FILES_PER_ITEM_MAX = 60
FAULTS_MAX = 40
"""So many are told; a plan with more is told how many there are."""

_PRODUCT_FILES = frozenset({"readme.md", "todo.md"})
_PRODUCT_FOLDERS = frozenset({"docs", ".code_index"})
_PROGRAM = re.compile(r"(\./)?[A-Za-z0-9_.+/-]*[A-Za-z0-9_+]")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*")
_PROSE = frozenset({"a", "an", "and", "execute", "n/a", "no", "none", "not", "nothing", "please", "run", "the", "use"})
"""Words that begin a sentence and name no program that a project would be run by."""
_PROVES_NOTHING = re.compile(r"(?:true|:|echo|printf|exit|ls|pwd|cd|cat)(?:\s[^|&;]*)?")
"""A single command that tells of no test, whatever it is given."""
_SHELL_WORDS = frozenset({"cd", "set", "export", "exec", "env", "time", "sh", "bash", "if", "for", "while", "[", "!"})


def checked_plan(plan: TodoReply, requirements: Sequence[Requirement], commands: Commands) -> Todo:
    """Raises ReplyRejectedError naming everything that is wrong with the plan."""
    todo = Todo.unchecked(plan)
    refuse(plan_faults(todo, requirements, commands), "The plan cannot be carried out")
    return todo


def refuse(faults: Sequence[str], what: str) -> None:
    """Raises ReplyRejectedError where there are faults."""
    if faults:
        told = list(faults[:FAULTS_MAX])
        if len(faults) > FAULTS_MAX:
            told.append(f"and {len(faults) - FAULTS_MAX} more")
        raise ReplyRejectedError(f"{what}: {'; '.join(told)}.")


def plan_faults(todo: Todo, requirements: Sequence[Requirement], commands: Commands) -> list[str]:
    """Everything that makes a new plan unworkable; an empty list is a plan that may be paid for."""
    faults = [*size_faults(todo), *todo.faults(), *todo.uncovered([each.id for each in requirements])]
    faults += [*ownership_faults(todo.items), *command_faults(commands), *orphans(todo), *unwritten_tests(todo.items)]
    if not _has_cycle(todo.items):
        faults += [*parallel_owners(todo.items), *late_tests(todo.items)]
    return faults


def edit_faults(before: Todo, after: Todo) -> list[str]:
    """What a verification's edits would break, beside the graph itself: asked about what is still to be done."""
    known = {item.id for item in before.items}
    written = {file for item in after.items for file in item.files}
    left = [item for item in after.items if not item.closed]
    served = {id for item in after.wanted() for id in item.requirements}
    lost = [id for item in before.wanted() for id in item.requirements if id not in served]
    return [
        *ownership_faults(after.items),
        *parallel_owners(left),
        *(f"{id} has no task any more" for id in dict.fromkeys(lost)),
        *(
            f"{item.id} must pass {test}, which no task writes"
            for item in after.items
            if item.id not in known
            for test in item.tests
            if test not in written
        ),
    ]


def requirement_faults(requirements: Sequence[Requirement]) -> list[str]:
    twice = [id for id, count in Counter(each.id for each in requirements).items() if count > 1]
    faults = [f"{id} stands twice" for id in twice]
    return faults + [f"{each.id} has no acceptance criterion" for each in requirements if not each.acceptance]


def size_faults(todo: Todo) -> list[str]:
    faults = [f"phase {n} ({title}) has no task" for n, title in enumerate(todo.phases, 1) if not todo.in_phase(n)]
    if len(todo.items) > ITEMS_MAX:
        faults.append(f"it has {len(todo.items)} tasks, {ITEMS_MAX} at most can be carried out")
    return faults + [
        f"{item.id} owns {len(item.files)} files, {FILES_PER_ITEM_MAX} at most are one task"
        for item in todo.items
        if len(item.files) > FILES_PER_ITEM_MAX
    ]


def ownership_faults(items: Iterable[Item]) -> list[str]:
    """Files that no task may own, and paths that are a file for one task and a folder for another."""
    faults: list[str] = []
    owner: dict[str, str] = {}
    for item in items:
        for file in item.files:
            parts = file.casefold().split("/")
            if parts[0] in _PRODUCT_FOLDERS | _PRODUCT_FILES:
                faults.append(f"{item.id} owns {file}, which the product writes itself")
            owner.setdefault(file, item.id)
    for file, id in owner.items():
        folders = file.split("/")[:-1]
        for depth in range(1, len(folders) + 1):
            folder = "/".join(folders[:depth])
            if folder in owner:
                faults.append(f"{folder} is a file of {owner[folder]} and a folder of {id}")
    return list(dict.fromkeys(faults))


def command_faults(commands: Commands) -> list[str]:
    """Commands that no shell could run. Nothing to install or to build is fine; nothing to test or to run is not."""
    faults: list[str] = []
    for name, command in commands:
        if not command.strip():
            if name in ("test", "run"):
                faults.append(f"there is no {name} command")
            continue
        if name == "test" and _PROVES_NOTHING.fullmatch(command.strip()):
            faults.append(f"the test command {command!r} runs no test")
        if fault := _command_fault(command):
            faults.append(f"the {name} command {command!r} {fault}")
    return faults


def orphans(todo: Todo) -> list[str]:
    """Tasks that no requirement needs, nothing depends on and that are no part of anything."""
    needed = {id for item in todo.items for id in item.depends}
    needed |= {item.parent for item in todo.items if item.parent is not None}
    return [
        f"{item.id} serves no requirement and nothing depends on it"
        for item in todo.items
        if not item.requirements and item.id not in needed and item.parent is None
    ]


def parallel_owners(items: Sequence[Item]) -> list[str]:
    """Pairs of tasks that own the same file though neither waits for the other, however indirectly."""
    before = ancestors(items)
    owners: dict[str, list[Item]] = {}
    for item in items:
        for file in dict.fromkeys(item.files):
            owners.setdefault(file, []).append(item)
    return [
        f"{one.id} and {other.id} both own {file} and neither depends on the other"
        for file, owning in owners.items()
        for n, one in enumerate(owning)
        for other in owning[n + 1 :]
        if one.id not in before[other.id] and other.id not in before[one.id]
    ]


def unwritten_tests(items: Sequence[Item]) -> list[str]:
    """Tests that a task must pass and that no task writes."""
    written = {file for item in items for file in item.files}
    return [
        f"{item.id} must pass {test}, which no task writes"
        for item in items
        for test in item.tests
        if test not in written
    ]


def late_tests(items: Sequence[Item]) -> list[str]:
    """Tests that a task must pass and that nobody it waits for, itself included, has written by then."""
    before = ancestors(items)
    faults: list[str] = []
    for item in items:
        for test in item.tests:
            writers = [each for each in items if test in each.files]
            in_time = (each.id == item.id or each.id in before[item.id] or each.phase < item.phase for each in writers)
            if writers and not any(in_time):
                faults.append(f"{item.id} must pass {test} of {writers[0].id}, for which it does not wait")
    return faults


def ancestors(items: Sequence[Item]) -> Mapping[str, frozenset[str]]:
    """Item id -> the ids of everything it waits for, however indirectly: dependencies and its own parts.

    The graph has no cycle; what is not in it is left out.
    """
    waits: dict[str, set[str]] = {item.id: set(item.depends) for item in items}
    for item in items:
        if item.parent in waits:
            waits[item.parent].add(item.id)
    before: dict[str, frozenset[str]] = {}
    for id in TopologicalSorter(waits).static_order():
        direct = waits.get(id, set())
        before[id] = frozenset(direct).union(*(before.get(each, frozenset()) for each in direct))
    return before


def _has_cycle(items: Sequence[Item]) -> bool:
    try:
        ancestors(items)
    except CycleError:
        return True
    return False


def _command_fault(command: str) -> str:
    if "\n" in command.strip() or "\0" in command:
        return "is more than one line"
    try:
        words = shlex.split(command.replace("{tests}", "tests"))
    except ValueError:
        return "has a quote that is not closed"
    while words and _ASSIGNMENT.fullmatch(words[0]):
        words = words[1:]
    if not words:
        return "runs nothing"
    program = words[0].lstrip("(")
    if program in _SHELL_WORDS:
        return ""
    if not _PROGRAM.fullmatch(program) or program.casefold() in _PROSE:
        return f"does not begin with a program: {program!r}"
    return ""

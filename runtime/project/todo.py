"""The plan as a task graph, and as the `TODO.md` that people read.

The graph is the truth; the file is rendered from it, so that both say the same after every commit.
Source: spec/builder.md §7.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter

from runtime.errors import ReplyRejectedError
from runtime.project.schemas import TodoEdit, TodoReply


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One task. `phase` counts from 1; `done` only after its commit is on the main branch."""

    id: str
    phase: int
    title: str
    detail: str
    depends: tuple[str, ...]
    files: tuple[str, ...]
    requirements: tuple[str, ...]
    tests: tuple[str, ...]
    done: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Todo:
    """All items in the order of the plan."""

    phases: tuple[str, ...]
    items: tuple[Item, ...]

    @classmethod
    def from_plan(cls, plan: TodoReply, requirements: Iterable[str]) -> "Todo":
        """Raises ReplyRejectedError naming everything that is wrong with the plan."""
        todo = cls(
            phases=tuple(phase.title for phase in plan.phases),
            items=tuple(
                Item(
                    id=item.id,
                    phase=number,
                    title=item.title,
                    detail=item.detail,
                    depends=tuple(item.depends),
                    files=tuple(item.files),
                    requirements=tuple(item.requirements),
                    tests=tuple(item.tests),
                )
                for number, phase in enumerate(plan.phases, 1)
                for item in phase.items
            ),
        )
        faults = [*todo.faults(), *todo.uncovered(requirements)]
        if faults:
            raise ReplyRejectedError(f"The plan cannot be carried out: {'; '.join(faults)}.")
        return todo

    def item(self, id: str) -> Item:
        return next(item for item in self.items if item.id == id)

    def in_phase(self, phase: int) -> tuple[Item, ...]:
        return tuple(item for item in self.items if item.phase == phase)

    def ready(self, phase: int, busy: Iterable[str]) -> tuple[Item, ...]:
        """Open items of a phase whose dependencies are done and that nobody works on, in the order of the plan."""
        done = {item.id for item in self.items if item.done}
        taken = set(busy)
        return tuple(
            item
            for item in self.in_phase(phase)
            if not item.done and item.id not in taken and done.issuperset(item.depends)
        )

    def done_count(self) -> int:
        return sum(item.done for item in self.items)

    def ticked(self, id: str) -> "Todo":
        return self._with(id, done=True)

    def edited(self, edits: Sequence[TodoEdit], phase: int) -> "Todo":
        """After a verification's edits; what is added or reopened joins `phase`, which is worked on next.

        Raises ReplyRejectedError for a broken graph.
        """
        todo = self
        for edit in edits:
            fields: dict[str, object] = {
                "title": edit.title,
                "detail": edit.detail,
                "depends": tuple(edit.depends),
                "files": tuple(edit.files),
            }
            known = any(item.id == edit.id for item in todo.items)
            if edit.op == "add":
                if known:
                    raise ReplyRejectedError(f"The verification adds {edit.id}, which exists.")
                added = Item(
                    id=edit.id,
                    phase=phase,
                    title=edit.title,
                    detail=edit.detail,
                    depends=tuple(edit.depends),
                    files=tuple(edit.files),
                    requirements=tuple(edit.requirements),
                    tests=tuple(edit.tests),
                )
                todo = replace(todo, items=(*todo.items, added))
            elif not known:
                raise ReplyRejectedError(f"The verification changes {edit.id}, which does not exist.")
            elif edit.op == "reopen":
                todo = todo._with(edit.id, done=False, phase=phase, **fields)
            else:
                todo = todo._with(edit.id, **fields)
        if faults := todo.faults():
            raise ReplyRejectedError(f"The verification breaks the plan: {'; '.join(faults)}.")
        return todo

    def tests(self, ids: Iterable[str] | None = None) -> tuple[str, ...]:
        """Test files of the items named, or of all, each once, in the order of the plan."""
        wanted = None if ids is None else set(ids)
        named = (test for item in self.items if wanted is None or item.id in wanted for test in item.tests)
        return tuple(dict.fromkeys(named))

    def render(self, title: str) -> str:
        """The text of `TODO.md`."""
        lines = [f"# TODO: {title}", ""]
        for number, phase in enumerate(self.phases, 1):
            lines += [f"## Phase {number}: {phase}", ""]
            for item in self.in_phase(number):
                depends = f" (depends: {', '.join(item.depends)})" if item.depends else ""
                lines.append(f"- [{'x' if item.done else ' '}] {item.id} {item.title}{depends}")
            lines.append("")
        return "\n".join(lines)

    def faults(self) -> list[str]:
        """What makes the graph unworkable, in words."""
        faults: list[str] = []
        by_id: dict[str, Item] = {}
        for item in self.items:
            if item.id in by_id:
                faults.append(f"{item.id} stands twice")
            by_id[item.id] = item
        for item in self.items:
            for needed in item.depends:
                if needed not in by_id:
                    faults.append(f"{item.id} depends on {needed}, which does not exist")
                elif by_id[needed].phase > item.phase and not item.done:
                    faults.append(f"{item.id} depends on {needed} of a later phase")
        if cycle := _cycle({item.id: item.depends for item in self.items}):
            faults.append(f"{' -> '.join(cycle)} is a cycle")
        return faults

    def uncovered(self, requirements: Iterable[str]) -> list[str]:
        """Requirements without a task, or without a test, in words; and tasks of requirements that are not there."""
        wanted = list(requirements)
        tasks = {requirement for item in self.items for requirement in item.requirements}
        tested = {requirement for item in self.items if item.tests for requirement in item.requirements}
        return [
            *(f"{requirement} has no task" for requirement in wanted if requirement not in tasks),
            *(f"{requirement} has no test" for requirement in wanted if requirement in tasks - tested),
            *(f"{requirement} is not a requirement" for requirement in sorted(tasks.difference(wanted))),
        ]

    def _with(self, id: str, **changes: object) -> "Todo":
        items = tuple(replace(item, **changes) if item.id == id else item for item in self.items)  # type: ignore[arg-type]
        return replace(self, items=items)


def _cycle(depends: Mapping[str, Sequence[str]]) -> list[str]:
    """One cycle of the graph, closed, or an empty list."""
    try:
        TopologicalSorter(depends).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []

"""The plan as a task graph, and as the `TODO.md` that people read.

The graph is the truth; the file is rendered from it, so that both say the same after every commit.
Source: spec/builder.md §7.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter

from runtime.errors import ReplyRejectedError
from runtime.project.schemas import Effort, TodoEdit, TodoReply


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One task. `phase` counts from 1; `done` only after its commit is on the main branch.

    `struck` is why it is not wanted or could not be made: nothing of it is worked on any more.
    """

    id: str
    phase: int
    title: str
    detail: str
    depends: tuple[str, ...]
    files: tuple[str, ...]
    requirements: tuple[str, ...]
    tests: tuple[str, ...]
    done: bool = False
    parent: str | None = None
    no_change_needed: bool = False
    effort: Effort = "medium"
    struck: str | None = None

    @property
    def closed(self) -> bool:
        """Whether nothing is left to do for it itself; its parts are asked about with `Todo.is_done`."""
        return self.done or self.struck is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Todo:
    """All items in the order of the plan."""

    phases: tuple[str, ...]
    items: tuple[Item, ...]

    @classmethod
    def unchecked(cls, plan: TodoReply) -> "Todo":
        """The plan as it was written, whether it can be carried out or not."""
        return cls(
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
                    parent=item.parent,
                    no_change_needed=item.no_change_needed,
                    effort=item.effort,
                )
                for number, phase in enumerate(plan.phases, 1)
                for item in phase.items
            ),
        )

    @classmethod
    def from_plan(cls, plan: TodoReply, requirements: Iterable[str]) -> "Todo":
        """Raises ReplyRejectedError naming what is wrong with the graph; `plan_checks` asks for more."""
        todo = cls.unchecked(plan)
        if faults := [*todo.faults(), *todo.uncovered(requirements)]:
            raise ReplyRejectedError(f"The plan cannot be carried out: {'; '.join(faults)}.")
        return todo

    def item(self, id: str) -> Item:
        return next(item for item in self.items if item.id == id)

    def in_phase(self, phase: int) -> tuple[Item, ...]:
        return tuple(item for item in self.items if item.phase == phase)

    def ready(self, phase: int, busy: Iterable[str] = (), soon: Collection[str] = ()) -> tuple[Item, ...]:
        """Open items of a phase that wait for nothing and that nobody works on, in the order of the plan.

        An item waits for what it depends on and for its own parts. `soon` are items that are taken for closed.
        """
        closed = {item.id for item in self.items if item.closed or item.id in soon}
        waiting = {item.parent for item in self.items if item.id not in closed}
        taken = {*busy, *closed} | waiting
        return tuple(item for item in self.in_phase(phase) if item.id not in taken and closed.issuperset(item.depends))

    def is_done(self, item: Item) -> bool:
        """What its box says: an item with an open part, however deep, is not done."""
        return item.done and not self._has_open_part(item)

    def _has_open_part(self, item: Item) -> bool:
        return any(not part.closed or self._has_open_part(part) for part in self.parts(item.id))

    def parts(self, id: str) -> tuple[Item, ...]:
        return tuple(item for item in self.items if item.parent == id)

    def is_closed(self, phase: int | None = None) -> bool:
        """True when a phase, or the whole plan, has no open item."""
        return all(item.closed for item in self.items if phase is None or item.phase == phase)

    def wanted(self, phase: int | None = None) -> tuple[Item, ...]:
        """The items of a phase, or of all, that are not struck."""
        return tuple(item for item in self.items if item.struck is None and (phase is None or item.phase == phase))

    def done_count(self) -> int:
        return sum(self.is_done(item) for item in self.items)

    def ticked(self, id: str) -> "Todo":
        return self._with(id, done=True)

    def struck(self, reasons: Mapping[str, str]) -> "Todo":
        """Without these items, each with its reason. What was struck before keeps its first reason."""
        todo = self
        for id, reason in reasons.items():
            if todo.item(id).struck is None:
                todo = todo._with(id, done=False, struck=reason)
        return todo

    def waiting_for(self, id: str) -> tuple[Item, ...]:
        """The open items that cannot be made without this one, in the order of the plan."""
        without = {id}
        for _ in self.items:
            more = {
                item.id for item in self.items
                if not item.closed and item.id not in without and without.intersection(item.depends)
            }  # fmt: skip
            if not more:
                break
            without |= more
        return tuple(item for item in self.items if item.id in without - {id})

    def with_phase(self, title: str) -> "Todo":
        """With one more phase behind the others, still empty."""
        return replace(self, phases=(*self.phases, title))

    def reset(self, done: Iterable[str]) -> "Todo":
        """Only these items are done; what is struck stays so."""
        kept = set(done)
        return replace(self, items=tuple(replace(item, done=item.done and item.id in kept) for item in self.items))

    def unmet(self) -> tuple[str, ...]:
        """Requirements that a struck item served, in the order of the plan."""
        return tuple(dict.fromkeys(each for item in self.items if item.struck for each in item.requirements))

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
                    parent=edit.parent,
                    no_change_needed=edit.no_change_needed,
                    effort=edit.effort,
                )
                todo = replace(todo, items=(*todo.items, added))
            elif not known:
                raise ReplyRejectedError(f"The verification changes {edit.id}, which does not exist.")
            elif todo.item(edit.id).struck is not None:
                raise ReplyRejectedError(f"The verification changes {edit.id}, which is struck: add a new item.")
            elif edit.op == "strike":
                todo = todo.struck({edit.id: edit.detail})
            elif edit.op == "reopen":
                todo = todo._with(edit.id, done=False, phase=phase, **fields)
            else:
                todo = todo._with(edit.id, **fields)
        if faults := todo.faults():
            raise ReplyRejectedError(f"The verification breaks the plan: {'; '.join(faults)}.")
        return todo

    def tests(self, ids: Iterable[str] | None = None) -> tuple[str, ...]:
        """Test files of the items named, or of all, each once, in the order of the plan. Struck items have none."""
        wanted = None if ids is None else set(ids)
        named = (test for item in self.wanted() if wanted is None or item.id in wanted for test in item.tests)
        return tuple(dict.fromkeys(named))

    def tests_with(self, *ids: str) -> tuple[str, ...]:
        """Test files of everything that is done, and of these items too."""
        return self.tests({*ids, *(item.id for item in self.items if item.done)})

    def render(self, title: str) -> str:
        """The text of `TODO.md`. Parts stand below their item, two spaces further in."""
        lines = [f"# TODO: {_one_line(title)}", ""]
        for number, phase in enumerate(self.phases, 1):
            lines += [f"## Phase {number}: {_one_line(phase)}", ""]
            here = {item.id for item in self.in_phase(number)}
            for item in self.in_phase(number):
                if item.parent not in here:
                    lines += self._lines(item, "", here)
            lines.append("")
        return "\n".join(lines)

    def _lines(self, item: Item, indent: str, here: Collection[str]) -> list[str]:
        depends = f" (depends: {', '.join(item.depends)})" if item.depends else ""
        accepted = f" (accepted by: {', '.join(item.tests)})" if item.tests else ""
        text = f"{item.id} {_one_line(item.title)}{depends}{accepted}"
        if item.struck is not None:
            text = f"{item.id} ~~{_one_line(item.title)}~~ (struck: {_one_line(item.struck)})"
        lines = [f"{indent}- [{'x' if self.is_done(item) else ' '}] {text}"]
        for part in self.parts(item.id):
            if part.id in here:
                lines += self._lines(part, indent + "  ", here)
        return lines

    def faults(self) -> list[str]:
        """What makes the graph unworkable, in words."""
        faults: list[str] = []
        by_id: dict[str, Item] = {}
        parts: dict[str, list[str]] = {}
        for item in self.items:
            if item.id in by_id:
                faults.append(f"{item.id} stands twice")
            by_id[item.id] = item
            if item.parent is not None:
                parts.setdefault(item.parent, []).append(item.id)
        for item in self.items:
            for needed in item.depends:
                if needed not in by_id:
                    faults.append(f"{item.id} depends on {needed}, which does not exist")
                elif by_id[needed].phase > item.phase and not item.done:
                    faults.append(f"{item.id} depends on {needed} of a later phase")
            if item.parent is not None and item.parent not in by_id:
                faults.append(f"{item.id} is a part of {item.parent}, which does not exist")
            elif item.parent is not None and item.phase > by_id[item.parent].phase and not by_id[item.parent].closed:
                faults.append(f"{item.id} is a part of {item.parent}, which is in an earlier phase")
        if cycle := _cycle({item.id: [*item.depends, *parts.get(item.id, ())] for item in self.items}):
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


def added_tasks(edits: Iterable[TodoEdit], phase: str) -> list[dict[str, object]]:
    """What an event tells of the items that edits add to a phase."""
    return [
        {"id": edit.id, "title": edit.title, "phase": phase, "depends": edit.depends}
        for edit in edits
        if edit.op == "add"
    ]


def _one_line(text: str) -> str:
    """Whatever a model wrote stays on its own line of the file."""
    return " ".join(text.split())


def _cycle(depends: Mapping[str, Sequence[str]]) -> list[str]:
    """One cycle of the graph, closed, or an empty list."""
    try:
        TopologicalSorter(depends).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []

"""A scenario's project made of its edits alone: no model, no Git, no sandbox."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from cluster.simulator.scenario import SCENARIOS, Scenario
from runtime.project.plan_checks import checked_plan
from runtime.project.schemas import PlanChangeReply, RequirementsReply, StackReply, TodoEdit, TodoReply, VerdictReply
from runtime.project.todo import Item, Todo

_BLOCK = re.compile(
    r"^(?P<path>\S+)\n```[a-z]+\n<<<<<<< SEARCH\n(?P<search>.*?)=======\n(?P<replace>.*?)>>>>>>> REPLACE\n```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    path: str
    search: str
    """Empty for a new file, or for one that gets more at its end."""
    replace: str


def blocks(text: str) -> list[Block]:
    """Of an edit. Raises AssertionError where one would be passed over."""
    found = [Block(**match.groupdict()) for match in _BLOCK.finditer(text)]
    assert len(found) == text.count("<<<<<<< SEARCH")
    return found


def applied(text: str, tree: Mapping[str, str]) -> dict[str, str]:
    """The tree (path -> text) after an edit."""
    after = dict(tree)
    for block in blocks(text):
        old = after.get(block.path, "")
        if block.search:
            assert old.count(block.search) == 1, block.path
            after[block.path] = old.replace(block.search, block.replace)
        else:
            assert block.path not in after, f"{block.path} is there already"
            after[block.path] = block.replace
    return after


@dataclass(frozen=True)
class Blueprint:
    """A scenario, with what its replies come to."""

    scenario: Scenario

    @classmethod
    def of(cls, name: str) -> "Blueprint":
        return cls(Scenario.load(SCENARIOS / name))

    @cached_property
    def requirements(self) -> RequirementsReply:
        return RequirementsReply.model_validate_json(self.scenario.replies["plan.requirements", "project", 1])

    @cached_property
    def stack(self) -> StackReply:
        return StackReply.model_validate_json(self.scenario.replies["plan.stack", "project", 1])

    @cached_property
    def change(self) -> PlanChangeReply | None:
        text = self.scenario.replies.get(("plan.change", "C1", 1))
        return PlanChangeReply.model_validate_json(text) if text else None

    @cached_property
    def plan(self) -> Todo:
        plan = TodoReply.model_validate_json(self.scenario.replies["plan.todo", "project", 1])
        return checked_plan(plan, self.requirements.requirements, self.stack.commands)

    @cached_property
    def verdicts(self) -> Mapping[tuple[str, str, int], VerdictReply]:
        """In the order in which they are given."""
        found = {
            key: VerdictReply.model_validate_json(text)
            for key, text in self.scenario.replies.items()
            if key[0] in ("verify.phase", "qa.review")
        }
        return dict(sorted(found.items(), key=lambda each: (each[0][0] == "qa.review", each[0])))

    @cached_property
    def whole(self) -> Todo:
        """The plan as it is at the end: with what verifications and a change added."""
        todo = self.plan
        for (task, id, _), verdict in self.verdicts.items():
            phase = len(self.plan.phases) if task == "qa.review" else int(id.removeprefix("P"))
            todo = todo.edited([edit for edit in verdict.todo_edits if edit.op != "reopen"], phase)
        if self.change:
            edits = [TodoEdit.model_validate(each.model_dump(exclude={"reason"})) for each in self.change.todo_edits]
            todo = Todo(phases=(*todo.phases, self.change.title), items=todo.items)
            todo = todo.edited(edits, len(todo.phases))
        return todo

    @property
    def reopened(self) -> set[str]:
        """Tasks whose earlier attempt landed all the same, and was found wanting later."""
        return {edit.id for verdict in self.verdicts.values() for edit in verdict.todo_edits if edit.op == "reopen"}

    def attempts(self, id: str) -> list[int]:
        return sorted(number for task, of, number in self.scenario.replies if (task, of) == ("code.edit", id))

    def edit(self, id: str, attempt: int) -> str:
        return self.scenario.replies["code.edit", id, attempt]

    def landing(self, id: str) -> Iterator[str]:
        """The task's edits that reach the main branch."""
        numbers = self.attempts(id)
        for number in numbers if id in self.reopened else numbers[-1:]:
            yield self.edit(id, number)

    def order(self) -> Iterator[Item]:
        """All tasks of the whole plan, each after those it depends on."""
        done: set[str] = set()
        while len(done) < len(self.whole.items):
            ready = [item for item in self.whole.items if item.id not in done and done.issuperset(item.depends)]
            assert ready, "the plan's tasks wait for one another"
            yield from ready
            done |= {item.id for item in ready}

    @cached_property
    def tree(self) -> Mapping[str, str]:
        """Path -> text of the finished project, without what the product writes."""
        tree: dict[str, str] = {}
        for item in self.order():
            for edit in self.landing(item.id):
                tree = applied(edit, tree)
        return tree

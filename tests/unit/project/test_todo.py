"""The plan's graph and its file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import ReplyRejectedError
from runtime.project.schemas import PlanItem, PlanPhase, TodoEdit, TodoReply
from runtime.project.todo import Todo


def item(id: str, *depends: str, requirements: tuple[str, ...] = ("R-01",)) -> PlanItem:
    return PlanItem(
        id=id,
        title=f"title of {id}",
        detail="detail",
        depends=list(depends),
        files=[f"src/{id}.py"],
        requirements=list(requirements),
        tests=[f"tests/test_{id}.py"],
    )


def plan(*phases: list[PlanItem]) -> TodoReply:
    return TodoReply(phases=[PlanPhase(title=f"phase {n}", items=items) for n, items in enumerate(phases, 1)])


def todo(*phases: list[PlanItem]) -> Todo:
    return Todo.from_plan(plan(*phases), ["R-01"])


def edit(op: str, id: str, depends: tuple[str, ...] = ()) -> TodoEdit:
    return TodoEdit(op=op, id=id, title="mended", detail="how", depends=list(depends), files=["src/x.py"])  # type: ignore[arg-type]


def test_ready__only_items_whose_dependencies_are_done() -> None:
    graph = todo([item("T-001"), item("T-002", "T-001"), item("T-003", "T-001")])
    assert [each.id for each in graph.ready(1, ())] == ["T-001"]
    assert [each.id for each in graph.ticked("T-001").ready(1, ["T-002"])] == ["T-003"]


@pytest.mark.parametrize(
    ("phases", "words"),
    [
        ([[item("T-001", "T-002"), item("T-002", "T-001")]], "cycle"),
        ([[item("T-001", "T-009")]], "does not exist"),
        ([[item("T-001"), item("T-001")]], "twice"),
        ([[item("T-001", "T-002")], [item("T-002")]], "later phase"),
        ([[item("T-001", requirements=("R-02",))]], "R-01 has no task"),
    ],
)
def test_plan__that_cannot_be_carried_out_is_refused_with_the_reason(phases: list[list[PlanItem]], words: str) -> None:
    with pytest.raises(ReplyRejectedError, match=words):
        todo(*phases)


def test_render__ticks_exactly_what_is_done() -> None:
    text = todo([item("T-001"), item("T-002", "T-001")]).ticked("T-001").render("Thing")
    assert "- [x] T-001 title of T-001\n" in text
    assert "- [ ] T-002 title of T-002 (depends: T-001)\n" in text


def test_edits__add_joins_the_phase_and_reopen_unticks() -> None:
    graph = todo([item("T-001")], [item("T-002", "T-001")]).ticked("T-001").ticked("T-002")
    after = graph.edited([edit("add", "T-003", ("T-002",)), edit("reopen", "T-001")], phase=2)
    assert after.item("T-003").phase == 2
    assert [each.id for each in after.items if each.done] == ["T-002"]


def test_reopened_item__joins_the_phase_that_is_worked_on_next() -> None:
    graph = todo([item("T-001")], [item("T-002", "T-001")]).ticked("T-001").ticked("T-002")
    after = graph.edited([edit("reopen", "T-001")], phase=2)
    assert [each.id for each in after.ready(2, ())] == ["T-001"]


@pytest.mark.parametrize("broken", [edit("add", "T-001"), edit("reopen", "T-009"), edit("add", "T-002", ("T-002",))])
def test_edits__that_break_the_graph_are_refused(broken: TodoEdit) -> None:
    with pytest.raises(ReplyRejectedError):
        todo([item("T-001")]).edited([broken], phase=1)


@given(st.data())
def test_schedule__any_acyclic_plan_is_finished_and_never_starts_an_item_too_early(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    items = []
    for n in range(count):
        before = data.draw(st.sets(st.integers(0, n - 1), max_size=3)) if n else set()
        items.append(item(f"T-{n:03}", *(f"T-{d:03}" for d in sorted(before))))
    graph = todo(items)
    while ready := graph.ready(1, ()):
        chosen = data.draw(st.sampled_from(ready))
        assert all(graph.item(needed).done for needed in chosen.depends)
        graph = graph.ticked(chosen.id)
    assert graph.done_count() == count

"""The plan's graph and its file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import ReplyRejectedError
from runtime.project.schemas import PlanItem, PlanPhase, TodoEdit, TodoReply
from runtime.project.todo import Todo
from runtime.project.todo_file import read_todo


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
    assert "- [x] T-001 title of T-001 (accepted by: tests/test_T-001.py)\n" in text
    assert "- [ ] T-002 title of T-002 (depends: T-001) (accepted by: tests/test_T-002.py)\n" in text


def part(id: str, parent: str, *depends: str) -> PlanItem:
    return item(id, *depends).model_copy(update={"parent": parent})


def test_item__with_an_open_part_waits_and_is_not_done() -> None:
    graph = todo([item("T-001"), part("T-002", "T-001")])
    assert [each.id for each in graph.ready(1, ())] == ["T-002"]
    assert "- [ ] T-001" in graph.ticked("T-001").render("Thing")
    both = graph.ticked("T-002").ticked("T-001")
    assert "- [x] T-001" in both.render("Thing")
    assert "\n  - [x] T-002" in both.render("Thing")
    reopened = both.edited([edit("reopen", "T-002")], phase=1)
    assert "- [ ] T-001" in reopened.render("Thing")
    assert reopened.done_count() == 0


def test_struck_item__keeps_its_line_and_its_reason_and_holds_nobody_up() -> None:
    graph = todo([item("T-001"), item("T-002", "T-001")]).edited([edit("strike", "T-001")], phase=1)
    assert "- [ ] T-001 ~~title of T-001~~ (struck: how)\n" in graph.render("Thing")
    assert [each.id for each in graph.ready(1, ())] == ["T-002"]
    assert graph.tests() == ("tests/test_T-002.py",)
    assert graph.ticked("T-002").is_closed()
    with pytest.raises(ReplyRejectedError, match="is struck"):
        graph.edited([edit("reopen", "T-001")], phase=1)


def test_title__of_many_lines_cannot_make_a_line_of_its_own() -> None:
    evil = item("T-001").model_copy(update={"title": "a\n- [x] T-002 done already\n## Phase 9"})
    assert [line.id for line in read_todo(todo([evil]).render("T\n- [x] T-003 x"))] == ["T-001"]


def test_file__is_read_by_the_rules_of_the_specification() -> None:
    text = (
        "# TODO\n\n## Phase 1: a\n\n- [x] T-001 one\n  - [ ] T-002 part\n    * [x] T-003 deeper\n- [X] T-004 four\n"
        "- [?] T-005 unknown\n- [-] T-006 unknown too\nprose\n- [ ] no id\n## Phase 2: b\n"
        "- [ ] T-007 ~~gone~~ (struck: why (really))\n- [x] T-008 last (depends: T-001, T-004) (accepted by: t.py)\n"
    )
    lines = {line.id: line for line in read_todo(text)}
    assert [line.id for line in read_todo(text) if line.done] == ["T-003", "T-004", "T-008"]
    assert [lines[f"T-00{n}"].level for n in (1, 2, 3, 4)] == [0, 1, 2, 0]
    assert (lines["T-007"].struck, lines["T-007"].heading) == ("why (really)", "Phase 2: b")
    assert (lines["T-008"].depends, lines["T-008"].tests) == (("T-001", "T-004"), ("t.py",))
    assert lines[""].title == "no id"
    assert read_todo("# TODO\n\nnothing\n") == []


@given(st.data())
def test_file__reads_back_as_the_plan_that_wrote_it(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 8))
    items = []
    for n in range(count):
        parent = data.draw(st.none() | st.integers(0, n - 1)) if n else None
        items.append(item(f"T-{n:03}").model_copy(update={"parent": None if parent is None else f"T-{parent:03}"}))
    graph = todo(items)
    for n in data.draw(st.permutations(range(count))):
        if data.draw(st.booleans()):
            graph = graph.ticked(f"T-{n:03}") if data.draw(st.booleans()) else graph.struck({f"T-{n:03}": "a reason"})
    read = {line.id: line for line in read_todo(graph.render("Thing"))}
    assert set(read) == {each.id for each in graph.items}
    for each in graph.items:
        assert (read[each.id].done, read[each.id].struck) == (graph.is_done(each), each.struck)
        assert (read[each.id].level > 0) == (each.parent is not None)


def test_struck__items_stay_in_the_file_are_not_worked_on_and_leave_gaps() -> None:
    graph = todo([item("T-001"), item("T-002", "T-001"), item("T-003", "T-002"), item("T-004")])
    assert [each.id for each in graph.waiting_for("T-001")] == ["T-002", "T-003"]
    struck = graph.struck(dict.fromkeys(("T-001", "T-002", "T-003"), "not\nneeded"))
    assert "- [ ] T-002 ~~title of T-002~~ (struck: not needed)\n" in struck.render("Thing")
    assert [each.id for each in struck.ready(1, ())] == ["T-004"]
    assert struck.tests() == ("tests/test_T-004.py",)
    assert (graph.unmet(), struck.unmet()) == ((), ("R-01",))


def test_reset__opens_what_was_not_done_then_and_keeps_what_was_added() -> None:
    graph = todo([item("T-001"), item("T-002")]).ticked("T-001").ticked("T-002").edited([edit("add", "T-003")], 1)
    assert [each.id for each in graph.reset(["T-001", "T-003"]).items if each.done] == ["T-001"]


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

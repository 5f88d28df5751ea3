import pytest

from cluster.simulator.asked import Asked
from cluster.simulator.chat import Message
from cluster.simulator.refusal import Refusal
from cluster.simulator.synthetic_build import EFFORTS, BuildOrder, build_speech, parse_build, read_build
from runtime.project.schemas import SCHEMAS, TodoReply, VerdictReply
from runtime.project.todo import Todo

LINE = "synthetic build tasks=60 seed=7 delay_ms=500..5000 width=10"


def asked(task: str, id: str = "project", attempt: int = 1) -> Asked:
    return Asked(task=task, id=id, attempt=attempt, brief="0" * 12, answered={})


def test_order__is_found_wherever_a_prompt_quotes_the_brief() -> None:
    messages = [Message(role="system", text="You plan."), Message(role="user", text=f"Brief:\n<data>\n{LINE}\n</data>")]
    assert read_build(messages) == BuildOrder(tasks=60, seed=7, delay_ms=(500, 5000), width=10)
    assert read_build([Message(role="user", text="a synthetic build tasks=1 in the middle of a line")]) is None


@pytest.mark.parametrize("line", ["synthetic build tasks=0", "synthetic build delay_ms=9..3", "synthetic build x=1"])
def test_order__that_makes_no_sense_is_refused(line: str) -> None:
    with pytest.raises(Refusal):
        parse_build(line)


@pytest.mark.parametrize("task", sorted(SCHEMAS.keys() - {"plan.change"}))  # Nobody wishes for more of it.
def test_reply__fits_the_schema_of_every_task_and_carries_the_order_on(task: str) -> None:
    order = parse_build(LINE)
    speech = build_speech(order, asked(task))
    SCHEMAS[task].model_validate_json(speech.text)
    assert build_speech(order, asked(task)) == speech
    assert parse_build(order.line) == order


def test_plan__can_be_carried_out_and_is_drawn_by_its_seed() -> None:
    order = parse_build(f"{LINE} phases=3")
    todo = Todo.from_plan(TodoReply.model_validate_json(build_speech(order, asked("plan.todo")).text), ["R-01"])
    assert [len(todo.in_phase(phase)) for phase in (1, 2, 3)] == [20, 20, 20]
    assert max(len(item.depends) for item in todo.items) > 1
    assert parse_build(LINE.replace("seed=7", "seed=8")).graph() != parse_build(LINE).graph()


def test_plan__estimates_most_tasks_right_and_some_one_size_off() -> None:
    off = []
    for seed in range(1, 11):
        order = parse_build(LINE.replace("seed=7", f"seed={seed}"))
        for task in order.graph():
            off.append(abs(EFFORTS.index(task.effort) - int((task.delay_s - 0.5) / 1.5)))
    assert max(off) == 1
    assert 0.1 < sum(off) / len(off) < 0.3
    assert {task.effort for task in parse_build("synthetic build tasks=9 delay_ms=7").graph()} <= set(EFFORTS)


def test_edit__thinks_as_long_as_ordered_and_every_item_has_a_verdict_with_evidence() -> None:
    order = parse_build(LINE)
    delays = [build_speech(order, asked("code.edit", task.id)).delay_s or 0.0 for task in order.graph()]
    assert min(delays) >= 0.5
    assert max(delays) <= 5.0
    assert len(set(delays)) > 50
    verdict = VerdictReply.model_validate_json(build_speech(order, asked("verify.phase", "P1")).text)
    assert [item.id for item in verdict.items] == [task.id for task in order.graph()]
    assert all(":1 " in item.reason for item in verdict.items)


def test_task__that_the_build_does_not_have_is_refused() -> None:
    with pytest.raises(Refusal):
        build_speech(parse_build(LINE), asked("code.edit", "T-061"))

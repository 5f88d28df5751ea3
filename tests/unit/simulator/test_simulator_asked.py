from cluster.simulator.asked import read_asked
from cluster.simulator.chat import Message
from runtime.project.schemas import task_line

LINE = task_line(task="plan.todo", id="project", attempt=2, brief="a brief")
EDIT = task_line(task="code.edit", id="T-003", attempt=1, brief="a brief")


def test_asked__is_read_from_the_first_line_of_the_system_message() -> None:
    asked = read_asked([Message(role="system", text=f"{LINE}\nYou are an architect.")])

    assert asked is not None
    assert (asked.task, asked.id, asked.attempt) == ("plan.todo", "project", 2)


def test_asked__is_not_read_from_a_later_line_of_the_system_message() -> None:
    assert read_asked([Message(role="system", text=f"You are an architect.\n{LINE}")]) is None


def test_asked__is_read_inside_the_prompts_of_an_edit_engine() -> None:
    later = EDIT.replace("attempt=1", "attempt=2")
    asked = read_asked(
        [
            Message(role="system", text="Act as an expert software developer."),
            Message(role="user", text=f"{EDIT}\nan example"),
            Message(role="assistant", text="Ok."),
            Message(role="user", text=f"Files:\n{later}\nDo it."),
            Message(role="user", text="The edit failed, try again."),
        ]
    )

    assert asked is not None
    assert (asked.task, asked.id, asked.attempt) == ("code.edit", "T-003", 2)


def test_asked__takes_no_other_task_from_a_user() -> None:
    assert read_asked([Message(role="user", text=LINE)]) is None


def test_asked__is_nothing_without_a_line() -> None:
    assert read_asked([Message(role="user", text="Hello")]) is None
    assert read_asked([Message(role="system", text="masterbuilder task=plan.todo")]) is None


def test_asked__knows_what_was_answered() -> None:
    asked = read_asked(
        [
            Message(role="system", text=LINE),
            Message(role="user", text="asked: 2\nanswered audience: two people\nanswered budget:  small \n"),
        ]
    )

    assert asked is not None
    assert asked.answered == {"audience": "two people", "budget": "small"}

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runtime.ids import ProjectId, UserId
from runtime.language.texts import texts
from runtime.project.messages import Doing, ProjectView, Status, TaskView
from runtime.telegram.buttons import parse_press
from runtime.telegram.progress import WORKERS_SHOWN, progress_rows, progress_text, status_name
from tests.unit.telegram.telegram_html import read

PROJECT = ProjectId("11111111-2222-4333-8444-555555555555")
NOW = datetime.now(UTC)
SAY = texts("en")


def view(**changes: Any) -> ProjectView:
    whole: Mapping[str, Any] = {
        "id": PROJECT, "owner": UserId("ann"), "title": "Sums & <more>", "status": Status.IMPLEMENTING,
        "question": None, "scope": None, "quote_ucredits": 50_000_000, "ceiling_ucredits": 75_000_000,
        "spent_ucredits": 1_500_000, "spent_pusd": 0, "tasks": (), "failure_reason": None, "package": None,
        "created_at": NOW, "updated_at": NOW, "last_seq": 1,
    }  # fmt: skip
    return ProjectView(**{**whole, **changes})


def task(id: str, state: str) -> TaskView:
    return TaskView(id=id, title=f"title of {id}", phase="P1", state=state, attempts=1)


def doing(task: str, what: str = "editing and checking", **changes: Any) -> Doing:
    return Doing(
        **{"task": task, "attempt": 1, "what": what, "since": datetime.now(UTC) - timedelta(seconds=70), **changes}
    )


def lines(view: ProjectView, verified: str = "") -> list[str]:
    return read(progress_text(view, SAY, verified)).text.split("\n")


def test_progress__says_how_far_and_what_it_cost() -> None:
    tasks = [task("T-001", "done"), task("T-002", "running"), task("T-003", "open"), task("T-004", "struck")]
    told = lines(view(tasks=tasks, phase=1, phases=["Sums", "Rest"]), "☑️ Verified: Sums")
    assert told == [
        "🔨 Sums & <more>", "Building", "Phase 1 of 2: Sums", "▰▰▰▱▱▱▱▱▱▱ 1 of 3 tasks", "☑️ Verified: Sums",
        "💳 1.50 of 50.00 credits quoted",
    ]  # fmt: skip


def test_progress__without_a_plan_or_a_quote_says_less() -> None:
    assert lines(view(quote_ucredits=None, status=Status.CLARIFYING)) == [
        "🔨 Sums & <more>", "Asking questions", "💳 1.50 credits so far",
    ]  # fmt: skip


def test_progress__tells_each_worker_and_when_what_it_waits_for_is_tried_again() -> None:
    waits = doing(
        "T-002", "waiting: a free key of openai", attempt=2, retry_at=datetime.now(UTC) + timedelta(seconds=30)
    )
    told = lines(view(tasks=[task("T-001", "running")], activity=[doing("T-001"), waits]))
    assert told[3].startswith("• T-001 title of T-001: editing and checking, 7")
    assert told[4].startswith("• T-002 (attempt 2): waiting for a free key of openai, 7")
    assert "retry in " in told[4]


def test_progress__stays_a_message_with_a_thousand_tasks_and_workers() -> None:
    many = [doing(f"T-{n:03}", "<" * 200) for n in range(1_000)]
    text = progress_text(
        view(title="<" * 500, activity=many, tasks=[task(f"T-{n:03}", "open") for n in range(999)]), SAY
    )
    assert text.count("•") == WORKERS_SHOWN
    assert len(read(text).text) < 4_096


@pytest.mark.parametrize("status", Status)
def test_progress__has_a_name_for_each_status(status: Status) -> None:
    assert status_name(status, SAY)
    assert read(progress_text(view(status=status), SAY)).text


def test_rows__offer_what_is_possible_alone() -> None:
    (row,) = progress_rows(view(possible=("pause", "change", "cancel", "rewind")), SAY)
    pressed = [parse_press(what) for _, what in row]
    assert [each and (each.verb, each.project) for each in pressed] == [
        ("pause", PROJECT), ("change", PROJECT), ("cancel", PROJECT),
    ]  # fmt: skip
    assert progress_rows(view(possible=()), SAY) == [[]]

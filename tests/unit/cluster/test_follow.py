"""A build as it is told: every event once and in order, whatever happens to the connection."""

import io

import pytest
from fake_door import PROJECT, Answer, FakeDoor, error_answer, event, stream_answer
from rich.console import Console

from cluster.client import Client, ConnectionLostError
from cluster.follow import Followed, Story, View, follow
from runtime.errors import NotAuthenticatedError

EVENTS = "GET /api/v1/projects/p1/events"
M = 10**6
DONE = {**PROJECT, "status": "completed"}
STORY = [
    event(1, "project.quoted", summary="A tracker\nfor two", quote_ucredits=20 * 10**6, ceiling_ucredits=30 * 10**6),
    event(2, "project.confirmed"),
    event(
        4,
        "plan.ready",
        title="Tracker",
        requirements=9,
        tasks=[
            {"id": "T-001", "title": "Store", "phase": "Phase 1: ground", "depends": []},
            {"id": "T-002", "title": "Money", "phase": "Phase 1: ground", "depends": []},
            {"id": "T-003", "title": "Report", "phase": "Phase 2: reports", "depends": ["T-001"]},
        ],
    ),
    event(5, "project.status", status="implementing", text="phase 1: Phase 1: ground"),
    event(6, "task.started", task="T-001", title="Store", attempt=1),
    event(7, "task.started", task="T-002", title="Money", attempt=1),
    event(
        9,
        "task.checked",
        task="T-002",
        attempt=1,
        passed=False,
        summary="$ test\n..F\nFAIL: test_cents\nAssertionError: 1 != 2\nFAILED (failures=1)\n[exit 1]",
        engine="aider",
    ),
    event(11, "task.checked", task="T-001", attempt=1, passed=True, summary="5 passed", engine="aider"),
    event(
        12,
        "task.merged",
        task="T-001",
        title="Store",
        attempt=1,
        commit="0123456789",
        done=1,
        total=3,
        spent_ucredits=M,
    ),
    event(13, "task.started", task="T-002", title="Money", attempt=2),
    event(
        14, "task.merged", task="T-002", title="Money", attempt=2, commit="abc", done=2, total=3, spent_ucredits=2 * M
    ),
    event(
        15,
        "verify.finished",
        phase="Phase 1",
        round=1,
        verdict="fail",
        findings=[{"severity": "major", "file": "money.py", "line": 10, "text": "rounds [cents]"}],
        added=[{"id": "T-004", "title": "Keep cents", "phase": "Phase 1: ground", "depends": []}],
        reopened=["T-001"],
        spent_ucredits=3 * 10**6,
    ),
    event(16, "something.new", text="unknown"),
    event(17, "qa.finished", passed=True, summary="all commands ran"),
    event(18, "package.ready", sha256="0", size_bytes=20480, file_count=31),
    event(19, "project.finished", status="completed", reason="", spent_ucredits=4 * 10**6),
]


def watch(door: FakeDoor, **options: object) -> tuple[Followed, list[str]]:
    text = io.StringIO()
    view = View(Console(file=text, width=200))
    told = follow(Client(door.url, "mb-test"), "p1", view, Story(), **options)  # type: ignore[arg-type]
    return told, text.getvalue().splitlines()


def test_story__tells_phases_tasks_red_attempts_verdicts_and_cost(door: FakeDoor) -> None:
    door.routes[EVENTS] = stream_answer(STORY, ended=True)
    door.says("GET /api/v1/projects/p1", DONE)
    told, lines = watch(door)
    assert (told.ending, told.seq) == ("finished", 19)
    assert lines == [
        "Scope",
        "  A tracker",
        "  for two",
        "Quote 20.00 credits; work stops at 30.00",
        "✓ scope and quote agreed",
        "Plan Tracker: 9 requirements, 3 tasks in 2 phases",
        "Phase 1: ground",
        "  ▸ T-001 Store",
        "  ▸ T-002 Money",
        "  ✗ T-002 Money: FAIL: test_cents · AssertionError: 1 != 2",
        "  ✓ T-001 Store 01234567 · 1/3 · 1.00 credits",
        "  ▸ T-002 Money (attempt 2)",
        "  ✓ T-002 Money (attempt 2) abc · 2/3 · 2.00 credits",
        "  ✗ verification (Phase 1, round 1): not yet",
        "      major money.py:10 rounds [cents]",
        "      + new task T-004 Keep cents",
        "      ↺ reopened T-001 Store",
        "✓ final QA: all commands ran",
        "✓ package: 31 files, 20 kB",
        "✓ completed for 4.00 credits",
    ]


def test_broken_connection__goes_on_from_the_last_number(door: FakeDoor) -> None:
    def answer(count: int) -> Answer:
        return {
            1: stream_answer(STORY[:7], ended=False),
            2: error_answer("unavailable", 503, "Starting."),
            3: stream_answer(STORY[7:], ended=True),
        }[count]

    door.routes[EVENTS] = answer
    door.says("GET /api/v1/projects/p1", DONE)
    with_break, lines = watch(door)
    assert with_break.seq == 19
    assert [query for route, query, *_ in door.asked if route == EVENTS] == ["after=0", "after=9", "after=9"]
    assert lines.count("  ✗ T-002 Money: FAIL: test_cents · AssertionError: 1 != 2") == 1


def test_service_that_stays_away__is_given_up_after_a_while(door: FakeDoor) -> None:
    door.routes[EVENTS] = stream_answer([], ended=False)
    with pytest.raises(ConnectionLostError):
        watch(door, patience_s=0.0)


def test_wrong_token__is_not_tried_again(door: FakeDoor) -> None:
    door.routes[EVENTS] = error_answer("not_authenticated", 401, "Wrong token.")
    with pytest.raises(NotAuthenticatedError):
        watch(door)
    assert len(door.asked) == 1


def test_old_questions_in_the_log__do_not_stop_the_view(door: FakeDoor) -> None:
    asked = [
        event(1, "project.question", topic="audience", text="Who?"),
        event(2, "project.answer", text="me"),
        event(3, "project.question", topic="budget", text="How much?"),
    ]
    door.routes[EVENTS] = stream_answer(asked, ended=False)
    door.says("GET /api/v1/projects/p1", {**PROJECT, "status": "clarifying", "question": "How much?"})
    told, lines = watch(door)
    assert (told.ending, told.seq) == ("question", 3)
    assert lines == ["? Who?", "  you: me", "? How much?"]


def test_quote_within_what_was_agreed__is_not_waited_for(door: FakeDoor) -> None:
    door.routes[EVENTS] = stream_answer([STORY[0], STORY[-1]], ended=True)
    door.says("GET /api/v1/projects/p1", {**PROJECT, "status": "confirming_scope"})
    assert watch(door, agreed_ucredits=30 * 10**6)[0].ending == "finished"
    assert watch(door, agreed_ucredits=30 * 10**6 - 1)[0].ending == "confirmation"

"""A build as it is told: every event once and in order, whatever happens to the connection."""

import io

import pytest
from fake_door import PROJECT, Answer, FakeDoor, error_answer, event, stream_answer
from rich.console import Console

from cluster.client import Client, ConnectionLostError
from cluster.follow import Followed, Story, View, follow
from cluster.wire import Event
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
    event(
        11, "task.checked", task="T-001", attempt=1, passed=True, summary="5 passed", engine="aider", discarded=["b.py"]
    ),
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
        "      left out, for the task does not own it: b.py",
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


def test_steering__is_told_with_tasks_reasons_price_and_what_is_kept() -> None:
    edit = {"op": "add", "id": "T-009", "title": "Export", "reason": "Nothing does it yet."}
    change = {
        "summary": "It exports.",
        "requirements": [{"id": "R-11", "text": "Export as CSV."}],
        "todo_edits": [edit],
    }
    doing = {"task": "T-002", "attempt": 2, "what": "editing", "for_s": 40}
    waiting = {"task": "plan.change C1", "what": "waiting: a free key of openai", "for_s": 3, "retry_in_s": 9}
    progress = {
        "activity": [doing, waiting],
        "status": "implementing",
        "spent_credits": "2.00",
        "quote_credits": "20.00",
    }
    story = Story()
    told = "\n".join(
        line
        for number, (type, data) in enumerate(
            (
                ("change.asked", {"number": 1, "text": "CSV, please"}),
                (
                    "change.proposed",
                    {"number": 1, "change": change, "quote_ucredits": 2 * M, "ceiling_ucredits": 33 * M},
                ),
                (
                    "plan.changed",
                    {"number": 1, "phase": "Export", "added": [{**edit, "phase": "Export"}], "reopened": []},
                ),
                ("task.retried", {"task": "T-009"}),
                ("task.skipped", {"tasks": ["T-009"], "reason": "late", "gaps": ["R-11"]}),
                ("project.rewound", {"phase": 2, "branch": "rewound/1", "done": 1, "total": 3}),
                ("gate.opened", {"gate": "plan/1", "text": "The plan has 3 tasks."}),
                ("progress", progress),
            )
        )
        for line in story.lines(Event(seq=number, type=type, data=data))
    )
    for words in (
        "CSV, please", "R-11", "add T-009 Export: Nothing does it yet.", "2.00 credits more; work then stops at 33.00",
        "T-009 Export is tried again", "T-009 Export is struck: late", "known gaps:[/] R-11", "branch rewound/1",
        "The plan has 3 tasks.", "T-002 (attempt 2): editing for 40 s",
        "plan.change C1: waiting: a free key of openai for 3 s, retry in 9 s", "2.00 credits of 20.00 quoted",
    ):  # fmt: skip
        assert words in told, words

"""Which message a project takes in which state, and that a refusal says what is possible instead."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from runtime.entity.journal import EventRecord
from runtime.errors import ConflictError, NotFoundError
from runtime.ids import LOCAL_ADMIN, ProjectId, project_entity
from runtime.project.messages import Approve, Back, Change, Confirm, Pause, Reject, Resume, Retry, Rewind, Skip, Status
from runtime.project.state import FINAL_REVIEW, State
from runtime.project.steering import Steering, possible, refuse_unless_possible

ENTITY = project_entity(ProjectId("0f0e0d0c-0000-4000-8000-000000000000"))
AT = datetime(2026, 11, 1, tzinfo=UTC)
Event = tuple[str, Mapping[str, Any]]


def item(id: str, *depends: str) -> dict[str, Any]:
    return {
        "id": id, "title": f"Task {id}", "detail": "Do it.", "depends": list(depends), "files": [f"{id}.py"],
        "requirements": ["R-01"], "tests": [f"test_{id}.py"],
    }  # fmt: skip


PLAN = {
    "phases": [
        {"title": "One", "items": [item("T-001")]},
        {"title": "Two", "items": [item("T-002", "T-001"), item("T-003", "T-002")]},
    ]
}
STACK = {"choices": [{"layer": "l", "choice": "c", "reason": "r"}], "commands": {
    "install": "", "build": "", "test": "true {tests}", "run": "true"}}  # fmt: skip
CHANGE = {
    "title": "More", "summary": "There is more.", "requirements": [],
    "todo_edits": [{"op": "add", **item("T-004"), "reason": "Wanted."}],
}  # fmt: skip

OPENED: list[Event] = [
    ("project.opened", {"owner": LOCAL_ADMIN, "brief": "x", "answers": {}, "max_ucredits": None, "confirmed": False})
]
ASKED: list[Event] = [*OPENED, ("project.question", {"topic": "budget", "text": "How much?"})]
ASKED_TWICE: list[Event] = [
    *ASKED,
    ("project.answer", {"topic": "budget", "text": "100"}),
    ("project.question", {"topic": "features", "text": "What?"}),
]
QUOTED: list[Event] = [
    *OPENED, ("project.quoted", {"summary": "s", "quote_ucredits": 10, "ceiling_ucredits": 15})
]  # fmt: skip
PLANNING: list[Event] = [
    *QUOTED,
    ("project.confirmed", {"ceiling_ucredits": 15}),
    ("project.status", {"status": "planning", "text": "", "of_flow": True}),
]
PLANNED: list[Event] = [
    *PLANNING,
    ("plan.ready", {"plan": PLAN, "stack": STACK, "title": "T", "requirement_ids": ["R-01"]}),
    ("repository.committed", {"commit": "c0", "bundle": "b0"}),
]
BUILDING: list[Event] = [*PLANNED, ("project.status", {"status": "implementing", "text": "", "of_flow": True})]
MERGED: list[Event] = [
    *BUILDING,
    ("task.started", {"task": "T-001", "title": "t", "attempt": 1}),
    ("task.merged", {"task": "T-001", "attempt": 1, "commit": "c1", "bundle": "b1"}),
]
FAILED_ONCE: list[Event] = [
    *MERGED,
    ("task.started", {"task": "T-002", "title": "t", "attempt": 1}),
    ("task.rejected", {"task": "T-002", "attempt": 1, "reason": "red"}),
]
PROPOSED: list[Event] = [
    *BUILDING,
    ("change.asked", {"number": 1, "text": "more"}),
    ("change.proposed", {"number": 1, "change": CHANGE, "quote_ucredits": 4, "rise_ucredits": 6}),
]
AT_GATE: list[Event] = [*PLANNED, ("gate.opened", {"gate": "plan/1", "text": "Well?"})]


def paused(events: list[Event], *, by_owner: bool = True, status: str = "paused") -> list[Event]:
    return [*events, ("project.status", {"status": status, "text": "why", "by_owner": by_owner})]


def ended(status: str) -> list[Event]:
    return [*MERGED, ("project.finished", {"status": status, "reason": "r", "spent_ucredits": 1})]


STATES: dict[str, list[Event]] = {
    "asked": ASKED,
    "asked twice": ASKED_TWICE,
    "quoted": QUOTED,
    "planning": PLANNING,
    "building": BUILDING,
    "merged": MERGED,
    "failed once": FAILED_ONCE,
    "proposed": PROPOSED,
    "at gate": AT_GATE,
    "paused": paused(MERGED),
    "no credits": paused(MERGED, by_owner=False, status="paused_no_credits"),
    "over quote": paused(MERGED, by_owner=False, status="paused_quote"),
    "stopping": [*MERGED, ("project.stopping", {})],
    "completed": ended("completed"),
    "failed": ended("failed"),
    "cancelled": ended("cancelled"),
    "purged": [*ended("completed"), ("project.purged", {"status": "purged"})],
}
POSSIBLE = {
    "asked": "answer change cancel",
    "asked twice": "answer back change cancel",
    "quoted": "approve reject change cancel",
    "planning": "pause change cancel",
    "building": "pause change skip cancel",
    "merged": "pause change skip rewind cancel",
    "failed once": "pause change retry skip rewind cancel",
    "proposed": "approve reject pause change skip cancel",
    "at gate": "approve reject change skip cancel",
    "paused": "resume change skip rewind cancel",
    "no credits": "resume change skip rewind cancel",
    "over quote": "resume change skip rewind cancel",
    "stopping": "",
    "completed": "",
    "failed": "",
    "cancelled": "",
    "purged": "",
}
NAMES = ("answer", "back", "approve", "reject", "resume", "pause", "change", "retry", "skip", "rewind", "cancel")


class Recorded:
    """As much of an activation as steering needs: it folds what is emitted, each key once."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.state = State()
        self.keys: dict[str, str] = {}
        self.seq = 0
        self.moves: list[Any] = []
        for type, data in events:
            self._take(type, f"given/{self.seq}", data)

    def has(self, key: str) -> bool:
        return key in self.keys

    async def emit(
        self, type: str, key: str, data: Mapping[str, Any], moves: Callable[[State], Any] | None = None
    ) -> None:
        if not self.has(key):
            if moves is not None:
                self.moves.append(moves(self.state))
            self._take(type, key, data)

    def _take(self, type: str, key: str, data: Mapping[str, Any]) -> None:
        self.seq += 1
        self.keys[key] = type
        record = EventRecord(
            entity=ENTITY, seq=self.seq, epoch=1, type=type, version=1, key=key, at=AT, data=dict(data)
        )
        self.state = self.state.after(record)


def steered(events: Sequence[Event]) -> tuple[Recorded, Steering]:
    recorded = Recorded(events)
    return recorded, Steering(recorded)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", STATES)
def test_every_message__is_possible_exactly_where_the_table_says(name: str) -> None:
    state = Recorded(STATES[name]).state
    assert " ".join(possible(state)) == POSSIBLE[name]
    for message in NAMES:
        if message in POSSIBLE[name].split():
            refuse_unless_possible(state, message)
            continue
        with pytest.raises(ConflictError, match=message) as refused:
            refuse_unless_possible(state, message)
        assert state.status in refused.value.message
        assert all(each in refused.value.next_step for each in POSSIBLE[name].split())


MESSAGES: list[tuple[str, str, Any, str]] = [
    ("building", "pause", Pause(key="k"), "project.status"),
    ("asked twice", "back", Back(key="k"), "project.back"),
    ("paused", "resume", Resume(key="k"), "project.status"),
    ("quoted", "change", Change(key="k", text="other"), "project.change"),
    ("planning", "change", Change(key="k", text="other"), "change.asked"),
    ("building", "change", Change(key="k", text="other"), "change.asked"),
    ("failed once", "retry", Retry(key="k", task="T-002"), "task.retried"),
    ("merged", "skip", Skip(key="k", task="T-003", reason="r"), "task.skipped"),
    ("quoted", "approve", Approve(key="k"), "project.confirmed"),
    ("quoted", "reject", Reject(key="k", text="other"), "project.change"),
    ("quoted", "confirm", Confirm(key="k", accept=True), "project.confirmed"),
    ("at gate", "approve", Approve(key="k", about="plan/1"), "gate.approved"),
    ("at gate", "confirm", Confirm(key="k", accept=True), "gate.approved"),
    ("at gate", "reject", Reject(key="k", text="other"), "gate.rejected"),
    ("proposed", "approve", Approve(key="k", about="change/1"), "change.accepted"),
    ("proposed", "confirm", Confirm(key="k", accept=False), "change.rejected"),
    ("proposed", "reject", Reject(key="k"), "change.rejected"),
    ("merged", "rewind", Rewind(key="k", phase=1), "project.rewind"),
]


@pytest.mark.parametrize(("name", "method", "message", "type"), MESSAGES)
async def test_message__makes_one_event_however_often_it_comes(name: str, method: str, message: Any, type: str) -> None:
    recorded, steering = steered(STATES[name])
    for _ in range(3):
        await getattr(steering, method)(message)
    assert recorded.keys["k"] == type
    assert recorded.seq == len(STATES[name]) + 1


@pytest.mark.parametrize("name", ["completed", "failed", "cancelled", "purged", "stopping"])
@pytest.mark.parametrize(
    ("method", "message"), [(method, message) for _, method, message, _ in MESSAGES if method != "rewind"]
)
async def test_message__to_what_is_over_changes_nothing(name: str, method: str, message: Any) -> None:
    recorded, steering = steered(STATES[name])
    with pytest.raises(ConflictError):
        await getattr(steering, method)(message)
    assert recorded.seq == len(STATES[name])


async def test_yes__to_a_scope_that_was_quoted_anew_is_refused() -> None:
    anew: list[Event] = [
        *QUOTED,
        ("project.change", {"text": "other"}),
        ("project.quoted", {"summary": "t", "change": "other", "quote_ucredits": 90, "ceiling_ucredits": 135}),
    ]
    recorded, steering = steered(anew)
    for old in ("scope/1", "scope"):
        with pytest.raises(ConflictError):
            await steering.approve(Approve(key="old", about=old))
        with pytest.raises(ConflictError):
            await steering.reject(Reject(key="no", text="x", about=old))
    assert recorded.seq == len(anew)
    await steering.approve(Approve(key="new", about="scope/2"))
    assert recorded.keys["new"] == "project.confirmed"


async def test_change__raises_quote_and_ceiling_when_it_is_agreed_to_and_lowers_them_when_it_fails() -> None:
    recorded, steering = steered(PROPOSED)
    await steering.approve(Approve(key="k"))
    assert (recorded.state.quote_ucredits, recorded.state.ceiling_ucredits) == (14, 21)
    assert recorded.moves[-1].ceiling_ucredits == 21
    await recorded.emit("change.failed", "f", {"number": 1})
    assert (recorded.state.quote_ucredits, recorded.state.ceiling_ucredits) == (10, 15)


async def test_retry__forgives_failures_and_resumes_only_what_stopped_because_of_them() -> None:
    for by_owner, status in ((True, Status.PAUSED), (False, Status.IMPLEMENTING)):
        recorded, steering = steered(paused(FAILED_ONCE, by_owner=by_owner))
        await steering.retry(Retry(key="k", task="T-002"))
        assert [each.outcome for each in recorded.state.attempts["T-002"]] == ["forgiven"]
        assert recorded.state.status is status


async def test_task__that_is_unknown_done_or_needed_is_refused_in_words() -> None:
    recorded, steering = steered(MERGED)
    with pytest.raises(NotFoundError, match="no task T-009"):
        await steering.skip(Skip(key="k", task="T-009", reason=""))
    with pytest.raises(ConflictError, match="T-001 is done"):
        await steering.skip(Skip(key="k", task="T-001", reason=""))
    with pytest.raises(ConflictError, match="T-003 cannot be done without T-002"):
        await steering.skip(Skip(key="k", task="T-002", reason=""))
    with pytest.raises(ConflictError, match="T-002 has not failed"):
        await steering.retry(Retry(key="k", task="T-002"))
    assert recorded.seq == len(MERGED)


def test_status_of_the_flow__does_not_resume_a_paused_project() -> None:
    events = [*paused(MERGED), ("project.status", {"status": "verifying", "text": "", "of_flow": True})]
    recorded = Recorded(events)
    assert (recorded.state.status, recorded.state.resume_to) == (Status.PAUSED, Status.VERIFYING)


@pytest.mark.parametrize(
    ("gate", "approved", "refused"),
    [
        ("plan/1", "planning", "planning"),
        ("phase/1/1", "verifying", "implementing"),
        ("delivery/0", "delivering", "planning"),
    ],
)
def test_answer_at_a_gate__ends_the_waiting_at_once(gate: str, approved: str, refused: str) -> None:
    at_gate = [*MERGED, ("gate.opened", {"gate": gate, "text": "?"})]
    assert Recorded(at_gate).state.status is Status.AWAITING_APPROVAL
    assert Recorded([*at_gate, ("gate.approved", {"gate": gate})]).state.status == approved
    assert Recorded([*at_gate, ("gate.rejected", {"gate": gate, "text": "no"})]).state.status == refused


def test_status_of_an_old_journal__folds_as_it_did() -> None:
    events = [*paused(MERGED), ("project.status", {"status": "verifying", "text": ""})]
    assert Recorded(events).state.status is Status.VERIFYING


def test_rewind__opens_later_items_and_takes_back_what_was_concluded_of_them() -> None:
    verdict = {"edits": [], "edits_phase": 1, "commit": "c2", "bundle": "b2", "verdict": "pass"}
    events = [
        *MERGED,
        ("verify.finished", {**verdict, "phase_number": 1}),
        ("task.merged", {"task": "T-002", "attempt": 1, "commit": "c3", "bundle": "b3"}),
        ("verify.finished", {**verdict, "phase_number": 2}),
        ("verify.finished", {**verdict, "phase_number": FINAL_REVIEW}),
        ("project.rewind", {"phase": 2}),
        ("project.rewound", {"phase": 2, "commit": "c4", "bundle": "b4"}),
    ]
    state = Recorded(events).state
    assert state.todo is not None
    assert [each.id for each in state.todo.items if each.done] == ["T-001"]
    assert state.verdicts == {1: ("pass",), 2: ("outdated",), FINAL_REVIEW: ("outdated",)}
    assert (state.commit, sorted(state.commits), state.rewind_to) == ("c4", ["T-001"], None)


def test_second_change_before_the_quote__is_not_lost() -> None:
    events = [
        *QUOTED,
        ("project.change", {"text": "blue"}),
        ("project.change", {"text": "round"}),
        ("project.quoted", {"summary": "s", "change": "blue", "quote_ucredits": 10, "ceiling_ucredits": 15}),
    ]
    assert Recorded(events).state.change == "blue\nround"

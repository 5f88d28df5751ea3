"""What is counted of a project's events: written with them, once, and without a word of anybody's."""

from dataclasses import replace
from typing import Any

import pytest
from counted_world import NOON, World

from runtime.entity.journal import Append, NewEvent
from runtime.errors import BadInputError, NotFoundError, StaleWriterError
from runtime.ids import EntityId, ProjectId, UserId
from runtime.project.facts import project_facts
from runtime.reports.port import Feedback

SECRET = "a word of Ann"
OPENED: dict[str, Any] = {"owner": "ann", "brief": SECRET, "answers": {}, "max_ucredits": None, "confirmed": False}
COMMITTED = {"commit": "c1", "bundle": "b1"}
STORY: list[tuple[str, dict[str, Any]]] = [
    ("project.opened", OPENED),
    ("project.question", {"topic": "t", "text": SECRET}),
    ("project.answer", {"topic": "t", "text": SECRET}),
    ("project.quoted", {"summary": SECRET}),
    ("project.status", {"status": "implementing", "text": SECRET}),
    ("task.started", {"task": "T-001", "attempt": 1, "title": SECRET}),
    ("task.rejected", {"task": "T-001", "attempt": 1, "reason": SECRET}),
    ("task.started", {"task": "T-001", "attempt": 2, "title": SECRET}),
    ("task.merged", {**COMMITTED, "task": "T-001", "attempt": 2, "title": SECRET}),
    (
        "verify.finished",
        {**COMMITTED, "phase_number": 1, "round": 1, "items": 4, "verdict": "fail", "findings": [SECRET]},
    ),
    ("project.finished", {"status": "failed", "reason": SECRET, "spent_ucredits": 1}),
]


async def test_story__is_counted_row_by_row(world: World) -> None:
    for type, data in STORY:
        await world.happens("p1", type, **data)
        world.passes(seconds=1)
    assert await world.sql("SELECT seq, status FROM project_statuses ORDER BY seq") == [
        (1, "gathering_requirements"), (2, "clarifying"), (4, "confirming_scope"), (5, "implementing"), (11, "failed"),
    ]  # fmt: skip
    assert await world.sql(
        "SELECT task, attempt, outcome, epoch(ended_at) - epoch(started_at) FROM task_attempts ORDER BY attempt"
    ) == [("T-001", 1, "rejected", 1.0), ("T-001", 2, "merged", 1.0)]
    assert await world.sql("SELECT phase, cycle, verdict, items_checked FROM verification_cycles") == [
        (1, 1, "fail", 4)
    ]
    assert await world.sql("SELECT commit_id FROM project_commits") == [("c1",), ("c1",)]
    assert await world.sql("SELECT user_id, status, epoch(ended_at) - epoch(opened_at) FROM project_facts") == [
        ("ann", "failed", 10.0)
    ]


async def test_facts__hold_no_word_of_anybody(world: World) -> None:
    for type, data in STORY:
        await world.happens("p1", type, **data)
    for table in ("project_statuses", "task_steps", "verification_cycles", "project_commits"):
        assert SECRET not in str(await world.sql(f"SELECT t::VARCHAR FROM {table} t"))


async def test_append_that_is_refused__leaves_no_fact(world: World) -> None:
    await world.happens("p1", "project.opened", **OPENED)
    world.seqs["p1"] = 0
    with pytest.raises(StaleWriterError):
        await world.happens("p1", "project.opened", **OPENED)
    assert await world.sql("SELECT count(*) FROM project_statuses") == [(1,)]


def test_what_is_no_project__has_no_facts() -> None:
    event = NewEvent(type="project.opened", version=1, key="k", data=OPENED)
    append = Append(
        entity=EntityId("user:ann"), owner=UserId("ann"), epoch=1, expected_seq=0, events=[event], open=True, head={}
    )
    assert project_facts(append, NOON) == ()
    assert len(project_facts(replace(append, entity=EntityId("project:p")), NOON)) == 1


async def test_score__is_the_owners_and_the_last_one_counts(world: World) -> None:
    await world.happens("p1", "project.opened", **OPENED)
    rate = world.store.reports.rate
    for user, project, score, error in (
        ("bob", "p1", 5, NotFoundError),
        ("ann", "p2", 5, NotFoundError),
        ("ann", "p1", 0, BadInputError),
        ("ann", "p1", 6, BadInputError),
    ):
        with pytest.raises(error):
            await rate(Feedback(project=ProjectId(project), user=UserId(user), score=score))
    for score in (2, 4):
        await rate(Feedback(project=ProjectId("p1"), user=UserId("ann"), score=score))
    assert await world.sql("SELECT project, user_id, score FROM project_feedback") == [("p1", "ann", 4)]

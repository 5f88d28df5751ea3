"""Lines 49-52, 65, 70-73 and 78 of spec/builder.md §18, and every way to steer a build, in one process."""

import asyncio
import hashlib
import io
import json
import time
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from runtime.entity.journal import EventRecord
from runtime.entity.reminders import Reminded
from runtime.errors import ConflictError, NotFoundError
from runtime.ids import LOCAL_ADMIN, EntityId, ProjectId, UserId, project_entity, user_entity
from runtime.implementer.work import EditResult, EditWork
from runtime.index.vector_file import VectorFile, vectors_file
from runtime.ledger.money import UCREDITS_PER_CREDIT
from runtime.ledger.port import NewToken
from runtime.project.messages import (
    Answer,
    Approve,
    Cancel,
    Change,
    Describe,
    OpenProject,
    Pause,
    ProjectView,
    PurgeAfter,
    Reject,
    Resume,
    Retry,
    Rewind,
    SetPurgePeriod,
    Skip,
    Status,
)
from runtime.project.repository import ProjectRepository
from runtime.store.seal import Seal
from runtime.tokens import token_hash
from serve_apps.api_routes import create_app
from tests.e2e import small
from tests.e2e.world import Crash, Here, World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with small.playing(tmp_path) as world:
        yield world


async def order(world: World, **changes: Any) -> ProjectId:
    return (await world.order(brief=small.BRIEF, answers=small.ANSWERS, **changes)).id


async def tell(world: World, project: ProjectId, message: Any) -> ProjectView:
    view: ProjectView = await world.host.ask(project_entity(project), message)
    return view


async def seen(world: World, project: ProjectId, type: str, count: int = 1) -> list[EventRecord]:
    """All events, once so many of this type are in the project's state."""
    while True:
        events = await world.host.events(project_entity(project), 0, 0.0)
        if sum(event.type == type for event in events) >= count:
            return list(events)
        assert not events or events[-1].type != "project.finished", events[-1].data
        if world.crashed.is_set():
            raise Crash
        await asyncio.sleep(0.02)


async def becomes(true: Callable[[], Awaitable[bool]]) -> None:
    while True:
        if await true():
            return
        await asyncio.sleep(0.02)


async def _is(world: World, project: ProjectId, status: Status) -> bool:
    return (await tell(world, project, Describe())).status is status


async def finished(world: World, project: ProjectId) -> list[EventRecord]:
    events = await seen(world, project, "project.finished")
    assert events[-1].data["status"] == Status.COMPLETED, events[-1].data
    await agree(world, project)
    return events


async def agree(world: World, project: ProjectId) -> None:
    """Nothing is held, nothing is charged twice, and the sums are right."""
    receipt = await world.store.books.receipt(project)
    balance = await world.store.books.balance(LOCAL_ADMIN)
    assert not receipt.pending
    assert balance.held_ucredits == 0
    assert balance.balance_ucredits == 100 * UCREDITS_PER_CREDIT - receipt.total_ucredits
    runs = {(row.task, row.attempt, str(row.run).rpartition("#")[0]) for row in receipt.charged}
    assert len(runs) == len({row.run for row in receipt.charged})
    assert not await world.store.books.mismatches()


async def package(world: World, project: ProjectId) -> dict[str, str]:
    view = await tell(world, project, Describe())
    assert view.package is not None
    return unpacked(await world.store.books.get_blob(view.package.blob))


def unpacked(data: bytes) -> dict[str, str]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        return {name.removeprefix("generated_project/"): archive.read(name).decode() for name in names}


def merged(events: Sequence[EventRecord]) -> list[str]:
    return [event.data["task"] for event in events if event.type == "task.merged"]


async def test_49__status_tells_tasks_done_and_credits_as_the_ledger_has_them(world: World) -> None:
    project = await order(world)
    await seen(world, project, "task.merged", 2)
    view = await tell(world, project, Describe())
    done = [task for task in view.tasks if task.state == "done"]
    assert (len(done) >= 2, len(view.tasks), view.phases) == (True, 4, ("Sums", "The rest"))
    await finished(world, project)
    view = await tell(world, project, Describe())
    receipt = await world.store.books.receipt(project)
    assert view.spent_ucredits == receipt.total_ucredits
    assert view.quote_ucredits
    assert view.possible == ()


async def test_50__status_of_no_project_says_so(world: World) -> None:
    with pytest.raises(NotFoundError, match="There is no project"):
        await tell(world, ProjectId("0f0e0d0c-0000-4000-8000-000000000000"), Describe())


@pytest.mark.parametrize("event", ["step.started", "task.started", "task.merged"])
async def test_51_and_52__cancel_ends_all_spending_at_once_and_packs_what_exists(world: World, event: str) -> None:
    project = await order(world)
    await seen(world, project, event)
    began = time.monotonic()
    view = await tell(world, project, Cancel(key="stop"))
    took_s = time.monotonic() - began
    served = len(world.served())
    assert view.status is Status.CANCELLED
    assert took_s < 2.0
    assert (await world.store.books.balance(LOCAL_ADMIN)).held_ucredits == 0
    await asyncio.sleep(1.0)
    assert len(world.served()) == served
    await agree(world, project)
    if event == "step.started":
        assert view.package is None
        return
    assert view.package is not None
    assert view.package.partial
    files = await package(world, project)
    assert "RECEIPT.txt" in files
    assert "It was cancelled by its owner." in files["UNFINISHED.md"]
    assert ("add.py" in files) == (event == "task.merged")
    assert "- [x] T-001" in files["TODO.md"] if event == "task.merged" else "- [ ] T-001" in files["TODO.md"]
    assert (await tell(world, project, Cancel(key="stop"))).status is Status.CANCELLED
    with pytest.raises(ConflictError, match="is over"):
        await tell(world, project, Pause(key="pause"))


async def test_pause__begins_nothing_keeps_what_ran_and_goes_on_where_it_was(world: World) -> None:
    project = await order(world)
    await seen(world, project, "task.started")
    assert (await tell(world, project, Pause(key="p"))).status is Status.PAUSED
    assert (await tell(world, project, Pause(key="p"))).status is Status.PAUSED
    await becomes(lambda: _only_waits(world, project))
    served, before = len(world.served()), await seen(world, project, "task.started")
    await asyncio.sleep(0.5)
    assert len(world.served()) == served
    view = await tell(world, project, Describe())
    assert (view.status, "resume" in view.possible, "pause" in view.possible) == (Status.PAUSED, True, False)
    with pytest.raises(ConflictError, match="so `pause` is not possible now") as refused:
        await tell(world, project, Pause(key="p2"))
    assert "resume" in refused.value.next_step

    await world.crash_and_restart()
    await asyncio.sleep(0.3)
    assert len(world.served()) == served
    assert (await tell(world, project, Resume(key="r"))).status is Status.IMPLEMENTING
    events = await finished(world, project)
    losses = (await world.store.books.receipt(project)).losses
    assert not losses
    assert [event.seq for event in events[: len(before)]] == [event.seq for event in before]


async def _only_waits(world: World, project: ProjectId) -> bool:
    """What was under way has ended."""
    return all(each.what.startswith("waiting") for each in (await tell(world, project, Describe())).activity)


async def test_change__is_priced_agreed_to_and_built_while_the_rest_goes_on(world: World) -> None:
    project = await order(world)
    await seen(world, project, "plan.ready")
    before = await tell(world, project, Change(key="c", text="It should raise to a power."))
    await tell(world, project, Change(key="c", text="It should raise to a power."))
    await seen(world, project, "change.proposed")
    view = await tell(world, project, Describe())
    assert view.asks == "change/1"
    assert [(change.number, change.stage) for change in view.changes] == [(1, "proposed")]
    assert view.changes[0].quote_ucredits > 0
    with pytest.raises(ConflictError, match="does not ask about plan/1"):
        await tell(world, project, Approve(key="wrong", about="plan/1"))
    agreed = await tell(world, project, Approve(key="yes", about="change/1"))
    await tell(world, project, Approve(key="yes", about="change/1"))
    assert agreed.ceiling_ucredits == (before.ceiling_ucredits or 0) + view.changes[0].rise_ucredits
    events = await finished(world, project)
    assert sorted(merged(events)) == ["T-001", "T-002", "T-003", "T-004", "T-005"]
    files = await package(world, project)
    assert "## Phase 3: Powers" in files["TODO.md"]
    assert "R-03" in files["docs/requirements.md"]
    assert "| R-03 | T-005" in files["docs/traceability.md"]


async def test_change__asked_for_when_all_is_built_is_waited_for_and_built(world: World) -> None:
    project = await order(world)
    await seen(world, project, "qa.proved")
    await tell(world, project, Change(key="c", text="It should raise to a power."))
    events = await seen(world, project, "change.proposed")
    await becomes(lambda: _is(world, project, Status.AWAITING_APPROVAL))
    await world.crash_and_restart()
    await tell(world, project, Approve(key="yes"))
    events = await finished(world, project)
    assert merged(events)[-1] == "T-005"
    assert "power.py" in await package(world, project)


async def test_change__that_is_rejected_changes_nothing(world: World) -> None:
    project = await order(world)
    await seen(world, project, "plan.ready")
    before = await tell(world, project, Change(key="c", text="It should raise to a power."))
    await seen(world, project, "change.proposed")
    await tell(world, project, Reject(key="no"))
    events = await finished(world, project)
    assert len(merged(events)) == 4
    after = await tell(world, project, Describe())
    assert (after.ceiling_ucredits, after.changes[0].stage) == (before.ceiling_ucredits, "rejected")


async def test_skip__strikes_a_task_and_its_requirement_becomes_a_known_gap(world: World) -> None:
    project = await order(world)
    await seen(world, project, "plan.ready")
    with pytest.raises(ConflictError, match="T-004 cannot be done without T-003"):
        await tell(world, project, Skip(key="s1", task="T-003", reason="not needed"))
    with pytest.raises(NotFoundError, match="no task T-099"):
        await tell(world, project, Skip(key="s0", task="T-099", reason=""))
    view = await tell(world, project, Skip(key="s2", task="T-003", reason="not needed", with_dependents=True))
    assert view.gaps == ("R-02",)
    assert {task.id: task.state for task in view.tasks if task.state == "struck"} == {
        "T-003": "struck",
        "T-004": "struck",
    }
    events = await finished(world, project)
    assert sorted(merged(events)) == ["T-001", "T-002"]
    files = await package(world, project)
    assert "T-003 ~~Function subtract~~ (struck: not needed)" in files["TODO.md"]
    gaps = files["docs/known_gaps.md"]
    assert "## T-003 Function subtract\n\nWhy: skipped by the owner: not needed\n" in gaps
    assert "- R-02: It multiplies, subtracts and negates." in gaps
    assert "- T-004: skipped by the owner" in files["docs/quality_report.md"]
    assert not (await world.store.books.receipt(project)).refunds


async def test_skip__of_a_task_at_work_breaks_it_off_and_charges_nothing_more_for_it(world: World) -> None:
    project = await order(world)
    edits = world.implementer.edit
    at_work, ended = asyncio.Event(), asyncio.Event()

    async def edit(work: EditWork) -> EditResult:
        if f"id={small.FLAWED} " not in work.instruction or "attempt=1" in work.instruction:
            return await edits(work)
        try:
            await edits(work)
            at_work.set()
            await asyncio.sleep(3600)
        finally:
            ended.set()
        raise AssertionError("nobody waits so long")

    world.implementer.edit = edit  # type: ignore[method-assign]
    await at_work.wait()
    charged = [row.call for row in (await world.store.books.receipt(project)).charged if row.task == small.FLAWED]
    await tell(world, project, Skip(key="s", task=small.FLAWED, reason="", with_dependents=True))
    await ended.wait()
    await finished(world, project)
    receipt = await world.store.books.receipt(project)
    assert [row.call for row in receipt.charged if row.task == small.FLAWED] == charged != []
    assert [row.task for row in receipt.losses] == [small.FLAWED]


async def test_skip__of_all_that_is_left_is_refused(world: World) -> None:
    project = await order(world, gates=("plan",))
    await seen(world, project, "gate.opened")
    with pytest.raises(ConflictError, match="Nothing would be left to build"):
        await tell(world, project, Skip(key="s", task="T-001", reason="", with_dependents=True))


async def test_retry__begins_a_failed_task_again_with_a_fresh_count(world: World) -> None:
    project = await order(world)
    await seen(world, project, "task.rejected")
    await tell(world, project, Pause(key="p"))
    view = await tell(world, project, Retry(key="again", task=small.FLAWED))
    assert view.status is Status.PAUSED, "who paused it resumes it"
    await tell(world, project, Resume(key="r"))
    await tell(world, project, Retry(key="again", task=small.FLAWED))
    with pytest.raises(ConflictError, match=r"has not failed|being worked on|is done"):
        await tell(world, project, Retry(key="other", task="T-001"))
    events = await finished(world, project)
    assert sum(event.type == "task.retried" for event in events) == 1


async def test_gates__stop_the_build_until_each_is_approved(world: World) -> None:
    project = await order(world, gates=("plan", "phase", "delivery"))
    opened: list[str] = []
    for number in range(1, 7):
        events = await seen(world, project, "gate.opened", number)
        gate = [event.data["gate"] for event in events if event.type == "gate.opened"][-1]
        opened.append(gate)
        view = await tell(world, project, Describe())
        assert (view.status, view.asks) == (Status.AWAITING_APPROVAL, gate)
        if number == 1:
            await tell(world, project, Reject(key="no", text="fewer words"))
            await world.crash_and_restart()
        elif number == 3:
            await tell(world, project, Reject(key="mend", text="look at adding again"))
        else:
            view = await tell(world, project, Approve(key=f"yes-{number}", about=gate))
            assert view.status is not Status.AWAITING_APPROVAL or view.asks not in (gate, None)
    assert opened == ["plan/1", "plan/2", "phase/1/1", "phase/1/2", "phase/2/1", "delivery/2"]
    events = await finished(world, project)
    assert sum(event.type == "plan.ready" for event in events) == 2


async def test_rewind__goes_on_from_where_the_phase_began_and_loses_no_commit(world: World) -> None:
    project = await order(world)
    with pytest.raises(ConflictError, match="`rewind` is not possible"):
        await tell(world, project, Rewind(key="early", phase=1))
    await seen(world, project, "task.merged", 3)
    before = await tell(world, project, Describe())
    events = await seen(world, project, "task.merged", 3)
    lost = [event.data["commit"] for event in events if event.type == "task.merged"][-1]
    world.crash_at = world.appends + 2
    with suppress(Exception, Crash):
        await tell(world, project, Rewind(key="back", phase=2))
        await seen(world, project, "project.rewound")
    await world.crash_and_restart()
    await tell(world, project, Rewind(key="back", phase=2))
    events = await finished(world, project)
    rewound = [event.data for event in events if event.type == "project.rewound"]
    assert len(rewound) == 1
    assert "T-001" not in rewound[0]["reopened"]
    assert rewound[0]["reopened"]
    assert before.spent_ucredits <= (await tell(world, project, Describe())).spent_ucredits
    bundles = [event.data["bundle"] for event in events if "bundle" in event.data]
    repository = ProjectRepository.from_bundle(
        world.settings.data_dir / "looked-at", await world.store.books.get_blob(bundles[-1])
    )
    kept = repository._must("rev-list", f"refs/heads/{rewound[0]['branch']}").decode().split()
    assert lost in kept
    assert lost not in [commit.commit for commit in repository.commits()]


STEERED = {
    "pause": {}, "resume": {}, "change": {"text": "x"}, "retry": {"task": "T-001"}, "skip": {"task": "T-001"},
    "approve": {}, "reject": {"text": "x"}, "rewind": {"phase": 1}, "cancel": {},
}  # fmt: skip


async def test_65__another_user_reaches_nothing_by_guessing_the_id(world: World, bob: UserId) -> None:
    project = await order(world)
    await seen(world, project, "plan.ready")
    async with at_the_door(world) as door:
        path = f"/api/v1/projects/{project}"
        for method, what, body in (
            *(("POST", f"/{name}", body) for name, body in STEERED.items()),
            *(("GET", name, None) for name in ("", "/events", "/package", "/receipt")),
        ):
            answer = await door.request(method, path + what, json=body, headers=bearer(bob))
            assert answer.status_code == 404, what
        seen_by_bob = (await door.get("/api/v1/projects", headers=bearer(bob))).json()
        assert seen_by_bob == {"projects": []}
        own = (await door.get(path, headers=bearer(LOCAL_ADMIN))).json()
        assert own["status"] in ("planning", "implementing")

        paused = await door.post(f"{path}/pause", headers={**bearer(LOCAL_ADMIN), "idempotency-key": "once"})
        again = await door.post(f"{path}/pause", headers={**bearer(LOCAL_ADMIN), "idempotency-key": "once"})
        assert (paused.json()["status"], again.json()["status"]) == ("paused", "paused")
        other = await door.post(f"{path}/pause", headers=bearer(LOCAL_ADMIN))
        assert other.status_code == 409
        assert "Possible now: resume" in other.json()["error"]["message"]
        stopped = (await door.post(f"{path}/cancel", headers=bearer(LOCAL_ADMIN))).json()
        assert (stopped["status"], stopped["possible"]) == ("cancelled", [])
        fetched = await door.get(f"{path}/package", headers=bearer(LOCAL_ADMIN))
        assert fetched.headers["x-sha256"] == stopped["package"]["sha256"]


async def test_paused_project__gives_what_exists_to_who_asks_for_unfinished_work(world: World, bob: UserId) -> None:
    project = await order(world)
    path = f"/api/v1/projects/{project}/package?unfinished=true"
    async with at_the_door(world) as door:
        nothing = await door.get(path, headers=bearer(LOCAL_ADMIN))
        assert nothing.status_code == 409
        assert "Nothing is built yet" in nothing.json()["error"]["message"]
        await seen(world, project, "task.merged")
        await tell(world, project, Pause(key="p"))
        assert (await door.get(path, headers=bearer(bob))).status_code == 404
        refused = await door.get(path.partition("?")[0], headers=bearer(LOCAL_ADMIN))
        assert "?unfinished=true" in refused.json()["error"]["next"]
        fetched = await door.get(path, headers=bearer(LOCAL_ADMIN))
    assert fetched.headers["content-disposition"] == 'attachment; filename="calculator-unfinished.zip"'
    assert fetched.headers["x-sha256"] == hashlib.sha256(fetched.content).hexdigest()
    files = unpacked(fetched.content)
    assert "When it was fetched it was paused and asks: Paused by you." in files["UNFINISHED.md"]
    assert "- T-004 Function negate" in files["UNFINISHED.md"]
    assert {"add.py", "TODO.md", "RECEIPT.txt"} <= set(files)
    await tell(world, project, Resume(key="r"))
    await finished(world, project)
    async with at_the_door(world) as door:
        whole = await door.get(path, headers=bearer(LOCAL_ADMIN))
    assert whole.headers["content-disposition"] == 'attachment; filename="calculator.zip"'
    assert "UNFINISHED.md" not in unpacked(whole.content)


@pytest.fixture
async def bob(world: World) -> UserId:
    user = UserId("bob")
    await world.store.books.open_wallet(user, False)
    for each in (user, LOCAL_ADMIN):
        await world.store.books.add_token(
            NewToken(token_sha256=token_hash(f"{each}-token"), user=each, kind="user", label="mine")
        )
    return user


def bearer(user: UserId) -> dict[str, str]:
    return {"authorization": f"Bearer {user}-token"}


def at_the_door(world: World) -> httpx.AsyncClient:
    """The HTTP door, on this world's entities and books."""
    system = SimpleNamespace(
        settings=world.settings,
        entities=Here(world),
        ledger=world.store.books,
        journal=world.store.journal,
        reports=world.store.reports,
    )
    app = create_app(system)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api")


async def test_70__a_restart_in_mid_implementation_goes_on_with_the_next_item(world: World) -> None:
    project = await order(world)
    before = merged(await seen(world, project, "task.merged", 2))
    await world.crash_and_restart()
    events = await finished(world, project)
    after = merged(events)
    assert after[: len(before)] == before
    assert sorted(after) == ["T-001", "T-002", "T-003", "T-004"]


async def test_71_and_72__a_project_past_its_date_leaves_only_rows_of_money(world: World) -> None:
    project = await order(world)
    events = await finished(world, project)
    view = await tell(world, project, Describe())
    assert view.ended_at is not None
    assert view.purge_at == view.ended_at + timedelta(days=30) or abs(
        (view.purge_at or view.ended_at) - view.ended_at - timedelta(days=30)
    ) < timedelta(seconds=5)
    session: EntityId = user_entity(LOCAL_ADMIN)
    assert await world.host.ask(session, SetPurgePeriod(key="days", days=7)) == 1
    assert await world.host.ask(session, SetPurgePeriod(key="days", days=7)) == 1
    assert (await tell(world, project, Describe())).purge_at == view.ended_at + timedelta(days=7)

    blobs = {event.data[name] for event in events for name in ("bundle", "blob") if name in event.data}
    receipt = await world.store.books.receipt(project)
    file = world.settings.data_dir / "index" / vectors_file(LOCAL_ADMIN)
    kept = VectorFile(file, LOCAL_ADMIN, Seal(world.secrets.data_encryption_key))
    kept.keep("minilm", {b"its text": b"1"}, f"{project}.index")
    kept.keep("minilm", {b"another's": b"2"}, "another.index")
    await _forward(world, project, view.ended_at + timedelta(days=7))
    assert (await tell(world, project, Describe())).status is Status.PURGED
    assert await world.store.erase_due() == 1
    assert await world.store.erase_due() == 0
    left = await world.store.journal.read(project_entity(project), 0)
    assert [event for event in left if event.data] == []
    for entity in (project_entity(project), session):
        told = str([event.data for event in await world.store.journal.read(entity, 0)])
        assert small.BRIEF not in told
    for blob in blobs:
        with pytest.raises(NotFoundError):
            await world.store.books.get_blob(blob)
    assert kept.find("minilm", [b"its text", b"another's"], "another.index") == {b"another's": b"2"}
    assert await world.store.books.receipt(project) == receipt
    assert not await world.store.check()
    await world.crash_and_restart()
    view = await tell(world, project, Describe())
    assert (view.status, view.package, view.title) == (Status.PURGED, None, "(erased)")
    assert await order(world, key="two")


async def test_73__an_export_has_the_owners_projects_conversations_and_transactions(world: World, bob: UserId) -> None:
    """One project was delivered, another given up in the middle of its interview; of Bob's nothing is told."""
    delivered = await order(world)
    await finished(world, delivered)
    begun = (await world.order(key="two", brief=small.BRIEF, answers={}, confirmed=False)).id
    question = (await seen(world, begun, "project.question"))[-1].data["text"]
    await tell(world, begun, Answer(key="a", text="For the night shift."))
    await tell(world, begun, Cancel(key="stop"))
    bobs = await world.host.ask(
        user_entity(bob),
        OpenProject(key="b", brief=small.BRIEF, answers={"audience": "Bob's own"}, max_ucredits=None, confirmed=False),
    )
    async with at_the_door(world) as door:
        taken = await door.get("/api/v1/me/export", headers=bearer(LOCAL_ADMIN))
        statement = (await door.get("/api/v1/credits/statement", headers=bearer(LOCAL_ADMIN))).json()["movements"]
    assert taken.status_code == 200, taken.text
    with zipfile.ZipFile(io.BytesIO(taken.content)) as archive:
        files = {name: archive.read(name).decode() for name in archive.namelist()}
    folders = {name.split("/")[1] for name in files if name.startswith("projects/")}
    assert folders == {delivered, begun}
    assert not any(word in text for word in (bobs.id, "Bob's own") for text in files.values())

    shown = json.loads(files[f"projects/{delivered}/project.json"])
    assert (shown["status"], shown["brief"], len(shown["tasks"])) == ("completed", small.BRIEF, 4)
    said = json.loads(files[f"projects/{begun}/conversation.json"])
    assert [(each["message_type"], each["content"]) for each in said[:3]] == [
        ("user_message", small.BRIEF), ("bot_question", question), ("user_message", "For the night shift."),
    ]  # fmt: skip
    moves = {move["id"]: move["amount_ucredits"] for move in json.loads(files["statement.json"])}
    assert moves == {move["id"]: move["amount_ucredits"] for move in statement}
    balance = await world.store.books.balance(LOCAL_ADMIN)
    assert sum(moves.values()) == balance.balance_ucredits < 100 * UCREDITS_PER_CREDIT


async def _forward(world: World, project: ProjectId, to: datetime) -> None:
    """Delivers what is due by then, as the host does when that time comes."""
    for name, at in (("purge_warning", to - timedelta(days=3)), ("purge", to)):
        await tell(world, project, Reminded(name=name, due_at=at, data={}))


async def test_purge__that_was_put_off_does_not_happen_yet(world: World) -> None:
    project = await order(world)
    await seen(world, project, "task.merged")
    await tell(world, project, PurgeAfter(key="p", days=1))
    view = await tell(world, project, Cancel(key="stop"))
    assert view.purge_at is not None
    assert view.purge_at - datetime.now(UTC) < timedelta(days=1)
    await tell(world, project, PurgeAfter(key="q", days=100))
    await _forward(world, project, view.purge_at)
    assert (await tell(world, project, Describe())).status is Status.CANCELLED


async def test_78__progress_tells_credits_with_each_verification_and_what_workers_do(world: World) -> None:
    project = await order(world)
    doing = set()
    while (view := await tell(world, project, Describe())).status is not Status.COMPLETED:
        doing |= {each.what for each in view.activity}
        await asyncio.sleep(0.01)
    events = await finished(world, project)
    told = [event for event in events if event.type == "verify.finished"]
    assert len(told) >= 3
    assert all(event.data["spent_ucredits"] > 0 for event in told)
    assert {"asking the architect", "editing and checking", "merging"} <= doing
    assert (await tell(world, project, Describe())).activity == ()

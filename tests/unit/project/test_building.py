"""Which tasks are under way at once."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from runtime.entity.journal import Append, EventRecord
from runtime.errors import StoreUnavailableError
from runtime.ids import BlobId, EntityId, project_entity
from runtime.implementer.work import CheckReport, CheckWork, EditResult, EditWork
from runtime.index.hit import IndexStatus
from runtime.index.messages import SearchIndex, UpdateIndex
from runtime.project.messages import Pause, Resume, Status
from runtime.project.repository import ProjectRepository
from runtime.project.state import edit_step
from runtime.project.tree import Tree
from tests.unit.project.scripted import PROJECT, Nobody, Scripted, item, passes, plan

ITEMS = [f"T-{number:03}" for number in range(1, 9)]


def a_build(folder: Path, **settings: Any) -> Scripted:
    items = plan([item(id) for id in ITEMS])
    replies = {"plan.todo": [items], "verify.phase": [passes(*ITEMS)], "qa.review": [passes(*ITEMS)]}
    return Scripted(folder, replies, **settings)


def of(events: Sequence[EventRecord], type: str) -> list[str]:
    return [event.data["task"] for event in events if event.type == type]


def begun(events: Sequence[EventRecord]) -> list[str]:
    return [event.data["step"] for event in events if event.type == "step.started"]


async def test_task_that_is_merged__leaves_its_place_to_the_next_and_a_slow_queue_holds_up_the_rest(
    tmp_path: Path,
) -> None:
    build = a_build(tmp_path, max_parallel_implementers=2, verify_every_n_items=100)
    at_main, may_go = asyncio.Event(), asyncio.Event()
    check, edit = build.implementers.check, build.implementers.edit

    async def slow(work: CheckWork) -> CheckReport:
        at_main.set()
        await may_go.wait()
        return await check(work)

    async def after_the_first(work: EditWork) -> EditResult:
        if f" id={ITEMS[0]} " not in work.instruction:
            await build.until("task.merged", 1)
        return await edit(work)

    build.implementers.check = slow  # type: ignore[method-assign]
    build.implementers.edit = after_the_first  # type: ignore[method-assign]
    await build.start()
    await at_main.wait()  # Main has moved once, so the second change is checked on it, and the others wait behind it.
    events = await build.until("task.checked", 5)
    assert len(of(events, "task.merged")) == 1
    await asyncio.sleep(0.5)
    assert of(await build.events(), "task.started") == ITEMS[:5], "one on main, four in the queue or before it"

    may_go.set()
    events = await build.until("project.finished")
    assert sorted(of(events, "task.merged")) == ITEMS
    assert (await build.until_status(Status.COMPLETED)).status is Status.COMPLETED


async def test_one_implementer__begins_each_task_on_what_the_one_before_left(tmp_path: Path) -> None:
    build = a_build(tmp_path, max_parallel_implementers=1)
    await build.start()
    events = await build.until("project.finished")
    order = [(event.type, event.data["task"]) for event in events if event.type in ("task.started", "task.merged")]
    assert order == [(type, id) for id in ITEMS for type in ("task.started", "task.merged")]


class AtMain:
    """What the last of three tasks builds on is made at once, and held where main is checked with both of it."""

    def __init__(self, folder: Path, *more: dict[str, Any], **settings: Any) -> None:
        first, second, last = ITEMS[:3]
        planned = [item(first), item(second), item(last, first, second), *more]
        self.ids = [each["id"] for each in planned]
        passed = [passes(*self.ids)]
        replies = {"plan.todo": [plan(planned)], "verify.phase": passed, "qa.review": passed}
        self.build = Scripted(folder, replies, **{"max_parallel_implementers": 3, **settings})
        self.last = last
        self.trees: dict[str, Tree] = {}
        """What each task was last edited on."""
        self.is_there, self.may_go = asyncio.Event(), asyncio.Event()
        self._check, self._edit = self.build.implementers.check, self.build.implementers.edit
        self.build.implementers.check = self.check  # type: ignore[method-assign]
        self.build.implementers.edit = self.edit  # type: ignore[method-assign]

    async def check(self, work: CheckWork) -> CheckReport:
        if work.tree.keys() >= {f"src/{id}.py" for id in ITEMS[:2]}:
            self.is_there.set()
            await self.may_go.wait()
        return await self._check(work)

    async def edit(self, work: EditWork) -> EditResult:
        self.trees[work.instruction.split(" id=", 1)[1].split()[0]] = work.tree
        return await self._edit(work)

    async def held(self) -> None:
        await self.build.start()
        await self.is_there.wait()
        async with asyncio.timeout(20):
            while edit_step(self.last, 1) not in begun(events := await self.build.events()):
                await self.build.host.events(project_entity(PROJECT), events[-1].seq, 0.1)
        assert self.last not in of(events, "task.started")
        assert len(of(events, "task.merged")) < 2
        await asyncio.sleep(0.2)
        assert self.last not in self.trees, "it is begun, and nobody works on it"

    async def assert_built(self) -> None:
        events = await self.build.until("project.finished")
        assert (await self.build.until_status(Status.COMPLETED)).status is Status.COMPLETED
        assert sorted(of(events, "task.merged")) == self.ids
        assert self.trees[self.last].keys() >= {f"src/{id}.py" for id in ITEMS[:2]}
        paid = [row for row in (await self.build.ledger.receipt(PROJECT)).charged if row.task == self.last]
        assert len(paid) == 1


async def test_task_whose_base_is_being_merged__is_begun_and_edited_once_that_is_on_main(tmp_path: Path) -> None:
    at_main = AtMain(tmp_path)
    await at_main.held()
    at_main.may_go.set()
    await at_main.assert_built()
    assert "step.failed" not in [event.type for event in await at_main.build.events()]


async def test_task_whose_base_comes_back_from_the_merge__is_put_back_until_that_is_made_anew(tmp_path: Path) -> None:
    at_main = AtMain(tmp_path, verify_every_n_items=3)
    implementers = at_main.build.implementers
    implementers.red = lambda work: "src/T-001.py" in work.tree and len(implementers.instructions) < 3
    await at_main.held()
    at_main.may_go.set()
    await at_main.assert_built()
    events = await at_main.build.events()
    assert len(of(events, "task.rejected")) == 1
    assert [event.data["step"] for event in events if event.type == "step.failed"] == [edit_step(at_main.last, 1)]
    assert of(events, "task.started").count(at_main.last) == 1
    assert len(at_main.build.calls.lines("verify.phase")) == 1, "three tasks were begun, one of them twice"


async def test_tasks_whose_base_is_being_merged__leave_places_to_those_that_can_be_worked_on(tmp_path: Path) -> None:
    waiting = [item(id, *ITEMS[:2], effort="large") for id in ITEMS[3:5]]
    others = [item(id, effort="small") for id in ITEMS[5:]]
    at_main = AtMain(tmp_path, *waiting, *others, max_parallel_implementers=6, verify_every_n_items=100)
    await at_main.build.start()
    await at_main.is_there.wait()
    await at_main.build.until("task.checked", 5)
    await asyncio.sleep(0.2)
    early = {edit_step(id, 1) for id in (at_main.last, *ITEMS[3:5])}
    assert len(early.intersection(begun(await at_main.build.events()))) == 1
    at_main.may_go.set()
    await at_main.assert_built()


async def test_one_task_more_than_may_be_edited__is_begun(tmp_path: Path) -> None:
    build = a_build(tmp_path, max_parallel_implementers=2, verify_every_n_items=100)
    edit, may_go = build.implementers.edit, asyncio.Event()

    async def slow(work: EditWork) -> EditResult:
        await may_go.wait()
        return await edit(work)

    build.implementers.edit = slow  # type: ignore[method-assign]
    await build.start()
    await build.until("task.started", 3)
    await asyncio.sleep(0.2)
    assert of(await build.events(), "task.started") == ITEMS[:3]
    may_go.set()
    assert sorted(of(await build.until("project.finished"), "task.merged")) == ITEMS


async def test_pause_while_the_base_of_a_task_is_merged__leaves_the_task_for_later(tmp_path: Path) -> None:
    at_main = AtMain(tmp_path)
    await at_main.held()
    await at_main.build.tell(Pause(key="p"))
    at_main.may_go.set()
    await at_main.build.until("task.merged", 2)
    await asyncio.sleep(0.2)
    assert at_main.last not in at_main.trees
    await at_main.build.tell(Resume(key="r"))
    await at_main.assert_built()


async def test_change_that_passes__is_merged_while_its_attempt_is_put_on_disk_and_told_after_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = a_build(tmp_path, max_parallel_implementers=1)
    applied = asyncio.Event()
    loop, append, apply = asyncio.get_running_loop(), build.journal.append, ProjectRepository.apply_patch

    async def behind_the_merge(written: Append) -> int:
        if any(event.key == f"task/{ITEMS[0]}/1/checked" for event in written.events):
            await asyncio.wait_for(applied.wait(), 20)
        return await append(written)

    def noticed(repository: ProjectRepository, patch: bytes) -> None:
        apply(repository, patch)
        loop.call_soon_threadsafe(applied.set)

    build.journal.append = behind_the_merge  # type: ignore[method-assign]
    monkeypatch.setattr(ProjectRepository, "apply_patch", noticed)
    await build.start()
    events = await build.until("project.finished")
    assert sorted(of(events, "task.merged")) == ITEMS
    order = [(event.type, event.data["task"]) for event in events if event.type in ("task.checked", "task.merged")]
    assert all(order.index(("task.checked", id)) < order.index(("task.merged", id)) for id in ITEMS)


async def test_attempt_whose_patch_cannot_be_put_on_disk__holds_up_no_other_and_is_made_anew(tmp_path: Path) -> None:
    build = a_build(tmp_path, max_parallel_implementers=2)
    put_blob = build.ledger.put_blob
    refused: list[bytes] = []

    async def fails(data: bytes) -> BlobId:
        if f"src/{ITEMS[0]}.py".encode() in data and not data.startswith(b"# v2") and len(refused) < 2:
            await asyncio.sleep(0.3)  # Time enough for the merge queue to be done with it.
            refused.append(data)
            raise StoreUnavailableError("The disk is full.")
        return await put_blob(data)

    build.ledger.put_blob = fails  # type: ignore[method-assign]
    await build.start()
    events = await build.until("task.merged", 3)
    assert len(refused) == 1, "the others land while it waits to be tried again"
    assert ITEMS[0] not in of(events, "task.merged")
    events = await build.until("project.finished")
    assert sorted(of(events, "task.merged")) == ITEMS


async def test_attempt_whose_end_cannot_be_put_on_disk__does_not_land(tmp_path: Path) -> None:
    build = a_build(tmp_path, max_parallel_implementers=2)
    append = build.journal.append
    refused = 0

    async def fails_once(written: Append) -> int:
        nonlocal refused
        if not refused and any(event.key == f"task/{ITEMS[0]}/1/checked" for event in written.events):
            await asyncio.sleep(0.3)  # Time enough for the merge queue to be done with it.
            refused += 1
            raise StoreUnavailableError("The disk is full.")
        return await append(written)

    build.journal.append = fails_once  # type: ignore[method-assign]
    await build.start()
    await build.until_status(Status.PAUSED)
    assert ITEMS[0] not in of(await build.events(), "task.merged")
    await build.tell(Resume(key="r"))
    events = await build.until("project.finished")
    assert sorted(of(events, "task.merged")) == ITEMS
    first = [event for event in events if event.data.get("task") == ITEMS[0]]
    assert [event.type for event in first] == ["task.started", "task.checked", "task.merged"]
    commits = (await build.repository(tmp_path / "clone")).commits()
    assert [each.trailers["Task"] for each in commits if "Task" in each.trailers].count(f"{ITEMS[0]}/1") == 1


async def test_code_near_to_a_task__is_looked_for_while_its_run_begins(tmp_path: Path) -> None:
    build = a_build(tmp_path)
    index = build.entities = Index()
    append = build.journal.append
    waited = 0

    async def behind_the_search(written: Append) -> int:
        nonlocal waited
        if any(event.data.get("step") == edit_step(ITEMS[0], 1) for event in written.events) and written.moves.begin:
            await asyncio.wait_for(index.searched.wait(), 20)
            waited += 1
        return await append(written)

    build.journal.append = behind_the_search  # type: ignore[method-assign]
    await build.start()
    await build.until("project.finished")
    assert waited == 1


class Index(Nobody):
    def __init__(self) -> None:
        self.searched = asyncio.Event()

    async def ask(self, entity: EntityId, message: Any, *, timeout_s: float = 30.0) -> Any:
        if isinstance(message, SearchIndex):
            self.searched.set()
        return await super().ask(entity, message, timeout_s=timeout_s)


class Told(Nobody):
    """Takes every update, and answers no question."""

    def __init__(self) -> None:
        self.commits: list[str] = []
        self._more = asyncio.Condition()

    async def until(self, commit: str) -> None:
        async with asyncio.timeout(20), self._more:
            await self._more.wait_for(lambda: commit in self.commits)

    async def ask(self, entity: EntityId, message: Any, *, timeout_s: float = 30.0) -> Any:
        if isinstance(message, UpdateIndex):
            async with self._more:
                self.commits.append(message.commit)
                self._more.notify_all()
            return IndexStatus(commit=message.commit, chunks=1, embedder="lexical", embedded=0)
        return await super().ask(entity, message, timeout_s=timeout_s)


async def test_tasks_that_land_one_by_one_in_a_burst__are_told_to_the_index_together_while_others_are_made(
    tmp_path: Path,
) -> None:
    build = a_build(tmp_path, max_parallel_implementers=8)
    index = build.entities = Told()
    edit, updates = build.implementers.edit, 0

    async def in_order(work: EditWork) -> EditResult:
        nonlocal updates
        (place,) = [place for place, id in enumerate(ITEMS) if f" id={id} " in work.instruction]
        merged = [event for event in await build.until("task.merged", place) if event.type == "task.merged"]
        if place == len(ITEMS) - 1:
            await index.until(merged[-1].data["commit"])
            updates = len(index.commits)
        return await edit(work)

    build.implementers.edit = in_order  # type: ignore[method-assign]
    await build.start()
    await build.until("project.finished")
    assert 2 <= updates <= 4, "one at the build's start, and one for each second in which tasks landed"

"""Which tasks are under way at once."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runtime.entity.journal import Append, EventRecord
from runtime.ids import EntityId
from runtime.implementer.work import CheckReport, CheckWork
from runtime.index.messages import SearchIndex
from runtime.project.messages import Status
from runtime.project.state import edit_step
from tests.unit.project.scripted import Nobody, Scripted, item, passes, plan

ITEMS = [f"T-{number:03}" for number in range(1, 9)]


def a_build(folder: Path, **settings: Any) -> Scripted:
    items = plan([item(id) for id in ITEMS])
    replies = {"plan.todo": [items], "verify.phase": [passes(*ITEMS)], "qa.review": [passes(*ITEMS)]}
    return Scripted(folder, replies, **settings)


def of(events: Sequence[EventRecord], type: str) -> list[str]:
    return [event.data["task"] for event in events if event.type == type]


async def test_task_that_is_merged__leaves_its_place_to_the_next_and_a_slow_queue_holds_up_the_rest(
    tmp_path: Path,
) -> None:
    build = a_build(tmp_path, max_parallel_implementers=2, verify_every_n_items=100)
    at_main, may_go = asyncio.Event(), asyncio.Event()
    check = build.implementers.check

    async def slow(work: CheckWork) -> CheckReport:
        at_main.set()
        await may_go.wait()
        return await check(work)

    build.implementers.check = slow  # type: ignore[method-assign]
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

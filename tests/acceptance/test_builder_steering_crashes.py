"""kill -9 in the middle of steering a build, at each append that it comes to, before or after that is on disk.

What was asked for goes on by itself once the journal has it; before, nothing has changed, and a repeat does it. Either
way it is done once, and every (task, attempt) is paid once.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import MasterbuilderError, NotFoundError
from runtime.ids import LOCAL_ADMIN, ProjectId, project_entity
from runtime.ledger.port import Receipt
from runtime.project.messages import Approve, Cancel, Change, Describe, Pause, ProjectView, Resume, Retry, Skip, Status
from tests.acceptance.test_builder_steering import agree, becomes, finished, merged, order, package, seen, tell
from tests.e2e import small
from tests.e2e.world import World

at_each_append = pytest.mark.parametrize(
    ("dies_at", "before"),
    [(1, True), (1, False), (2, False), (3, False)],
    ids=["before the first", "after the first", "after the second", "after the third"],
)
before_and_after = pytest.mark.parametrize("before", [True, False], ids=["before", "after"])


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with small.playing(tmp_path) as world:
        yield world


async def asked_of_who_dies(world: World, project: ProjectId, message: Any, dies_at: int, *, before: bool) -> None:
    """Says it to a process that dies at its n-th append from then on, if it comes to so many, and starts another."""
    world.crash_before, world.crash_at = before, world.appends + dies_at
    with suppress(MasterbuilderError):
        view = await tell(world, project, message)
        if not view.status.terminal and view.status is not Status.PAUSED:
            await world.crashed.wait()
    await world.crash_and_restart()


async def has(world: World, project: ProjectId, type: str) -> bool:
    return await count(world, project, type) > 0


async def count(world: World, project: ProjectId, type: str) -> int:
    return sum(event.type == type for event in await world.store.journal.read(project_entity(project), 0))


async def is_now(world: World, project: ProjectId, status: Status) -> ProjectView:
    """The project, once it has this status."""

    async def reached() -> bool:
        return (await tell(world, project, Describe())).status is status

    await becomes(reached)
    return await tell(world, project, Describe())


@at_each_append
async def test_cancel__is_carried_out_once_it_is_journalled(world: World, dies_at: int, before: bool) -> None:
    project = await order(world)
    await seen(world, project, "task.merged")
    await asked_of_who_dies(world, project, Cancel(key="stop"), dies_at, before=before)
    if not await has(world, project, "project.stopping"):
        assert not (await tell(world, project, Describe())).status.terminal
        await tell(world, project, Cancel(key="stop"))
    view = await is_now(world, project, Status.CANCELLED)
    assert view.package is not None
    assert view.package.partial
    assert await count(world, project, "project.finished") == 1
    assert await count(world, project, "package.ready") == 1
    await agree(world, project)


@before_and_after
async def test_skip__strikes_whole_or_not_at_all(world: World, before: bool) -> None:
    project = await order(world)
    await seen(world, project, "task.started", 3)
    message = Skip(key="s", task=small.FLAWED, reason="", with_dependents=True)
    await asked_of_who_dies(world, project, message, 1, before=before)
    struck = [task.id for task in (await tell(world, project, Describe())).tasks if task.state == "struck"]
    assert struck == (["T-003", "T-004"] if await has(world, project, "task.skipped") else [])
    await tell(world, project, message)
    events = await finished(world, project)
    assert sorted(merged(events)) == ["T-001", "T-002"]
    assert await count(world, project, "task.skipped") == 1
    files = await package(world, project)
    assert "## T-004 Function negate\n\nWhy: skipped by the owner\n" in files["docs/known_gaps.md"]


@before_and_after
async def test_retry__forgives_once(world: World, before: bool) -> None:
    project = await order(world)
    await seen(world, project, "task.rejected")
    await tell(world, project, Pause(key="p"))
    message = Retry(key="again", task=small.FLAWED)
    await asked_of_who_dies(world, project, message, 1, before=before)
    assert (await tell(world, project, message)).status is Status.PAUSED
    await tell(world, project, Resume(key="r"))
    await finished(world, project)
    assert await count(world, project, "task.retried") == 1


@pytest.mark.parametrize(("dies_at", "before"), [(1, True), (1, False), (2, False)])
async def test_change__is_agreed_to_priced_and_built_once(world: World, dies_at: int, before: bool) -> None:
    project = await order(world)
    await seen(world, project, "plan.ready")
    wish = Change(key="wish", text="It raises to a power.")
    await asked_of_who_dies(world, project, wish, dies_at, before=before)
    await tell(world, project, wish)
    await seen(world, project, "change.proposed")
    asked = await tell(world, project, Describe())
    yes = Approve(key="yes", about="change/1")
    await asked_of_who_dies(world, project, yes, dies_at, before=before)
    if not await has(world, project, "change.accepted"):
        assert (await tell(world, project, Describe())).ceiling_ucredits == asked.ceiling_ucredits
        await tell(world, project, yes)
    events = await finished(world, project)
    assert sorted(merged(events)) == sorted(small.TASKS)
    for type in ("change.asked", "change.proposed", "change.accepted", "plan.changed"):
        assert await count(world, project, type) == 1
    (change,) = (await tell(world, project, Describe())).changes
    agreed = [event.data["ceiling_ucredits"] for event in events if event.type == "change.accepted"]
    assert agreed == [(asked.ceiling_ucredits or 0) + change.rise_ucredits]


@asynccontextmanager
async def looking_after(world: World) -> AsyncIterator[None]:
    """The host delivers reminders, as it does in its own process."""
    running = asyncio.create_task(world.host.run())
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def stopped(world: World) -> tuple[ProjectId, Receipt]:
    project = await order(world)
    await seen(world, project, "task.merged")
    await tell(world, project, Cancel(key="stop"))
    return project, await world.store.books.receipt(project)


async def test_purge__comes_with_the_clock_and_after_its_warning(world: World) -> None:
    project, receipt = await stopped(world)
    async with looking_after(world):
        world.ahead = timedelta(days=27, hours=1)
        await becomes(lambda: has(world, project, "project.notice"))
        assert (await tell(world, project, Describe())).status is Status.CANCELLED
        world.ahead = timedelta(days=30, hours=1)
        await is_now(world, project, Status.PURGED)
    assert await world.store.books.receipt(project) == receipt


@at_each_append
async def test_purge__goes_on_where_it_was_cut_off(world: World, dies_at: int, before: bool) -> None:
    project, receipt = await stopped(world)
    events = await world.store.journal.read(project_entity(project), 0)
    blobs = {event.data[name] for event in events for name in ("bundle", "blob") if name in event.data}

    async def erased() -> bool:
        return await world.store.erase_due() > 0

    async def crashed_or_purged() -> bool:
        return world.crashed.is_set() or await has(world, project, "project.purged")

    world.crash_before, world.crash_at = before, world.appends + dies_at
    world.ahead = timedelta(days=31)
    async with looking_after(world):
        await becomes(crashed_or_purged)
    await world.crash_and_restart()
    async with looking_after(world):
        await is_now(world, project, Status.PURGED)
        await becomes(erased)
    assert [event for event in await world.store.journal.read(project_entity(project), 0) if event.data] == []
    for blob in blobs:
        with pytest.raises(NotFoundError):
            await world.store.books.get_blob(blob)
    assert await world.store.books.receipt(project) == receipt
    assert (await world.store.books.balance(LOCAL_ADMIN)).held_ucredits == 0
    assert not await world.store.check()

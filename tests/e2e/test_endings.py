"""A build that ends before its end: nothing is spent after it, nothing is held, nothing comes back to life."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from cluster.simulator.server import Simulator
from runtime.errors import ConflictError, SandboxUnavailableError, StoreUnavailableError
from runtime.ids import LOCAL_ADMIN, ProjectId, project_entity, user_entity
from runtime.implementer.sandbox import Sandbox
from runtime.ledger.money import UCREDITS_PER_CREDIT
from runtime.ledger.port import Adjustment
from runtime.project.messages import Cancel, Describe, Resume, Status
from runtime.session.session import ToppedUp
from tests.e2e.world import World


async def assert_nothing_moves_any_more(world: World, project: ProjectId) -> None:
    balance = await world.store.books.balance(LOCAL_ADMIN)
    served = len(world.served())
    await world.crash_and_restart()
    await asyncio.sleep(0.5)
    assert len(world.served()) == served
    assert await world.store.books.balance(LOCAL_ADMIN) == balance
    assert balance.held_ucredits == 0
    receipt = await world.store.books.receipt(project)
    assert not receipt.pending
    assert balance.balance_ucredits == 100 * UCREDITS_PER_CREDIT - receipt.total_ucredits
    assert not await world.store.books.mismatches()


@pytest.mark.parametrize("event", ["step.started", "plan.ready", "task.started", "task.merged"])
async def test_cancel__at_any_stage_ends_it_for_good(world: World, event: str) -> None:
    project = (await world.order()).id
    await world.until(project, event)
    view = await world.host.ask(project_entity(project), Cancel(key="stop"))
    assert view.status is Status.CANCELLED
    assert (await world.host.ask(project_entity(project), Cancel(key="again"))).status is Status.CANCELLED
    await assert_nothing_moves_any_more(world, project)
    with pytest.raises(ConflictError):
        await world.host.ask(project_entity(project), Resume(key="rise"))


async def test_look_at_a_project__while_it_is_cancelled_does_not_start_it_again(world: World) -> None:
    project = (await world.order()).id
    await world.until(project, "plan.ready")
    cancelling = asyncio.create_task(world.host.ask(project_entity(project), Cancel(key="stop")))
    while not cancelling.done():
        await world.host.ask(project_entity(project), Describe())
    assert (await cancelling).status is Status.CANCELLED
    await assert_nothing_moves_any_more(world, project)


async def test_cancel__whose_caller_gave_up_is_finished_all_the_same(world: World) -> None:
    project = (await world.order()).id
    await world.until(project, "plan.ready")
    asking = asyncio.create_task(world.host.ask(project_entity(project), Cancel(key="stop")))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    view = await world.host.ask(project_entity(project), Cancel(key="stop"))
    assert view.status is Status.CANCELLED
    await assert_nothing_moves_any_more(world, project)


async def test_limit__of_the_order_holds_from_the_first_call(world: World) -> None:
    project = (await world.order(max_ucredits=1)).id
    await _until_status(world, project, Status.PAUSED_QUOTE)
    assert world.served() == {}
    balance = await world.store.books.balance(LOCAL_ADMIN)
    assert (balance.balance_ucredits, balance.held_ucredits) == (100 * UCREDITS_PER_CREDIT, 0)
    resume = Resume(key="more", ceiling_ucredits=90 * UCREDITS_PER_CREDIT)
    await world.host.ask(project_entity(project), resume)
    await world.until(project, "project.quoted")


async def test_store_that_is_away__pauses_the_build_and_a_resume_finishes_it(world: World) -> None:
    project = (await world.order()).id
    await world.until(project, "task.started")
    real, world.store.journal.append = world.store.journal.append, _full  # type: ignore[method-assign]
    await asyncio.sleep(1.0)
    world.store.journal.append = real  # type: ignore[method-assign]
    await _until_status(world, project, Status.PAUSED)
    await world.host.ask(project_entity(project), Resume(key="on"))
    events = await world.until(project, "project.finished")
    assert events[-1].data["status"] == Status.COMPLETED


async def test_outage__while_tasks_run_pauses_and_no_attempt_is_counted(world: World) -> None:
    project = (await world.order()).id
    await world.until(project, "plan.ready")
    async with httpx.AsyncClient() as client:
        faults = f"{world.simulator.base_url.removesuffix('/v1')}/simulator/faults"
        answer = await client.post(faults, json={"kind": "status_500", "count": 12, "task": "code.edit"})
        assert answer.is_success, answer.text
    await _until_status(world, project, Status.PAUSED)
    assert len(world.served()) == 6
    await world.host.ask(project_entity(project), Resume(key="on"))
    events = await world.until(project, "project.finished")
    assert events[-1].data["status"] == Status.COMPLETED
    assert [e.data["attempt"] for e in events if e.type == "task.started" and e.data["task"] == "T-001"] == [1]


async def test_wallet__that_runs_out_pauses_the_build_and_is_never_overdrawn(tmp_path: Path) -> None:
    usage_file = tmp_path / "usage.jsonl"
    async with Simulator(usage_file=usage_file) as simulator:
        world = World(tmp_path, simulator, usage_file, initial_free_credits=22)
        await world.open()
        project = (await world.order()).id
        await _until_status(world, project, Status.PAUSED_NO_CREDITS)
        while True:
            balance = await world.store.books.balance(LOCAL_ADMIN)
            if not balance.held_ucredits:
                break
            await asyncio.sleep(0.05)  # a step beside the one that met the wall may still be at work
        receipt = await world.store.books.receipt(project)
        assert 0 < balance.balance_ucredits == 22 * UCREDITS_PER_CREDIT - receipt.total_ucredits
        assert (await world.host.ask(project_entity(project), Describe())).question

        gift = Adjustment(
            id="gift", user=LOCAL_ADMIN, amount_ucredits=50 * UCREDITS_PER_CREDIT, reason="go on", made_by=LOCAL_ADMIN
        )
        await world.store.books.adjust(gift)
        assert await world.host.ask(user_entity(LOCAL_ADMIN), ToppedUp()) == 1
        assert await world.host.ask(user_entity(LOCAL_ADMIN), ToppedUp()) == 0
        events = await world.until(project, "project.finished")
        assert events[-1].data["status"] == Status.COMPLETED
        receipt = await world.store.books.receipt(project)
        assert (await world.store.books.balance(LOCAL_ADMIN)).balance_ucredits == (
            72 * UCREDITS_PER_CREDIT - receipt.total_ucredits
        )
        await world.close()


async def test_missing_bubblewrap__refuses_the_order_before_anything_is_paid(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world, "sandbox", Sandbox(bwrap="no-such-program"))
    with pytest.raises(SandboxUnavailableError, match="bubblewrap"):
        await world.order()
    assert world.served() == {}
    assert await world.store.journal.heads("project", LOCAL_ADMIN) == []


async def _until_status(world: World, project: ProjectId, status: Status) -> None:
    seen = 0
    while True:
        view = await world.host.ask(project_entity(project), Describe())
        if view.status is status:
            return
        events = await world.host.events(project_entity(project), max(seen, view.last_seq), 1.0)
        seen = view.last_seq + len(events)


async def _full(append: Any) -> int:
    raise StoreUnavailableError("The disk is full.")

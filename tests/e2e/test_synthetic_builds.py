"""Builds of many small tasks, in one process."""

from runtime.ids import project_entity
from runtime.project.messages import Describe, Status
from tests.e2e.world import World


async def test_build_of_many_tasks__begins_what_is_needed_first_and_lands_each_once(world: World) -> None:
    project = (await world.order(brief="synthetic build tasks=8 seed=2 width=3", answers={})).id
    events = await world.until(project, "project.finished")
    assert events[-1].data["status"] == Status.COMPLETED, events[-1].data
    merged = [event.data["task"] for event in events if event.type == "task.merged"]
    assert sorted(merged) == [f"T-{number:03}" for number in range(1, 9)]
    assert not [event for event in events if event.type in ("task.rejected", "task.repeated")]


async def test_task_that_fails_the_same_way_again__gets_the_stronger_model_once_and_no_more_rounds(
    world: World,
) -> None:
    project = (await world.order(brief="synthetic build tasks=2 wrong=2", answers={})).id
    events = await world.until(project, "project.finished")
    assert events[-1].data["status"] == Status.FAILED
    assert "made the same change as before" in events[-1].data["reason"]
    repeated = [event.data for event in events if event.type == "task.repeated"]
    assert [(data["task"], data["attempt"]) for data in repeated] == [("T-002", 2)]
    receipt = await world.store.books.receipt(project)
    models = [row.model for row in receipt.charged if row.task == "T-002"]
    assert models == ["gpt-4o-mini", "gpt-4o-mini", "gpt-4o"]
    package = (await world.host.ask(project_entity(project), Describe())).package
    assert package is not None
    assert package.partial

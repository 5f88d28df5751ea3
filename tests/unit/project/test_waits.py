"""A build tells what its workers wait for, also where only another process knows it."""

import asyncio
from pathlib import Path
from typing import Any

from runtime.errors import UnavailableError
from runtime.ids import RunId
from runtime.implementer.roster import Roster
from runtime.implementer.work import EditResult, EditWork
from runtime.project import waits
from runtime.project.activity import Activity
from runtime.project.messages import Describe, WorkerWaits
from runtime.providers.waiting import telling, waiting
from tests.unit.project.scripted import Scripted

RUN = RunId("project:p/code/T-001/1#1")


class Told:
    """In the place of entities: what they were told, each thing when the one before it was taken."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[tuple[str, WorkerWaits]] = asyncio.Queue()
        self.fails = False

    async def ask(self, entity: str, message: Any, *, timeout_s: float = 30.0) -> None:
        await self.messages.put((entity, message))
        if self.fails:
            raise UnavailableError("nobody there")


async def test_wait_that_lasts__is_told_with_its_end_and_a_short_one_is_not(monkeypatch: Any) -> None:
    told = Told()
    told.fails = True
    with telling(waits.telling_project(lambda: told, RUN)), waiting("nothing much"):  # type: ignore[arg-type,return-value]
        pass
    monkeypatch.setattr(waits, "TOLD_AFTER_S", 0.0)
    with telling(waits.telling_project(lambda: told, RUN)), waiting("a free key of openai", 7.0):  # type: ignore[arg-type,return-value]
        assert await told.messages.get() == (
            "project:p",
            WorkerWaits(run=RUN, what="a free key of openai", retry_in_s=7.0),
        )
    assert await told.messages.get() == ("project:p", WorkerWaits(run=RUN, what=""))


async def test_piece_of_work__that_waits_for_its_turn_says_so(monkeypatch: Any) -> None:
    monkeypatch.setattr(waits, "TOLD_AFTER_S", 0.0)
    told, roster = Told(), Roster[str](per_build_max=4, checks_max=1)

    async def edit() -> None:
        with telling(waits.telling_project(lambda: told, RUN)):  # type: ignore[arg-type,return-value]
            async with roster.editor("p"):
                return

    editing = asyncio.create_task(edit())
    assert (await told.messages.get())[1].what == "a free implementer"
    roster.join("w1")
    assert (await told.messages.get())[1].what == ""
    await editing


async def test_project__tells_what_its_worker_waits_for_until_that_is_over(tmp_path: Path) -> None:
    build = Scripted(tmp_path, {})
    edit, at_work, go_on = build.implementers.edit, asyncio.Event(), asyncio.Event()
    runs = []

    async def slow_edit(work: EditWork) -> EditResult:
        runs.append(work.run)
        at_work.set()
        await go_on.wait()
        return await edit(work)

    build.implementers.edit = slow_edit  # type: ignore[method-assign]
    await build.start()
    await at_work.wait()
    (doing,) = (await build.tell(Describe())).activity
    assert (doing.task, doing.what, doing.retry_at) == ("T-001", "editing and checking", None)
    await build.tell(WorkerWaits(run=runs[0], what="a free key of openai", retry_in_s=20.0))
    await build.tell(WorkerWaits(run=RUN, what="what another project waits for"))
    (doing,) = (await build.tell(Describe())).activity
    assert doing.what == "waiting: a free key of openai"
    assert doing.retry_at is not None
    assert (doing.retry_at - doing.since).total_seconds() == 20.0
    await build.tell(WorkerWaits(run=runs[0], what=""))
    (doing,) = (await build.tell(Describe())).activity
    assert doing.what == "editing and checking"
    go_on.set()
    assert (await build.until("project.finished"))[-1].data["status"] == "completed"


def test_wait__ends_with_the_work_that_it_was_for() -> None:
    activity = Activity()
    with activity.doing("T-001", 1, "editing"):
        activity.waits("T-001", 1, "a key", None)
        assert [each.what for each in activity.told()] == ["waiting: a key"]
    activity.waits("T-001", 1, "a key, said too late", None)
    with activity.doing("T-001", 1, "merging"):
        assert [each.what for each in activity.told()] == ["merging"]

import asyncio
from contextlib import AbstractAsyncContextManager

from runtime.entity.vitals import WaitingBuild
from runtime.implementer.roster import Roster, Seat


class Work:
    """One piece of work that lasts until it is told to end."""

    def __init__(self, place: AbstractAsyncContextManager[str | Seat[str]]) -> None:
        self.worker = ""
        self.seat: Seat[str] | None = None
        self.end = asyncio.Event()
        self.task = asyncio.create_task(self._run(place))

    async def _run(self, place: AbstractAsyncContextManager[str | Seat[str]]) -> None:
        async with place as given:
            self.seat = given if isinstance(given, Seat) else None
            self.worker = given.worker if isinstance(given, Seat) else given
            await self.end.wait()

    async def finish(self) -> None:
        self.end.set()
        await self.task


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def roster(*workers: str, per_build_max: int = 4, checks_max: int = 2) -> Roster[str]:
    made: Roster[str] = Roster(per_build_max=per_build_max, checks_max=checks_max)
    for worker in workers:
        made.join(worker)
    return made


async def test_check__does_not_wait_for_edits_but_for_other_checks() -> None:
    pool = roster("w1")
    edits = [Work(pool.editor("a")), Work(pool.editor("a"))]
    checks = [Work(pool.checker(build)) for build in ("a", "b", "c")]
    await settle()
    assert [work.worker for work in (*edits, *checks)] == ["w1", "", "w1", "w1", ""]
    vitals = pool.vitals(1)
    assert (vitals.busy, vitals.checking, vitals.queued) == (1, 2, 2)
    assert vitals.waiting == [
        WaitingBuild(project="a", work="edit", place=1),
        WaitingBuild(project="c", work="check", place=1),
    ]
    for work in (*edits, *checks):
        await work.finish()
    assert pool.vitals(1).queued == 0


async def test_edit_that_is_only_checked__leaves_its_worker_to_the_next_and_nothing_when_it_ends() -> None:
    pool = roster("w1")
    first, second, third = (Work(pool.editor(build)) for build in ("a", "b", "c"))
    await settle()
    assert first.seat is not None
    first.seat.leave()
    await settle()
    assert (first.worker, second.worker, third.worker) == ("w1", "w1", "")
    await first.finish()
    first.seat.leave()
    await settle()
    assert third.worker == "", "the second has the worker still"
    await second.finish()
    await settle()
    assert third.worker == "w1"
    await third.finish()
    assert pool.vitals(1).busy == 0


async def test_next_edit__goes_to_a_worker_that_has_nothing_to_check() -> None:
    pool = roster("w1", "w2")
    first = Work(pool.editor("a"))
    await settle()
    assert first.seat is not None
    first.seat.leave()
    second, third = Work(pool.editor("a")), Work(pool.editor("a"))
    await settle()
    assert (first.worker, second.worker, third.worker) == ("w1", "w2", "w1")
    assert pool.vitals(2).busy == 2
    await second.finish()
    await third.finish()
    assert pool.vitals(2).busy == 1, "it checks"
    await first.finish()
    assert pool.vitals(2).busy == 0


async def test_worker_that_left__gets_nothing_until_it_is_back() -> None:
    pool = roster("w1", "w2")
    first = Work(pool.editor("a"))
    await settle()
    pool.leave("w1")
    await first.finish()
    second, third = Work(pool.editor("a")), Work(pool.editor("a"))
    await settle()
    assert (second.worker, third.worker) == ("w2", "")
    pool.join("w1")
    await settle()
    assert third.worker == "w1"
    await second.finish()
    await third.finish()


async def test_caller_that_gives_up__leaves_the_line_or_gives_its_worker_back() -> None:
    pool = roster("w1", per_build_max=1)
    first, second, third = (Work(pool.editor(build)) for build in ("a", "b", "c"))
    await settle()
    second.task.cancel()
    await settle()
    first.end.set()
    await settle()
    assert third.worker == "w1"

    fourth = Work(pool.editor("d"))
    await settle()
    third.end.set()
    await asyncio.sleep(0)
    # Its turn comes in the very moment in which it gives up.
    fourth.task.cancel()
    await settle()
    fifth = Work(pool.editor("e"))
    await settle()
    assert fifth.worker == "w1"
    await fifth.finish()
    assert pool.vitals(1).busy == 0

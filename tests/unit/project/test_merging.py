"""The merge queue on a real git repository: changes that fit, that meet each other, that are red together, and crashes.

A tree of these tests is red when it has both `left.txt` and `right.txt`: either change alone is green.
"""

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.entity.activation import Activation
from runtime.entity.journal import Append, Claim
from runtime.errors import ConflictError, StoreUnavailableError
from runtime.ids import EntityId, UserId, partition_of
from runtime.implementer.work import CheckReport, CheckWork, CommandResult
from runtime.ledger.money import Tariff
from runtime.project.merging import Change, MergeQueue, Returned
from runtime.project.project import Project
from runtime.project.repository import ProjectRepository
from runtime.project.state import State, edit_step
from runtime.project.tree import Tree
from runtime.project.workbench import Workbench, in_thread
from runtime.testing.memory_journal import MemoryJournal
from runtime.testing.memory_ledger import MemoryLedger
from tests.patches import patch_of

ENTITY = EntityId("project:p1")
ITEMS = [f"T-{number:03}" for number in range(1, 7)]
CHANGES: Mapping[str, Callable[[str], dict[str, str | None]]] = {
    "in the way": lambda item: {"TODO.md": None, f"TODO.md/{item}.txt": f"{item}\n"},
    "own": lambda item: {f"{item}.txt": f"{item}\n"},
    "shared": lambda item: {"shared.txt": f"{item}\n"},
    "left": lambda item: {"left.txt": f"{item}\n"},
    "right": lambda item: {"right.txt": f"{item}\n"},
    "right, shared": lambda item: {"right.txt": f"{item}\n", "shared.txt": f"{item}\n"},
}
OPENED: Mapping[str, Any] = {"owner": "u1", "brief": "b", "answers": {}, "max_ucredits": None, "confirmed": True}
STACK = {
    "choices": [{"layer": "l", "choice": "c", "reason": "r"}],
    "commands": {"install": "", "build": "", "test": "test {tests}", "run": "true"},
}


class DyingJournal(MemoryJournal):
    """The process dies at its next append: before or after that is on disk."""

    dies: str = ""
    appends = 0
    """Of merges."""

    async def append(self, append: Append) -> int:
        self.appends += any(event.type == "task.merged" for event in append.events)
        if self.dies == "before":
            raise StoreUnavailableError("dead")
        seq = await super().append(append)
        if self.dies == "after":
            raise StoreUnavailableError("dead")
        return seq


class Quiet:
    def lost(self) -> None: ...

    def fail(self, error: BaseException) -> None: ...

    def working(self, more: int) -> None: ...


class Site:
    """One project's journal and blobs, and the process that merges, which may be started anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = MemoryLedger(Tariff(), 0)
        self.journal = DyingJournal(self.ledger)
        self.epoch = 0
        self.clones = 0
        self.checks = 0
        self.strikes = ""
        """An item that is struck during the next check."""
        self.tries: dict[str, int] = {}
        self.landed: list[Change] = []
        self.landings: dict[str, asyncio.Task[Returned | None]] = {}
        """Of `land_together`."""
        self.activation: Activation[State]
        self.workbench: Workbench
        self.queue: MergeQueue

    async def start(self) -> None:
        self.journal.dies = ""
        partition = partition_of(ENTITY)
        claim = Claim(host="h", incarnation=str(self.epoch), partitions={partition: self.epoch})
        self.epoch = (await self.journal.claim(claim))[partition]
        project = Project(ENTITY, cast("Any", None))
        self.activation = Activation(
            entity=ENTITY, epoch=self.epoch, journal=self.journal, behaviour=project, life=Quiet()
        )
        self.activation.restore(await self.journal.load(ENTITY), UserId("u1"))
        workbench = Workbench(self.activation, cast("Any", self.ledger), self.folder / f"work{self.epoch}")

        async def spent() -> int:
            return 0

        self.workbench = workbench
        self.queue = MergeQueue(self.activation, workbench, self._check, _work, spent)
        if not self.activation.state.commit:
            await self._open(workbench)

    async def _open(self, workbench: Workbench) -> None:
        items = [
            {"id": item, "title": item, "detail": "d", "depends": [], "files": [f"{item}.txt"],
             "requirements": ["R-01"], "tests": [f"tests/{item}"]}
            for item in ITEMS
        ]  # fmt: skip
        plan = {"phases": [{"title": "One", "items": items}]}
        ready = {"title": "P", "stack": STACK, "plan": plan, "requirement_ids": ["R-01"]}
        await self.activation.emit("project.opened", "opened", OPENED)
        await self.activation.emit("plan.ready", "plan", ready)
        files = {"TODO.md": self.activation.state.plan.render("P"), "shared.txt": "nobody\n"}
        committed = await workbench.commit_files(files, "plan")
        await self.activation.emit("repository.committed", "first", committed.fields())

    async def make(self, item: str, kind: str, *, recorded: bool = True) -> Change:
        """What an implementer hands over: made on main as it is now."""
        number = self.tries[item] = self.tries.get(item, 0) + 1
        state = self.activation.state
        await self.activation.emit("task.started", f"{item}/{number}", {"task": item, "attempt": number})
        base, files = await self.workbench.tree()
        patch = await in_thread(patch_of, files, CHANGES[kind](item))
        change = Change(item=state.plan.item(item), attempt=number, patch=patch, base=base)
        if recorded:
            await self.record(change)
        return change

    async def record(self, change: Change) -> None:
        """Its attempt has ended well, and that is paid for."""
        step = edit_step(change.item.id, change.attempt)
        await self.activation.emit("step.finished", f"{step}/done", {"step": step, "run": step, "result": {}})

    async def would_be_green(self, kind: str) -> bool:
        """On main as it is now. What is red there is never handed over."""
        async with self.workbench.alone() as repository:
            there = {*await in_thread(repository.files), *CHANGES[kind]("")}
        return not {"left.txt", "right.txt"} <= there

    async def land(self, change: Change) -> Returned | None:
        returned = await self.queue.land(change)
        if returned is None:
            self.landed.append(change)
        return returned

    async def land_together(self, changes: Sequence[Change]) -> list[Returned | None]:
        """All of them wait before the first one's turn comes."""
        async with self.workbench.alone():
            for change in changes:
                self.landings[change.item.id] = asyncio.create_task(self.land(change))
            await asyncio.sleep(0)
        return await asyncio.gather(*self.landings.values())

    async def clone(self) -> ProjectRepository:
        state = self.activation.state
        assert state.bundle is not None
        self.clones += 1
        bundle = await self.ledger.get_blob(state.bundle)
        return await in_thread(ProjectRepository.from_bundle, self.folder / f"clone{self.clones}", bundle)

    async def _check(self, work: CheckWork) -> CheckReport:
        self.checks += 1
        done = {item.id for item in self.activation.state.plan.items if item.done}
        assert all(landing.done() for item, landing in self.landings.items() if item in done), "told at once"
        if self.strikes:
            struck, self.strikes = self.strikes, ""
            await self.activation.emit("task.skipped", f"skip {struck}", {"tasks": [struck], "reason": "not wanted"})
        status = int({"left.txt", "right.txt"} <= work.tree.keys())
        return CheckReport(results=[CommandResult(command="t", exit_status=status, duration_s=0.1, output="")])

    async def assert_main_is_whole(self) -> None:
        """Linear, green and ticked at each commit, every landed change in it once, and nothing else."""
        clone = await self.clone()
        await in_thread(self._assert_whole, clone)

    def _assert_whole(self, clone: ProjectRepository) -> None:
        state = self.activation.state
        commits = list(reversed(clone.commits()))
        assert commits[-1].commit == state.commit
        before = ["", *(commit.commit for commit in commits)]
        assert all(clone.parents(commit.commit) == before[n : n + 1] for n, commit in enumerate(commits) if n)
        trailers = [commit.trailers["Task"] for commit in commits[2:]]
        known = {
            f"{item}/{each.number}" for item, tries in state.attempts.items() for each in tries
            if each.outcome == "merged"
        }  # fmt: skip
        assert set(trailers) == known
        assert len(trailers) == len(known)
        assert {f"{change.item.id}/{change.attempt}" for change in self.landed} <= known
        done: set[str] = set()
        for commit in commits[2:]:
            done.add(commit.trailers["Task"].split("/")[0])
            clone.reset_hard(commit.commit)
            assert not {"left.txt", "right.txt"} <= set(clone.files()), "red"
            todo = clone.read("TODO.md").decode()
            assert {item for item in ITEMS if f"- [x] {item} " in todo} == done
        assert done == {item.id for item in state.plan.items if item.done}


def _work(tree: Tree, tests: tuple[str, ...]) -> CheckWork:
    return CheckWork(tree=tree, commands=tests)


@contextlib.asynccontextmanager
async def site() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        made = Site(Path(folder))
        await made.start()
        yield made
        await made.assert_main_is_whole()


async def test_change_made_on_todays_main__is_not_checked_twice_and_one_on_an_older_is() -> None:
    async with site() as here:
        first, second = await here.make("T-001", "own"), await here.make("T-002", "own")
        assert await here.land(first) is None
        assert here.checks == 0
        assert await here.land(second) is None
        assert here.checks == 1
        assert await here.land(first) is None, "repeating it changes nothing"


async def test_conflict_and_red_on_the_merged_tree__go_back_and_land_when_made_anew() -> None:
    async with site() as here:
        first, second = await here.make("T-001", "shared"), await here.make("T-002", "shared")
        left, right = await here.make("T-003", "left"), await here.make("T-004", "right")
        assert await here.land(first) is None
        returned = await here.land(second)
        assert returned is not None
        assert returned.cause == "conflict"
        assert await here.land(left) is None
        returned = await here.land(right)
        assert returned is not None
        assert returned.cause == "merged tree"
        assert await here.land(await here.make("T-002", "shared")) is None


async def test_changes_that_wait_together__are_checked_as_one_and_land_at_once() -> None:
    async with site() as here:
        changes = [await here.make(item, "own") for item in ITEMS]
        appends = here.activation.last_seq
        assert await here.land_together(changes) == [None] * len(ITEMS)
        assert (here.checks, here.journal.appends) == (1, 1)
        assert here.activation.last_seq == appends + len(ITEMS)


@pytest.mark.parametrize("red", range(1, 6))
async def test_one_that_is_red_among_them__comes_back_alone(red: int) -> None:
    async with site() as here:
        kinds = ["left", *["own"] * 5]
        kinds[red] = "right"
        changes = [await here.make(item, kind) for item, kind in zip(ITEMS, kinds, strict=True)]
        returned = await here.land_together(changes)
        assert [each.cause if each else None for each in returned] == [
            "merged tree" if kind == "right" else None for kind in kinds
        ]
        assert here.checks <= 9
        assert await here.land(await here.make(ITEMS[-1], "own")) is None


async def test_change_that_does_not_fit_behind_another__is_returned_only_once_that_is_on_main() -> None:
    async with site() as here:
        kinds = ["left", "right, shared", "shared", "shared", "own"]
        left, *others = [await here.make(item, kind) for item, kind in zip(ITEMS, kinds, strict=False)]
        assert await here.land(left) is None
        returned = await here.land_together(others)
        assert [each.cause if each else None for each in returned] == ["merged tree", None, "conflict", None]


async def test_change_whose_tick_cannot_be_written__leaves_a_clean_tree_to_the_next() -> None:
    async with site() as here:
        changes = [await here.make(item, kind) for item, kind in zip(ITEMS, ["in the way", "own", "own"], strict=False)]
        returned = await here.land_together(changes)
        assert [each.cause if each else None for each in returned] == ["conflict", None, None]


async def test_store_that_fails__is_told_to_everybody_who_waits() -> None:
    async with site() as here:
        changes = [await here.make(item, "own") for item in ITEMS[:3]]
        here.journal.dies = "before"
        async with here.workbench.alone():
            landings = [asyncio.create_task(here.land(change)) for change in changes]
            await asyncio.sleep(0)
        told = await asyncio.gather(*landings, return_exceptions=True)
        assert [type(each) for each in told] == [StoreUnavailableError] * 3
        await here.start()
        assert [await here.land(change) for change in changes] == [None] * 3


async def test_item_that_is_struck_while_it_is_merged_with_others__keeps_none_of_them() -> None:
    async with site() as here:
        changes = [await here.make(item, "own") for item in ITEMS[:3]]
        here.strikes = ITEMS[1]
        assert await here.land_together(changes) == [None] * 3
        here.landed = [changes[0], changes[2]]
        assert [item.id for item in here.activation.state.plan.items if item.done] == [ITEMS[0], ITEMS[2]]


async def test_merge_that_is_broken_off__lands_the_others_all_the_same() -> None:
    async with site() as here:
        changes = [await here.make(item, "own") for item in ITEMS[:4]]
        for pause_s in (0.0, 0.02, 0.1):
            async with here.workbench.alone():
                first = asyncio.create_task(here.land(changes[0]))
                others = [asyncio.create_task(here.land(change)) for change in changes[1:]]
                await asyncio.sleep(0)
            await asyncio.sleep(pause_s)
            first.cancel()
            assert await asyncio.gather(*others) == [None] * 3
            await asyncio.gather(first, return_exceptions=True)


async def test_change_whose_attempt_is_not_in_the_journal__is_told_of_once_it_is() -> None:
    async with site() as here:
        change = await here.make("T-001", "own", recorded=False)
        landing = asyncio.create_task(here.land(change))
        await asyncio.sleep(0.2)
        assert (here.journal.appends, landing.done()) == (0, False)
        await here.record(change)
        assert await landing is None


async def test_change_that_is_withdrawn_alone__leaves_nothing_behind() -> None:
    async with site() as here:
        withdrawn = await here.make(ITEMS[0], "own", recorded=False)
        bundles = len(here.ledger._blobs)
        landing = asyncio.create_task(here.land(withdrawn))
        await asyncio.sleep(0.2)
        landing.cancel()
        await asyncio.gather(landing, return_exceptions=True)
        assert (here.journal.appends, len(here.ledger._blobs)) == (0, bundles)
        assert await here.land(await here.make(ITEMS[1], "own")) is None


async def test_change_that_is_withdrawn_before_its_attempt_is_in_the_journal__does_not_land_with_others() -> None:
    async with site() as here:
        kept = [await here.make(item, "own") for item in ITEMS[:2]]
        withdrawn = await here.make(ITEMS[2], "own", recorded=False)
        bundles = len(here.ledger._blobs)
        async with here.workbench.alone():
            landings = [asyncio.create_task(here.land(change)) for change in (kept[0], withdrawn, kept[1])]
            await asyncio.sleep(0)
        await asyncio.sleep(0.2)
        assert here.journal.appends == 0
        landings[1].cancel()
        assert await asyncio.gather(landings[0], landings[2]) == [None, None]
        assert len(here.ledger._blobs) == bundles + 1, "only what landed is kept"


@pytest.mark.parametrize("dies", ["before", "after"])
async def test_crash_at_the_merge__loses_nothing_and_merges_nothing_twice(dies: str) -> None:
    async with site() as here:
        change = await here.make("T-001", "own")
        here.journal.dies = dies
        with pytest.raises(StoreUnavailableError):
            await here.land(change)
        await here.start()
        assert bool(here.activation.state.plan.item("T-001").done) is (dies == "after")
        assert await here.land(change) is None


async def test_tree__is_of_the_commit_that_it_names_when_the_journal_goes_on_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Site(tmp_path)
    await here.start()
    committed = await here.workbench.commit_files({"later.txt": "x"}, "later")  # The journal names it further down.
    reading, go_on = asyncio.Event(), threading.Event()
    loop, contents = asyncio.get_running_loop(), ProjectRepository.contents

    def slow(repository: ProjectRepository) -> Mapping[str, bytes]:
        loop.call_soon_threadsafe(reading.set)
        assert go_on.wait(20)
        return contents(repository)

    monkeypatch.setattr(ProjectRepository, "contents", slow)
    asking = asyncio.create_task(here.workbench.tree())
    await reading.wait()
    await here.activation.emit("repository.committed", "later", committed.fields())
    go_on.set()
    commit, files = await asking
    assert (commit, "later.txt" in files) == (committed.commit, True)


async def test_thread_whose_caller_is_cancelled_again_and_again__is_waited_for() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(20)

    task = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(begun.wait, 20)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.02)
    assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled_merge__leaves_the_working_copy_to_nobody_while_git_runs_in_it() -> None:
    async with site() as here:
        changes = [await here.make(item, "own") for item in ITEMS[:3]]
        for pause_s in (0.0, 0.01, 0.04):
            landing = asyncio.create_task(here.land(changes[0]))
            await asyncio.sleep(pause_s)
            landing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await landing
        assert [await here.land(change) for change in changes[1:]] == [None, None]


STEPS = st.one_of(
    st.tuples(st.just("make"), st.sampled_from(ITEMS), st.sampled_from(sorted(CHANGES.keys() - {"in the way"}))),
    st.tuples(st.just("land unrecorded"), st.sampled_from(ITEMS), st.sampled_from(["own", "shared"])),
    st.tuples(st.just("land"), st.integers(0, 5), st.just("")),
    st.tuples(st.just("land all"), st.just(0), st.just("")),
    st.tuples(st.just("cancel"), st.integers(0, 5), st.just("")),
    st.tuples(st.just("die"), st.integers(0, 5), st.sampled_from(["before", "after"])),
)


@given(st.lists(STEPS, min_size=4, max_size=9))
@settings(max_examples=8, deadline=None)
def test_any_order_of_landings_conflicts_and_crashes__keeps_main_whole(
    steps: list[tuple[str, Any, str]],
) -> None:
    asyncio.run(play(steps))


async def play(steps: list[tuple[str, Any, str]]) -> None:
    async with site() as here:
        made: list[Change] = []
        for what, which, more in steps:
            if what == "make":
                if not here.activation.state.plan.item(which).done and await here.would_be_green(more):
                    made.append(await here.make(which, more))
                continue
            if what == "land unrecorded":
                if not here.activation.state.plan.item(which).done:
                    change = await here.make(which, more, recorded=False)
                    landing = asyncio.create_task(here.land(change))
                    await asyncio.sleep(0.02)
                    landing.cancel()
                    await asyncio.gather(landing, return_exceptions=True)
                    assert not here.activation.state.plan.item(which).done
                continue
            if not made:
                continue
            change = made[which % len(made)]
            # An item that landed in another attempt is not tried again by any build.
            made = [each for each in made if not here.activation.state.plan.item(each.item.id).done or each is change]
            if what == "land all":
                await asyncio.gather(*(here.land(each) for each in {each.item.id: each for each in made}.values()))
            elif what == "land":
                await here.land(change)
            elif what == "cancel":
                landing = asyncio.create_task(here.land(change))
                await asyncio.sleep(0.02)
                landing.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await landing
            else:
                here.journal.dies = more
                with contextlib.suppress(StoreUnavailableError, ConflictError):
                    await here.land(change)
                await here.start()

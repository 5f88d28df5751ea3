"""The loop of a phase: ready tasks to implementers, and what passes into the merge queue."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from runtime.entity.activation import Activation
from runtime.entity.journal import NewEvent
from runtime.errors import (
    AccountStoppedError,
    CeilingReachedError,
    ConflictError,
    NotEnoughCreditsError,
    RefusedError,
    UnavailableError,
)
from runtime.ids import BlobId, RunId
from runtime.implementer.work import CheckReport, CheckWork, EditResult, EditWork, Limits
from runtime.ledger.port import NewToken, Receipt, TokenTerms
from runtime.project import prompts
from runtime.project.architect import Architect
from runtime.project.finding import CodeFinder
from runtime.project.gaps import Gaps
from runtime.project.merging import Change, MergeQueue, Returned
from runtime.project.repeats import Tried, Way, change_mark, failure_mark, way_on
from runtime.project.schedule import next_items
from runtime.project.state import Attempt, State, edit_step
from runtime.project.steps import PaidSteps
from runtime.project.todo import Item, Todo
from runtime.project.tree import Tree
from runtime.project.workbench import Workbench
from runtime.project.workshop import Workshop
from runtime.tokens import new_task_token, token_hash

TASK_TOKEN_LIFETIME = timedelta(hours=2)
INDEX_AFTER_S = 1.0
LOG_CHARACTERS_MAX = 4_000
PAYMENT_REQUIRED = 402
FORBIDDEN = 403
REASON_CHARACTERS_MAX = 600
TRIAL_LIMITS = Limits(wall_s=20.0, cpu_s=20)
TRIALS_S_MAX = 120.0
AHEAD = 1
"""How many items of a build are begun beyond those that may be worked on at once: the next one's run, token and prompt
are ready when an implementer is."""


class PutBackError(ConflictError):
    """An item was begun too early; its run is abandoned, and it is begun again in its time."""


class Building:
    """Nothing is done because a model said so: an item is ticked in its commit, and main moves to what passed there."""

    def __init__(
        self,
        activation: Activation[State],
        steps: PaidSteps,
        architect: Architect,
        workbench: Workbench,
        finder: CodeFinder,
        workshop: Workshop,
        gaps: Gaps,
    ) -> None:
        self._activation = activation
        self._steps = steps
        self._gaps = gaps
        self._architect = architect
        self._workbench = workbench
        self._finder = finder
        self._workshop = workshop
        self._settings = workshop.settings
        self._merging = MergeQueue(
            activation, workbench, workshop.implementers.check, self._check_work, self.spent_ucredits
        )
        self._merging_now: set[str] = set()
        """Items whose implementer is done with them."""
        self._freed = asyncio.Event()
        """An item has come to an end, or to the merge queue."""
        self._indexing: asyncio.TimerHandle | None = None
        """Set while the index is to be told of what has landed."""

    @property
    def todo(self) -> Todo:
        return self._activation.state.plan

    async def implement(self, phase: int) -> None:
        """Works on the phase's open items, in parallel where the graph allows it.

        Ends when none is left, or after VERIFY_EVERY_N_ITEMS, so that a verification comes in between.
        An item that cannot be made to pass becomes a known gap. Raises RefusedError when a must-have needs it.
        """
        running: dict[str, asyncio.Task[bool]] = {}
        started = 0
        try:
            while True:
                self._freed.clear()
                ready = {item.id for item in self.todo.ready(phase)}
                for item in next_items(self.todo, phase, running, self._merging_now):
                    if self._may_begin(item, ready, running) and started < self._settings.verify_every_n_items:
                        running[item.id] = asyncio.create_task(self._land_unless_skipped(item), name=item.id)
                        running[item.id].add_done_callback(lambda task: self._freed.set())
                        started += 1
                if not running:
                    break
                await self._freed.wait()
                for task in [task for task in running.values() if task.done()]:
                    del running[task.get_name()]
                    if not task.result():
                        started -= 1
        finally:
            self._index_no_more()
            for task in running.values():
                task.cancel()
            await asyncio.gather(*running.values(), return_exceptions=True)
        if not started and not self.todo.is_closed(phase):
            raise RefusedError("The plan's open tasks wait for one another.", "Start the project again.")

    def _may_begin(self, item: Item, ready: Set[str], running: Collection[str]) -> bool:
        """Whether one more item may be begun. One that is being merged needs no implementer; but where there may be no
        two at once, the next begins on what it left, and a slow merge queue holds up what would only grow old. Few may
        wait for a merge: they keep others from being begun.
        """
        places = self._settings.max_parallel_implementers
        if places == 1:
            return not running
        in_hand = set(running) - self._merging_now
        if len(in_hand) >= places + AHEAD or len(running) >= 2 * places:
            return False
        return item.id in ready or len(in_hand - ready) < max(1, places // 4)

    def all_done(self) -> bool:
        return self.todo.is_closed()

    async def checks(self) -> CheckReport:
        """Build and tests of all finished items, on a fresh copy of main. The last merge's are not repeated."""
        tests = self.todo.tests_with()
        key = (self._activation.state.commit, self._check_commands(tests))
        if self._merging.last_check is None or self._merging.last_check[0] != key:
            work = self._check_work((await self._workbench.tree()).files, tests)
            self._merging.last_check = (key, await self._workshop.implementers.check(work))
        return self._merging.last_check[1]

    async def tried(self, commands: Sequence[str]) -> CheckReport:
        """These commands, each on the tree that the ones before it left, on a fresh copy of main."""
        work = self._check_work((await self._workbench.tree()).files, ())
        return await self._workshop.implementers.check(
            replace(work, commands=commands, keep_going=True, limits=TRIAL_LIMITS, total_s=TRIALS_S_MAX)
        )

    async def receipt(self) -> Receipt:
        return await self._workshop.ledger.receipt(self._activation.state.id)

    async def spent_ucredits(self) -> int:
        return (await self._workshop.ledger.spent(self._activation.state.id)).total_ucredits

    async def _land_unless_skipped(self, item: Item) -> bool:
        """What is under way for an item that its owner skips is broken off, so that its worker is free.

        False when it was put back: what it needs did not land after all.
        """
        landing = asyncio.create_task(self._land(item), name=f"land {item.id}")
        skipped = asyncio.create_task(self._activation.changed(lambda: item.id in self._activation.state.skipped))
        try:
            await asyncio.wait((landing, skipped), return_when=asyncio.FIRST_COMPLETED)
            return landing.result() if landing.done() else True
        finally:
            for each in (landing, skipped):
                each.cancel()
            await asyncio.gather(landing, skipped, return_exceptions=True)

    async def _land(self, item: Item) -> bool:
        """Attempts until the item's commit is on main, or the item is given up or struck by its owner. False when it
        was put back."""
        while self.todo.item(item.id).struck is None:
            tries = self._activation.state.attempts.get(item.id, ())
            if tries and tries[-1].outcome is None:
                number = tries[-1].number
            else:
                number = len(tries) + 1
                if await self._gave_up(item, number):
                    return True
            try:
                if await self._attempt(item, number):
                    return True
            except PutBackError:
                return False
        return True

    async def _attempt(self, item: Item, number: int) -> bool:
        told = {"task": item.id, "title": item.title, "attempt": number}
        started = NewEvent(type="task.started", key=f"task/{item.id}/{number}", data=told)
        failures = self._failures_in_a_row(item, number)
        way = self._way(item, number)
        model = self._settings.strong_implementer_model if way.stronger else self._settings.implementer_model
        if way.repeated:
            await self._activation.emit(
                "task.repeated",
                f"task/{item.id}/{number}/repeated",
                {"task": item.id, "attempt": number - 1, "what": way.repeated, "next_model": model},
            )
        merge = _Merge(self._merged)
        try:
            result = await self._edited(item, number, started, model, failures[-1] if failures else "", merge)
            if self.todo.item(item.id).struck:
                return True
            if not result["passed"]:
                await self._reject(item, number, result["report"])
                return False
            if not merge.is_begun:
                patch = await self._workshop.ledger.get_blob(BlobId(result["patch"]))
                merge.begin(Change(item=item, attempt=number, patch=patch, base=result.get("base", "")))
            returned = await merge.ended()
        finally:
            await merge.break_off()
        if returned is not None:
            await self._reject(item, number, returned.reason, returned.cause)
            return False
        self._index_soon()
        return True

    def _index_soon(self) -> None:
        """Tasks land in bursts, and one update is enough for all of a burst."""
        if self._indexing is None:
            self._indexing = asyncio.get_running_loop().call_later(INDEX_AFTER_S, self._index)

    def _index(self) -> None:
        self._indexing = None
        self._activation.spawn(self._finder.refresh(), "index")

    def _index_no_more(self) -> None:
        """Whoever needs the index next has it brought to main himself."""
        if self._indexing is not None:
            self._indexing.cancel()
            self._indexing = None

    async def _merged(self, change: Change) -> Returned | None:
        self._merging_now.add(change.item.id)
        self._freed.set()
        try:
            with self._steps.activity.doing(change.item.id, change.attempt, "merging"):
                return await self._merging.land(change)
        finally:
            self._merging_now.remove(change.item.id)

    async def _edited(
        self, item: Item, number: int, started: NewEvent, model: str, failure: str, merge: "_Merge"
    ) -> Mapping[str, Any]:
        """The attempt's step. Its prompt is prepared while the run begins: what depends on it waits for both. What
        passes goes to the merge queue at once, while it is put on disk."""
        needs_model = not item.no_change_needed or bool(failure)
        near = ""
        tokens: dict[RunId, str] = {}

        async def prepare() -> None:
            nonlocal near
            near = await self._near(item) if needs_model else ""

        def grant(run: RunId) -> NewToken:
            tokens[run] = new_task_token()
            return self._task_token(item, number, run, model, tokens[run])

        async def edit(run: RunId) -> Mapping[str, Any]:
            await self._until_ready(item, number)
            async with self._telling(started):
                if not needs_model:
                    return await self._unchanged(item)
                base, result = await self._edit(item, number, run, model, tokens[run], near, failure)
            if _passed(result):
                merge.begin(Change(item=item, attempt=number, patch=result.patch, base=base))
            try:
                return await self._record(base, result)
            except BaseException:
                await merge.break_off()  # The run has failed, and others do not wait for its next one.
                raise

        return await self._steps.run(
            edit_step(item.id, number),
            edit,
            task=item.id,
            attempt=number,
            what="editing and checking",
            prepare=prepare,
            grant=grant if needs_model else None,
            begins_with=(started,) if self._is_ready(item) else (),
            ends_with=lambda result: () if self.todo.item(item.id).struck else (_checked(item, number, result),),
        )

    @asynccontextmanager
    async def _telling(self, event: NewEvent) -> AsyncIterator[None]:
        """Tells it beside the block, where it was not told before, and ends with both."""
        telling = asyncio.ensure_future(self._activation.emit_all((event,)))
        try:
            yield
        finally:
            await asyncio.wait((telling,))
        telling.result()

    async def _until_ready(self, item: Item, number: int) -> None:
        """For an item that was begun while what it needs was being merged: it is not told as started before that ends.

        Raises PutBackError when that comes back from there, or its owner pauses meanwhile: no call was made yet.
        """
        if self._is_ready(item):
            return
        with self._steps.activity.doing(item.id, number, "waiting: what it builds on is being merged"):
            await self._activation.changed(
                lambda: (
                    self._is_ready(item) or not self._is_ready(item, self._merging_now) or self._activation.state.paused
                )
            )
        if not self._is_ready(item) or self._activation.state.paused:
            raise PutBackError(f"{item.id} is begun later: what it builds on has not landed yet.")

    def _is_ready(self, item: Item, soon: Collection[str] = ()) -> bool:
        """Whether it waits for nothing, once those are closed."""
        return any(each.id == item.id for each in self.todo.ready(item.phase, soon=soon))

    async def _gave_up(self, item: Item, number: int) -> bool:
        """True when every attempt that may be paid for has failed and the item is a known gap now.

        Raises RefusedError when a must-have requirement needs it.
        """
        why = self._hopeless(item, number)
        if not why:
            return False
        await self._gaps.give_up({item.id: why})
        return True

    def _hopeless(self, item: Item, number: int) -> str:
        """Why no further attempt is paid for; empty while one is."""
        way = self._way(item, number)
        if not way.hopeless:
            return ""
        failures = self._failures_in_a_row(item, number)
        looped = f", and {way.repeated} as before" if way.repeated else ""
        last = failures[-1][-REASON_CHARACTERS_MAX:]
        return f"could not be made to pass in {len(failures)} attempts{looped}. The last one failed with: {last}"

    def _way(self, item: Item, number: int) -> Way:
        """How the attempts before this one say to go on."""
        settings = self._settings
        tried = [
            Tried(cause=each.cause, failure=failure_mark(each.reason), change=self._change(item, each.number))
            for each in self._row(item, number)
        ]
        has_stronger = settings.strong_implementer_model != settings.implementer_model
        return way_on(tried, settings.max_fix_rounds, has_stronger=has_stronger)

    def _change(self, item: Item, number: int) -> str:
        return str(self._activation.state.steps.results.get(edit_step(item.id, number), {}).get("change", ""))

    def _failures_in_a_row(self, item: Item, number: int) -> list[str]:
        """Why the attempts just before this one did not land, oldest first."""
        return [each.reason for each in self._row(item, number)]

    def _row(self, item: Item, number: int) -> list[Attempt]:
        """The rejected attempts just before this one, oldest first."""
        row: list[Attempt] = []
        for attempt in reversed(self._activation.state.attempts.get(item.id, ())):
            if attempt.number >= number:
                continue
            if attempt.outcome != "rejected":
                break
            row.insert(0, attempt)
        return row

    def _task_token(self, item: Item, number: int, run: RunId, model: str, token: str) -> NewToken:
        return NewToken(
            token_sha256=token_hash(token),
            user=self._activation.state.owner,
            kind="task",
            label=f"{item.id}/{number}",
            run=run,
            expires_at=datetime.now(UTC) + TASK_TOKEN_LIFETIME,
            terms=TokenTerms(models=(model,)),
        )

    async def _near(self, item: Item) -> str:
        """Code of others that its prompt shows."""
        return await self._finder.near(
            f"{item.title} {item.detail}", leave_out={*item.files, *self._files_before(item)}
        )

    def _files_before(self, item: Item) -> Sequence[str]:
        """Of the items that it builds on."""
        return [path for each in item.depends for path in self.todo.item(each).files]

    async def _edit(
        self, item: Item, number: int, run: RunId, model: str, token: str, near: str, failure: str
    ) -> tuple[str, EditResult]:
        """And the commit that it was made on."""
        base, tree = await self._workbench.tree()
        tests = self.todo.tests_with(item.id)
        kept, grown = _tests_of_others(self.todo, item)
        result = await self._workshop.implementers.edit(
            EditWork(
                tree=tree,
                project=self._activation.state.id,
                instruction=prompts.edit_instruction(self._architect.subject(), item, number, near, failure),
                files=item.files,
                read_only=tuple(dict.fromkeys((*item.tests, *self._files_before(item)))),
                model=model,
                gateway_url=self._settings.gateway_url,
                token=token,
                run=run,
                checks=self._check_commands(tests),
                tests=tests,
                kept_tests=kept,
                grown_tests=grown,
                install=self._activation.state.chosen_stack.commands.install,
            )
        )
        if not result.patch:
            await self._blame(result, run)
        return base, result

    async def _record(self, base: str, result: EditResult) -> Mapping[str, Any]:
        """What the attempt's step comes to."""
        return {
            "patch": await self._workshop.ledger.put_blob(result.patch),
            "base": base,
            "change": change_mark(result.patch),
            "changed": list(result.changed),
            "discarded": list(result.discarded),
            "engine": result.engine,
            "passed": _passed(result),
            "report": prompts.steady(result.checks) if result.patch else _nothing_changed(result),
        }

    async def _unchanged(self, item: Item) -> Mapping[str, Any]:
        """The first attempt at an item that needs no change: only its checks are run."""
        base, tree = await self._workbench.tree()
        work = self._check_work(tree, self.todo.tests_with(item.id))
        report = await self._workshop.implementers.check(work)
        return {
            "patch": await self._workshop.ledger.put_blob(b""),
            "base": base,
            "changed": [],
            "engine": "none, no change was needed",
            "passed": report.passed,
            "report": prompts.steady(report),
        }

    async def _blame(self, result: EditResult, run: RunId) -> None:
        """An edit that came to nothing is the model's failure only if the model was asked; else this raises.

        Raises NotEnoughCreditsError or CeilingReachedError (the gateway's 402), AccountStoppedError (its 403),
        UnavailableError (it did not answer, or the engine broke off).
        """
        if result.cause == "gateway" and result.gateway_status == PAYMENT_REQUIRED:
            error = CeilingReachedError if "ceiling" in result.error else NotEnoughCreditsError
            raise error(result.error, "Then resume the project.")
        if result.cause == "gateway" and result.gateway_status == FORBIDDEN and "is stopped" in result.error:
            raise AccountStoppedError(result.error, "Then resume the project.")
        receipt = await self._workshop.ledger.receipt(self._activation.state.id)
        asked = any(row.run == run and row.state == "metered" for row in receipt.pending)
        refused = result.cause == "gateway" and 400 <= result.gateway_status < 429
        if result.error and not asked and not refused:
            raise UnavailableError(f"The edit came to nothing: {result.error[-REASON_CHARACTERS_MAX:]}")

    async def _reject(self, item: Item, number: int, reason: str, cause: str = "checks") -> None:
        await self._activation.emit(
            "task.rejected",
            f"task/{item.id}/{number}/rejected",
            {"task": item.id, "attempt": number, "reason": reason, "cause": cause},
        )

    def _check_work(self, tree: Tree, tests: tuple[str, ...]) -> CheckWork:
        return CheckWork(
            tree=tree,
            commands=self._check_commands(tests),
            tests=tests,
            install=self._activation.state.chosen_stack.commands.install,
            project=self._activation.state.id,
        )

    def _check_commands(self, tests: tuple[str, ...]) -> tuple[str, ...]:
        stack = self._activation.state.chosen_stack.commands
        commands = (stack.build, prompts.test_command(stack, tests))
        return tuple(command for command in commands if command)


class _Merge:
    """An attempt's way to main: at most one at a time, broken off where the attempt comes to nothing."""

    def __init__(self, land: Callable[[Change], Coroutine[Any, Any, Returned | None]]) -> None:
        self._land = land
        self._landing: asyncio.Task[Returned | None] | None = None

    @property
    def is_begun(self) -> bool:
        return self._landing is not None

    def begin(self, change: Change) -> None:
        self._landing = asyncio.create_task(self._land(change), name=f"merge {change.item.id}")

    async def ended(self) -> Returned | None:
        assert self._landing is not None, "nothing is being merged"
        return await self._landing

    async def break_off(self) -> None:
        landing, self._landing = self._landing, None
        if landing is not None:
            landing.cancel()
            await asyncio.gather(landing, return_exceptions=True)


def _passed(result: EditResult) -> bool:
    return bool(result.patch) and result.checks.passed


def _tests_of_others(todo: Todo, item: Item) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of the tests of finished items: those that this one is not told of, and those that its text names."""
    done = [test for each in todo.items if each.done and each.id != item.id for test in each.tests]
    named = [test for test in done if test in item.detail or test in item.title]
    return tuple(dict.fromkeys(test for test in done if test not in named)), tuple(dict.fromkeys(named))


def _checked(item: Item, number: int, result: Mapping[str, Any]) -> NewEvent:
    told = {
        "task": item.id,
        "attempt": number,
        "passed": result["passed"],
        "summary": result["report"],
        "engine": result["engine"],
        "discarded": result.get("discarded", []),
    }
    return NewEvent(type="task.checked", key=f"task/{item.id}/{number}/checked", data=told)


def _nothing_changed(result: EditResult) -> str:
    return f"No file was changed. {result.error}\n{result.engine_log[-LOG_CHARACTERS_MAX:]}"

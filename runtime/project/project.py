"""One build, from brief to package: the entity that owns it."""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runtime.entity.entity import Entity
from runtime.entity.journal import EventRecord, Moves
from runtime.entity.reminders import OWNER_LEFT, Reminded
from runtime.errors import (
    ConflictError,
    MasterbuilderError,
    NotFoundError,
    RefusedError,
    StaleWriterError,
    StoreUnavailableError,
    UnavailableError,
)
from runtime.ids import EntityId, UserId, kind_of, name_of
from runtime.project.activity import Activity
from runtime.project.architect import Architect
from runtime.project.building import Building
from runtime.project.changing import Changing
from runtime.project.finding import CodeFinder
from runtime.project.finishing import Finishing
from runtime.project.gaps import Gaps
from runtime.project.gates import Gates
from runtime.project.interview import Interview
from runtime.project.messages import (
    Answer,
    Approve,
    Back,
    Cancel,
    Change,
    Confirm,
    Describe,
    OpenProject,
    Pause,
    ProjectView,
    PurgeAfter,
    Reject,
    Resume,
    Retry,
    Rewind,
    Skip,
    Status,
    WorkerWaits,
)
from runtime.project.planning import Planning
from runtime.project.purging import PURGE, PURGE_WARNING, Purging, reminders
from runtime.project.rewinding import Rewinding
from runtime.project.state import FINAL_REVIEW, State, edited_item
from runtime.project.steering import Steering, possible, refuse_unless_possible
from runtime.project.steps import PaidSteps
from runtime.project.stopping import pack_what_exists
from runtime.project.verifying import Verifying
from runtime.project.workbench import Workbench
from runtime.project.workshop import Workshop

log = logging.getLogger(__name__)

PAUSE_RETRY_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """From a user's session to a new project. Repeating it changes nothing."""

    owner: UserId
    order: OpenProject
    purge_days: int | None = None
    """What the owner has chosen; None for what the installation says."""


class WishOpenError(ConflictError):
    """The project cannot end: a change was asked for in the last moment."""


class Project(Entity[State]):
    """Interviews, plans, builds, verifies and delivers, as one task that replays its finished steps after a crash."""

    kind = "project"
    read_only = (Describe, WorkerWaits)
    after_end = frozenset({"project.purge_due", "project.purged", "project.notice"})

    def __init__(self, entity: EntityId, workshop: Workshop) -> None:
        assert kind_of(entity) == self.kind
        self._entity = entity
        self._workshop = workshop
        self._activity = Activity()
        self._flow: asyncio.Task[None] | None = None
        self._flows = 0
        """How often the build was started here: what a stopped one still writes is not in the next one's way."""
        self._ending = False
        """True while the build is being stopped: nobody may start it again meanwhile."""

    def initial(self) -> State:
        return State()

    def fold(self, state: State, event: EventRecord) -> State:
        return state.after(event)

    def freeze(self, state: State) -> Mapping[str, Any] | None:
        """Only what is left of an erased project: every other one is restored from its events."""
        return Purging.freeze(state) if state.status is Status.PURGED else None

    def thaw(self, data: Mapping[str, Any]) -> State:
        return Purging.thaw(data)

    def head(self, state: State) -> Mapping[str, Any]:
        return {"title": state.title, "status": state.status}

    def is_open(self, state: State) -> bool:
        return not state.status.terminal

    def lets_go(self, state: State) -> bool:
        return state.status is Status.PURGED

    def is_over(self, state: State) -> bool:
        return state.status.terminal

    async def wake(self) -> None:
        """Starts the build where it is not under way; a paused one waits inside. A cancel that was cut off goes on."""
        if not self.state.id or self.state.status.terminal or self._ending:
            return
        if self._flow is None or self._flow.done():
            work = self._conclude_cancel() if self.state.stopping else self._build()
            self._flow = self.activation.spawn(work, "build")

    async def receive(self, message: Any) -> ProjectView:
        if not isinstance(message, Begin) and not self.state.id:
            raise NotFoundError(
                f"There is no project {name_of(self._entity)}.", "`masterbuilder projects` lists yours."
            )
        steering = Steering(self.activation)
        match message:
            case Begin():
                await self._begin(message)
            case Answer():
                await self._answer(message)
            case Back():
                await steering.back(message)
            case Confirm():
                await steering.confirm(message)
            case Approve():
                await steering.approve(message)
            case Reject():
                await steering.reject(message)
            case Pause():
                await steering.pause(message)
            case Resume():
                await steering.resume(message)
            case Change():
                await steering.change(message)
            case Retry():
                await steering.retry(message)
            case Skip():
                await steering.skip(message)
            case Rewind():
                await self._rewind(message, steering)
            case Cancel():
                await self._cancel(message)
            case Reminded(name=name) if name == OWNER_LEFT:
                await self._leave(message)
            case PurgeAfter():
                await self._purging.set_period(message)
            case Reminded(name=name) if name == PURGE_WARNING:
                await self._purging.warn(message)
            case Reminded(name=name) if name == PURGE:
                await self._purging.purge(message)
            case WorkerWaits():
                self._hear(message)
            case Describe():
                pass
            case _:
                raise ConflictError(f"A project does not understand {type(message).__name__}.")
        await self.wake()
        return replace(await self._view(), activity=self._activity.told(), possible=possible(self.state))

    async def _view(self) -> ProjectView:
        spent = await self._workshop.ledger.spent(self.state.id)
        return self.state.view(spent.net_ucredits, spent.total_cost_pusd)

    def _hear(self, message: WorkerWaits) -> None:
        step = next((step for step, run in self.state.steps.open.items() if run == message.run), "")
        if edited := edited_item(step):
            self._activity.waits(*edited, message.what, message.retry_in_s)

    async def _begin(self, message: Begin) -> None:
        order = message.order
        await self.activation.emit(
            "project.opened",
            "opened",
            {
                "owner": message.owner,
                "brief": order.brief,
                "answers": dict(order.answers),
                "max_ucredits": order.max_ucredits,
                "confirmed": order.confirmed,
                "gates": list(order.gates),
                "purge_days": message.purge_days,
            },
            lambda state: Moves(ceiling_ucredits=order.max_ucredits),
        )

    async def _answer(self, message: Answer) -> None:
        if self.activation.has(message.key):
            return
        if self.state.question is None:
            raise ConflictError(
                "The project has no open question.", "`masterbuilder projects` shows what it waits for."
            )
        await self.activation.emit(
            "project.answer", message.key, {"topic": self.state.question["topic"], "text": message.text}
        )

    async def _cancel(self, message: Cancel) -> None:
        """From the first event on nothing can be held or spent; then what exists is packed, then the project ends."""
        if self.state.status is Status.CANCELLED:
            return
        if self.state.status.terminal:
            refuse_unless_possible(self.state, "cancel")
        async with self._stopped():
            await self.activation.emit(
                "project.stopping",
                f"{message.key}/stopping",
                {},
                lambda state: Moves(abandon=tuple(state.steps.open.values()), ceiling_ucredits=0),
            )
            await self._conclude_cancel()

    async def _conclude_cancel(self) -> None:
        await self._pack_what_exists("It was cancelled by its owner.")
        await self._end(Status.CANCELLED, "cancelled by its owner", "cancelled")

    async def _conclude_failure(self, reason: str) -> None:
        await self._pack_what_exists(f"It failed: {reason}")
        await self._end(Status.FAILED, reason, "finished")

    async def _pack_what_exists(self, why: str) -> None:
        """What cannot be packed is told and is no reason to go on living."""
        if self.state.package is not None:
            return
        ledger, key = self._workshop.ledger, f"package/{self.state.packages + 1}"
        try:
            if packed := await pack_what_exists(await self._view(), why, ledger):
                blob = await ledger.put_blob(packed.data)
                await self.activation.emit("package.ready", key, {**packed.fields(blob), "partial": True})
        except StaleWriterError:
            raise
        except MasterbuilderError as error:
            text = f"What exists could not be packed: {error.message}"
            await self.activation.emit("project.notice", "package/stopped/failed", {"text": text})

    async def _rewind(self, message: Rewind, steering: Steering) -> None:
        if self.activation.has(message.key):
            return
        steering.check_rewind(message)
        async with self._stopped():
            await steering.rewind(message)

    async def _leave(self, message: Reminded) -> None:
        """Its owner asked to be erased."""
        if not self.state.status.terminal:
            await self._cancel(Cancel(key=message.key))

    @asynccontextmanager
    async def _stopped(self) -> AsyncIterator[None]:
        """The build is stopped, and nobody starts it again before the block is left."""
        self._ending = True
        try:
            if self._flow is not None:
                self._flow.cancel()
                await asyncio.gather(self._flow, return_exceptions=True)
            yield
        finally:
            self._ending = False
            await self.wake()

    async def _build(self) -> None:
        """The whole way. After a restart it runs again from the top, past everything that is recorded."""
        try:
            await self._carry_out()
        except StaleWriterError:
            raise
        except RefusedError as error:
            await self._conclude_failure(str(error))
        except UnavailableError as error:
            await self._pause(f"{error} Then resume the project.")
        except Exception:
            log.exception("the build of %s met an error of ours", self._entity)
            await self._pause("An error of ours stopped the build; what was finished is safe. Resume to try again.")

    async def _carry_out(self) -> None:
        await self.activation.changed(lambda: not self.state.paused)
        shop = self._workshop
        steps = PaidSteps(self.activation, self._activity)
        architect = Architect(self.activation, steps, shop)
        self._flows += 1
        workbench = Workbench(self.activation, shop.ledger, self._working_copy / str(self._flows))
        finder = CodeFinder(self.activation, shop.entities, workbench)
        gaps = Gaps(self.activation, architect, workbench, shop.ledger)
        await gaps.refund()
        building = Building(self.activation, steps, architect, workbench, finder, shop, gaps)
        rounds = shop.settings.max_fix_rounds
        verifying = Verifying(self.activation, architect, building, workbench, finder, gaps, rounds)
        finishing = Finishing(self.activation, architect, building, workbench, finder, shop)
        changing = Changing(self.activation, architect, workbench, shop.settings, shop.calls.catalogue)
        gates = Gates(self.activation)

        interview = Interview(self.activation, architect, shop.settings, shop.calls.catalogue)
        await interview.until_confirmed()

        await shop.implementers.prepare()
        while not self.state.documented or not await gates.plan():
            await self._enter(Status.PLANNING, "requirements, stack, architecture, plan")
            await Planning(self.activation, architect, workbench).carry_out()
        await Rewinding(self.activation, workbench).carry_out()
        await finder.refresh()

        attending = asyncio.create_task(changing.attend(), name=f"{self._entity} changes")
        try:
            while True:
                await self._build_phases(building, verifying, changing, gates, gaps)
                await self._review(building, verifying, finishing, gaps)
                if await changing.settle(before_waiting=self._await_answer):
                    continue
                await self._package(finishing)
                if await changing.settle(before_waiting=self._await_answer) or not await gates.delivery():
                    continue
                with suppress(WishOpenError):
                    await self._end(Status.COMPLETED, "", "finished")
                    return
        finally:
            attending.cancel()
            await asyncio.gather(attending, return_exceptions=True)

    async def _build_phases(
        self, building: Building, verifying: Verifying, changing: Changing, gates: Gates, gaps: Gaps
    ) -> None:
        """Phase after phase, those too that a change adds meanwhile; the plan changes between two rounds of work."""
        phase = 1
        while phase <= len(building.todo.phases):
            await changing.settle(phase)
            items = building.todo.in_phase(phase)
            if verifying.passed(phase) or all(item.struck for item in items):
                phase += await gates.phase(phase)
                continue
            name = f"phase {phase}: {building.todo.phases[phase - 1]}"
            await self._enter(Status.IMPLEMENTING, name)
            await building.implement(phase)
            await gaps.write_down()
            if any(item.done for item in building.todo.in_phase(phase)):
                await self._enter(Status.VERIFYING, name)
                await verifying.verify_phase(phase)

    async def _review(self, building: Building, verifying: Verifying, finishing: Finishing, gaps: Gaps) -> None:
        while not verifying.passed(FINAL_REVIEW):
            while not building.all_done():
                await self._enter(Status.IMPLEMENTING, "what the final review found")
                await building.implement(len(building.todo.phases))
            await gaps.write_down()
            await self._enter(Status.VERIFYING, "final review")
            await verifying.review(await finishing.prove())

    async def _package(self, finishing: Finishing) -> None:
        if self.state.package is None or self.state.package.partial:
            await self._enter(Status.README_GENERATION, "deployment guide, README, traceability")
            await finishing.write_documents()
            await self._enter(Status.PACKAGING, "packaging")
            await finishing.package()

    async def _await_answer(self) -> None:
        await self._enter(Status.AWAITING_APPROVAL, "everything else is done; a change waits for your answer")

    async def _enter(self, status: Status, text: str) -> None:
        """Tells the new status, unless it is the present one; a paused project waits before it."""
        await self.activation.changed(lambda: not self.state.paused)
        if self.state.status is not status:
            key = f"status/{status}/{self.activation.last_seq}"
            await self.activation.emit("project.status", key, {"status": status, "text": text, "of_flow": True})

    async def _pause(self, text: str) -> None:
        """Keeps trying while the store is away: a build that stopped without a word could not be resumed."""
        key = f"status/paused/{self.activation.last_seq}"
        while not self.state.paused:
            try:
                await self.activation.emit("project.status", key, {"status": Status.PAUSED, "text": text})
            except StoreUnavailableError:
                await asyncio.sleep(PAUSE_RETRY_S)

    async def _end(self, status: Status, reason: str, key: str) -> None:
        """Ends the project for ever. Open runs are the platform's loss, and no hold fits under a ceiling of zero.

        Raises WishOpenError where it would be completed and a change was asked for meanwhile.
        """
        spent = await self._workshop.ledger.spent(self.state.id)
        purge_at = self._purging.due(datetime.now(UTC))

        def moves(state: State) -> Moves:
            if status is Status.COMPLETED and any(wish.open for wish in state.wishes):
                raise WishOpenError("A change was asked for in the last moment.")
            return Moves(abandon=tuple(state.steps.open.values()), ceiling_ucredits=0)

        await self.activation.emit(
            "project.finished",
            key,
            {
                "status": status,
                "reason": reason,
                "spent_ucredits": spent.net_ucredits,
                "purge_at": purge_at.isoformat(),
            },
            moves,
            remind=reminders(purge_at),
        )
        await asyncio.to_thread(shutil.rmtree, self._working_copy, ignore_errors=True)

    @property
    def _purging(self) -> Purging:
        return Purging(self.activation, self._workshop)

    @property
    def _working_copy(self) -> Path:
        """Plain files: only there while there is something to build."""
        return self._workshop.scratch_dir / name_of(self._entity)

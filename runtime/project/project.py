"""One build, from brief to package: the entity that owns it."""

import asyncio
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.entity.entity import Entity
from runtime.entity.journal import EventRecord, Moves
from runtime.entity.reminders import OWNER_LEFT, Reminded
from runtime.errors import (
    BadInputError,
    ConflictError,
    NotFoundError,
    RefusedError,
    StaleWriterError,
    StoreUnavailableError,
    UnavailableError,
)
from runtime.ids import EntityId, UserId, kind_of, name_of
from runtime.project.architect import Architect
from runtime.project.building import Building
from runtime.project.finding import CodeFinder
from runtime.project.finishing import Finishing
from runtime.project.gaps import Gaps
from runtime.project.interview import Interview
from runtime.project.messages import (
    Answer,
    Cancel,
    Confirm,
    Describe,
    OpenProject,
    ProjectView,
    Resume,
    Status,
)
from runtime.project.planning import Planning
from runtime.project.state import State
from runtime.project.steps import PaidSteps
from runtime.project.verifying import FINAL_REVIEW, Verifying
from runtime.project.workbench import Workbench
from runtime.project.workshop import Workshop

log = logging.getLogger(__name__)

PAUSE_RETRY_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """From a user's session to a new project. Repeating it changes nothing."""

    owner: UserId
    order: OpenProject


class Project(Entity[State]):
    """Interviews, plans, builds, verifies and delivers, as one task that replays its finished steps after a crash."""

    kind = "project"
    read_only = (Describe,)

    def __init__(self, entity: EntityId, workshop: Workshop) -> None:
        assert kind_of(entity) == self.kind
        self._entity = entity
        self._workshop = workshop
        self._flow: asyncio.Task[None] | None = None
        self._ending = False
        """True while a cancel is under way: nobody may start the build again meanwhile."""

    def initial(self) -> State:
        return State()

    def fold(self, state: State, event: EventRecord) -> State:
        return state.after(event)

    def head(self, state: State) -> Mapping[str, Any]:
        return {"title": state.title, "status": state.status}

    def is_open(self, state: State) -> bool:
        return not state.status.terminal

    def is_over(self, state: State) -> bool:
        return state.status.terminal

    async def wake(self) -> None:
        """Starts the build where it is not under way; a paused one waits inside."""
        if not self.state.id or self.state.status.terminal or self._ending:
            return
        if self._flow is None or self._flow.done():
            self._flow = self.activation.spawn(self._build(), "build")

    async def receive(self, message: Any) -> ProjectView:
        if not isinstance(message, Begin) and not self.state.id:
            raise NotFoundError(
                f"There is no project {name_of(self._entity)}.", "`masterbuilder projects` lists yours."
            )
        match message:
            case Begin():
                await self._begin(message)
            case Answer():
                await self._answer(message)
            case Confirm():
                await self._confirm(message)
            case Cancel():
                await self._cancel(message)
            case Resume():
                await self._resume(message)
            case Reminded(name=name) if name == OWNER_LEFT:
                await self._leave(message)
            case Describe():
                pass
            case _:
                raise ConflictError(f"A project does not understand {type(message).__name__}.")
        await self.wake()
        receipt = await self._workshop.ledger.receipt(self.state.id)
        return self.state.view(receipt.net_ucredits, receipt.total_cost_pusd)

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

    async def _confirm(self, message: Confirm) -> None:
        if self.activation.has(message.key):
            return
        if self.state.status is not Status.CONFIRMING_SCOPE or self.state.confirmed:
            raise ConflictError(f"There is nothing to confirm: the project is {self.state.status}.")
        if not message.accept and not message.change.strip():
            raise BadInputError("The change is empty.", "Say what should be different, or agree.")
        if not message.accept:
            await self.activation.emit("project.change", message.key, {"text": message.change})
            return
        ceiling = self.state.ceiling_ucredits or 0
        await self.activation.emit(
            "project.confirmed",
            message.key,
            {"ceiling_ucredits": ceiling},
            lambda state: Moves(ceiling_ucredits=ceiling),
        )

    async def _cancel(self, message: Cancel) -> None:
        if self.state.status is Status.CANCELLED:
            return
        if self.state.status.terminal:
            raise ConflictError(f"The project is {self.state.status} and cannot be cancelled.")
        self._ending = True
        try:
            if self._flow is not None:
                self._flow.cancel()
                await asyncio.gather(self._flow, return_exceptions=True)
            await self._end(Status.CANCELLED, "cancelled by its owner", message.key)
        finally:
            self._ending = False

    async def _leave(self, message: Reminded) -> None:
        """Its owner asked to be erased."""
        if not self.state.status.terminal:
            await self._cancel(Cancel(key=message.key))

    async def _resume(self, message: Resume) -> None:
        if self.activation.has(message.key):
            return
        if not self.state.paused:
            raise ConflictError(f"The project is {self.state.status}, not paused.")
        if message.ceiling_ucredits is not None:
            await self.activation.emit(
                "project.ceiling",
                f"{message.key}/ceiling",
                {"ceiling_ucredits": message.ceiling_ucredits},
                lambda state: Moves(ceiling_ucredits=message.ceiling_ucredits),
            )
        status = self.state.resume_to or Status.IMPLEMENTING
        await self.activation.emit("project.status", message.key, {"status": status, "text": "resumed"})

    async def _build(self) -> None:
        """The whole way. After a restart it runs again from the top, past everything that is recorded."""
        try:
            await self._carry_out()
        except StaleWriterError:
            raise
        except RefusedError as error:
            await self._end(Status.FAILED, str(error), "finished")
        except UnavailableError as error:
            await self._pause(f"{error} Then resume the project.")
        except Exception:
            log.exception("the build of %s met an error of ours", self._entity)
            await self._pause("An error of ours stopped the build; what was finished is safe. Resume to try again.")

    async def _carry_out(self) -> None:
        await self.activation.changed(lambda: not self.state.paused)
        shop = self._workshop
        steps = PaidSteps(self.activation)
        architect = Architect(self.activation, steps, shop)
        workbench = Workbench(self.activation, shop.ledger, self._working_copy)
        finder = CodeFinder(self.activation, shop.entities)
        gaps = Gaps(self.activation, architect, workbench, shop.ledger)
        await gaps.refund()
        building = Building(self.activation, steps, architect, workbench, finder, shop, gaps)
        rounds = shop.settings.max_fix_rounds
        verifying = Verifying(self.activation, architect, building, workbench, finder, gaps, rounds)
        finishing = Finishing(self.activation, architect, building, workbench, finder, shop)

        interview = Interview(self.activation, architect, shop.settings, shop.calls.catalogue)
        await interview.until_confirmed()

        await shop.implementers.prepare()
        if self.state.bundle is None:
            await self._enter(Status.PLANNING, "requirements, stack, architecture, plan")
            await Planning(self.activation, architect, workbench).carry_out()
        await finder.refresh()

        for phase in range(1, len(building.todo.phases) + 1):
            while not verifying.passed(phase):
                name = building.todo.phases[phase - 1]
                await self._enter(Status.IMPLEMENTING, f"phase {phase}: {name}")
                await building.implement(phase)
                await self._enter(Status.VERIFYING, f"phase {phase}: {name}")
                await verifying.verify_phase(phase)

        while not verifying.passed(FINAL_REVIEW):
            while not building.all_done():
                await self._enter(Status.IMPLEMENTING, "what the final review found")
                await building.implement(len(building.todo.phases))
            await self._enter(Status.VERIFYING, "final review")
            await verifying.review(await finishing.prove())

        if self.state.package is None:
            await self._enter(Status.README_GENERATION, "deployment guide, README, traceability")
            await finishing.write_documents()
            await self._enter(Status.PACKAGING, "packaging")
            await finishing.package()
        await self._end(Status.COMPLETED, "", "finished")

    async def _enter(self, status: Status, text: str) -> None:
        """Tells the new status, unless it is the present one."""
        if self.state.status is not status:
            key = f"status/{status}/{self.activation.last_seq}"
            await self.activation.emit("project.status", key, {"status": status, "text": text})

    async def _pause(self, text: str) -> None:
        """Keeps trying while the store is away: a build that stopped without a word could not be resumed."""
        key = f"status/paused/{self.activation.last_seq}"
        while not self.state.paused:
            try:
                await self.activation.emit("project.status", key, {"status": Status.PAUSED, "text": text})
            except StoreUnavailableError:
                await asyncio.sleep(PAUSE_RETRY_S)

    async def _end(self, status: Status, reason: str, key: str) -> None:
        """Ends the project for ever. Open runs are the platform's loss, and no hold fits under a ceiling of zero."""
        receipt = await self._workshop.ledger.receipt(self.state.id)
        await self.activation.emit(
            "project.finished",
            key,
            {"status": status, "reason": reason, "spent_ucredits": receipt.net_ucredits},
            lambda state: Moves(abandon=tuple(state.steps.open.values()), ceiling_ucredits=0),
        )
        await asyncio.to_thread(shutil.rmtree, self._working_copy, ignore_errors=True)

    @property
    def _working_copy(self) -> Path:
        """Plain files: only there while there is something to build."""
        return self._workshop.scratch_dir / name_of(self._entity)

"""A wish for something else, while the build runs: planned by the architect, priced, agreed to, then in the plan."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

from runtime.catalogue.catalogue import Catalogue
from runtime.config import Settings
from runtime.entity.activation import Activation
from runtime.entity.journal import Moves
from runtime.errors import RefusedError, ReplyRejectedError, StaleWriterError
from runtime.project import prompts
from runtime.project.architect import Architect
from runtime.project.plan_files import plan_files
from runtime.project.quote import ceiling_of, change_quote_ucredits, prices_of
from runtime.project.schemas import ChangeEdit, PlanChangeReply, TodoEdit
from runtime.project.state import State, Wish
from runtime.project.todo import Todo, added_tasks
from runtime.project.workbench import PRODUCT_AUTHOR, Workbench

log = logging.getLogger(__name__)

TRIES_MAX = 2


class Changing:
    """Planning goes on beside the work; the plan itself changes only between two rounds of work, in one commit."""

    def __init__(
        self,
        activation: Activation[State],
        architect: Architect,
        workbench: Workbench,
        settings: Settings,
        catalogue: Catalogue,
    ) -> None:
        self._activation = activation
        self._architect = architect
        self._workbench = workbench
        self._settings = settings
        self._catalogue = catalogue

    async def attend(self) -> None:
        """Plans what is asked for, for as long as the build runs: the next wish when the one before it is settled."""
        while True:
            await self._activation.changed(lambda: self._next() is not None)
            wish = self._next()
            assert wish is not None, "waited for"
            try:
                await self._plan(wish)
            except RefusedError as error:
                if isinstance(error, StaleWriterError):
                    raise
                await self._fail(wish, error.message)
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("planning change %d of %s met an error of ours", wish.number, self._activation.entity)
                await self._fail(wish, "An error of ours stopped its planning. Ask for it again.")

    async def settle(
        self, phase: int | None = None, *, before_waiting: Callable[[], Awaitable[None]] | None = None
    ) -> bool:
        """Waits until no wish (of the phase's gate, where one is given) is to be planned or answered.

        What is agreed to meanwhile joins the plan. True when the plan is another one now. `before_waiting` runs when
        it is the owner who is waited for.
        """
        changed = await self.apply()
        while any(wish.stage in ("asked", "proposed") and phase in (None, wish.phase) for wish in self._state.wishes):
            seen = self._state.wishes
            if before_waiting is not None and self._state.proposed is not None:
                await before_waiting()
            await self._activation.changed(lambda seen=seen: self._state.wishes != seen)  # type: ignore[misc]
            changed = await self.apply() or changed
        return changed

    async def apply(self) -> bool:
        """Brings what was agreed to into the plan. True when the plan is another one now."""
        changed = False
        while (wish := self._first("accepted")) is not None:
            try:
                await self._apply(wish)
                changed = True
            except ReplyRejectedError as error:
                await self._fail(wish, f"It does not fit the plan any more: {error.message}")
        return changed

    @property
    def _state(self) -> State:
        return self._activation.state

    def _next(self) -> Wish | None:
        is_busy = self._state.todo is None or self._first("proposed") or self._first("accepted")
        return None if is_busy else self._first("asked")

    def _first(self, stage: str) -> Wish | None:
        return next((wish for wish in self._state.wishes if wish.stage == stage), None)

    async def _plan(self, wish: Wish) -> None:
        """A plan that does not work is sent back once, with the reasons. Raises RefusedError after that."""
        fault = ""
        for attempt in range(1, TRIES_MAX + 1):
            prompt = prompts.plan_change(
                self._architect.subject(), self._state.plan, wish.number, wish.text, wish.phase, fault, attempt
            )
            step = f"change/{wish.number}/{attempt}"
            reply = await self._architect.ask(step, prompt, PlanChangeReply, attempt=attempt)
            if not (faults := self._faults(wish, reply)):
                await self._propose(wish, reply)
                return
            fault = "; ".join(faults)
        raise ReplyRejectedError(f"No plan that works was found for it: {fault}.")

    def _faults(self, wish: Wish, reply: PlanChangeReply) -> Sequence[str]:
        known = [each.id for each in self._architect.subject().requirements]
        new = [each.id for each in reply.requirements if each.id not in known]
        faults = []
        if all(edit.op == "revise" for edit in reply.todo_edits):
            faults.append("no task is added or reopened, so nothing would be done")
        try:
            phase, todo = _in_phase(self._state.plan, wish, reply)
            faults += todo.edited(reply.todo_edits, phase).uncovered([*known, *new])
        except ReplyRejectedError as error:
            faults.append(error.message)
        return faults

    async def _propose(self, wish: Wish, reply: PlanChangeReply) -> None:
        """Findings of a phase's gate are mended for the price that was agreed; every other wish has its own."""
        quote = 0
        if wish.phase is None:
            prices = prices_of(self._settings, self._catalogue)
            quote = change_quote_ucredits(len(reply.todo_edits), *prices, self._settings.tariff)
        rise = ceiling_of(quote, self._settings.quote_ceiling_factor)
        await self._activation.emit(
            "change.proposed",
            f"change/{wish.number}/proposed",
            {
                "number": wish.number,
                "text": wish.text,
                "change": reply.model_dump(mode="json"),
                "quote_ucredits": quote,
                "rise_ucredits": rise,
                "ceiling_ucredits": (self._state.ceiling_ucredits or 0) + rise,
            },
        )

    async def _apply(self, wish: Wish) -> None:
        assert wish.reply is not None, "what was agreed to was proposed"
        edits = _renumbered(wish.reply.todo_edits, (item.id for item in self._state.plan.items))
        requirements = wish.reply.requirements
        phase, todo = _in_phase(self._state.plan, wish, wish.reply)
        plain = [TodoEdit.model_validate(edit.model_dump(exclude={"reason"})) for edit in edits]
        after = todo.edited(plain, phase)
        async with self._workbench.alone() as repository:
            files = plan_files(self._state, after, {each.id: each for each in requirements})
            message = f"todo: change {wish.number}: {wish.reply.title}"
            commit = await asyncio.to_thread(repository.write_and_commit, files, message, PRODUCT_AUTHOR)
            committed = await self._workbench.keep(commit, await asyncio.to_thread(repository.bundle))
            await self._activation.emit(
                "plan.changed",
                f"change/{wish.number}/planned",
                {
                    **committed.fields(),
                    "number": wish.number,
                    "phase": after.phases[phase - 1],
                    "phase_number": phase,
                    "is_new_phase": wish.phase is None,
                    "edits": [edit.model_dump(mode="json") for edit in plain],
                    "requirements": [each.model_dump(mode="json") for each in requirements],
                    "added": added_tasks(plain, after.phases[phase - 1]),
                    "reopened": [each.id for each in plain if each.op == "reopen"],
                },
            )

    async def _fail(self, wish: Wish, reason: str) -> None:
        """Nothing changes but that it is told; a price that was agreed to is not owed any more."""
        state = self._state
        lower = state.ceiling_ucredits - wish.rise_ucredits if state.ceiling_ucredits and wish.rise_ucredits else None
        given_back = lower if wish.stage == "accepted" else None
        await self._activation.emit(
            "change.failed",
            f"change/{wish.number}/failed",
            {"number": wish.number, "text": wish.text, "reason": reason, "ceiling_ucredits": given_back},
            lambda state: Moves(ceiling_ucredits=given_back),
        )


def _in_phase(todo: Todo, wish: Wish, reply: PlanChangeReply) -> tuple[int, Todo]:
    """The phase that the wish's tasks join, and the plan with it."""
    if wish.phase is not None:
        return wish.phase, todo
    return len(todo.phases) + 1, todo.with_phase(reply.title)


def _renumbered(edits: Sequence[ChangeEdit], taken: Iterable[str]) -> list[ChangeEdit]:
    """Under free numbers where others were added under theirs while the owner thought about it."""
    used = set(taken)
    names: dict[str, str] = {}
    for edit in edits:
        if edit.op == "add" and edit.id in used:
            names[edit.id] = _free({*used, *(each.id for each in edits), *names.values()})
    return [
        edit.model_copy(
            update={
                "id": names.get(edit.id, edit.id) if edit.op == "add" else edit.id,
                "depends": [names.get(each, each) for each in edit.depends],
            }
        )
        for edit in edits
    ]


def _free(used: Iterable[str]) -> str:
    return f"T-{max(int(each.removeprefix('T-')) for each in used) + 1:03}"

"""What an owner may ask of a project in which state, and the events that it makes.

Every message has a key, which is the key of its event: a repeat changes nothing. What is not possible now is refused
with what is.
"""

from collections.abc import Callable

from runtime.entity.activation import Activation
from runtime.entity.journal import NO_MOVES, Moves
from runtime.errors import BadInputError, ConflictError, NotFoundError
from runtime.project.messages import (
    Approve,
    Back,
    Change,
    Confirm,
    Pause,
    Reject,
    Resume,
    Retry,
    Rewind,
    Skip,
    Status,
    is_scope,
)
from runtime.project.state import SKIPPED, State
from runtime.project.todo import Item

WISHES_MAX = 10
"""Changes of one project that may wait at a time."""
PAUSED_BY_OWNER = "Paused by you. Resume it when it is to go on; nothing is spent meanwhile."
_WAITS_FOR_OWNER = (Status.CONFIRMING_SCOPE, Status.AWAITING_APPROVAL)


def possible(state: State) -> tuple[str, ...]:
    """The names of the messages that a project in this state does not refuse outright, in the order to offer them."""
    if state.status.terminal or state.stopping:
        return ()
    has_plan = state.todo is not None
    open_tasks = has_plan and any(not item.closed for item in state.plan.items)
    found = {
        "answer": state.question is not None,
        "back": state.question is not None and bool(state.answered),
        "approve": state.asks is not None,
        "reject": state.asks is not None,
        "resume": state.paused,
        "pause": not state.paused and state.status not in _WAITS_FOR_OWNER and state.question is None,
        "change": True,
        "retry": has_plan and any(_has_failed(state, item) for item in state.plan.items),
        "skip": open_tasks,
        "rewind": bool(state.bases) and state.rewind_to is None,
        "cancel": True,
    }
    return tuple(name for name, is_possible in found.items() if is_possible)


def refuse_unless_possible(state: State, name: str) -> None:
    """Raises ConflictError that says how the project stands and what may be asked of it instead."""
    now = possible(state)
    if name in now:
        return
    if state.status.terminal:
        raise ConflictError(
            f"The project is {state.status}: it is over, and `{name}` is not possible any more.",
            "Its package and receipt can be fetched; start another project for more.",
        )
    waits = f" It waits for: {state.waits_for()}" if state.waits_for() else ""
    raise ConflictError(
        f"The project is {state.status}, so `{name}` is not possible now.{waits}",
        f"Possible now: {', '.join(now) or 'nothing, it is being stopped'}.",
    )


class Steering:
    """Turns messages into events. What a running build makes of them is the build's own business."""

    def __init__(self, activation: Activation[State]) -> None:
        self._activation = activation

    @property
    def _state(self) -> State:
        return self._activation.state

    async def pause(self, message: Pause) -> None:
        if self._activation.has(message.key):
            return
        refuse_unless_possible(self._state, "pause")
        paused = {"status": Status.PAUSED, "text": PAUSED_BY_OWNER, "by_owner": True}
        await self._activation.emit("project.status", message.key, paused)

    async def back(self, message: Back) -> None:
        if self._activation.has(message.key):
            return
        refuse_unless_possible(self._state, "back")
        await self._activation.emit("project.back", message.key, {})

    async def resume(self, message: Resume) -> None:
        if self._activation.has(message.key):
            return
        refuse_unless_possible(self._state, "resume")
        if message.ceiling_ucredits is not None:
            await self._activation.emit(
                "project.ceiling",
                f"{message.key}/ceiling",
                {"ceiling_ucredits": message.ceiling_ucredits},
                lambda state: Moves(ceiling_ucredits=message.ceiling_ucredits),
            )
        await self._go_on(message.key, "resumed")

    async def change(self, message: Change) -> None:
        if self._activation.has(message.key):
            return
        refuse_unless_possible(self._state, "change")
        if not message.text.strip():
            raise BadInputError("The change is empty.", "Say what should be different.")
        if not self._state.confirmed:
            await self._activation.emit("project.change", message.key, {"text": message.text})
            return
        if sum(wish.open for wish in self._state.wishes) >= WISHES_MAX:
            raise ConflictError(f"{WISHES_MAX} changes wait already.", "Approve or reject them first.")
        asked = {"number": len(self._state.wishes) + 1, "text": message.text}
        await self._activation.emit("change.asked", message.key, asked)

    async def retry(self, message: Retry) -> None:
        if self._activation.has(message.key):
            return
        item = self._item("retry", message.task)
        if item.done:
            raise ConflictError(f"{item.id} is done.", "`change` says what should be different.")
        tries = self._state.attempts.get(item.id, ())
        if tries and tries[-1].outcome is None and not self._state.paused:
            raise ConflictError(f"{item.id} is being worked on: attempt {tries[-1].number}.", "Wait for its end.")
        if not _has_failed(self._state, item):
            raise ConflictError(f"{item.id} has not failed, so there is nothing to retry.", self._possible())
        await self._activation.emit("task.retried", message.key, {"task": item.id, "title": item.title})
        if self._state.status is Status.PAUSED and not self._state.paused_by_owner:
            await self._go_on(f"{message.key}/resume", f"{item.id} is tried again")

    async def skip(self, message: Skip) -> None:
        if self._activation.has(message.key):
            return
        item = self._item("skip", message.task)
        if item.closed:
            raise ConflictError(f"{item.id} is {'done' if item.done else 'struck already'}.", self._possible())
        dependents = [each.id for each in self._state.plan.waiting_for(item.id)]
        if dependents and not message.with_dependents:
            raise ConflictError(
                f"{', '.join(dependents)} cannot be done without {item.id}.",
                "Skip them together with it (with_dependents), or skip none.",
            )
        struck = [item.id, *dependents]
        after = self._state.plan.struck(dict.fromkeys(struck, SKIPPED))
        if not after.wanted():
            raise ConflictError("Nothing would be left to build.", "`cancel` ends the project.")
        await self._activation.emit(
            "task.skipped",
            message.key,
            {
                "tasks": struck,
                "reason": message.reason.strip() or SKIPPED,
                "gaps": [gap for gap in after.unmet() if gap not in self._state.plan.unmet()],
            },
            lambda state: Moves(abandon=tuple(state.runs_for(struck).values())),
        )
        if self._state.status is Status.PAUSED and not self._state.paused_by_owner:
            await self._go_on(f"{message.key}/resume", f"goes on without {item.id}")

    async def confirm(self, message: Confirm) -> None:
        """The answer to a scope; to whatever else is asked it is a yes or no as well."""
        if self._activation.has(message.key):
            return
        if not is_scope(self._state.asks):
            if message.accept:
                await self.approve(Approve(key=message.key))
            else:
                await self.reject(Reject(key=message.key, text=message.change))
            return
        if not message.accept and not message.change.strip():
            raise BadInputError("The change is empty.", "Say what should be different, or agree.")
        if not message.accept:
            await self._activation.emit("project.change", message.key, {"text": message.change})
            return
        ceiling = self._state.ceiling_ucredits or 0
        await self._activation.emit(
            "project.confirmed",
            message.key,
            {"ceiling_ucredits": ceiling},
            lambda state: Moves(ceiling_ucredits=ceiling),
        )

    async def approve(self, message: Approve) -> None:
        if self._activation.has(message.key):
            return
        asks = self._asked("approve", message.about)
        if is_scope(asks):
            await self.confirm(Confirm(key=message.key, accept=True))
        elif asks.startswith("change/"):
            await self._accept_change(message.key)
        else:
            await self._activation.emit("gate.approved", message.key, {"gate": asks})

    async def reject(self, message: Reject) -> None:
        if self._activation.has(message.key):
            return
        asks = self._asked("reject", message.about)
        if is_scope(asks):
            await self.confirm(Confirm(key=message.key, accept=False, change=message.text))
        elif asks.startswith("change/"):
            number = int(asks.partition("/")[2])
            await self._activation.emit("change.rejected", message.key, {"number": number, "text": message.text})
        elif not message.text.strip():
            raise BadInputError("The reason is empty.", "Say what should be different, or approve.")
        else:
            await self._activation.emit("gate.rejected", message.key, {"gate": asks, "text": message.text})

    async def rewind(self, message: Rewind) -> None:
        """Journals that it is asked for, and gives up what was under way; the caller has stopped the build."""
        await self._activation.emit(
            "project.rewind",
            message.key,
            {"phase": message.phase, "title": self._state.plan.phases[message.phase - 1]},
            lambda state: Moves(abandon=tuple(state.steps.open.values())),
        )

    def check_rewind(self, message: Rewind) -> None:
        """Raises ConflictError where there is nothing to go back to."""
        refuse_unless_possible(self._state, "rewind")
        if message.phase not in self._state.bases:
            begun = ", ".join(str(phase) for phase in sorted(self._state.bases))
            raise ConflictError(
                f"Phase {message.phase} has no merged task yet, so there is nothing to go back over.",
                f"Phases to rewind to: {begun}.",
            )

    async def _accept_change(self, key: str) -> None:
        wish = self._state.proposed
        assert wish is not None, "asked for"
        ceiling = (self._state.ceiling_ucredits or 0) + wish.rise_ucredits
        quote = (self._state.quote_ucredits or 0) + wish.quote_ucredits
        agreed = {"number": wish.number, "ceiling_ucredits": ceiling, "quote_ucredits": quote}
        raised: Callable[[State], Moves] = lambda state: Moves(ceiling_ucredits=ceiling)  # noqa: E731
        await self._activation.emit("change.accepted", key, agreed, raised if wish.rise_ucredits else _no_moves)

    async def _go_on(self, key: str, text: str) -> None:
        status = self._state.resume_to or Status.IMPLEMENTING
        await self._activation.emit("project.status", key, {"status": status, "text": text})

    def _asked(self, name: str, about: str) -> str:
        refuse_unless_possible(self._state, name)
        asks = self._state.asks
        assert asks is not None, "possible"
        if about and about != asks:
            raise ConflictError(f"The project does not ask about {about} now, but about {asks}.", "Look at it again.")
        return asks

    def _item(self, name: str, task: str) -> Item:
        """Raises ConflictError before there is a plan, NotFoundError for a task that is not in it."""
        if self._state.todo is None or self._state.status.terminal or self._state.stopping:
            refuse_unless_possible(self._state, name)
        todo = self._state.plan
        found = next((item for item in todo.items if item.id == task), None)
        if found is None:
            tasks = ", ".join(item.id for item in todo.items if not item.closed)
            raise NotFoundError(f"The plan has no task {task}.", f"Open tasks: {tasks or 'none'}.")
        return found

    def _possible(self) -> str:
        return f"Possible now: {', '.join(possible(self._state))}."


def _has_failed(state: State, item: Item) -> bool:
    return not item.done and any(each.outcome == "rejected" for each in state.attempts.get(item.id, ()))


def _no_moves(state: State) -> Moves:
    return NO_MOVES

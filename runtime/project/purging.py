"""The end of a finished project's data: warned of, put off or brought forward by its owner, and then carried out.

A snapshot of what may stay follows the event that says `purged`; the store then drops the events before it, the files
that only they named, and the index: see `runtime.store.purging`. Source: spec/builder.md §14.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from runtime.entity.activation import Activation
from runtime.entity.journal import Reminder
from runtime.entity.reminders import Reminded
from runtime.ids import ProjectId, UserId, user_entity
from runtime.project.messages import ForgetProject, PurgeAfter, Status
from runtime.project.state import State
from runtime.project.workshop import Workshop

PURGE = "purge"
PURGE_WARNING = "purge_warning"
WARNED_BEFORE = timedelta(days=3)


def reminders(purge_at: datetime) -> Sequence[Reminder]:
    """Later ones take the place of those that are armed."""
    return (
        Reminder(name=PURGE_WARNING, due_at=purge_at - WARNED_BEFORE),
        Reminder(name=PURGE, due_at=purge_at),
    )


class Purging:
    def __init__(self, activation: Activation[State], workshop: Workshop) -> None:
        self._activation = activation
        self._workshop = workshop

    def due(self, ended_at: datetime) -> datetime:
        days = self._activation.state.purge_days or self._workshop.settings.project_purge_days
        return ended_at + timedelta(days=days)

    async def set_period(self, message: PurgeAfter) -> None:
        """For a project that has ended, counted from its end: what is past already is erased soon."""
        state = self._activation.state
        if state.status is Status.PURGED or self._activation.has(message.key):
            return
        if not state.status.terminal:
            await self._activation.emit("project.purge_period", message.key, {"days": message.days})
            return
        purge_at = (state.ended_at or state.updated_at) + timedelta(days=message.days)
        data = {"days": message.days, "purge_at": purge_at.isoformat()}
        await self._activation.emit("project.purge_due", message.key, data, remind=reminders(purge_at))

    async def warn(self, message: Reminded) -> None:
        state = self._activation.state
        if state.purge_at is None or not state.status.terminal or state.status is Status.PURGED:
            return
        day = state.purge_at.strftime("%Y-%m-%d %H:%M UTC")
        text = f"Files, package and texts of this project will be erased at {day}. Fetch what you want to keep."
        await self._activation.emit("project.notice", message.key, {"text": text})

    async def purge(self, message: Reminded) -> None:
        """Also when it is delivered again: whatever was done already stays done. One that was put off does nothing."""
        state = self._activation.state
        if not state.status.terminal or state.purge_at is None or state.purge_at > message.due_at:
            return
        forget = ForgetProject(key=f"forget/{state.id}", project=state.id)
        await self._workshop.entities.ask(user_entity(state.owner), forget)
        if state.status is not Status.PURGED:
            await self._activation.emit("project.purged", "purged", {"status": Status.PURGED})
        await self._activation.save()

    @staticmethod
    def freeze(state: State) -> Mapping[str, Any]:
        return {
            "id": state.id,
            "owner": state.owner,
            "title": state.title,
            "spent_ucredits": state.spent_ucredits,
            "times": {name: getattr(state, name).isoformat() for name in _TIMES if getattr(state, name) is not None},
            "last_seq": state.last_seq,
        }

    @staticmethod
    def thaw(data: Mapping[str, Any]) -> State:
        times: dict[str, Any] = {name: datetime.fromisoformat(text) for name, text in data["times"].items()}
        return State(
            id=ProjectId(data["id"]),
            owner=UserId(data["owner"]),
            title=data["title"],
            status=Status.PURGED,
            spent_ucredits=data["spent_ucredits"],
            last_seq=data["last_seq"],
            **times,
        )


_TIMES = ("created_at", "updated_at", "ended_at", "completed_at", "purge_at")

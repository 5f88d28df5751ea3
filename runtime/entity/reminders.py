"""Durable timers: armed together with an event, delivered as a message when their time has come."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from runtime.ids import UserId

OWNER_LEFT = "owner_left"
"""The name of a reminder that the ledger arms: the entity's owner asked to be erased, and it ends what it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reminded:
    """A reminder that is due. Delivered at least once: `key` tells a repeat.

    When its turn is over the reminder is forgotten, unless the turn armed it again under the same name. A refusal
    counts as over; an UnavailableError means that it is delivered again.
    """

    name: str
    due_at: datetime
    data: Mapping[str, Any]
    owner: UserId | None = None

    @property
    def key(self) -> str:
        return f"reminder/{self.name}/{self.due_at.isoformat()}"

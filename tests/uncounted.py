"""Entities of a system in which nobody is counted."""

from typing import Any

from runtime.ids import EntityId
from runtime.session.messages import Admit


class Uncounted:
    async def ask(self, entity: EntityId, message: Any, *, timeout_s: float = 30.0) -> None:
        assert isinstance(message, Admit), f"nobody is there to understand {type(message).__name__}"

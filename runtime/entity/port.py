"""How the doors and the entities themselves talk to an entity, wherever it lives."""

from collections.abc import Sequence
from typing import Any, Protocol

from runtime.entity.journal import EventRecord
from runtime.ids import EntityId


class Entities(Protocol):
    """Implemented by `runtime.entity.host.Host` in one process and by the handle that finds the right host."""

    async def ask(self, entity: EntityId, message: Any, *, timeout_s: float = 30.0) -> Any:
        """One frozen message; its reply. Messages that change something carry a key, so a retry is safe.

        Raises what the entity raises (RefusedError), NotFoundError, UnavailableError after `timeout_s`.
        """

    async def events(self, entity: EntityId, after_seq: int, wait_s: float) -> Sequence[EventRecord]:
        """Events numbered above `after_seq`; waits up to `wait_s` for the first, then answers, maybe empty."""

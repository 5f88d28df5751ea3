"""How any process reaches an entity: a cached map, and another look at it when a host is gone."""

from collections.abc import Mapping, Sequence
from typing import Any

from actors.handles import ROUTER, call, find
from runtime.entity.journal import EventRecord
from runtime.ids import EntityId, kind_of


class EntitiesHandle:
    """Implements `Entities`. Messages are repeated while their host restarts: their keys make that safe."""

    def __init__(self) -> None:
        self._map: Mapping[str, str] = {}

    async def ask(self, entity: EntityId, message: Any, *, timeout_s: float = 30.0) -> Any:
        host = await self._host(entity)
        return await call(lambda: host.ask.remote(entity, message, timeout_s), what="The entity host")

    async def events(self, entity: EntityId, after_seq: int, wait_s: float) -> Sequence[EventRecord]:
        host = await self._host(entity)
        records: Sequence[EventRecord] = await call(
            lambda: host.events.remote(entity, after_seq, wait_s), what="The entity host"
        )
        return records

    async def _host(self, entity: EntityId) -> Any:
        if not self._map:
            self._map = await call(lambda: find(ROUTER).route.remote(), what="The router")
        return find(self._map[kind_of(entity)])

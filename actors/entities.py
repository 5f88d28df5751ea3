"""How any process reaches an entity: by a cached map, in batches, and by another look when a host is gone."""

import asyncio
import pickle
from typing import Any

from ray.actor import ActorHandle

from actors.handles import ROUTER, ActorGoneError, find, once
from runtime.routing.desk import Exchange, Exchanged
from runtime.routing.placement import Route
from runtime.routing.routed import RoutedEntities


class EntitiesHandle(RoutedEntities):
    """Implements `Entities` from any process with asyncio; one instance is used from one loop."""

    def __init__(self) -> None:
        super().__init__(self._from_router, self._with_host)
        self._actors: dict[str, ActorHandle[Any]] = {}

    async def _from_router(self, newer_than: int, wait_s: float) -> Route:
        router = await self._actor(ROUTER)
        route: Route = await self._once(ROUTER, lambda: router.route.remote(newer_than, wait_s))
        return route

    async def _with_host(self, name: str, call: Exchange) -> Exchanged:
        host = await self._actor(name)
        # Bytes pass through Ray as they are; its own pickler takes three times as long.
        data = pickle.dumps(call, 5)
        answer: Exchanged = pickle.loads(await self._once(name, lambda: host.exchange.remote(data)))
        return answer

    async def _actor(self, name: str) -> ActorHandle[Any]:
        if name not in self._actors:
            self._actors[name] = await asyncio.to_thread(find, name)
        return self._actors[name]

    async def _once(self, name: str, send: Any) -> Any:
        try:
            return await once(send, what=name)
        except ActorGoneError:
            # Another actor may have the name by now.
            self._actors.pop(name, None)
            raise

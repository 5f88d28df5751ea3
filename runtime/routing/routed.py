"""Entities wherever they live: each message to the host of its partition, and after it when that moves."""

import asyncio
import logging
import pickle
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.entity.journal import EventRecord
from runtime.errors import OverloadedError, UnavailableError
from runtime.ids import EntityId, kind_of, partition_of
from runtime.routing.courier import Courier, Parcel
from runtime.routing.desk import Exchange, Exchanged
from runtime.routing.placement import Route

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""A message whose host does not take it waits so long for a newer route, and is then sent by the old one again."""
FOLLOW_S = 30.0
ROUTER_S_MAX = 10.0
"""A router that is so much later than the wait it was asked for does not answer."""
PAUSE_S = 0.2
"""Between two attempts to reach a router that does not answer."""
EVENTS_GRACE_S = 30.0
"""What a long poll may take beyond the wait that was asked for, because its entity moves or its host restarts."""
CARRIED_MAX = 50_000
"""Messages on their way from one process."""

_NOWHERE = Route(version=0, hosts=(), homes={})


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """A message to the host: events of an entity after a number, waiting for the first."""

    after_seq: int
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pardon:
    """A message to the host: lifts an entity's quarantine."""


class RoutedEntities:
    """Implements `Entities` over many hosts.

    `route` is asked with the known version and a wait; it answers when there is another, or when the wait is over.
    `exchange` calls the named host and raises where it cannot be reached. A message whose host is gone, or is not its
    host any more, is sent again until its own deadline: it carries a key, so that this is safe. Used from one loop.
    """

    def __init__(
        self,
        route: Callable[[int, float], Awaitable[Route]],
        exchange: Callable[[str, Exchange], Awaitable[Exchanged]],
    ) -> None:
        self._ask_route = route
        self._exchange = exchange
        self._route = _NOWHERE
        self._couriers: dict[str, Courier] = {}
        self._carried = 0
        self._stranded: list[Parcel] = []
        self._looking: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None

    async def ask(self, entity: EntityId, message: Any, *, timeout_s: float = 30.0) -> Any:
        return await self._carry(entity, message, timeout_s)

    async def events(self, entity: EntityId, after_seq: int, wait_s: float) -> Sequence[EventRecord]:
        watch = Watch(after_seq=after_seq, wait_s=wait_s)
        records: Sequence[EventRecord] = await self._carry(entity, watch, wait_s + EVENTS_GRACE_S)
        return records

    async def pardon(self, entity: EntityId) -> bool:
        """Lifts a quarantine; False when there was none."""
        was_quarantined: bool = await self._carry(entity, Pardon(), 30.0)
        return was_quarantined

    def start_following(self) -> None:
        """Keeps the route new from now on. It also wakes a router that was restarted and that nobody asks."""
        if self._following is None:
            self._following = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            await self._look(FOLLOW_S)

    async def _carry(self, entity: EntityId, message: Any, timeout_s: float) -> Any:
        if self._carried >= CARRIED_MAX:
            raise OverloadedError(f"{CARRIED_MAX} messages are on their way already.")
        loop = asyncio.get_running_loop()
        parcel = Parcel(entity, pickle.dumps(message, 5), loop.time() + timeout_s, loop.create_future())
        timer = loop.call_at(parcel.deadline, _expire, parcel, timeout_s)
        self._carried += 1
        self._send(parcel)
        try:
            return await parcel.answer
        except asyncio.CancelledError:
            if parcel.courier is not None:
                parcel.courier.withdraw(parcel)
            raise
        finally:
            self._carried -= 1
            timer.cancel()

    def _send(self, parcel: Parcel) -> None:
        host = self._host_of(parcel.entity)
        if host is None:
            self._strand(parcel)
            return
        if host not in self._couriers:
            self._couriers[host] = Courier(lambda call: self._exchange(host, call), self._given_back)
        parcel.version = self._route.version
        self._couriers[host].put(parcel)

    def _host_of(self, entity: EntityId) -> str | None:
        route = self._route
        if not route.hosts:
            return None
        return (route.homes.get(kind_of(entity)) if route.homes else None) or route.hosts[partition_of(entity)] or None

    def _given_back(self, parcels: Sequence[Parcel], error: Exception) -> None:
        for parcel in parcels:
            if parcel.answer.done():
                continue
            parcel.trouble = str(error) or "Its host does not answer."
            if parcel.version != self._route.version:
                self._send(parcel)
            else:
                self._strand(parcel)

    def _strand(self, parcel: Parcel) -> None:
        """Leaves it until there is a newer route: one look serves all who wait for it."""
        parcel.courier = None
        self._stranded.append(parcel)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._send_stranded())

    async def _send_stranded(self) -> None:
        while self._stranded:
            await self._look(LOOK_S)
            stranded, self._stranded = self._stranded, []
            for parcel in stranded:
                if not parcel.answer.done():
                    self._send(parcel)

    async def _look(self, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s + ROUTER_S_MAX):
                route = await self._ask_route(self._route.version, wait_s)
        except Exception as error:
            log.info("the router does not answer: %s", error or type(error).__name__)
            for parcel in self._stranded:
                parcel.trouble = parcel.trouble or str(error)
            await asyncio.sleep(PAUSE_S)
            return
        if route.version != self._route.version:
            self._take(route)

    def _take(self, route: Route) -> None:
        """What is on its way to a host that is not its own any more is sent again: that host may be cut off."""
        self._route = route
        for host, courier in list(self._couriers.items()):
            for parcel in courier.recall(lambda entity: self._host_of(entity) == host):  # noqa: B023
                if not parcel.answer.done():
                    self._send(parcel)


def _expire(parcel: Parcel, timeout_s: float) -> None:
    if not parcel.answer.done():
        why = f" {parcel.trouble}" if parcel.trouble else ""
        parcel.answer.set_exception(
            UnavailableError(
                f"{parcel.entity} did not answer in {timeout_s:g} s.{why}", "Ask again: messages are safe to repeat."
            )
        )

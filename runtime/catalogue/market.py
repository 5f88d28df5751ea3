"""What may be called now, as one process knows it: the catalogue in force, and which providers have a key."""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from runtime.catalogue.catalogue import Catalogue
from runtime.catalogue.difficulty import classify
from runtime.catalogue.endpoints import SERVICES, Family, Service, family
from runtime.catalogue.model import Model
from runtime.catalogue.routes import AUTO, Need, Routes
from runtime.errors import NoProviderError, UnavailableError, UnpricedModelError
from runtime.ledger.port import ModelRow, Role, SealedKey
from runtime.providers.order import CallOrder

REFRESH_S = 15.0
AGAIN_S = 1.0
"""What is not found is looked up anew, but not more often than this."""


class Source(Protocol):
    """The ledger, as far as it is asked here."""

    async def models(self) -> Sequence[ModelRow]: ...

    async def all_keys(self) -> Sequence[SealedKey]: ...


class Market:
    """Read from the ledger when it is first needed and every 15 s after, in the background of a call.

    While the ledger is silent, what was read last counts. Without a source what it is made with counts for ever.
    """

    def __init__(
        self,
        routes: Routes,
        *,
        source: Source | None = None,
        configured: Collection[str] = (),
        services: Mapping[str, Service] = SERVICES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._routes = routes
        self._source = source
        self._configured = frozenset(configured)
        self._services = services
        self._clock = clock
        self._read_at_s: float | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def catalogue(self) -> Catalogue:
        return self._routes.catalogue

    async def providers(self) -> Collection[str]:
        """Those with a key that may be used. Raises UnavailableError when nothing was ever read."""
        await self._be_fresh()
        return self._configured

    async def models(self, role: Role, allowed: Sequence[str]) -> Sequence[Model]:
        """Those a caller of this role may name, with a token that allows these."""
        await self._be_fresh()
        return self._routes.permitted(role=role, configured=self._configured, allowed=allowed)

    def family(self, provider: str) -> Family:
        """Whose wire format it speaks."""
        return family(provider, self._services)

    async def route(self, order: CallOrder, need: Need, last_user_text: Callable[[], str]) -> Sequence[Model]:
        """The models to try for an order, in order. Raises like `Routes.plan`."""
        await self._be_fresh()
        try:
            return self._plan(order, need, last_user_text)
        except (NoProviderError, UnpricedModelError):
            # It may have come a moment ago.
            if not await self._read_again():
                raise
            return self._plan(order, need, last_user_text)

    def _plan(self, order: CallOrder, need: Need, last_user_text: Callable[[], str]) -> Sequence[Model]:
        is_automatic = order.model.strip().lower() == AUTO
        return self._routes.plan(
            order.model,
            role=order.role,
            need=need,
            configured=self._configured,
            allowed=order.allowed,
            difficulty=classify(last_user_text()).level if is_automatic else None,
        )

    async def _be_fresh(self) -> None:
        if self._source is None or (self._read_at_s is not None and self._clock() < self._read_at_s + REFRESH_S):
            return
        reading = self._begin_reading(self._source)
        if self._read_at_s is None:
            await asyncio.shield(reading)

    async def _read_again(self) -> bool:
        """False: what is known is news already."""
        if self._source is None or self._read_at_s is None or self._clock() < self._read_at_s + AGAIN_S:
            return False
        await asyncio.shield(self._begin_reading(self._source))
        return True

    def _begin_reading(self, source: Source) -> asyncio.Task[None]:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read(source))
        return self._reading

    async def _read(self, source: Source) -> None:
        try:
            rows, keys = await asyncio.gather(source.models(), source.all_keys())
        except UnavailableError:
            if self._read_at_s is None:
                raise
            return
        self._routes.catalogue = Catalogue.of([row.body for row in rows])
        self._configured = frozenset(key.provider for key in keys if key.active and not key.disabled)
        self._read_at_s = self._clock()

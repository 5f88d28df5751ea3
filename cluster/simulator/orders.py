"""Faults that were ordered, whatever they spoil: first ordered, first served, each so often or by chance."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, Generic, Protocol, TypeVar

ORDERS_MAX = 1_000


class Ordered(Protocol):
    """As much of a fault as its order needs."""

    @property
    def count(self) -> int | None: ...

    @property
    def rate(self) -> float | None: ...

    @property
    def seed(self) -> int: ...

    def model_dump(self, *, exclude_none: bool) -> dict[str, Any]: ...


F = TypeVar("F", bound=Ordered)


@dataclass(slots=True)
class Order(Generic[F]):
    id: int
    fault: F
    left: int | None
    draws: random.Random
    taken: int = 0

    def facts(self) -> dict[str, Any]:
        return {"id": self.id, **self.fault.model_dump(exclude_none=True), "count": self.left, "taken": self.taken}


class Orders(Generic[F]):
    """Of one server; a restart forgets them."""

    def __init__(self) -> None:
        self._orders: list[Order[F]] = []
        self._ids = count(1)

    def __len__(self) -> int:
        return len(self._orders)

    def add(self, fault: F, *, for_ever: bool = False) -> int:
        """Its id. It is good for its `count` of calls; without one for one call, or with a `rate`, or `for_ever`, for
        all that come."""
        left = fault.count or (None if fault.rate or for_ever else 1)
        self._orders.append(Order(next(self._ids), fault, left, random.Random(fault.seed)))
        return self._orders[-1].id

    def take(self, fits: Callable[[F], bool]) -> F | None:
        """The first that fits. An order is used up `count` times, each that it fits draws."""
        for order in self._orders:
            fault = order.fault
            if not fits(fault) or (fault.rate is not None and order.draws.random() >= fault.rate):
                continue
            order.taken += 1
            if order.left is not None:
                order.left -= 1
                if not order.left:
                    self._orders.remove(order)
            return fault
        return None

    def waiting(self, first: Callable[[F], bool] = lambda fault: False) -> list[dict[str, Any]]:
        """Those not used up, as ordered, with `id`, how often they were `taken`, and what is left of their `count`."""
        return [order.facts() for order in sorted(self._orders, key=lambda order: not first(order.fault))]

    def clear(self, id: int | None = None) -> None:
        """One of them, or all."""
        self._orders = [order for order in self._orders if id not in (None, order.id)]

"""Faults to order: each spoils the next calls it fits, first ordered first served."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cluster.simulator.matching import fits
from cluster.simulator.telegram.refusal import TelegramRefusal, bad_request, cannot_parse, too_many_requests

ORDERS_MAX = 1_000


class Fault(BaseModel):
    """What goes wrong with the calls it fits: with the next `count` of them, or with each at probability `rate`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal[
        "too_many_requests", "server_error", "dropped_before", "dropped_after", "slow", "blocked", "markup_refused"
    ]  # fmt: skip
    """`dropped_before`: the connection ends and nothing was done. `dropped_after`: it was done, and the client cannot
    know. `slow`: done, and answered after `delay_s`. The others: not done; `markup_refused` fits calls with a parse
    mode alone."""
    method: str = "*"
    """The name in Telegram's spelling, or the beginning of names and a `*`."""
    chat_id: int | None = None
    count: int | None = Field(default=None, ge=1, le=1_000_000)
    """One by default; without a bound where a `rate` is given."""
    rate: float | None = Field(default=None, gt=0, le=1)
    seed: int = 0
    """Of the draws of `rate`: equal seeds spoil the same calls, counted by their order."""
    status: Literal[500, 502, 503, 504] = 502
    """Of `server_error`."""
    retry_after_s: int = Field(default=1, ge=1, le=86_400)
    """Of `too_many_requests`."""
    delay_s: float = Field(default=1.0, ge=0, le=3_600)
    """Of `slow`."""

    def refusal(self) -> TelegramRefusal | None:
        """The answer that the call gets in the place of being carried out, where it is one."""
        match self.kind:
            case "too_many_requests":
                return too_many_requests(self.retry_after_s)
            case "server_error":
                return TelegramRefusal(self.status)
            case "blocked":
                return TelegramRefusal(403, "bot was blocked by the user")
            case "markup_refused":
                return cannot_parse("Can't find end of the entity starting at byte offset 0")
        return None


@dataclass(slots=True)
class _Order:
    id: int
    fault: Fault
    left: int | None
    draws: random.Random
    taken: int = 0

    def facts(self) -> dict[str, Any]:
        return {"id": self.id, **self.fault.model_dump(exclude_none=True), "count": self.left, "taken": self.taken}


class Faults:
    """The orders of one stand-in; a restart forgets them."""

    def __init__(self) -> None:
        self._orders: list[_Order] = []
        self._ids = count(1)

    def order(self, fault: Fault) -> int:
        """Its id. Raises TelegramRefusal where too many wait."""
        if len(self._orders) >= ORDERS_MAX:
            raise bad_request(f"{ORDERS_MAX} faults are on order; clear them first")
        left = fault.count or (None if fault.rate else 1)
        self._orders.append(_Order(next(self._ids), fault, left, random.Random(fault.seed)))
        return self._orders[-1].id

    def take(self, method: str, chat_id: int | None, *, with_markup: bool) -> Fault | None:
        """The fault that this call must suffer. An order is used up `count` times, each that it fits draws."""
        for order in self._orders:
            fault = order.fault
            if not fits(fault.method, method) or fault.chat_id not in (None, chat_id):
                continue
            if fault.kind == "markup_refused" and not with_markup:
                continue
            if fault.rate is not None and order.draws.random() >= fault.rate:
                continue
            order.taken += 1
            if order.left is not None:
                order.left -= 1
                if not order.left:
                    self._orders.remove(order)
            return fault
        return None

    def waiting(self) -> Sequence[dict[str, Any]]:
        """Those not used up, as ordered, with `id`, how often they were `taken`, and what is left of their `count`."""
        return [order.facts() for order in self._orders]

    def clear(self, id: int | None = None) -> None:
        """One of them, or all."""
        self._orders = [order for order in self._orders if id not in (None, order.id)]

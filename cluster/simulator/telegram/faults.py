"""Faults to order: each spoils the next calls it fits, first ordered first served."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cluster.simulator.matching import fits
from cluster.simulator.orders import ORDERS_MAX, Orders
from cluster.simulator.telegram.refusal import TelegramRefusal, bad_request, cannot_parse, too_many_requests


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


class Faults:
    """The orders of one stand-in; a restart forgets them."""

    def __init__(self) -> None:
        self._orders: Orders[Fault] = Orders()

    def order(self, fault: Fault) -> int:
        """Its id. Raises TelegramRefusal where too many wait."""
        if len(self._orders) >= ORDERS_MAX:
            raise bad_request(f"{ORDERS_MAX} faults are on order; clear them first")
        return self._orders.add(fault)

    def take(self, method: str, chat_id: int | None, *, with_markup: bool) -> Fault | None:
        """The fault that this call must suffer."""

        def spoils(fault: Fault) -> bool:
            is_meant = fits(fault.method, method) and fault.chat_id in (None, chat_id)
            return is_meant and (with_markup or fault.kind != "markup_refused")

        return self._orders.take(spoils)

    def waiting(self) -> Sequence[dict[str, Any]]:
        return self._orders.waiting()

    def clear(self, id: int | None = None) -> None:
        """One of them, or all."""
        self._orders.clear(id)

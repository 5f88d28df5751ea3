"""Faults to order: each spoils the next calls it fits, first ordered first served."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Fault(BaseModel):
    """What goes wrong with the next `count` calls, or with those of one task only."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["status_429", "status_500", "cut_stream", "malformed_json", "slow_first_byte", "wrong_usage"]
    """`malformed_json`: the model's text ends in the middle. `wrong_usage`: the usage told is ten times the truth."""
    count: int = Field(default=1, ge=1, le=1_000_000)
    task: str | None = None
    retry_after_s: int = Field(default=1, ge=0)
    """Of `status_429`: its Retry-After header."""
    delay_s: float = Field(default=5.0, ge=0, le=3_600)
    """Of `slow_first_byte`."""


@dataclass(slots=True)
class _Order:
    fault: Fault
    left: int


class Faults:
    def __init__(self) -> None:
        self._orders: list[_Order] = []

    def order(self, fault: Fault) -> None:
        self._orders.append(_Order(fault, fault.count))

    def take(self, task: str) -> Fault | None:
        """The fault that this call must suffer; each is used up `count` times."""
        for order in self._orders:
            if order.fault.task in (None, task):
                order.left -= 1
                self._orders = [kept for kept in self._orders if kept.left]
                return order.fault
        return None

    def waiting(self) -> Sequence[Fault]:
        """With what is left of their counts."""
        return [order.fault.model_copy(update={"count": order.left}) for order in self._orders]

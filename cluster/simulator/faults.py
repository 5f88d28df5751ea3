"""Faults to order: each spoils the next calls it fits, first ordered first served."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cluster.simulator.chat import WireName
from cluster.simulator.matching import KeyPattern, fits
from cluster.simulator.refusal import Refusal, RetryForm
from cluster.simulator.reply import Reply, Speech

ORDERS_MAX = 1_000
_DELAYS_S = {"slow_first_byte": 5.0, "slow_pieces": 0.5, "hang": 3600.0}
_STATUSES = {
    "status_429": (429, "Rate limit reached."),
    "status_500": (500, "The server had an error while processing your request."),
    "status_503": (503, "The service is overloaded. Please try again later."),
    "status_529": (529, "Overloaded"),
}


class Fault(BaseModel):
    """What goes wrong with the calls it fits: with the next `count` of them, or with each at probability `rate`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal[
        "status_429", "status_500", "status_503", "status_529", "revoke_key",
        "cut_stream", "hang", "error_in_stream", "malformed_json", "malformed_wire", "empty_content",
        "wrong_usage", "missing_usage", "slow_first_byte", "slow_pieces",
    ]  # fmt: skip
    """`revoke_key`: for ever, on every path. `cut_stream`, `hang`, `error_in_stream`: after `after_pieces`.
    `malformed_json`: the model's text ends in the middle. `malformed_wire`: the provider's own JSON does.
    `wrong_usage`: the usage told is ten times the truth."""
    count: int | None = Field(default=None, ge=1, le=1_000_000)
    """One by default; without a bound where a `rate` is given."""
    rate: float | None = Field(default=None, gt=0, le=1)
    seed: int = 0
    """Of the draws of `rate`: equal seeds spoil the same calls, counted by their order."""
    wire: WireName | None = None
    key: KeyPattern = "*"
    model: str = "*"
    task: str | None = None
    """The task of a scenario's call, `synthetic`, or `embeddings`."""
    retry_after_s: float | None = Field(default=None, ge=0, le=86_400)
    """Of a status: how long it asks to wait. 1 for `status_429`, else nothing is asked."""
    retry_form: RetryForm | None = None
    """The header that says so; None: in the way of the wire."""
    delay_s: float | None = Field(default=None, ge=0, le=3_600)
    """Of `slow_first_byte` (5 by default); of `slow_pieces` before each (0.5); `hang` ends after it (3600), or when the
    client goes."""
    after_pieces: int | None = Field(default=None, ge=0)
    """How many pieces of text leave before; None is half of them, for `hang` none."""

    @model_validator(mode="after")
    def _revokes_one_thing(self) -> "Fault":
        if self.kind == "revoke_key" and (self.key == "*" or self.count or self.rate or self.task or self.model != "*"):
            raise ValueError("revoke_key wants a key, and holds for ever: no count, rate, task or model")
        return self

    @property
    def wait_s(self) -> float:
        return _DELAYS_S.get(self.kind, 0.0) if self.delay_s is None else self.delay_s

    def refusal(self) -> Refusal | None:
        """The error that this call gets, where it is one."""
        if self.kind not in _STATUSES:
            return None
        status, message = _STATUSES[self.kind]
        wait_s = 1.0 if self.retry_after_s is None and status == 429 else self.retry_after_s
        asks = f" Please try again in {wait_s:g}s." if status == 429 else ""
        return Refusal(
            status,
            message + asks,
            reason="requests" if status == 429 else "",
            retry_after_s=wait_s,
            retry_form=self.retry_form,
        )

    def speech(self, speech: Speech) -> Speech:
        """What the model says instead."""
        if self.kind == "malformed_json":
            return replace(speech, text=speech.text[: len(speech.text) // 2])
        if self.kind == "empty_content":
            return replace(speech, text="", tool_calls=())
        return replace(speech, piece_s=self.wait_s) if self.kind == "slow_pieces" else speech

    def told(self, reply: Reply) -> Reply:
        """What the client is told of it."""
        if self.kind == "wrong_usage":
            return reply.with_wrong_usage()
        return replace(reply, tells_usage=False) if self.kind == "missing_usage" else reply


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
    """The orders of one server; a restart forgets them."""

    def __init__(self) -> None:
        self._orders: list[_Order] = []
        self._revoked: list[_Order] = []
        self._ids = count(1)

    def order(self, fault: Fault) -> int:
        """Its id. Raises Refusal where too many wait."""
        if len(self._orders) + len(self._revoked) >= ORDERS_MAX:
            raise Refusal(400, f"{ORDERS_MAX} faults are on order; clear them first.")
        left = fault.count or (None if fault.rate or fault.kind == "revoke_key" else 1)
        order = _Order(next(self._ids), fault, left, random.Random(fault.seed))
        (self._revoked if fault.kind == "revoke_key" else self._orders).append(order)
        return order.id

    def revoked(self, wire: WireName, key: str) -> bool:
        for order in self._revoked:
            if order.fault.wire in (None, wire) and fits(order.fault.key, key):
                order.taken += 1
                return True
        return False

    def take(self, wire: WireName, key: str, model: str, task: str) -> Fault | None:
        """The fault that this call must suffer. An order is used up `count` times, each that it fits draws."""
        for order in self._orders:
            fault = order.fault
            if fault.wire not in (None, wire) or fault.task not in (None, task):
                continue
            if not fits(fault.key, key) or not fits(fault.model, model):
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
        return [order.facts() for order in (*self._revoked, *self._orders)]

    def clear(self, id: int | None = None) -> None:
        """One of them, or all."""
        self._orders = [order for order in self._orders if id not in (None, order.id)]
        self._revoked = [order for order in self._revoked if id not in (None, order.id)]

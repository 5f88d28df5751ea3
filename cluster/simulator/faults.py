"""Faults to order: each spoils the next calls it fits, first ordered first served."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cluster.simulator.chat import WireName
from cluster.simulator.matching import KeyPattern, fits
from cluster.simulator.orders import ORDERS_MAX, Orders
from cluster.simulator.refusal import Refusal, RetryForm
from cluster.simulator.reply import Reply, Speech

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


class Faults:
    """The orders of one server; a restart forgets them."""

    def __init__(self) -> None:
        self._orders: Orders[Fault] = Orders()

    def order(self, fault: Fault) -> int:
        """Its id. Raises Refusal where too many wait."""
        if len(self._orders) >= ORDERS_MAX:
            raise Refusal(400, f"{ORDERS_MAX} faults are on order; clear them first.")
        return self._orders.add(fault, for_ever=_revokes(fault))

    def revoked(self, wire: WireName, key: str) -> bool:
        return self._orders.take(lambda fault: _revokes(fault) and _is_for(fault, wire, key)) is not None

    def take(self, wire: WireName, key: str, model: str, task: str) -> Fault | None:
        """The fault that this call must suffer."""

        def spoils(fault: Fault) -> bool:
            is_meant = not _revokes(fault) and _is_for(fault, wire, key)
            return is_meant and fault.task in (None, task) and fits(fault.model, model)

        return self._orders.take(spoils)

    def waiting(self) -> Sequence[dict[str, Any]]:
        """Revoked keys come first."""
        return self._orders.waiting(first=_revokes)

    def clear(self, id: int | None = None) -> None:
        """One of them, or all."""
        self._orders.clear(id)


def _revokes(fault: Fault) -> bool:
    return fault.kind == "revoke_key"


def _is_for(fault: Fault, wire: WireName, key: str) -> bool:
    return fault.wire in (None, wire) and fits(fault.key, key)

"""Limits of keys, and the window that a call is measured against when it arrives."""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cluster.simulator.allowance import Allowance
from cluster.simulator.matching import KeyPattern

WINDOW_S = 60.0
LIMITS_MAX = 1_000
CONCURRENCY_RETRY_S = 1.0

Measure = Literal["requests", "tokens", "concurrency"]
Outcome = Literal["open", "served", "cut", "failed", "refused"]


class Limit(BaseModel):
    """What one key may do with one model: each key and each model that fits is counted by itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: KeyPattern = "*"
    model: str = "*"
    requests_per_minute: int | None = Field(default=None, ge=0)
    tokens_per_minute: int | None = Field(default=None, ge=0)
    concurrency: int | None = Field(default=None, ge=0)
    enforce: Literal["refuse", "record"] = "refuse"
    """What happens to a call above it: it gets a 429, or is served. Either way it is a violation."""


@dataclass(slots=True)
class Arrival:
    """One call, from its arrival on; its tokens are the prompt's, and from its end on also the answer's."""

    at_s: float
    call_id: str | None
    user: str
    tokens: int
    limit: Limit | None
    """In force when it arrived."""
    in_flight: int = 0
    """With itself; 0 when it was refused."""
    outcome: Outcome = "open"
    status: int = 0
    """0 while it is open."""
    refused_for: Measure | None = None
    refused_at: int = 0
    """What the count would have been."""
    counted: bool = field(default=False, repr=False)
    """It is in the window now."""


class Window:
    """The arrivals of the last 60 s, the moment 60 s ago not included: those in (now - 60, now]."""

    def __init__(self) -> None:
        self._arrivals: deque[Arrival] = deque()
        self.tokens = 0

    @property
    def requests(self) -> int:
        return len(self._arrivals)

    def roll(self, now_s: float) -> None:
        """To be called before anything is read; time does not go back."""
        arrivals = self._arrivals
        while arrivals and arrivals[0].at_s <= now_s - WINDOW_S:
            left = arrivals.popleft()
            left.counted = False
            self.tokens -= left.tokens

    def add(self, arrival: Arrival) -> None:
        arrival.counted = True
        self._arrivals.append(arrival)
        self.tokens += arrival.tokens

    def used(self, arrival: Arrival, tokens: int) -> None:
        """More tokens of a call that arrived before: they count from its arrival on, maybe no longer."""
        arrival.tokens += tokens
        if arrival.counted:
            self.tokens += tokens

    def room_s(self, now_s: float, limit: Limit, tokens: int) -> float:
        """How long until one more call of so many tokens fits; 60 s where it never will."""
        requests_over = tokens_over = 0
        if limit.requests_per_minute is not None:
            requests_over = self.requests + 1 - limit.requests_per_minute
        if limit.tokens_per_minute is not None:
            tokens_over = self.tokens + tokens - limit.tokens_per_minute
        if requests_over <= 0 and tokens_over <= 0:
            return 0.0
        for arrival in self._arrivals:
            requests_over -= 1
            tokens_over -= arrival.tokens
            if requests_over <= 0 and tokens_over <= 0:
                return arrival.at_s + WINDOW_S - now_s
        return WINDOW_S

    def allowances(self, now_s: float, limit: Limit) -> tuple[Allowance | None, Allowance | None]:
        """Of requests and of tokens, None where they are not limited."""
        reset_s = self._arrivals[-1].at_s + WINDOW_S - now_s if self._arrivals else 0.0
        return (
            _allowance(limit.requests_per_minute, self.requests, reset_s),
            _allowance(limit.tokens_per_minute, self.tokens, reset_s),
        )


def _allowance(most: int | None, used: int, reset_s: float) -> Allowance | None:
    return None if most is None else Allowance(most=most, left=max(0, most - used), reset_s=reset_s)

"""Who called, when, and what was above a limit: counted for each key and model by itself."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import floor
from typing import Any

from cluster.simulator.allowance import Allowance
from cluster.simulator.limits import (
    CONCURRENCY_RETRY_S,
    LIMITS_MAX,
    WINDOW_S,
    Arrival,
    Limit,
    Measure,
    Outcome,
    Window,
)
from cluster.simulator.matching import fits, narrowness
from cluster.simulator.refusal import Refusal
from cluster.simulator.usage import fingerprint

LANES_MAX = 10_000
ARRIVALS_MAX = 200_000
"""Of one key and model; older ones are forgotten, and the report says how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """An arrival that was one too many for its limit. `count` is what its window held, with itself."""

    at_s: float
    measure: Measure
    count: int
    limit: int
    refused: bool
    call_id: str | None


class Lane:
    """One key and model."""

    def __init__(self, key: str, model: str, limit: Limit | None) -> None:
        self.key = key
        self.model = model
        self.fingerprint = fingerprint(key)
        self.limit = limit
        self.window = Window()
        self.in_flight = 0
        self.arrived = 0
        self.arrivals: deque[Arrival] = deque(maxlen=ARRIVALS_MAX)

    def arrive(self, at_s: float, call_id: str | None, user: str, tokens: int) -> Arrival:
        """Raises Refusal for a call over a limit that is enforced; it takes no room then."""
        arrival = Arrival(at_s, call_id, user, tokens, self.limit)
        self.arrived += 1
        self.arrivals.append(arrival)
        self.window.roll(at_s)
        if self.limit is not None and self.limit.enforce == "refuse":
            self._enforce(arrival, self.limit)
        self.window.add(arrival)
        self.in_flight += 1
        arrival.in_flight = self.in_flight
        return arrival

    def used(self, arrival: Arrival, tokens: int) -> None:
        self.window.used(arrival, tokens)

    def end(self, arrival: Arrival, outcome: Outcome, status: int) -> None:
        """Once: an arrival that ended stays as it ended."""
        if arrival.outcome == "open":
            arrival.outcome, arrival.status = outcome, status
            self.in_flight -= 1

    def allowances(self, now_s: float) -> tuple[Allowance | None, Allowance | None]:
        if self.limit is None:
            return None, None
        self.window.roll(now_s)
        return self.window.allowances(now_s, self.limit)

    def _enforce(self, arrival: Arrival, limit: Limit) -> None:
        for measure, count, most in (
            ("requests", self.window.requests + 1, limit.requests_per_minute),
            ("tokens", self.window.tokens + arrival.tokens, limit.tokens_per_minute),
            ("concurrency", self.in_flight + 1, limit.concurrency),
        ):
            if most is not None and count > most:
                arrival.refused_for, arrival.refused_at = measure, count  # type: ignore[assignment]
                arrival.outcome, arrival.status = "refused", 429
                wait_s = self.window.room_s(arrival.at_s, limit, arrival.tokens) or CONCURRENCY_RETRY_S
                raise Refusal(
                    429,
                    f"Rate limit reached for {self.model} on {measure}: limit {most}, requested {count}. "
                    f"Please try again in {wait_s:.3f}s.",
                    reason=measure,  # type: ignore[arg-type]
                    retry_after_s=wait_s,
                    allowances=self.window.allowances(arrival.at_s, limit),
                )


class Traffic:
    """`clock` is monotonic; the report's moments are seconds since 1970, by `started_at_s` of its first reading."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self.clock = clock
        self._epoch_s = wall_clock() - clock()
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._limits: list[Limit] = []

    def lane(self, key: str, model: str) -> Lane:
        lane = self._lanes.get((key, model))
        if lane is None:
            if len(self._lanes) >= LANES_MAX:
                raise Refusal(400, f"The simulator keeps {LANES_MAX} keys and models apart, not more.")
            lane = self._lanes[key, model] = Lane(key, model, self._limit_of(key, model))
        return lane

    def set_limit(self, limit: Limit) -> None:
        """In the place of the one with the same key and model; holds from the next arrival on. Raises Refusal."""
        if len(self._limits) >= LIMITS_MAX:
            raise Refusal(400, f"{LIMITS_MAX} limits are set; clear them first.")
        kept = [each for each in self._limits if (each.key, each.model) != (limit.key, limit.model)]
        # The narrowest rules; between equals the later.
        self._limits = sorted(
            [limit, *kept], key=lambda each: (narrowness(each.key), narrowness(each.model)), reverse=True
        )
        self._apply()

    def clear_limits(self) -> None:
        self._limits = []
        self._apply()

    def limits(self) -> Sequence[Limit]:
        return self._limits

    def snapshot(self) -> Sequence[tuple[Lane, Sequence[Arrival]]]:
        """What `report` reads, so that it can be made in another thread."""
        return [(lane, list(lane.arrivals)) for lane in self._lanes.values()]

    def report(self, snapshot: Sequence[tuple[Lane, Sequence[Arrival]]], bucket_s: float) -> dict[str, Any]:
        """`bucket_s` is how finely `used` is cut, from the first arrival of all on."""
        firsts = [arrivals[0].at_s for _, arrivals in snapshot if arrivals]
        start_s = min(firsts, default=self.clock())
        lanes = [self._lane_report(lane, arrivals, start_s, bucket_s) for lane, arrivals in snapshot]
        return {
            "start_s": start_s + self._epoch_s,
            "now_s": self.clock() + self._epoch_s,
            "window_s": WINDOW_S,
            "bucket_s": bucket_s,
            "violations": sum(len(lane["violations"]) for lane in lanes),
            "forgotten": sum(lane.arrived - len(arrivals) for lane, arrivals in snapshot),
            "lanes": lanes,
            "users": _users(arrival for _, arrivals in snapshot for arrival in arrivals),
        }

    def _lane_report(self, lane: Lane, arrivals: Sequence[Arrival], start_s: float, bucket_s: float) -> dict[str, Any]:
        found = [asdict(each) | {"at_s": each.at_s + self._epoch_s} for each in violations(arrivals)]
        outcomes = [arrival.outcome for arrival in arrivals]
        return {
            "key": lane.fingerprint,
            "model": lane.model,
            "limit": lane.limit.model_dump(exclude={"key"}) if lane.limit else None,
            "arrivals": len(arrivals),
            **{outcome: outcomes.count(outcome) for outcome in ("open", "served", "cut", "failed", "refused")},
            "tokens": sum(arrival.tokens for arrival in arrivals if not arrival.refused_for),
            "in_flight_max": max((arrival.in_flight for arrival in arrivals), default=0),
            "violations": found,
            "used": _used(arrivals, start_s, bucket_s),
        }

    def _limit_of(self, key: str, model: str) -> Limit | None:
        return next((each for each in self._limits if fits(each.key, key) and fits(each.model, model)), None)

    def _apply(self) -> None:
        for lane in self._lanes.values():
            lane.limit = self._limit_of(lane.key, lane.model)


def violations(arrivals: Sequence[Arrival]) -> Iterator[Violation]:
    """Of one lane, in order of arrival. A window ends with each arrival and holds what arrived in the 60 s before;
    tokens are counted as they are known now, so that an answer may put windows in the wrong that had passed.
    """
    # Calls may end meanwhile, in another thread: what is added must be what is subtracted.
    used = [0 if arrival.refused_for else arrival.tokens for arrival in arrivals]
    first = requests = tokens = 0
    for index, arrival in enumerate(arrivals):
        limit = arrival.limit
        if arrival.refused_for is not None:
            assert limit is not None, "only a limit refuses"
            yield _violation(arrival, arrival.refused_for, arrival.refused_at, _most(limit, arrival.refused_for))
            continue
        while arrivals[first].at_s <= arrival.at_s - WINDOW_S:
            requests -= arrivals[first].refused_for is None
            tokens -= used[first]
            first += 1
        requests += 1
        tokens += used[index]
        if limit is None:
            continue
        counts: Sequence[tuple[Measure, int]] = (
            ("requests", requests), ("tokens", tokens), ("concurrency", arrival.in_flight),
        )  # fmt: skip
        for measure, count in counts:
            most = _most(limit, measure)
            if most is not None and count > most:
                yield _violation(arrival, measure, count, most)


def _violation(arrival: Arrival, measure: Measure, count: int, most: int | None) -> Violation:
    return Violation(
        at_s=arrival.at_s,
        measure=measure,
        count=count,
        limit=most or 0,
        refused=arrival.refused_for is not None,
        call_id=arrival.call_id,
    )


def _most(limit: Limit, measure: Measure) -> int | None:
    if measure == "requests":
        return limit.requests_per_minute
    return limit.tokens_per_minute if measure == "tokens" else limit.concurrency


def _used(arrivals: Sequence[Arrival], start_s: float, bucket_s: float) -> list[dict[str, int]]:
    """One row a bucket in which something arrived: what was let in, what of it was served, and its tokens."""
    rows: dict[int, dict[str, int]] = {}
    for arrival in arrivals:
        if arrival.refused_for is None:
            bucket = floor((arrival.at_s - start_s) / bucket_s)
            row = rows.setdefault(bucket, {"bucket": bucket, "requests": 0, "served": 0, "tokens": 0})
            row["requests"] += 1
            row["served"] += arrival.outcome == "served"
            row["tokens"] += arrival.tokens
    return list(rows.values())


def _users(arrivals: Iterable[Arrival]) -> dict[str, dict[str, int]]:
    users: dict[str, dict[str, int]] = {}
    for arrival in arrivals:
        row = users.setdefault(arrival.user, {"arrivals": 0, "served": 0, "refused": 0, "tokens": 0})
        row["arrivals"] += 1
        row["served"] += arrival.outcome == "served"
        row["refused"] += arrival.outcome == "refused"
        row["tokens"] += 0 if arrival.refused_for else arrival.tokens
    return users

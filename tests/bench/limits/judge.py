"""What the simulator counted and the users saw, as figures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.simulator.usage import fingerprint
from tests.bench.limits.demand import Made
from tests.bench.limits.plan import SMALL_USERS, Key, Plan
from tests.bench.limits.weather import Sky

UNMET = 0.05
"""A user of whose calls more than this got no key asked for more than there was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What is judged, in Unix times."""

    begin: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """Of what the limits allowed, how much was used, as a share: while keys lived and were not told to rest, and
    while they lived."""

    of_ready: float
    of_live: float


def use(plan: Plan, report: Mapping[str, Any], sky: Sky, span: Span) -> Use:
    """Each key counts by the calls it could serve, and by the limit that binds it most; none makes up for another."""
    lanes = {lane["key"]: lane for lane in report["lanes"]}
    could = sum(key.calls_per_minute * _live_s(key, sky, span) for key in plan.keys)
    of_ready = of_live = 0.0
    for key in plan.keys:
        live_s, resting_s = _live_s(key, sky, span), _resting_s(key, sky, span)
        requests, tokens = _used(lanes.get(fingerprint(key.key)), report, span, span.begin + live_s)
        share = key.calls_per_minute * live_s / could
        of_ready += share * _fraction(key, requests, tokens, live_s - resting_s)
        of_live += share * _fraction(key, requests, tokens, live_s)
    return Use(of_ready=of_ready, of_live=of_live)


def fairness(answered: Sequence[float]) -> float:
    """Jain's index: 1 where all have the same, 1/n where one has all.

    Source: R. Jain, D. Chiu, W. Hawe, "A Quantitative Measure of Fairness", DEC TR-301, 1984.
    """
    squares = sum(value * value for value in answered)
    return sum(answered) ** 2 / (len(answered) * squares) if squares else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Of the calls that were begun while it is judged."""

    asked: Counter[int]
    answered: Counter[int]
    turned_away: Counter[int]

    @classmethod
    def of(cls, made: Sequence[Made], span: Span) -> "Served":
        judged = [each for each in made if span.begin <= each.end.began_at < span.end]
        return cls(
            asked=Counter(each.user for each in judged),
            answered=Counter(each.user for each in judged if each.end.kind == "answered"),
            turned_away=Counter(each.user for each in judged if each.end.kind == "refused"),
        )

    @property
    def unmet(self) -> Sequence[int]:
        """The users that asked for more than there was."""
        return [user for user, asked in sorted(self.asked.items()) if self.turned_away[user] > UNMET * asked]

    @property
    def small_share(self) -> float:
        """Of what the small users asked for, how much they got."""
        asked = sum(self.asked[user] for user in range(SMALL_USERS))
        return sum(self.answered[user] for user in range(SMALL_USERS)) / asked if asked else 1.0


def ends(made: Sequence[Made]) -> Mapping[str, int]:
    """How calls ended, refusals by their code."""
    return Counter(f"{each.end.kind} {each.end.code}".strip() for each in made)


def unclear(made: Sequence[Made]) -> Sequence[Made]:
    """Those with neither an answer nor an error that says what happened."""
    return [each for each in made if each.end.kind in ("cut", "unreachable", "wrong")]


def _live_s(key: Key, sky: Sky, span: Span) -> float:
    return min(span.end, sky.revoked_at.get(key.key, span.end)) - span.begin


def _resting_s(key: Key, sky: Sky, span: Span) -> float:
    end = span.begin + _live_s(key, sky, span)
    resting_s, until = 0.0, span.begin
    for begins, ends_at in sorted(sky.rests.get(key.key, ())):
        begins, ends_at = max(begins, until), min(ends_at, end)
        resting_s += max(0.0, ends_at - begins)
        until = max(until, ends_at)
    return resting_s


def _used(lane: Mapping[str, Any] | None, report: Mapping[str, Any], span: Span, until: float) -> tuple[int, int]:
    """Requests and tokens that arrived, by the buckets of the report that begin in the span."""
    requests = tokens = 0
    for row in lane["used"] if lane else ():
        at = report["start_s"] + row["bucket"] * report["bucket_s"]
        if span.begin <= at < until:
            requests += row["requests"]
            tokens += row["tokens"]
    return requests, tokens


def _fraction(key: Key, requests: int, tokens: int, seconds: float) -> float:
    by_requests = requests / (key.requests_per_minute * seconds / 60)
    by_tokens = tokens / (key.tokens_per_minute * seconds / 60) if key.tokens_per_minute else 0.0
    return min(1.0, max(by_requests, by_tokens))

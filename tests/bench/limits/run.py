"""One run: a whole installation with limited keys, asked for five times what they can serve."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from cluster.token_commands import IssuedToken
from runtime.errors import UnavailableError
from tests.bench.caller import Caller
from tests.bench.figures import figure
from tests.bench.limits import judge
from tests.bench.limits.demand import Demand, Made
from tests.bench.limits.judge import Span
from tests.bench.limits.plan import FAULTS, SMALL_SHARE, USERS, VARIABLE, Plan, make_plan
from tests.bench.limits.weather import Sky, Weather
from tests.e2e.live import Live

WARM_UP_S = 0.0
KEY_WAIT_S = 2
"""How long a call waits for a key: four of five wait in vain, and as many wait at once as come in this time."""
BUCKET_S = 0.5
USED_MIN, FAIRNESS_MIN = 0.95, 0.95
TOLD_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a run left to be judged."""

    made: Sequence[Made]
    sky: Sky
    span: Span
    report: Mapping[str, Any]
    """The simulator's."""


class Limits:
    """From a cold start: the keys' windows are empty, and the first seconds of five times the demand could use them up.

    With a warm-up all users ask for the same before that, together for just what there is; it is not judged, except
    that limits hold in it too.
    """

    def __init__(self, *, folder: Path, seed: int, say: Callable[[str], None]) -> None:
        self._live = Live.in_folder(folder)
        self._seed = seed
        self._say = say

    def run(self, seconds: float, warm_up_s: float = WARM_UP_S) -> list[dict[str, object]]:
        """Everything it starts is stopped when it returns."""
        plan = make_plan(self._seed, seconds)
        try:
            seen = self._run(plan, seconds, warm_up_s)
        finally:
            self._live.close()
            assert self._live.left() == []
        return self._figures(plan, seen)

    def _run(self, plan: Plan, seconds: float, warm_up_s: float) -> Seen:
        simulator = self._live.start_simulator()["OPENAI_BASE_URL"]
        asyncio.run(self._prepare(plan, simulator.removesuffix("/v1")))
        keys = [{"key": key.key, "active": True, "limits": key.limits} for key in plan.keys]
        up = self._live.run(
            "up",
            KEY_WAIT_SECONDS=str(KEY_WAIT_S), INITIAL_FREE_CREDITS="1000000", RATE_LIMIT_PER_MINUTE="1000000",
            **{f"{VARIABLE}_API_KEYS_JSON": json.dumps(keys), f"{VARIABLE}_BASE_URL": simulator},
        )  # fmt: skip
        if up.returncode != 0:
            raise UnavailableError(f"The service did not start: {up.stderr}")
        tokens = [self._token(f"user-{number}") for number in range(USERS)]
        self._say(
            f"seed {self._seed}: {plan.calls_per_s:.1f} calls/s can be served; {warm_up_s:g} s of that, then "
            f"{seconds:g} s of {sum(plan.rates):.0f} calls/s"
        )
        return asyncio.run(self._load(plan, simulator.removesuffix("/v1"), tokens, seconds, warm_up_s))

    async def _prepare(self, plan: Plan, simulator: str) -> None:
        async with aiohttp.ClientSession(raise_for_status=True) as http:
            for key in plan.keys:
                limit = {"key": key.key, "enforce": "record", **key.limits}
                async with http.post(f"{simulator}/simulator/limits", json=limit):
                    pass
            for number, fault in enumerate(FAULTS):
                async with http.post(f"{simulator}/simulator/faults", json={**fault, "seed": self._seed + number}):
                    pass

    def _token(self, user: str) -> str:
        return self._live.client.ask(IssuedToken, "POST", "tokens", {"user": user, "label": user}).token

    async def _load(self, plan: Plan, simulator: str, tokens: Sequence[str], seconds: float, warm_up_s: float) -> Seen:
        caller = Caller(self._live.url)
        demand = Demand(caller, tokens, self._seed)
        async with aiohttp.ClientSession() as http:
            weather = Weather(http, simulator)
            try:
                await demand.go_on([plan.calls_per_s / USERS] * USERS, warm_up_s)
                begin = time.time()
                await asyncio.gather(
                    demand.go_on(plan.rates, seconds), weather.blow(plan.rests, plan.revocations)
                )  # fmt: skip
                await demand.finish()
            finally:
                await caller.close()
            async with http.get(f"{simulator}/simulator/report", params={"bucket_s": str(BUCKET_S)}) as answer:
                report = await answer.json()
        span = Span(begin=begin, end=begin + seconds)
        return Seen(made=demand.made, sky=weather.sky, span=span, report=report)

    def _figures(self, plan: Plan, seen: Seen) -> list[dict[str, object]]:
        for lane in seen.report["lanes"]:
            for violation in lane["violations"][:TOLD_MAX]:
                self._say(f"seed {self._seed}: key {lane['key']}: {violation}")
        unclear = judge.unclear(seen.made)
        for each in unclear[:TOLD_MAX]:
            self._say(f"seed {self._seed}: unclear: {each}")
        served = judge.Served.of(seen.made, seen.span)
        used = judge.use(plan, seen.report, seen.sky, seen.span)
        unmet = [float(served.answered[user]) for user in served.unmet]
        fair = judge.fairness(unmet)
        seconds = seen.span.end - seen.span.begin
        asked, answered = sum(served.asked.values()), sum(served.answered.values())
        resting = sum(map(len, seen.sky.rests.values()))
        return [
            self._figure("calls", len(seen.made), "calls", _listed(judge.ends(seen.made))),
            self._figure(
                "calls asked for", round(asked / seconds, 1), "calls/s",
                f"{plan.calls_per_s:.1f} that the keys can serve", asked / seconds / plan.calls_per_s,
            ),
            self._figure("calls answered", round(answered / seconds, 1), "calls/s"),
            self._figure(
                "violations of limits", seen.report["violations"], "arrivals",
                f"{len(plan.keys)} keys, {sum(lane['arrivals'] for lane in seen.report['lanes'])} arrivals",
                target=0, holds=seen.report["violations"] == 0 and seen.report["forgotten"] == 0,
            ),
            self._figure(
                "capacity used", round(used.of_ready, 4), "of the time that keys lived and did not have to rest",
                f"{resting} rests, {len(seen.sky.revoked_at)} revoked",
                target=USED_MIN, holds=used.of_ready >= USED_MIN,
            ),
            self._figure("capacity used, rests not taken off", round(used.of_live, 4), "of the time that keys lived"),
            self._figure(
                "fairness (Jain)", round(fair, 4), "over what users with unmet demand got",
                f"{len(unmet)} users, {min(unmet, default=0):g} to {max(unmet, default=0):g} answers",
                target=FAIRNESS_MIN, holds=fair >= FAIRNESS_MIN,
            ),
            self._figure(
                "answered of users who ask for less than their share", round(served.small_share, 4), "of their calls",
                f"{SMALL_SHARE:g} of what each would get",
            ),
            self._figure(
                "calls without an answer or a clear error", len(unclear), "calls", target=0, holds=not unclear,
            ),
        ]  # fmt: skip

    def _figure(
        self,
        name: str,
        value: float,
        unit: str,
        against: str = "",
        ratio: float | None = None,
        *,
        target: float | None = None,
        holds: bool = True,
    ) -> dict[str, object]:
        rounded = None if ratio is None else round(ratio, 2)
        made = figure("limits", name, value, unit, against=against, ratio=rounded, target=target, holds=holds)
        return {**made, "seed": self._seed}


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))

"""Which keys there are, who asks how often, and what goes wrong when: all of it the seed's."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

from tests.bench.caller import Ask

RestForm = Literal["ms", "seconds"]

PROVIDER, MODEL = "deepseek", "deepseek-chat"
VARIABLE = "DEEPSEEK"
"""What the names of the provider's environment variables begin with."""
KEYS = 20
REVOKED = 2
TIMES_DEMANDED = 5.0
SMALL_USERS, LARGE_WEIGHTS = 2, (1.0, 1.0, 1.5, 2.0, 2.0, 3.0, 3.0, 4.0, 5.0, 6.0)
SMALL_SHARE = 0.4
"""Of what every user gets where all get the same: a small user asks for less than that, and so should get it all."""
USERS = SMALL_USERS + len(LARGE_WEIGHTS)

ANSWER_TOKENS = (30, 120)
DELAY_MS = (50, 400)
STREAMS = 0.5
CALL_TOKENS = 110.0
"""What a call uses about: the simulator's count of its question and the middle of `ANSWER_TOKENS`."""

FAULTS: Sequence[dict[str, Any]] = (
    {"kind": "status_500", "rate": 0.01},
    {"kind": "cut_stream", "rate": 0.01},
    {"kind": "error_in_stream", "rate": 0.005},
)
"""Going on all the time. Each strikes a call that took its place in the window."""
REST_EVERY_S = 4.0
REST_S = (0.5, 5.0)
"""How often some key is told by a 429 to rest, and for how long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    key: str
    requests_per_minute: int
    tokens_per_minute: int | None
    concurrency: int | None

    @property
    def calls_per_minute(self) -> float:
        """Of the calls that this benchmark makes."""
        by_tokens = float("inf") if self.tokens_per_minute is None else self.tokens_per_minute / CALL_TOKENS
        return min(float(self.requests_per_minute), by_tokens)

    @property
    def limits(self) -> dict[str, int]:
        names = ("requests_per_minute", "tokens_per_minute", "concurrency")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """A 429 that the next call with this key gets, `at_s` after the beginning of what is measured."""

    at_s: float
    key: Key
    rest_s: float
    form: RestForm


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    at_s: float
    key: Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    keys: Sequence[Key]
    rates: Sequence[float]
    """Calls a second that each user asks for while there is `TIMES_DEMANDED` too much; the small users come first."""
    rests: Sequence[Rest]
    revocations: Sequence[Revocation]

    @property
    def calls_per_s(self) -> float:
        """What all keys together can serve."""
        return sum(key.calls_per_minute for key in self.keys) / 60


def make_plan(seed: int, seconds: float) -> Plan:
    dice = random.Random(f"limits {seed}")
    keys = [_key(dice, seed, number) for number in range(KEYS)]
    calls_per_s = sum(key.calls_per_minute for key in keys) / 60
    small = [SMALL_SHARE * calls_per_s / USERS] * SMALL_USERS
    left = TIMES_DEMANDED * calls_per_s - sum(small)
    large = [left * weight / sum(LARGE_WEIGHTS) for weight in LARGE_WEIGHTS]
    revoked = [
        Revocation(at_s=seconds * dice.uniform(0.35, 0.65), key=key) for key in dice.sample(keys, REVOKED)
    ]  # fmt: skip
    rests = []
    at_s = dice.expovariate(1 / REST_EVERY_S)
    while at_s < seconds:
        form: RestForm = dice.choice(("ms", "seconds"))
        rest_s = round(dice.uniform(*REST_S), 1)
        # That header has no fractions.
        told_s = float(ceil(rest_s)) if form == "seconds" else rest_s
        rests.append(Rest(at_s=at_s, key=dice.choice(keys), rest_s=told_s, form=form))
        at_s += dice.expovariate(1 / REST_EVERY_S)
    return Plan(keys=keys, rates=[*small, *large], rests=rests, revocations=revoked)


def make_ask(dice: random.Random, token: str) -> Ask:
    tokens = dice.randint(*ANSWER_TOKENS)
    return Ask(
        wire="openai",
        model=f"{PROVIDER}/{MODEL}",
        token=token,
        text=f"synthetic tokens={tokens} delay_ms={dice.randint(*DELAY_MS)} seed={tokens}\n" + "why " * 24,
        tokens_max=tokens,
        streams=dice.random() < STREAMS,
    )


def _key(dice: random.Random, seed: int, number: int) -> Key:
    """Every third key is bound by its tokens, every fourth also by how many calls it takes at once."""
    requests = dice.randint(60, 240)
    tokens = None
    if number % 3 == 0:
        requests = dice.randint(180, 300)
        tokens = int(requests * CALL_TOKENS * dice.uniform(0.6, 0.9))
    return Key(
        key=f"sim-limits-{seed}-{number:02}",
        requests_per_minute=requests,
        tokens_per_minute=tokens,
        concurrency=dice.randint(3, 6) if number % 4 == 1 else None,
    )

"""What is asked, by whom, and what goes wrong at the providers: call number n of a seed is always the same."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.ids import LOCAL_ADMIN
from tests.bench.caller import Ask, Wire

POOR = "poor"
"""Asks so much that its wallet is empty before the end."""
STINTED = "stinted"
"""Its token has a budget that does not last."""
USERS: Mapping[str, float] = {POOR: 0.25, STINTED: 0.07, **{f"user-{number}": 0.085 for number in range(8)}}
"""User -> share of the calls to models that are open to every role."""
CREDITS_PER_CALL = 0.012
"""What every wallet begins with, for each call of the run: `POOR` needs about 0.02 of them, nobody else half of it."""
BUDGET_PER_CALL = 0.0025

GROK, CLAUDE, GEMINI = "grok/grok-2", "claude/claude-3-5-haiku-20241022", "gemini/gemini-1.5-pro"
MODELS: Mapping[str, tuple[Wire, float]] = {
    GROK: ("openai", 0.80),
    CLAUDE: ("anthropic", 0.18),
    GEMINI: ("openai", 0.02),
}
"""Model -> the client's wire for most of its calls, and its share of them. None is free. The last speaks another wire
than any client here; the second is for the administrator alone."""
OTHER_WIRE = 0.1
"""Of a model's calls, so many come over the wire that it is not asked over usually."""
KEYS_PER_PROVIDER = 3

STREAMS = 0.5
SLOW = 0.15
"""Of the streams, so many take their time. A third of these are left by their client."""
LEFT = 0.33
ANSWER_TOKENS = (8, 60)
SLOW_PIECES = 12
PIECE_MS = 8
PIECE_TOKENS = 4
DELAY_MS = 20

FAULTS: Sequence[dict[str, Any]] = (
    {"kind": "status_429", "rate": 0.01, "retry_after_s": 0.05, "retry_form": "ms"},
    {"kind": "status_500", "rate": 0.004},
    {"kind": "status_503", "rate": 0.002},
    {"kind": "cut_stream", "rate": 0.01},
    {"kind": "error_in_stream", "rate": 0.003},
    {"kind": "malformed_wire", "rate": 0.003},
    {"kind": "empty_content", "rate": 0.002},
    {"kind": "missing_usage", "rate": 0.003, "wire": "openai"},
    {"kind": "missing_usage", "rate": 0.003, "wire": "anthropic"},
    {"kind": "slow_first_byte", "rate": 0.002, "delay_s": 0.5},
)
"""Going on all the time. Where Gemini leaves its usage out, the user is charged by the words (spec/assistant.md §2.3),
which no count of the provider can equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    number: int
    user: str
    ask: Ask


def planned(seed: int, number: int, tokens: Mapping[str, str]) -> Planned:
    """`tokens`: user -> bearer token. The call's number stands in the request, so that the simulator can name it."""
    dice = random.Random(f"call {seed}/{number}")
    model = dice.choices(_MODELS, _MODEL_SHARES)[0]
    user = LOCAL_ADMIN if model == CLAUDE else dice.choices(_USERS, _USER_SHARES)[0]
    wire = MODELS[model][0]
    if dice.random() < OTHER_WIRE:
        wire = "anthropic" if wire == "openai" else "openai"
    answer, pace, leaves_after = dice.randint(*ANSWER_TOKENS), "", None
    streams = dice.random() < STREAMS
    if streams and dice.random() < SLOW:
        answer, pace = SLOW_PIECES * PIECE_TOKENS, f" piece_ms={PIECE_MS} piece_tokens={PIECE_TOKENS}"
        if dice.random() < LEFT:
            leaves_after = dice.randint(1, SLOW_PIECES)
    ask = Ask(
        wire=wire,
        model=model,
        token=tokens[user],
        text=f"synthetic tokens={answer} delay_ms={DELAY_MS} seed={number % 50} user={tag(number)}{pace}",
        tokens_max=answer,
        streams=streams,
        leaves_after=leaves_after,
    )
    return Planned(number=number, user=user, ask=ask)


_MODELS, _MODEL_SHARES = list(MODELS), [share for _, share in MODELS.values()]
_USERS, _USER_SHARES = list(USERS), list(USERS.values())


def tag(number: int) -> str:
    return f"call-{number}"

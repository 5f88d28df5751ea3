"""The cost-aware tier router: small models first. Source: spec/assistant.md §3.8."""

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from runtime.catalogue.model import Model, Tier
from runtime.errors import BadInputError

Complexity = Literal["simple", "moderate", "complex"]
CostPreference = Literal["low", "balanced", "quality"]
Weakness = Literal["empty", "refusal", "invalid_tool_call", "too_complex"]
"""Why an answer is not good enough, so that a stronger model is asked."""

TIERS: tuple[Tier, ...] = get_args(Tier)
CAPABILITY: dict[Tier, float] = {"ultra_cheap": 0.3, "cheap": 0.5, "balanced": 0.7, "premium": 1.0}
_BASE: dict[Complexity, Tier] = {"simple": "ultra_cheap", "moderate": "cheap", "complex": "balanced"}
_SHIFT: dict[CostPreference, int] = {"low": -1, "balanced": 0, "quality": 1}

CONTEXT_TOKENS_MIN = 8_192
ESCALATION_MARGIN = 0.1
ESCALATIONS_MAX = 2


def tier_for(complexity: Complexity, preference: CostPreference) -> Tier:
    """Where to begin."""
    place = TIERS.index(_BASE[complexity]) + _SHIFT[preference]
    return TIERS[min(max(place, 0), len(TIERS) - 1)]


def choose(
    models: Iterable[Model], tier: Tier, *, tools: bool = False, context_tokens: int = CONTEXT_TOKENS_MIN
) -> Model:
    """The fastest model that can do it, of this tier or the next above that has one; of equally fast, the cheapest.

    `context_tokens` counts against the working windows. Raises BadInputError where no model is large enough.
    """
    able = [model for model in models if model.ranking and (not tools or "tools" in model.abilities)]
    for at_least in TIERS[TIERS.index(tier) :]:
        fitting = [model for model in able if _fits(model, at_least, context_tokens)]
        if fitting:
            return min(fitting, key=_slowness_and_price)
    raise BadInputError(
        f"No model that may be chosen takes {context_tokens} tokens{' and calls tools' if tools else ''}.",
        "Shorten the conversation, or name a model with a larger window.",
    )


def should_escalate(complexity: float, tier: Tier) -> bool:
    """Whether a question of this complexity (0 to 1) is too hard for the tier."""
    return complexity > CAPABILITY[tier] + ESCALATION_MARGIN


class Ladder:
    """One question's way up after weak answers: a tier at a time, at most twice, among the models it may use."""

    def __init__(
        self, models: Sequence[Model], tier: Tier, *, tools: bool = False, context_tokens: int = CONTEXT_TOKENS_MIN
    ) -> None:
        """`tier`: of the model that answered, or the one its route began with."""
        self.climbed: list[Weakness] = []
        self._models = models
        self._tier = tier
        self._tools = tools
        self._context_tokens = context_tokens

    def climb(self, weakness: Weakness) -> Model | None:
        """A model of a higher tier, which its caller then pays for; None at the top, and after two times."""
        above = TIERS[TIERS.index(self._tier) + 1 :]
        if len(self.climbed) == ESCALATIONS_MAX or not above:
            return None
        try:
            model = choose(self._models, above[0], tools=self._tools, context_tokens=self._context_tokens)
        except BadInputError:
            return None
        self.climbed.append(weakness)
        if model.ranking:
            self._tier = model.ranking.tier
        return model


def _fits(model: Model, tier: Tier, context_tokens: int) -> bool:
    ranking = model.ranking
    return ranking is not None and ranking.tier == tier and ranking.working_context_tokens >= context_tokens


def _slowness_and_price(model: Model) -> tuple[int, int]:
    ranking = model.ranking
    assert ranking is not None
    return -ranking.speed, ranking.input_udollars_per_mtok + ranking.output_udollars_per_mtok

"""One model of one provider: what it costs, how much it takes, and what it can do."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from runtime.ledger.money import Price

PROVIDER_ALIASES = {
    "xai": "grok",
    "x.ai": "grok",
    "google": "gemini",
    "anthropic": "claude",
    "llama": "groq",
}
"""Source: spec/assistant.md §2.1."""
ANY_MODEL = "*"

Ability = Literal["chat", "tools", "json_schema", "images", "embeddings"]
"""`json_schema`: the provider itself holds replies to a schema; any chat model can be told one in words."""
Profile = Literal["eco", "smart", "deep"]
Tier = Literal["ultra_cheap", "cheap", "balanced", "premium"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Where the tier router sees a model. Source: spec/assistant.md §3.8.

    Price and window are those it selects by, which need not be those a call is charged and bounded by. `speed` is
    from 1 to 10, the fastest.
    """

    tier: Tier
    input_udollars_per_mtok: int
    output_udollars_per_mtok: int
    working_context_tokens: int
    speed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One row of the catalogue. Prices in micro-dollars per million tokens, sizes in tokens."""

    provider: str
    name: str
    input_udollars_per_mtok: int
    output_udollars_per_mtok: int
    context_tokens: int
    output_tokens_max: int
    abilities: frozenset[Ability] = frozenset({"chat"})
    image_udollars: int = 0
    """For each picture of a request, beside its tokens."""
    image_tokens_max: int | None = None
    """The most one picture can count as; None where that is not known."""
    dimensions: int | None = None
    """How long the vectors are that it gives unasked; None where that is not known, or it gives none."""
    profiles: frozenset[Profile] = frozenset()
    ranking: Ranking | None = None
    effective_from: datetime | None = None
    """None: always."""
    is_active: bool = True
    """False: it may not be called."""
    notes: str = field(default="", compare=False)

    @property
    def id(self) -> str:
        """`provider/model`, as the gateway names it."""
        return f"{self.provider}/{self.name}"

    @property
    def price(self) -> Price:
        """Its id holds the figures, so a changed price can never pass for the one a call was made under."""
        image = f"-{self.image_udollars}" if self.image_udollars else ""
        return Price(
            pricing_id=f"{self.id}@{self.input_udollars_per_mtok}-{self.output_udollars_per_mtok}{image}",
            input_udollars_per_mtok=self.input_udollars_per_mtok,
            output_udollars_per_mtok=self.output_udollars_per_mtok,
            image_udollars=self.image_udollars,
        )


def canonical_provider(provider: str) -> str:
    """`grok` for `xAI`; an unknown provider is itself. Aliases count before any other check."""
    provider = provider.strip().lower()
    return PROVIDER_ALIASES.get(provider, provider)

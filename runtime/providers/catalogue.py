"""Models, their prices and their sizes. Only what stands here may be called; free models are priced 0 explicitly.

Source: spec/assistant.md §2.1 (aliases) and §2.2 (prices in USD per million tokens, context windows; the rows marked
"(default)" there carry their provider's default price). Output limits are the providers' published ones.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from runtime.errors import BadInputError, UnpricedModelError
from runtime.ledger.money import Price
from runtime.ledger.records import PriceRow

PROVIDER_ALIASES = {
    "xai": "grok",
    "x.ai": "grok",
    "google": "gemini",
    "anthropic": "claude",
    "llama": "groq",
}
ANY_MODEL = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One row of the catalogue. Prices in micro-dollars per million tokens, sizes in tokens."""

    provider: str
    name: str
    input_udollars_per_mtok: int
    output_udollars_per_mtok: int
    context_tokens: int
    output_tokens_max: int

    @property
    def id(self) -> str:
        """`provider/model`, as the gateway names it."""
        return f"{self.provider}/{self.name}"

    @property
    def price(self) -> Price:
        """Its id holds the figures, so a changed price can never pass for the one a call was made under."""
        return Price(
            pricing_id=f"{self.id}@{self.input_udollars_per_mtok}-{self.output_udollars_per_mtok}",
            input_udollars_per_mtok=self.input_udollars_per_mtok,
            output_udollars_per_mtok=self.output_udollars_per_mtok,
        )


class Catalogue:
    """Looks models up. A row named `*` speaks for every model of its provider."""

    def __init__(self, models: Iterable[Model]) -> None:
        self._models: Mapping[tuple[str, str], Model] = {(model.provider, model.name): model for model in models}

    def model(self, provider: str, name: str) -> Model:
        """Raises UnpricedModelError for a model without a price."""
        provider = canonical_provider(provider)
        if found := self._models.get((provider, name)):
            return found
        if every := self._models.get((provider, ANY_MODEL)):
            return Model(
                provider=provider,
                name=name,
                input_udollars_per_mtok=every.input_udollars_per_mtok,
                output_udollars_per_mtok=every.output_udollars_per_mtok,
                context_tokens=every.context_tokens,
                output_tokens_max=every.output_tokens_max,
            )
        known = ", ".join(model.id for model in self.listed([provider])) or "none of this provider"
        raise UnpricedModelError(
            f"{provider}/{name[:100]} has no price, so it may not be called.",
            f"Use a priced model ({known}), or add its price to the catalogue (runtime/providers/catalogue.py).",
        )

    def price(self, provider: str, name: str) -> Price:
        """Raises UnpricedModelError."""
        return self.model(provider, name).price

    def named(self, name: str) -> Model:
        """The model a client means: `provider/model`, or a bare model name that only one provider has.

        Raises BadInputError for anything else, UnpricedModelError for a model without a price.
        """
        provider, slash, rest = name.partition("/")
        if slash and rest and (canonical_provider(provider) in self._providers()):
            return self.model(provider, rest)
        same = [model for model in self._models.values() if model.name == name != ANY_MODEL]
        if len(same) == 1:
            return same[0]
        raise BadInputError(
            f"{name[:100]!r} is not a model's name.",
            "Name it provider/model, for example openai/gpt-4o-mini; GET /v1/models lists them.",
        )

    def listed(self, providers: Iterable[str]) -> list[Model]:
        """The named models of these providers, in the catalogue's order."""
        wanted = {canonical_provider(provider) for provider in providers}
        return [m for m in self._models.values() if m.provider in wanted and m.name != ANY_MODEL]

    def price_rows(self) -> list[PriceRow]:
        """Every price, for the ledger's `model_pricing` table."""
        return [
            PriceRow(
                pricing_id=model.price.pricing_id,
                provider=model.provider,
                model=model.name,
                input_udollars_per_mtok=model.input_udollars_per_mtok,
                output_udollars_per_mtok=model.output_udollars_per_mtok,
            )
            for model in self._models.values()
        ]

    def _providers(self) -> set[str]:
        return {provider for provider, _ in self._models}


def canonical_provider(provider: str) -> str:
    """`grok` for `xAI`; an unknown provider is itself. Aliases count before any other check."""
    provider = provider.strip().lower()
    return PROVIDER_ALIASES.get(provider, provider)


def _row(provider: str, name: str, price: tuple[int, int], context: int, output_max: int) -> Model:
    return Model(
        provider=provider,
        name=name,
        input_udollars_per_mtok=price[0],
        output_udollars_per_mtok=price[1],
        context_tokens=context,
        output_tokens_max=output_max,
    )


MODELS: tuple[Model, ...] = (
    _row("openai", "gpt-4o-mini", (150_000, 600_000), 128_000, 16_384),
    _row("openai", "gpt-4o", (2_500_000, 10_000_000), 128_000, 16_384),
    _row("openai", "gpt-4-turbo", (10_000_000, 30_000_000), 128_000, 4_096),
    _row("deepseek", "deepseek-chat", (140_000, 280_000), 64_000, 8_192),
    _row("deepseek", "deepseek-reasoner", (550_000, 2_190_000), 64_000, 64_000),
    _row("deepseek", "deepseek-coder", (140_000, 280_000), 64_000, 8_192),
    _row("groq", "llama-3.3-70b-versatile", (0, 0), 128_000, 32_768),
    _row("groq", "llama-3.1-70b-versatile", (0, 0), 128_000, 8_192),
    _row("groq", "llama-3.1-8b-instant", (0, 0), 128_000, 8_192),
    _row("groq", "mixtral-8x7b-32768", (0, 0), 32_768, 32_768),
    _row("openrouter", "meta-llama/llama-3.2-3b-instruct:free", (0, 0), 64_000, 64_000),
    _row("openrouter", "meta-llama/llama-3.1-8b-instruct:free", (0, 0), 64_000, 64_000),
    _row("grok", "grok-beta", (5_000_000, 15_000_000), 128_000, 128_000),
    _row("grok", "grok-2-latest", (5_000_000, 15_000_000), 128_000, 128_000),
    _row("grok", "grok-2", (5_000_000, 15_000_000), 128_000, 128_000),
    _row("grok", "grok-2-mini", (5_000_000, 15_000_000), 128_000, 128_000),
    _row("ollama", ANY_MODEL, (0, 0), 32_000, 32_000),
)

CATALOGUE = Catalogue(MODELS)

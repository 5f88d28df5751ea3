"""A model as it is listed: by an administrator, in the table, in an import, and in the file of built-in models."""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StrictBool,
    model_validator,
)

from runtime.catalogue.model import ANY_MODEL, Ability, Model, Profile, Ranking, Tier, canonical_provider

UDOLLARS_MAX = 10**12
UDOLLARS_PER_DOLLAR = 10**6
TOKENS_MAX = 100_000_000
_PROVIDER = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,254}")


def is_model_name(name: str) -> bool:
    """Whether a service may be asked for it: names end up in URLs, logs and tables."""
    return _MODEL.fullmatch(name) is not None and ".." not in name


def _provider(value: object) -> object:
    if isinstance(value, str):
        value = canonical_provider(value)
        if not _PROVIDER.fullmatch(value):
            raise ValueError("must be a provider's id: letters, digits, - and _")
    return value


def _model(name: str) -> str:
    if name != ANY_MODEL and not is_model_name(name):
        raise ValueError("must be a model's name, or * for every model of the provider")
    return name


def _udollars(value: object) -> object:
    """Through decimals, never through binary fractions: 0.1 is 100,000 micro-dollars."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal) or len(str(value)) > 40:
        raise ValueError("must be an amount in USD")
    try:
        amount = Decimal(str(value).strip())
    except InvalidOperation:
        raise ValueError("must be an amount in USD") from None
    if not amount.is_finite() or not 0 <= amount <= UDOLLARS_MAX // UDOLLARS_PER_DOLLAR:
        raise ValueError(f"must be from 0 to {UDOLLARS_MAX // UDOLLARS_PER_DOLLAR} USD")
    udollars = amount * UDOLLARS_PER_DOLLAR
    if udollars != int(udollars):
        raise ValueError("must have at most 6 decimals")
    return int(udollars)


def usd(udollars: int) -> str:
    """`2.5` for 2,500,000; exact."""
    return f"{(Decimal(udollars) / UDOLLARS_PER_DOLLAR).normalize():f}"


def _moment(value: object) -> object:
    """A day is its first moment in UTC; a time must say its zone."""
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value.strip()):
        value = date.fromisoformat(value.strip())
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime.combine(value, time(), UTC)
    if value is not None and not isinstance(value, str | datetime):
        raise ValueError("must be a date, or a time with its zone, such as 2026-12-01T00:00:00Z")
    return value


def _in_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("must say its zone, such as 2026-12-01T00:00:00Z")
    return moment.astimezone(UTC)


def _listed(value: object) -> object:
    """A table's cell holds words, where other files hold a list."""
    return value.replace(",", " ").split() if isinstance(value, str) else value


def _whole(value: object) -> object:
    """Digits of a table's cell count as a number; true and 1.0 do not."""
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9][0-9_]{0,11}\s*", value):
        return int(value)
    if value is not None and type(value) is not int:
        raise ValueError("must be a whole number")
    return value


def _boolean(value: object) -> object:
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    return value


Dollars = Annotated[int, BeforeValidator(_udollars), PlainSerializer(usd, return_type=str)]
"""Given in USD, as a number or a text; kept in micro-dollars."""
_SORTED = PlainSerializer(sorted, return_type=list[str])
Count = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=TOKENS_MAX)]


class ListedModel(BaseModel):
    """What may be said of a model. None: not said, so it stays as it is or becomes the provider's default."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    provider: Annotated[str, BeforeValidator(_provider)]
    model: Annotated[str, AfterValidator(_model)]
    input_cost_per_million_tokens: Dollars | None = None
    output_cost_per_million_tokens: Dollars | None = None
    image_input_cost_per_image: Dollars | None = None
    currency: Literal["USD"] = "USD"
    effective_from: Annotated[datetime, BeforeValidator(_moment), AfterValidator(_in_utc)] | None = None
    is_active: Annotated[StrictBool, BeforeValidator(_boolean)] | None = None
    context_tokens: Annotated[Count, Field(ge=1)] | None = None
    output_tokens_max: Count | None = None
    abilities: Annotated[frozenset[Ability], BeforeValidator(_listed), _SORTED] | None = None
    image_tokens_max: Count | None = None
    dimensions: Annotated[Count, Field(ge=1)] | None = None
    """Of an embedder whose name does not say it; built-in rows alone are asked."""
    profiles: Annotated[frozenset[Profile], BeforeValidator(_listed), _SORTED] | None = None
    tier: Tier | Literal[""] | None = None
    """Empty: in no tier."""
    ranking_input_cost: Dollars | None = None
    ranking_output_cost: Dollars | None = None
    working_context_tokens: Annotated[Count, Field(ge=1)] | None = None
    speed: Annotated[int, BeforeValidator(_whole), Field(ge=1, le=10)] | None = None
    notes: Annotated[str, Field(max_length=500)] | None = None

    @model_validator(mode="after")
    def _has_an_ability(self) -> Self:
        if self.abilities is not None and not self.abilities:
            raise ValueError("abilities must name at least one")
        return self

    @property
    def id(self) -> str:
        return f"{self.provider}/{self.model}"

    def over(self, base: "ListedModel | None") -> "ListedModel":
        """This, with what it leaves out taken from `base`."""
        if base is None:
            return self
        return ListedModel.model_construct(**{**_said(base), **_said(self)})

    def missing(self) -> list[str]:
        """What must be said before it can be called."""
        return [name for name in _NEEDED if getattr(self, name) is None]

    def entry(self) -> Model:
        """The catalogue's row. Nothing may be `missing`."""
        price_in, price_out = self.input_cost_per_million_tokens, self.output_cost_per_million_tokens
        assert price_in is not None
        assert price_out is not None
        assert self.context_tokens is not None
        assert self.output_tokens_max is not None
        assert self.abilities is not None
        return Model(
            provider=self.provider,
            name=self.model,
            input_udollars_per_mtok=price_in,
            output_udollars_per_mtok=price_out,
            context_tokens=self.context_tokens,
            output_tokens_max=self.output_tokens_max,
            abilities=self.abilities,
            image_udollars=self.image_input_cost_per_image or 0,
            image_tokens_max=self.image_tokens_max,
            dimensions=self.dimensions,
            profiles=self.profiles or frozenset(),
            ranking=self._ranking(self.tier, price_in, price_out, self.context_tokens) if self.tier else None,
            effective_from=self.effective_from,
            is_active=self.is_active is not False,
            notes=self.notes or "",
        )

    def _ranking(self, tier: Tier, price_in: int, price_out: int, context_tokens: int) -> Ranking:
        return Ranking(
            tier=tier,
            input_udollars_per_mtok=price_in if self.ranking_input_cost is None else self.ranking_input_cost,
            output_udollars_per_mtok=price_out if self.ranking_output_cost is None else self.ranking_output_cost,
            working_context_tokens=self.working_context_tokens or context_tokens,
            speed=self.speed or 1,
        )


def listed(model: Model) -> ListedModel:
    """A catalogue's row as it is listed; `listed(m).entry() == m`."""
    ranking = model.ranking
    return ListedModel.model_construct(
        provider=model.provider,
        model=model.name,
        input_cost_per_million_tokens=model.input_udollars_per_mtok,
        output_cost_per_million_tokens=model.output_udollars_per_mtok,
        image_input_cost_per_image=model.image_udollars,
        currency="USD",
        effective_from=model.effective_from,
        is_active=model.is_active,
        context_tokens=model.context_tokens,
        output_tokens_max=model.output_tokens_max,
        abilities=model.abilities,
        image_tokens_max=model.image_tokens_max,
        dimensions=model.dimensions,
        profiles=model.profiles,
        tier=ranking.tier if ranking else "",
        ranking_input_cost=ranking.input_udollars_per_mtok if ranking else None,
        ranking_output_cost=ranking.output_udollars_per_mtok if ranking else None,
        working_context_tokens=ranking.working_context_tokens if ranking else None,
        speed=ranking.speed if ranking else None,
        notes=model.notes,
    )


def _said(listing: ListedModel) -> Mapping[str, Any]:
    return {name: value for name, value in listing if value is not None}


_NEEDED = (
    "input_cost_per_million_tokens",
    "output_cost_per_million_tokens",
    "context_tokens",
    "output_tokens_max",
    "abilities",
)

"""Which models there are, at which price. Only what stands here may be called; free models are priced 0 explicitly.

The built-in rows stand in `models.toml`; an administrator's rows stand above them, each from its own date on.
"""

import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from runtime.catalogue.listing import ListedModel, is_model_name, listed
from runtime.catalogue.model import ANY_MODEL, PROVIDER_ALIASES, Model, Profile, canonical_provider
from runtime.errors import BadInputError, UnavailableError, UnpricedModelError
from runtime.ledger.money import Price
from runtime.ledger.records import PriceRow

__all__ = ["ANY_MODEL", "CATALOGUE", "PROVIDER_ALIASES", "Catalogue", "Model", "canonical_provider"]

NAMED_MAX = 12
"""Models that an error names."""
_FILE = Path(__file__).with_name("models.toml")


class Catalogue:
    """Looks models up. A row named `*` speaks for every model of its provider that has no row of its own.

    Of several rows of one model the newest that is in force by the clock counts. Reads nothing before it is asked.
    """

    def __init__(self, models: Iterable[Model], clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._models = models
        self._clock = clock

    @classmethod
    def of(cls, bodies: Iterable[str], clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> "Catalogue":
        """The built-in rows under those of the table, whose `body` texts these are.

        Raises UnavailableError where one cannot be read: it may hold a price that no other row tells.
        """
        try:
            rows = [ListedModel.model_validate_json(body).entry() for body in bodies]
        except (ValidationError, AssertionError) as error:
            raise UnavailableError(
                "The catalogue of models holds a row that this version cannot read.",
                "Start the version that wrote it, or set that model's price again.",
            ) from error
        return cls([*built_in(), *rows], clock)

    def model(self, provider: str, name: str) -> Model:
        """Raises UnpricedModelError for a model without a price, or one that is switched off."""
        provider = canonical_provider(provider)
        found = self._in_force((provider, name)) if name != ANY_MODEL else None
        if found is None and (every := self._in_force((provider, ANY_MODEL))) and is_model_name(name):
            found = replace(every, name=name)
        if found is not None and found.is_active:
            return found
        why = "has no price" if found is None else "is switched off"
        known = ", ".join(model.id for model in self.listed([provider])[:NAMED_MAX]) or "none of this provider"
        # People paste it, so nothing stands in it that a shell would read as more than a name.
        pasted = "/".join(part if is_model_name(part) else "NAME" for part in (provider, name))
        raise UnpricedModelError(
            f"{provider[:60]}/{name[:100]} {why}, so it may not be called.",
            f"Use a priced model ({known}); an administrator adds one with "
            f"`masterbuilder models set {pasted} --input USD --output USD`.",
        )

    def price(self, provider: str, name: str) -> Price:
        """Raises UnpricedModelError."""
        return self.model(provider, name).price

    def named(self, name: str) -> Model:
        """The model a client means: `provider/model`, or a bare model name that only one provider has.

        Raises BadInputError for anything else, UnpricedModelError for a model without a price.
        """
        provider, slash, rest = name.partition("/")
        if slash and rest and canonical_provider(provider) in self.providers:
            return self.model(provider, rest)
        same = [model for key in self._of_name.get(name, ()) if (model := self._callable(key))]
        if len(same) == 1:
            return same[0]
        raise BadInputError(
            f"{name[:100]!r} is not a model's name.",
            "Name it provider/model, for example openai/gpt-4o-mini; GET /v1/models lists them.",
        )

    def listed(self, providers: Iterable[str]) -> list[Model]:
        """The models of these providers that may be called by name, in the catalogue's order."""
        wanted = {canonical_provider(provider) for provider in providers}
        return [m for m in self.rows() if m.provider in wanted and m.name != ANY_MODEL and m.is_active]

    def rows(self) -> list[Model]:
        """Everything in force, `*` and what is switched off included."""
        return [model for key in self._rows if (model := self._in_force(key))]

    def upcoming(self) -> list[Model]:
        """What is not in force yet."""
        now = self._clock()
        every = (row for rows in self._rows.values() for row in rows)
        return [row for row in every if row.effective_from is not None and row.effective_from > now]

    def of_profile(self, provider: str, profile: Profile) -> Model | None:
        """The model that plays this profile at this provider: of several, the one listed last. None where none does.

        Source: spec/assistant.md §2.2.
        """
        keys = self._of_provider.get(canonical_provider(provider), ())
        models = [model for key in keys if (model := self._callable(key)) and profile in model.profiles]
        return max(models, key=lambda model: model.effective_from or _ALWAYS, default=None)

    def ranked(self) -> list[Model]:
        """What the tier router chooses from."""
        return [model for key in self._ranked if (model := self._callable(key)) and model.ranking]

    def price_rows(self) -> list[PriceRow]:
        """Every price in force or to come, for the ledger's `model_pricing` table."""
        prices = {
            model.price.pricing_id: PriceRow(
                pricing_id=model.price.pricing_id,
                provider=model.provider,
                model=model.name,
                input_udollars_per_mtok=model.input_udollars_per_mtok,
                output_udollars_per_mtok=model.output_udollars_per_mtok,
                image_udollars=model.image_udollars,
            )
            for model in (*self.rows(), *self.upcoming())
        }
        return list(prices.values())

    def completed(self, listing: ListedModel) -> ListedModel:
        """A listing with what it leaves out: as the model stands now, else as its provider's models usually are.

        Raises BadInputError where that leaves something out.
        """
        base = self._in_force((listing.provider, listing.model))
        whole = listing.over(listed(base) if base else _defaults(listing.provider, listing.model))
        if missing := whole.missing():
            raise BadInputError(f"{listing.id} lacks {', '.join(missing)}.", "Say it too.")
        if whole.output_tokens_max == 0 and "chat" in (whole.abilities or ()):
            raise BadInputError(f"{listing.id} may answer nothing: output_tokens_max is 0.", "Give its output limit.")
        if listing.effective_from is None:
            whole = whole.model_copy(update={"effective_from": self._clock()})
        return whole

    @cached_property
    def providers(self) -> frozenset[str]:
        return frozenset(provider for provider, _ in self._rows)

    @cached_property
    def _rows(self) -> Mapping[tuple[str, str], Sequence[Model]]:
        """Of each model, the newest first; of two of the same date, the later given."""
        rows: dict[tuple[str, str], list[Model]] = defaultdict(list)
        for model in self._models:
            rows[model.provider, model.name].insert(0, model)
        for of_one in rows.values():
            of_one.sort(key=lambda model: model.effective_from or _ALWAYS, reverse=True)
        return dict(rows)

    @cached_property
    def _of_name(self) -> Mapping[str, Sequence[tuple[str, str]]]:
        return _grouped((name, (provider, name)) for provider, name in self._rows if name != ANY_MODEL)

    @cached_property
    def _of_provider(self) -> Mapping[str, Sequence[tuple[str, str]]]:
        """Only of models that a profile uses at some time."""
        return _grouped((key[0], key) for key, rows in self._rows.items() if any(row.profiles for row in rows))

    @cached_property
    def _ranked(self) -> Sequence[tuple[str, str]]:
        return [key for key, rows in self._rows.items() if any(row.ranking for row in rows)]

    def _callable(self, key: tuple[str, str]) -> Model | None:
        model = self._in_force(key)
        return model if model and model.is_active else None

    def _in_force(self, key: tuple[str, str]) -> Model | None:
        rows = self._rows.get(key, ())
        if len(rows) == 1 and rows[0].effective_from is None:
            return rows[0]
        now = self._clock() if rows else _ALWAYS
        return next((row for row in rows if row.effective_from is None or row.effective_from <= now), None)


@cache
def built_in() -> Sequence[Model]:
    """The rows of `models.toml`."""
    models: Mapping[str, list[dict[str, Any]]] = _document()["models"]
    return tuple(
        ListedModel(provider=provider, **row).over(_defaults(provider, row["model"])).entry()
        for provider, rows in models.items()
        for row in rows
    )


@cache
def chains() -> Mapping[Profile, Sequence[str]]:
    """The providers of each profile, in the order they are tried. Source: spec/assistant.md §3.9."""
    given: Mapping[str, list[str]] = _document()["chains"]
    return {profile: tuple(given[profile]) for profile in get_args(Profile)}


def _defaults(provider: str, model: str) -> ListedModel:
    defaults: Mapping[str, dict[str, Any]] = _document()["defaults"]
    return ListedModel(provider=provider, model=model, **defaults.get(provider, defaults[ANY_MODEL]))


@cache
def _document() -> Mapping[str, Any]:
    with _FILE.open("rb") as file:
        return tomllib.load(file)


def _grouped(pairs: Iterable[tuple[str, tuple[str, str]]]) -> Mapping[str, Sequence[tuple[str, str]]]:
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, key in pairs:
        groups[name].append(key)
    return dict(groups)


class _BuiltIn:
    """Read when it is asked for, and not when this module is imported."""

    def __iter__(self) -> Any:
        return iter(built_in())


_ALWAYS = datetime.min.replace(tzinfo=UTC)
CATALOGUE = Catalogue(_BuiltIn())

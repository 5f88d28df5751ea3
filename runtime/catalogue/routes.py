"""Which models are tried for a call, in which order.

    provider/model     that model alone: nobody who names one is given another; also a bare name that one provider has
    eco, smart, deep   the profile's models, provider by provider
    auto               the profile that fits the question's difficulty, led by the tier router's choice among its
                       providers' models

What the operator and the caller's role, the token, the configured keys and the request rule out is left out, in this
order; where nothing remains, the error tells the rule that took the last. Source: spec/assistant.md §3.5 to §4.1.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

from runtime.catalogue.access import Access
from runtime.catalogue.catalogue import Catalogue, chains
from runtime.catalogue.difficulty import COMPLEXITY, Level, profile_for
from runtime.catalogue.endpoints import no_provider
from runtime.catalogue.model import ANY_MODEL, Ability, Model, Profile, canonical_provider
from runtime.catalogue.tiers import CONTEXT_TOKENS_MIN, Complexity, CostPreference, choose, tier_for
from runtime.errors import BadInputError, ForbiddenError, MasterbuilderError, NoProviderError
from runtime.ledger.port import Role

AUTO = "auto"
PROFILES: tuple[Profile, ...] = get_args(Profile)
NAMED_MAX = 12
"""Models that an error names."""
_LOWER: dict[Profile, Sequence[Profile]] = {"eco": (), "smart": ("eco",), "deep": ("smart", "eco")}
_IN_WORDS: dict[Ability, str] = {
    "chat": "answer a chat",
    "tools": "call tools",
    "json_schema": "be held to a JSON schema",
    "images": "look at pictures",
    "embeddings": "make embeddings",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a request asks of a model.

    `json_schema`: only where the provider itself must enforce the schema. `context_tokens`: question and answer
    together, rather too low than too high, because a model that is too small for it is not asked; of embeddings it
    does not count, because each of their texts has the window for itself.
    """

    tools: bool = False
    images: bool = False
    json_schema: bool = False
    embeddings: bool = False
    context_tokens: int = 0

    @property
    def abilities(self) -> Sequence[Ability]:
        if self.embeddings:
            return ("embeddings",)
        asked: dict[Ability, bool] = {"tools": self.tools, "json_schema": self.json_schema, "images": self.images}
        return ("chat", *(ability for ability, is_asked in asked.items() if is_asked))

    def met_by(self, model: Model) -> bool:
        is_large_enough = self.embeddings or model.context_tokens >= self.context_tokens
        return is_large_enough and model.abilities.issuperset(self.abilities)


class Routes:
    """`catalogue` may be replaced at any time: the next plan reads the new one."""

    def __init__(self, catalogue: Catalogue, access: Access | None = None) -> None:
        self.catalogue = catalogue
        self._access = access or Access()

    def plan(
        self,
        wanted: str,
        *,
        role: Role,
        need: Need,
        configured: Collection[str],
        allowed: Sequence[str] = (),
        cost_preference: CostPreference = "balanced",
        difficulty: Level | None = None,
    ) -> Sequence[Model]:
        """The models to try, in order; never empty.

        `allowed`: a token's `provider/model`, `provider/*` and profile names; empty for all. `configured`: the
        providers that have a key. `difficulty`: of the last user text, for `auto`; None counts as medium.
        Raises ForbiddenError, NoProviderError, UnpricedModelError, BadInputError, each with what to do instead.
        """
        rules = _Rules(self._access, role, need, configured, tuple(_canonical(entry) for entry in allowed))
        name = wanted.strip()
        profile = next((profile for profile in PROFILES if profile == name.lower()), None)
        if name.lower() == AUTO:
            return self._automatic(rules, difficulty or "medium", cost_preference)
        if profile is not None:
            return self._of_profile(rules, profile, (profile,))
        model = self._named(name, configured)
        rules.check_reachable(model.id, [model], ())
        if not need.met_by(model):
            raise self._unable(rules, model.id, [model])
        return [model]

    def permitted(self, *, role: Role, configured: Collection[str], allowed: Sequence[str] = ()) -> list[Model]:
        """Every listed model that may be called by name, for a list of models."""
        rules = _Rules(self._access, role, Need(), configured, tuple(_canonical(entry) for entry in allowed))
        return [model for model in self.catalogue.listed(configured) if rules.permit(model, ())]

    def _named(self, name: str, configured: Collection[str]) -> Model:
        """Also says that a model has no price where its provider is known by its key alone."""
        provider, _, model = name.partition("/")
        if model and canonical_provider(provider) in configured:
            return self.catalogue.model(provider, model)
        return self.catalogue.named(name)

    def _automatic(self, rules: "_Rules", level: Level, preference: CostPreference) -> Sequence[Model]:
        """The profile that fits; where nothing of it is left, the next lower one of which something is."""
        fitting = profile_for(level, rules.role)
        refusals: list[MasterbuilderError] = []
        for profile in (fitting, *_LOWER[fitting]):
            try:
                chain = self._of_profile(rules, profile, (AUTO, profile))
            except MasterbuilderError as refusal:
                refusals.append(refusal)
                continue
            first = self._tier_choice(rules, profile, COMPLEXITY[level], preference)
            return chain if first is None else [first, *(model for model in chain if model.id != first.id)]
        raise refusals[0]

    def _tier_choice(
        self, rules: "_Rules", profile: Profile, complexity: Complexity, preference: CostPreference
    ) -> Model | None:
        models = [
            model
            for model in self.catalogue.ranked()
            if model.provider in chains()[profile] and rules.permit(model, (AUTO, profile)) and rules.need.met_by(model)
        ]
        context_tokens = max(rules.need.context_tokens, CONTEXT_TOKENS_MIN)
        try:
            return choose(models, tier_for(complexity, preference), context_tokens=context_tokens)
        except BadInputError:
            return None

    def _of_profile(self, rules: "_Rules", profile: Profile, names: Sequence[str]) -> Sequence[Model]:
        """The profile's own models; where none of them can do what is asked, others of the same providers."""
        if profile == "deep" and rules.role == "DEMO":
            raise ForbiddenError(
                "The profile deep is for the roles FULL_ACCESS and ADMIN.",
                "Ask for `smart`, or for the role FULL_ACCESS (`/subscribe`).",
            )
        own = self._models(profile, [profile])
        rules.check_reachable(profile, own, names)
        others = [name for name in names if name != profile]  # A token for `eco` alone is none for what is dearer.
        for models, by in ((own, names), (self._models(profile, PROFILES), others)):
            if able := [model for model in models if rules.permit(model, by) and rules.need.met_by(model)]:
                return able
        raise self._unable(rules, profile, own)

    def _models(self, profile: Profile, playing: Iterable[Profile]) -> list[Model]:
        """What plays these profiles at the profile's providers, each once."""
        found = [self.catalogue.of_profile(provider, each) for provider in chains()[profile] for each in playing]
        return list({model.id: model for model in found if model}.values())

    def _unable(self, rules: "_Rules", name: str, models: Sequence[Model]) -> BadInputError:
        lacking = [
            ability for ability in rules.need.abilities if not any(ability in model.abilities for model in models)
        ]
        largest = max((model.context_tokens for model in models), default=0)
        if lacking:
            what = f"{name} cannot {' or '.join(_IN_WORDS[ability] for ability in lacking)}."
        elif rules.need.context_tokens > largest:
            what = f"{name} takes {largest} tokens at most; question and answer need {rules.need.context_tokens}."
        else:
            what = f"No model of {name} can do all that is asked at once."
        others = [m.id for m in self.catalogue.listed(rules.configured) if rules.permit(m, ()) and rules.need.met_by(m)]
        instead = f"Use one of: {', '.join(others[:NAMED_MAX])}." if others else "Shorten the request, or ask for less."
        return BadInputError(what, instead)


@dataclass(frozen=True, slots=True)
class _Rules:
    """What one call must keep to."""

    access: Access
    role: Role
    need: Need
    configured: Collection[str]
    allowed: Sequence[str]

    def permit(self, model: Model, names: Sequence[str]) -> bool:
        """`names` are those it was asked by beside its own."""
        return (
            self.access.refusal(model.provider, self.role) is None
            and self._allow(model, names)
            and model.provider in self.configured
        )

    def check_reachable(self, name: str, models: Sequence[Model], names: Sequence[str]) -> None:
        """Raises for the rule that takes the last of the models."""
        refusals = {model.provider: self.access.refusal(model.provider, self.role) for model in models}
        if models and all(refusals.values()):
            raise ForbiddenError(*next(refusal for refusal in refusals.values() if refusal))
        allowed = [model for model in models if not refusals[model.provider] and self._allow(model, names)]
        if models and not allowed:
            raise ForbiddenError(f"This token may not use {name}.", f"It may use: {self._allowed_in_words()}.")
        if any(model.provider in self.configured for model in allowed):
            return
        if not self.configured:
            raise no_provider()
        missing = no_provider(allowed[0].provider if allowed else None)
        others = ", ".join(dict.fromkeys(model.provider for model in allowed))
        raise NoProviderError(f"{name} needs a key of {others or 'a provider'}, and there is none.", missing.next_step)

    def _allow(self, model: Model, names: Sequence[str]) -> bool:
        entries = (model.id, f"{model.provider}/{ANY_MODEL}", *names)
        return not self.allowed or any(entry in self.allowed for entry in entries)

    def _allowed_in_words(self) -> str:
        more = len(self.allowed) - NAMED_MAX
        return ", ".join(self.allowed[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


def _canonical(entry: str) -> str:
    """Of a token's list, with the provider's alias resolved."""
    provider, slash, model = entry.strip().partition("/")
    return f"{canonical_provider(provider)}{slash}{model}"

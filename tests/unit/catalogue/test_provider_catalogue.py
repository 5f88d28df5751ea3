from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.catalogue.catalogue import CATALOGUE, Catalogue, built_in, chains
from runtime.catalogue.endpoints import SERVICES
from runtime.catalogue.listing import ListedModel, listed, usd
from runtime.catalogue.model import Model
from runtime.errors import BadInputError, UnavailableError, UnpricedModelError

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def row(**changes: object) -> str:
    said = {"provider": "openai", "model": "gpt-4o", "input_cost_per_million_tokens": "3", **changes}
    return CATALOGUE.completed(ListedModel.model_validate({"effective_from": NOW, **said})).model_dump_json()


def at(now: datetime, *bodies: str) -> Catalogue:
    return Catalogue.of(bodies, lambda: now)


@pytest.mark.parametrize(
    ("model", "cost_usd"),
    [
        ("gemini/gemini-2.0-flash", "0.0003"),
        ("openai/gpt-4o", "0.007500"),
        ("deepseek/deepseek-reasoner", "0.001645"),
        ("claude/claude-3-5-sonnet-20241022", "0.0105"),
        ("claude/claude-3-opus-20240229", "0.0525"),
        ("groq/llama-3.1-8b-instant", "0"),
    ],
)
def test_price__of_1000_input_and_500_output_tokens_is_the_worked_cost_of_the_specification(model, cost_usd):
    cost_pusd = CATALOGUE.price(*model.split("/", 1)).cost_pusd(1000, 500)
    assert cost_pusd == round(float(cost_usd) * 10**12)


def test_price__of_an_unlisted_model_is_refused_with_the_models_that_have_one():
    with pytest.raises(UnpricedModelError) as refused:
        CATALOGUE.price("openai", "gpt-9")
    assert "openai/gpt-4o-mini" in refused.value.next_step
    assert "masterbuilder models set openai/gpt-9" in refused.value.next_step
    with pytest.raises(UnpricedModelError):
        CATALOGUE.price("nobody", "gpt-4o")


def test_price__of_any_local_model_is_zero_and_says_so():
    for provider in ("ollama", "vllm"):
        price = CATALOGUE.price(provider, "qwen2.5-coder:7b")
        assert price.cost_pusd(10**6, 10**6) == 0
        assert price.pricing_id == f"{provider}/qwen2.5-coder:7b@0-0"


@pytest.mark.parametrize("name", ["../../x", "a b", "a\nb", "", "*", "ü", "x" * 256, "a?b", "a#b", "/a"])
def test_local_model__with_a_name_no_service_has_is_refused(name):
    with pytest.raises(UnpricedModelError):
        CATALOGUE.model("ollama", name)


def test_pricing_id__changes_with_the_price():
    def pricing_id(output: int, image: int = 0) -> str:
        model = Model(
            provider="p",
            name="m",
            input_udollars_per_mtok=1,
            output_udollars_per_mtok=output,
            context_tokens=1,
            output_tokens_max=1,
            image_udollars=image,
        )
        return Catalogue([model]).price("p", "m").pricing_id

    assert len({pricing_id(2), pricing_id(3), pricing_id(2, 1), pricing_id(2, 2)}) == 4


def test_named__takes_provider_slash_model_aliases_and_unique_bare_names():
    assert CATALOGUE.named("openai/gpt-4o").id == "openai/gpt-4o"
    assert CATALOGUE.named(" XAI/grok-beta").id == "grok/grok-beta"
    assert CATALOGUE.named("gpt-4o-mini").id == "openai/gpt-4o-mini"
    free = "openrouter/meta-llama/llama-3.2-3b-instruct:free"
    assert CATALOGUE.named(free).id == free


@pytest.mark.parametrize("name", ["", "/", "gpt-9", "openai", "nobody/gpt-4o", "*", "\0", "x" * 10_000])
def test_named__of_nonsense_is_refused_with_the_form_to_use(name):
    with pytest.raises(BadInputError, match="provider/model") as refused:
        CATALOGUE.named(name)
    assert len(str(refused.value)) < 500


def test_catalogue__holds_only_providers_that_can_be_called():
    assert {model.provider for model in built_in()} == set(SERVICES)
    assert {provider for chain in chains().values() for provider in chain} <= set(SERVICES)


@pytest.mark.parametrize(
    ("provider", "eco", "smart", "deep"),
    [
        ("gemini", "gemini-2.0-flash", "gemini-2.0-flash-thinking-exp", "gemini-2.5-pro-preview-05-06"),
        ("deepseek", "deepseek-chat", "deepseek-reasoner", "deepseek-reasoner"),
        ("groq", "llama-3.3-70b-versatile", "llama-3.3-70b-versatile", "llama-3.3-70b-versatile"),
        (
            "openrouter",
            "meta-llama/llama-3.2-3b-instruct:free",
            "meta-llama/llama-3.1-8b-instruct:free",
            "meta-llama/llama-3.1-8b-instruct:free",
        ),
        ("xai", "grok-beta", "grok-beta", "grok-beta"),
        ("openai", "gpt-4o-mini", "gpt-4o", "gpt-4o"),
        ("claude", "claude-3-5-haiku-20241022", "claude-3-5-sonnet-20241022", "claude-3-5-sonnet-20241022"),
    ],
)
def test_profiles__have_at_each_provider_the_model_of_the_specification(provider, eco, smart, deep):
    found = [CATALOGUE.of_profile(provider, profile) for profile in ("eco", "smart", "deep")]
    assert [model and model.name for model in found] == [eco, smart, deep]


@pytest.mark.parametrize(
    ("model", "context", "price"),
    [
        ("gemini/gemini-2.0-flash", 1_000_000, ("0.1", "0.4")),
        ("gemini/gemini-2.0-flash-thinking-exp", 32_000, ("0", "0")),
        ("gemini/gemini-2.5-pro-preview-05-06", 2_000_000, ("1.25", "10")),
        ("gemini/gemini-1.5-flash", 1_000_000, ("0.075", "0.3")),
        ("gemini/gemini-1.5-pro", 2_000_000, ("1.25", "5")),
        ("deepseek/deepseek-chat", 64_000, ("0.14", "0.28")),
        ("deepseek/deepseek-reasoner", 64_000, ("0.55", "2.19")),
        ("deepseek/deepseek-coder", 64_000, ("0.14", "0.28")),
        ("groq/llama-3.3-70b-versatile", 128_000, ("0", "0")),
        ("groq/mixtral-8x7b-32768", 32_768, ("0", "0")),
        ("openrouter/meta-llama/llama-3.1-8b-instruct:free", 64_000, ("0", "0")),
        ("grok/grok-beta", 128_000, ("5", "15")),
        ("grok/grok-2-mini", 128_000, ("5", "15")),
        ("openai/gpt-4o-mini", 128_000, ("0.15", "0.6")),
        ("openai/gpt-4-turbo", 128_000, ("10", "30")),
        ("claude/claude-3-5-haiku-20241022", 200_000, ("0.8", "4")),
        ("claude/claude-3-opus-20240229", 200_000, ("15", "75")),
    ],
)
def test_built_in_row__is_the_specification_s(model, context, price):
    found = CATALOGUE.named(model)
    assert found.context_tokens == context
    assert (usd(found.input_udollars_per_mtok), usd(found.output_udollars_per_mtok)) == price


def test_embeddings__are_models_that_do_nothing_else():
    found = {m.id: m for m in CATALOGUE.rows() if m.abilities == frozenset({"embeddings"})}
    assert {"openai/text-embedding-3-small", "openai/text-embedding-3-large", "gemini/text-embedding-004"} <= set(found)
    assert found["openai/text-embedding-3-small"].input_udollars_per_mtok == 20_000
    assert all(model.output_tokens_max == 0 for model in found.values())


def test_table_row__stands_above_the_built_in_one_from_its_date_on():
    body = row()
    assert at(NOW - timedelta(microseconds=1), body).price("openai", "gpt-4o") == CATALOGUE.price("openai", "gpt-4o")
    changed = at(NOW, body).model("openai", "gpt-4o")
    assert (changed.input_udollars_per_mtok, changed.output_udollars_per_mtok) == (3_000_000, 10_000_000)
    assert changed.abilities == CATALOGUE.model("openai", "gpt-4o").abilities
    assert changed.price.pricing_id != CATALOGUE.price("openai", "gpt-4o").pricing_id


@given(st.permutations(range(5)), st.integers(-1, 6))
def test_newest_row_in_force__counts_in_whatever_order_rows_come(order, hours):
    bodies = [
        row(effective_from=NOW + timedelta(hours=hour), input_cost_per_million_tokens=100 + hour) for hour in order
    ]
    found = at(NOW + timedelta(hours=hours), *bodies).price("openai", "gpt-4o").input_udollars_per_mtok
    assert found == (2_500_000 if hours < 0 else (100 + min(hours, 4)) * 10**6)


def test_row_switched_off__may_not_be_called_nor_listed_nor_played():
    catalogue = at(NOW, row(is_active=False))
    with pytest.raises(UnpricedModelError, match="switched off"):
        catalogue.named("openai/gpt-4o")
    with pytest.raises(BadInputError):
        catalogue.named("gpt-4o")
    assert "openai/gpt-4o" not in [model.id for model in catalogue.listed(["openai"])]
    assert catalogue.of_profile("openai", "smart") is None
    assert [model.is_active for model in catalogue.rows() if model.id == "openai/gpt-4o"] == [False]


def test_profile__is_played_by_the_model_listed_last():
    body = row(model="gpt-5", output_cost_per_million_tokens="9", profiles=["smart"])
    assert at(NOW, body).of_profile("openai", "smart").name == "gpt-5"
    assert at(NOW - timedelta(days=1), body).of_profile("openai", "smart").name == "gpt-4o"


def test_price_rows__are_those_in_force_and_to_come():
    ids = [price.pricing_id for price in at(NOW, row(effective_from=NOW + timedelta(days=1))).price_rows()]
    assert {"openai/gpt-4o@3000000-10000000", "openai/gpt-4o@2500000-10000000"} <= set(ids)
    later = [price.pricing_id for price in at(NOW + timedelta(days=2), row()).price_rows()]
    assert "openai/gpt-4o@2500000-10000000" not in later
    assert len(ids) == len(set(ids))


def test_completed__keeps_what_is_not_said_and_fills_a_new_model_with_its_provider_s_defaults():
    kept = CATALOGUE.completed(
        ListedModel(provider="openai", model="gpt-4o-mini", input_cost_per_million_tokens="0.2")
    ).entry()
    assert (kept.output_udollars_per_mtok, kept.profiles, kept.ranking.tier) == (600_000, {"eco"}, "balanced")
    assert kept.effective_from is not None
    new = CATALOGUE.completed(ListedModel(provider="anthropic", model="claude-9")).entry()
    assert (new.provider, new.input_udollars_per_mtok, new.context_tokens) == ("claude", 3_000_000, 200_000)


def test_completed__of_a_provider_without_default_price_must_be_told_one():
    with pytest.raises(BadInputError, match="input_cost_per_million_tokens, output_cost_per_million_tokens"):
        CATALOGUE.completed(ListedModel(provider="local", model="*"))
    local = CATALOGUE.completed(
        ListedModel(provider="local", model="*", input_cost_per_million_tokens=0, output_cost_per_million_tokens=0)
    )
    assert local.entry().context_tokens == 32_000


def test_completed__may_not_answer_nothing():
    with pytest.raises(BadInputError, match="output_tokens_max"):
        CATALOGUE.completed(ListedModel(provider="openai", model="gpt-4o", output_tokens_max=0))


def test_listing__goes_there_and_back_unchanged():
    for model in CATALOGUE.rows():
        assert listed(model).entry() == model
        body = listed(model).model_dump_json()
        assert ListedModel.model_validate_json(body).entry() == model
        assert len(body) < 4096


def test_catalogue__with_a_row_it_cannot_read_is_not_made():
    for body in ("{", '{"provider": "openai", "model": "x", "surprise": 1}', '{"provider": "openai", "model": "x"}'):
        with pytest.raises(UnavailableError):
            Catalogue.of([body])

import pytest

from runtime.errors import BadInputError, UnpricedModelError
from runtime.providers.catalogue import CATALOGUE, MODELS, Catalogue, Model
from runtime.providers.endpoints import SERVICES


@pytest.mark.parametrize(
    ("model", "cost_usd"),
    [("openai/gpt-4o", "0.007500"), ("deepseek/deepseek-reasoner", "0.001645"), ("groq/llama-3.1-8b-instant", "0")],
)
def test_price__of_1000_input_and_500_output_tokens_is_the_worked_cost_of_the_specification(model, cost_usd):
    cost_pusd = CATALOGUE.price(*model.split("/", 1)).cost_pusd(1000, 500)
    assert cost_pusd == round(float(cost_usd) * 10**12)


def test_price__of_an_unlisted_model_is_refused_with_the_models_that_have_one():
    with pytest.raises(UnpricedModelError) as refused:
        CATALOGUE.price("openai", "gpt-9")
    assert "openai/gpt-4o-mini" in refused.value.next_step
    with pytest.raises(UnpricedModelError):
        CATALOGUE.price("nobody", "gpt-4o")


def test_price__of_any_local_model_is_zero_and_says_so():
    price = CATALOGUE.price("ollama", "qwen2.5-coder:7b")
    assert price.cost_pusd(10**6, 10**6) == 0
    assert price.pricing_id == "ollama/qwen2.5-coder:7b@0-0"


def test_pricing_id__changes_with_the_price():
    def pricing_id(output: int) -> str:
        row = Model(
            provider="p",
            name="m",
            input_udollars_per_mtok=1,
            output_udollars_per_mtok=output,
            context_tokens=1,
            output_tokens_max=1,
        )
        return Catalogue([row]).price("p", "m").pricing_id

    assert pricing_id(2) != pricing_id(3)


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
    assert {model.provider for model in MODELS} <= set(SERVICES)

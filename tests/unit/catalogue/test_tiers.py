import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.catalogue.catalogue import CATALOGUE
from runtime.catalogue.tiers import TIERS, Ladder, choose, should_escalate, tier_for
from runtime.errors import BadInputError

RANKED = CATALOGUE.ranked()
COMPLEXITIES = ["simple", "moderate", "complex"]
PREFERENCES = ["low", "balanced", "quality"]


def test_ranked__are_the_models_of_the_specification_s_table():
    figures = {
        model.id: (
            model.ranking.tier,
            model.ranking.input_udollars_per_mtok,
            model.ranking.output_udollars_per_mtok,
            model.ranking.working_context_tokens,
            model.ranking.speed,
        )
        for model in RANKED
    }
    assert figures == {
        "groq/llama-3.1-8b-instant": ("ultra_cheap", 50_000, 80_000, 8_192, 10),
        "gemini/gemini-2.0-flash": ("ultra_cheap", 100_000, 150_000, 32_768, 9),
        "deepseek/deepseek-chat": ("cheap", 140_000, 280_000, 64_000, 7),
        "gemini/gemini-1.5-pro": ("cheap", 500_000, 1_500_000, 128_000, 6),
        "openai/gpt-4o-mini": ("balanced", 150_000, 600_000, 128_000, 8),
        "claude/claude-3-5-sonnet-20241022": ("balanced", 3_000_000, 15_000_000, 200_000, 5),
        "openai/gpt-4-turbo": ("premium", 10_000_000, 30_000_000, 128_000, 4),
        "claude/claude-3-opus-20240229": ("premium", 15_000_000, 75_000_000, 200_000, 3),
    }
    assert all("tools" in model.abilities for model in RANKED)


@pytest.mark.parametrize(
    ("complexity", "preference", "model"),
    [
        ("simple", "low", "llama-3.1-8b-instant"),
        ("simple", "balanced", "llama-3.1-8b-instant"),
        ("simple", "quality", "deepseek-chat"),
        ("moderate", "low", "llama-3.1-8b-instant"),
        ("moderate", "balanced", "deepseek-chat"),
        ("moderate", "quality", "gpt-4o-mini"),
        ("complex", "low", "deepseek-chat"),
        ("complex", "balanced", "gpt-4o-mini"),
        ("complex", "quality", "gpt-4-turbo"),
    ],
)
def test_choice__is_the_one_of_the_specification_s_table(complexity, preference, model):
    assert choose(RANKED, tier_for(complexity, preference), tools=True).name == model


@pytest.mark.parametrize(
    ("complexity", "context_tokens", "model"),
    [
        ("simple", 32_000, "gemini-2.0-flash"),
        ("simple", 100_000, "gemini-1.5-pro"),
        ("complex", 150_000, "claude-3-5-sonnet-20241022"),
    ],
)
def test_choice__goes_by_the_working_window(complexity, context_tokens, model):
    assert choose(RANKED, tier_for(complexity, "balanced"), context_tokens=context_tokens).name == model


def test_choice__above_every_window_is_an_error_and_not_a_model_that_is_too_small():
    with pytest.raises(BadInputError, match="200001 tokens") as refused:
        choose(RANKED, "ultra_cheap", context_tokens=200_001)
    assert refused.value.next_step


@given(
    st.lists(st.sampled_from(RANKED)),
    st.sampled_from(COMPLEXITIES),
    st.sampled_from(PREFERENCES),
    st.integers(0, 250_000),
)
def test_choice__always_fits_and_is_never_below_its_tier(models, complexity, preference, context_tokens):
    tier = tier_for(complexity, preference)
    at_least = TIERS.index(tier)
    fitting = [
        model
        for model in models
        if TIERS.index(model.ranking.tier) >= at_least and model.ranking.working_context_tokens >= context_tokens
    ]
    try:
        chosen = choose(models, tier, context_tokens=context_tokens)
    except BadInputError:
        assert not fitting
    else:
        assert chosen in fitting
        assert TIERS.index(chosen.ranking.tier) == min(TIERS.index(model.ranking.tier) for model in fitting)


@given(st.sampled_from(COMPLEXITIES))
def test_preference__never_lowers_a_tier_as_it_rises(complexity):
    places = [TIERS.index(tier_for(complexity, preference)) for preference in PREFERENCES]
    assert places == sorted(places)


def test_escalation__can_leave_the_balanced_tier():
    assert should_escalate(0.81, "balanced")
    assert not should_escalate(0.79, "balanced")
    assert not should_escalate(1.0, "premium")


def test_ladder__climbs_a_tier_at_a_time_and_twice_at_most():
    ladder = Ladder(RANKED, "ultra_cheap")
    assert ladder.climb("empty").ranking.tier == "cheap"
    assert ladder.climb("refusal").ranking.tier == "balanced"
    assert ladder.climb("invalid_tool_call") is None
    assert ladder.climbed == ["empty", "refusal"]


def test_ladder__ends_at_the_top_and_where_no_model_is_left():
    assert Ladder(RANKED, "premium").climb("empty") is None
    assert Ladder([], "cheap").climb("empty") is None
    assert Ladder(RANKED, "cheap", context_tokens=10**6).climb("empty") is None

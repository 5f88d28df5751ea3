import json
import pickle
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.catalogue.access import Access
from runtime.catalogue.catalogue import CATALOGUE, Catalogue, built_in
from runtime.catalogue.endpoints import SERVICES
from runtime.catalogue.model import Model
from runtime.catalogue.routes import Need, Routes
from runtime.errors import (
    AllProvidersFailedError,
    BadInputError,
    ForbiddenError,
    NoProviderError,
    UnpricedModelError,
)

EVERY = frozenset(SERVICES)


def plan(wanted: str, *, policy: str = "", catalogue: Catalogue = CATALOGUE, **rules: object) -> list[str]:
    given_rules = {"role": "FULL_ACCESS", "need": Need(), "configured": EVERY, **rules}
    routes = Routes(catalogue, Access.parse(policy))
    return [model.id for model in routes.plan(wanted, **given_rules)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("openai/gpt-4o", "openai/gpt-4o"),
        (" gpt-4o-mini ", "openai/gpt-4o-mini"),
        ("XAI/grok-beta", "grok/grok-beta"),
        ("google/gemini-1.5-pro", "gemini/gemini-1.5-pro"),
        ("anthropic/claude-3-opus-20240229", "claude/claude-3-opus-20240229"),
        ("llama/llama-3.1-8b-instant", "groq/llama-3.1-8b-instant"),
        ("openrouter/meta-llama/llama-3.2-3b-instruct:free", "openrouter/meta-llama/llama-3.2-3b-instruct:free"),
        ("ollama/qwen2.5-coder:7b", "ollama/qwen2.5-coder:7b"),
    ],
)
def test_explicit_model__is_a_chain_of_one(wanted, found):
    assert plan(wanted) == [found]


@pytest.mark.parametrize(
    ("profile", "role", "found"),
    [
        (
            "eco",
            "DEMO",
            ["gemini/gemini-2.0-flash", "groq/llama-3.3-70b-versatile", "deepseek/deepseek-chat"],
        ),
        (
            "smart",
            "DEMO",
            [
                "deepseek/deepseek-reasoner",
                "gemini/gemini-2.0-flash-thinking-exp",
                "groq/llama-3.3-70b-versatile",
            ],
        ),
        (
            "Deep",
            "FULL_ACCESS",
            [
                "deepseek/deepseek-reasoner",
                "gemini/gemini-2.5-pro-preview-05-06",
                "openai/gpt-4o",
                "claude/claude-3-5-sonnet-20241022",
            ],
        ),
    ],
)
def test_profile__is_the_chain_of_the_specification(profile, role, found):
    assert plan(profile, role=role) == found


def test_profile__skips_what_has_no_key_is_switched_off_or_not_the_token_s():
    assert plan("deep", configured={"openai", "claude"}) == ["openai/gpt-4o", "claude/claude-3-5-sonnet-20241022"]
    off = json.dumps({"default": {"google": {"enabled": False}}})
    assert plan("eco", policy=off) == ["groq/llama-3.3-70b-versatile", "deepseek/deepseek-chat"]
    assert plan("eco", allowed=["groq/*", "openai/gpt-4o"]) == ["groq/llama-3.3-70b-versatile"]
    assert len(plan("eco", allowed=["eco"])) == 3


def test_profile__with_tools_or_a_long_text_leaves_out_who_cannot():
    assert plan("smart", need=Need(tools=True)) == ["groq/llama-3.3-70b-versatile"]
    assert plan("eco", need=Need(context_tokens=200_000)) == ["gemini/gemini-2.0-flash"]
    assert plan("eco", need=Need(images=True)) == ["gemini/gemini-2.0-flash"]


def test_profile__whose_own_models_all_cannot_uses_others_of_the_same_providers():
    assert plan("smart", need=Need(tools=True), configured={"deepseek"}) == ["deepseek/deepseek-chat"]
    assert plan("smart", need=Need(tools=True), configured={"gemini"}) == [
        "gemini/gemini-2.0-flash",
        "gemini/gemini-2.5-pro-preview-05-06",
    ]


@pytest.mark.parametrize(
    ("difficulty", "role", "preference", "first"),
    [
        ("easy", "DEMO", "balanced", "groq/llama-3.1-8b-instant"),
        ("easy", "DEMO", "quality", "deepseek/deepseek-chat"),
        ("medium", "FULL_ACCESS", "low", "groq/llama-3.1-8b-instant"),
        ("medium", "FULL_ACCESS", "balanced", "deepseek/deepseek-chat"),
        (None, "FULL_ACCESS", "balanced", "deepseek/deepseek-chat"),
        ("hard", "FULL_ACCESS", "low", "deepseek/deepseek-chat"),
        ("hard", "FULL_ACCESS", "balanced", "openai/gpt-4o-mini"),
        ("hard", "ADMIN", "quality", "openai/gpt-4-turbo"),
        ("hard", "DEMO", "quality", "deepseek/deepseek-reasoner"),
    ],
)
def test_auto__begins_with_the_tier_router_s_choice_inside_the_fitting_profile(difficulty, role, preference, first):
    assert plan("auto", role=role, cost_preference=preference, difficulty=difficulty)[0] == first


def test_auto__has_the_chain_of_the_profile_it_chose_behind_it_and_nothing_twice():
    assert plan("AUTO", difficulty="hard") == [
        "openai/gpt-4o-mini",
        "deepseek/deepseek-reasoner",
        "gemini/gemini-2.5-pro-preview-05-06",
        "openai/gpt-4o",
        "claude/claude-3-5-sonnet-20241022",
    ]
    found = plan("auto", difficulty="easy", cost_preference="quality")
    assert found.count("deepseek/deepseek-chat") == 1


def test_auto__above_every_working_window_goes_by_the_whole_windows():
    need = Need(context_tokens=500_000)
    assert plan("auto", difficulty="easy", need=need) == ["gemini/gemini-2.0-flash"]
    with pytest.raises(BadInputError):
        plan("auto", difficulty="easy", need=Need(context_tokens=5_000_000))


def test_auto__of_a_profile_nothing_is_left_of_uses_the_next_lower_one():
    assert plan("auto", difficulty="hard", configured={"groq"})[0] == "groq/llama-3.3-70b-versatile"
    assert set(plan("auto", difficulty="hard", allowed=["eco"])) <= {
        "gemini/gemini-2.0-flash",
        "groq/llama-3.3-70b-versatile",
        "groq/llama-3.1-8b-instant",
        "deepseek/deepseek-chat",
    }
    assert plan("auto", difficulty="hard", allowed=["auto"]) == plan("auto", difficulty="hard")


@pytest.mark.parametrize(
    ("wanted", "rules", "error", "says"),
    [
        ("openai/gpt-4o", {"role": "DEMO"}, ForbiddenError, "FULL_ACCESS"),
        ("deep", {"role": "DEMO"}, ForbiddenError, "FULL_ACCESS"),
        ("groq/mixtral-8x7b-32768", {"policy": '{"default": {"llama": false}}'}, ForbiddenError, "switched"),
        ("openai/gpt-4o", {"allowed": ["openai/gpt-4o-mini", "eco"]}, ForbiddenError, "openai/gpt-4o-mini, eco"),
        ("smart", {"allowed": ["eco"]}, ForbiddenError, "It may use: eco"),
        ("auto", {"allowed": ["openrouter/*"]}, ForbiddenError, "openrouter/*"),
        ("eco", {"policy": '{"default": {"gemini":false,"groq":false,"deepseek":false}}'}, ForbiddenError, "switched"),
        ("openai/gpt-4o", {"configured": {"groq"}}, NoProviderError, "export OPENAI_API_KEY"),
        ("eco", {"configured": {"openai"}}, NoProviderError, "export GEMINI_API_KEY"),
        ("eco", {"configured": set()}, NoProviderError, "export OPENAI_API_KEY"),
        ("local/x", {"configured": {"local"}}, UnpricedModelError, "models set local/x"),
        ("openai/gpt-9", {}, UnpricedModelError, "openai/gpt-4o"),
        ("nobody/gpt-4o", {}, BadInputError, "provider/model"),
        ("", {}, BadInputError, "provider/model"),
        ("x" * 10_000, {}, BadInputError, "provider/model"),
        ("deepseek/deepseek-reasoner", {"need": Need(tools=True)}, BadInputError, "deepseek/deepseek-chat"),
        ("openai/gpt-4o", {"need": Need(context_tokens=128_001)}, BadInputError, "128000"),
        ("openai/gpt-4o", {"need": Need(embeddings=True)}, BadInputError, "openai/text-embedding-3-small"),
        ("openai/text-embedding-3-small", {}, BadInputError, "answer a chat"),
        ("eco", {"need": Need(embeddings=True)}, BadInputError, "openai/text-embedding-3-small"),
        ("ollama/../../etc/passwd", {}, UnpricedModelError, "no price"),
        ("openai/x; rm -rf ~", {}, UnpricedModelError, "models set openai/NAME"),
    ],
)
def test_plan__refuses_with_what_to_do_instead(wanted, rules, error, says):
    with pytest.raises(error) as refused:
        plan(wanted, **rules)
    assert type(refused.value) is error
    assert says in str(refused.value)
    assert refused.value.next_step
    assert len(str(refused.value)) < 800


def test_token_list__resolves_aliases_and_wildcards():
    assert plan("gemini/gemini-1.5-pro", allowed=["Google/gemini-1.5-pro"])
    assert plan("grok/grok-2", allowed=["xai/*"])
    with pytest.raises(ForbiddenError):
        plan("gemini/gemini-1.5-pro", allowed=["gemini/gemini-1.5-flash"])
    with pytest.raises(ForbiddenError):
        plan("groq/llama-3.3-70b-versatile", allowed=["eco"])


def test_embeddings__of_many_texts_are_not_bounded_by_one_text_s_window():
    need = Need(embeddings=True, context_tokens=100_000)
    assert plan("openai/text-embedding-3-small", need=need) == ["openai/text-embedding-3-small"]


def test_permitted__are_the_models_a_token_may_name():
    routes = Routes(CATALOGUE)
    listed = routes.permitted(role="DEMO", configured=EVERY, allowed=["gemini/*", "openai/*"])
    assert {model.provider for model in listed} == {"gemini"}
    assert routes.permitted(role="ADMIN", configured=set()) == []


def test_routes__read_the_catalogue_that_replaces_theirs():
    routes = Routes(CATALOGUE)
    routes.catalogue = Catalogue([model for model in built_in() if model.provider != "openai"])
    with pytest.raises(BadInputError):
        routes.plan("gpt-4o", role="ADMIN", need=Need(), configured=EVERY)


NAMES = st.sampled_from(["auto", "eco", "smart", "deep", *(model.id.replace("*", "m") for model in built_in())])
NEEDS = st.builds(
    Need,
    tools=st.booleans(),
    images=st.booleans(),
    json_schema=st.booleans(),
    embeddings=st.booleans(),
    context_tokens=st.integers(0, 3_000_000),
)
ALLOWED = st.lists(st.sampled_from(["eco", "smart", "deep", "auto", "gemini/*", "xai/*", "openai/gpt-4o"]), max_size=3)


@given(
    wanted=NAMES,
    role=st.sampled_from(["DEMO", "FULL_ACCESS", "ADMIN"]),
    need=NEEDS,
    configured=st.sets(st.sampled_from(sorted(EVERY))),
    allowed=ALLOWED,
    off=st.sets(st.sampled_from(sorted(EVERY)), max_size=3),
    level=st.sampled_from([None, "easy", "medium", "hard"]),
    preference=st.sampled_from(["low", "balanced", "quality"]),
)
def test_plan__never_breaks_a_rule(wanted, role, need, configured, allowed, off, level, preference):
    routes = Routes(CATALOGUE, Access({"default": dict.fromkeys(off, False)}))
    chain: list[Model] = []
    with suppress(ForbiddenError, NoProviderError, BadInputError):
        chain += routes.plan(
            wanted,
            role=role,
            need=need,
            configured=configured,
            allowed=allowed,
            cost_preference=preference,
            difficulty=level,
        )
        assert chain
    assert len({model.id for model in chain}) == len(chain)
    profiles = {"auto", "eco", "smart", "deep"}
    for model in chain:
        assert model.provider in configured
        assert model.provider not in off
        assert role != "DEMO" or model.provider not in ("openai", "claude")
        assert model.abilities >= set(need.abilities)
        assert need.embeddings or model.context_tokens >= need.context_tokens
        named = {model.id, f"{model.provider}/*", model.provider.replace("grok", "xai") + "/*"}
        assert not allowed or named & set(allowed) or (wanted in profiles and profiles & set(allowed))
    assert wanted in profiles or [model.id for model in chain] in ([], [wanted])


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ("{", "JSON"),
        ("[]", "object"),
        ('{"default": []}', "default"),
        ('{"nobody": {}}', "nobody"),
        ('{"default": {"gemnii": false}}', "gemnii"),
        ('{"DEMO": {"groq": "off"}}', "DEMO.groq"),
        ('{"DEMO": {"groq": {"enabled": 0}}}', "DEMO.groq"),
        ("[" * 100_000, "JSON"),
    ],
)
def test_policy__that_cannot_be_meant_is_refused_with_an_example(policy, says):
    with pytest.raises(BadInputError, match="PROVIDER_POLICY_JSON") as refused:
        Access.parse(policy)
    assert says in str(refused.value)


def test_policy__counts_a_role_s_switch_before_the_default_and_what_is_missing_as_on():
    access = Access.parse('{"default": {"groq": {"enabled": false}}, "ADMIN": {"groq": true}}')
    assert access.refusal("groq", "DEMO")
    assert access.refusal("groq", "ADMIN") is None
    assert access.refusal("gemini", "DEMO") is None
    assert Access.parse(" ").refusal("groq", "DEMO") is None


@pytest.mark.parametrize("provider", ["gemini", "deepseek", "groq", "openrouter", "grok", "openai", "claude", "local"])
def test_access__is_the_matrix_of_the_specification(provider):
    refused = Access().refusal(provider, "DEMO")
    assert (refused is not None) == (provider in ("openai", "claude", "local"))
    assert Access().refusal(provider, "FULL_ACCESS") is None
    assert Access().refusal(provider, "ADMIN") is None


def test_all_failed__keeps_one_own_text_per_attempt_across_processes():
    error = AllProvidersFailedError.of([("gemini/a", "It was slow."), ("groq/b", "Its key was refused.")])
    back = pickle.loads(pickle.dumps(error))
    assert isinstance(back, AllProvidersFailedError)
    assert back.attempts == (("gemini/a", "It was slow."), ("groq/b", "Its key was refused."))
    assert (back.message, back.next_step, back.charged) == (error.message, error.next_step, error.charged)
    assert "gemini/a: It was slow." in str(back)

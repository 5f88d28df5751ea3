import pytest

from runtime.catalogue.endpoints import (
    MORE_SERVICES,
    SERVICES,
    configured,
    endpoint_of,
    family,
    json_mode,
    no_provider,
    require_configured,
    services,
    variables,
)
from runtime.errors import BadInputError, NoProviderError


def test_configured__finds_what_has_a_key_with_its_own_or_the_usual_address():
    found = configured(
        {"OPENAI_API_KEY": " sk-1 ", "OPENAI_BASE_URL": "http://127.0.0.1:9999/v1/", "DEEPSEEK_API_KEY": "sk-2"}
    )
    assert [(e.provider, e.base_url, e.key) for e in found] == [
        ("openai", "http://127.0.0.1:9999/v1", "sk-1"),
        ("deepseek", "https://api.deepseek.com", "sk-2"),
    ]


def test_configured__counts_a_local_service_by_its_address_alone():
    (found,) = configured({"OLLAMA_BASE_URL": "http://127.0.0.1:11434"})
    assert (found.provider, found.base_url) == ("ollama", "http://127.0.0.1:11434/v1")
    (same,) = configured({"OLLAMA_BASE_URL": "http://127.0.0.1:11434/v1"})
    assert same.base_url == found.base_url


def test_configured__without_any_key_is_empty_and_requiring_one_says_what_to_type():
    assert configured({"OPENAI_API_KEY": "  ", "OPENAI_BASE_URL": "http://x/v1"}) == []
    with pytest.raises(NoProviderError) as refused:
        require_configured({})
    assert "export OPENAI_API_KEY=..." in refused.value.next_step
    assert "masterbuilder simulate" in refused.value.next_step


def test_no_provider__names_the_variable_of_the_provider_asked_for():
    assert "export XAI_API_KEY=..." in no_provider("xai").next_step
    assert "export OLLAMA_BASE_URL=" in no_provider("ollama").next_step
    assert "openai" in no_provider("unheard-of").next_step


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x",
        "127.0.0.1:80",
        "http://",
        "javascript:alert(1)",
        "http://user:secret@x/v1",
        "http://x/v1?key=1",
        "http://x/#a",
        "http://x:99999",
        "http://[::1",
        "http://x y/",
    ],
)
def test_configured__refuses_what_is_no_address(url):
    with pytest.raises(BadInputError, match="OPENAI_BASE_URL"):
        configured({"OPENAI_API_KEY": "sk", "OPENAI_BASE_URL": url})


def test_configured__refuses_a_key_with_strange_characters_without_showing_it():
    with pytest.raises(BadInputError) as refused:
        configured({"OPENAI_API_KEY": "sk-sécret"})
    assert "sécret" not in str(refused.value)


def test_endpoint__does_not_show_its_key():
    (endpoint,) = configured({"OPENAI_API_KEY": "sk-hidden"})
    assert "sk-hidden" not in repr(endpoint)


@pytest.mark.parametrize(
    ("provider", "base_url", "key", "url", "spoken"),
    [
        ("gemini", "https://generativelanguage.googleapis.com", "GEMINI_API_KEY", "GEMINI_BASE_URL", "gemini"),
        ("deepseek", "https://api.deepseek.com", "DEEPSEEK_API_KEY", "DEEPSEEK_BASE_URL", "openai"),
        ("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY", "GROQ_BASE_URL", "openai"),
        ("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", "OPENROUTER_BASE_URL", "openai"),
        ("grok", "https://api.x.ai/v1", "XAI_API_KEY", "XAI_BASE_URL", "openai"),
        ("openai", "https://api.openai.com/v1", "OPENAI_API_KEY", "OPENAI_BASE_URL", "openai"),
        ("claude", "https://api.anthropic.com", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "anthropic"),
    ],
)
def test_service__has_the_specification_s_address_and_key_and_any_other_address(provider, base_url, key, url, spoken):
    (usual,) = configured({key: "k"})
    assert (usual.provider, usual.base_url) == (provider, base_url)
    (other,) = configured({key: "k", url: "http://127.0.0.1:8900/x/"})
    assert other.base_url == "http://127.0.0.1:8900/x"
    assert family(provider) == spoken


@pytest.mark.parametrize(
    ("alias", "spoken"),
    [("Google", "gemini"), (" anthropic ", "anthropic"), ("xai", "openai"), ("llama", "openai"), ("local", "openai")],
)
def test_family__resolves_aliases_first_and_takes_strangers_for_openai_s(alias, spoken):
    assert family(alias) == spoken
    assert json_mode(alias) in ("json_schema", "json_object")


def test_vllm__is_configured_by_its_address_and_may_have_a_key():
    (found,) = configured({"VLLM_BASE_URL": "http://10.0.0.1:8001"})
    assert (found.base_url, found.key) == ("http://10.0.0.1:8001/v1", "vllm")
    (keyed,) = configured({"VLLM_BASE_URL": "http://10.0.0.1:8001/v1", "VLLM_API_KEY": "k1"})
    assert keyed.key == "k1"
    assert configured({"VLLM_API_KEY": "k1"}) == []


MORE = """[{"id": "local", "base_url": "http://127.0.0.1:8080/v1/"},
           {"id": "acme", "base_url": "https://acme.example/v1", "key_variable": "ACME_API_KEY"}]"""


def test_more_services__are_those_the_operator_names():
    environment = {MORE_SERVICES: MORE, "ACME_API_KEY": "k2"}
    assert [(e.provider, e.base_url, e.key) for e in configured(environment)] == [
        ("local", "http://127.0.0.1:8080/v1", "local"),
        ("acme", "https://acme.example/v1", "k2"),
    ]
    assert [e.provider for e in configured({MORE_SERVICES: MORE})] == ["local"]
    assert set(services(environment)) == {*SERVICES, "local", "acme"}
    assert services({}) == SERVICES


def test_variables__are_all_that_may_hold_a_key_or_an_address():
    names = variables({MORE_SERVICES: MORE})
    assert {"ACME_API_KEY", "OPENAI_API_KEY", "GEMINI_BASE_URL", "VLLM_API_KEY", MORE_SERVICES} <= names


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "Invalid JSON"),
        ("{}", "list"),
        ('[{"id": "local"}]', "0.base_url"),
        ('[{"id": "Local", "base_url": "http://x"}]', "0.id"),
        ('[{"id": "openai", "base_url": "http://x"}]', "openai is taken"),
        ('[{"id": "xai", "base_url": "http://x"}]', "xai is taken"),
        ('[{"id": "a", "base_url": "http://x"}, {"id": "a", "base_url": "http://y"}]', "a is taken"),
        ('[{"id": "a", "base_url": "ftp://x"}]', "base_url of a"),
        ('[{"id": "a", "base_url": "http://me:hunter2@x"}]', "password"),
        ('[{"id": "a", "base_url": "http://x", "key_variable": "JWT_SECRET"}]', "0.key_variable"),
        ('[{"id": "a", "base_url": "http://x", "key": "sk-1"}]', "0.key"),
    ],
)
def test_more_services__that_cannot_be_meant_are_refused_without_showing_what_stands_there(text, says):
    with pytest.raises(BadInputError, match=MORE_SERVICES) as refused:
        configured({MORE_SERVICES: text})
    assert says in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert "sk-1" not in str(refused.value)


def test_endpoint_of__a_key_given_by_hand_is_checked_the_same():
    assert endpoint_of(SERVICES["claude"], " k ").base_url == "https://api.anthropic.com"
    with pytest.raises(BadInputError):
        endpoint_of(SERVICES["claude"], "k\nx")

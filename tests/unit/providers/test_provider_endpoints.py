import pytest

from runtime.errors import BadInputError, NoProviderError
from runtime.providers.endpoints import configured, no_provider, require_configured


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


@pytest.mark.parametrize("url", ["ftp://x", "127.0.0.1:80", "http://", "javascript:alert(1)"])
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

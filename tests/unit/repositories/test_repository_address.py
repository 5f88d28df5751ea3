import pytest

from runtime.config import Settings
from runtime.errors import BadInputError
from runtime.repositories.address import Forges, checked_branch

GITEA = '{"https://Git.example.org:8443": "https://git.example.org:8443/api/v1/"}'


def forges(allowed: str = "") -> Forges:
    return Forges("https://github.com", "https://api.github.com", allowed)


@pytest.mark.parametrize("text", ["{}", "{}/", "{}.git", " {} "])
def test_address__is_what_was_understood_of_it(text: str) -> None:
    address = forges().address(text.format("https://github.com/octocat/Hello-World.js"))

    assert address.clone_url == "https://github.com/octocat/Hello-World.js.git"
    assert (address.repo_name, address.shown) == (
        "octocat__Hello-World.js",
        "https://github.com/octocat/Hello-World.js",
    )


def test_github__is_fetched_from_where_the_operator_says() -> None:
    address = Forges("http://127.0.0.1:9000/", "http://127.0.0.1:9000/api/v3").address("https://github.com/a/b")

    assert address.clone_url == "http://127.0.0.1:9000/a/b.git"
    assert address.forge.api_url == "http://127.0.0.1:9000/api/v3"
    assert address.shown == "https://github.com/a/b"


def test_forge__that_the_operator_allows_is_asked_and_no_other() -> None:
    allowed = forges(GITEA)
    address = allowed.address("https://git.example.org:8443/team/tool")

    assert address.forge.api_url == "https://git.example.org:8443/api/v1"
    assert address.repo_name == "git.example.org:8443__team__tool"
    assert address.repo_name != allowed.address("https://github.com/team/tool").repo_name
    for other in ("https://git.example.org/team/tool", "http://git.example.org:8443/team/tool"):
        with pytest.raises(BadInputError, match="may be cloned"):
            allowed.address(other)
    with pytest.raises(BadInputError):
        forges().address("https://git.example.org:8443/team/tool")


@pytest.mark.parametrize(
    "text",
    ["[]", "{", '{"file:///etc": "https://x"}', '{"https://x/y": "https://x"}', '{"https://a@x": "https://x"}'],
)
def test_settings__that_allow_what_is_no_forge_are_refused_at_the_start(text: str) -> None:
    with pytest.raises(BadInputError, match="GITHUB_ALLOWED_JSON"):
        Settings.from_environment({"GITHUB_ALLOWED_JSON": text})


@pytest.mark.parametrize("url", ["file:///srv", "github.com", "https://", "ext::sh"])
def test_settings__with_another_protocol_for_github_are_refused_at_the_start(url: str) -> None:
    with pytest.raises(BadInputError, match="GITHUB_URL"):
        Settings.from_environment({"GITHUB_URL": url})


@pytest.mark.parametrize("name", ["main", "feature/login", "v1.2", "release-2026_11", "dependabot/pip/a+b"])
def test_branch__of_an_ordinary_name_is_taken(name: str) -> None:
    assert checked_branch(name) == name


@pytest.mark.parametrize("name", ["-x", ".x", "a..b", "a//b", "a/", "a.", "a.lock", "a.lock/b", "a/.b", "a~1", "a:b"])
def test_branch__that_git_or_a_command_line_would_read_otherwise_is_refused(name: str) -> None:
    with pytest.raises(BadInputError):
        checked_branch(name)

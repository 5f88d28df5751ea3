"""What Ray may see of the caller's environment."""

from pathlib import Path

import pytest

from cluster.environment import (
    clean_environment,
    provider_variables,
    ray_environment,
    settings_as_environment,
    without_secrets,
)
from cluster.instance import MARK, Instance
from runtime.config import Secrets, Settings
from runtime.errors import BadInputError


@pytest.mark.parametrize(
    "name",
    [
        "OPENAI_API_KEY",
        "GOOGLE_API_KEYS_JSON",
        "TELEGRAM_BOT_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "JWT_SECRET_KEY",
        "DB_PASSWORD",
        "MASTERBUILDER_TOKEN",
        "github_token",
    ],
)
def test_secret__does_not_pass(name: str) -> None:
    assert without_secrets({name: "x", "PATH": "/bin"}) == {"PATH": "/bin"}


def test_rays_environment__is_settings_and_marks_without_secrets_and_without_another_ray(tmp_path: Path) -> None:
    given = {"PATH": "/bin", "OPENAI_API_KEY": "sk-1", "RAY_ADDRESS": "other:1", "KEY_WAIT_SECONDS": "7"}
    settings = Settings.from_environment(given, data_dir=tmp_path)
    secrets = Secrets.load(tmp_path, {})
    instance = Instance(data_dir=tmp_path)
    environment = ray_environment(given, settings, secrets, instance, tmp_path / "ray")
    assert environment["PATH"] == "/bin"
    assert environment["KEY_WAIT_SECONDS"] == "7.0"
    assert environment["DATA_DIR"] == str(tmp_path)
    assert environment[MARK] == instance.id
    assert environment["RAY_AUTH_TOKEN"] == secrets.ray_auth_token
    assert environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert "OPENAI_API_KEY" not in environment
    assert "RAY_ADDRESS" not in environment
    assert secrets.admin_token not in environment.values()


def test_token_of_the_bot__is_made_where_none_is_given_and_the_same_in_every_process(tmp_path: Path) -> None:
    made = Secrets.load(tmp_path, {}).bot_service_token
    assert Secrets.load(tmp_path, {}).bot_service_token == made != Secrets.load(tmp_path / "b", {}).bot_service_token
    given = "2f6c1a90b7d84e53a1c09f7e64d2b8355c0e9a71"
    assert without_secrets({"BOT_SERVICE_TOKEN": given}) == {}, "no process that runs others' code sees it"
    assert Secrets.keep(tmp_path, {"BOT_SERVICE_TOKEN": given}).bot_service_token == given
    assert Secrets.load(tmp_path, {}).bot_service_token == given, "as the API's replicas read it"


@pytest.mark.parametrize("text", ["CHANGE_ME", "a" * 40, "2f6c1a90b7d84e53 1c09f7e64d2b8355c0e9a71", "short-1"])
def test_token_of_the_bot__that_is_none_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInputError, match="BOT_SERVICE_TOKEN") as refused:
        Secrets.load(tmp_path, {"BOT_SERVICE_TOKEN": text})
    assert text not in str(refused.value)


def test_settings__come_back_the_same_from_the_environment_they_are_written_to(tmp_path: Path) -> None:
    settings = Settings.from_environment({"MARKUP_FACTOR": "1.25", "AIDER_VENV": "/opt/aider"}, data_dir=tmp_path)
    assert Settings.from_environment(settings_as_environment(settings)) == settings


def test_providers__are_handed_over_with_keys_and_addresses_and_nothing_else() -> None:
    given = {"OPENAI_API_KEY": "sk-1", "OPENAI_BASE_URL": "http://127.0.0.1:1/v1", "GITHUB_TOKEN": "x", "HOME": "/"}
    assert provider_variables(given) == {"OPENAI_API_KEY": "sk-1", "OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}
    assert provider_variables({"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}) == {}


def test_key_that_cannot_be_one__is_refused_by_name() -> None:
    with pytest.raises(BadInputError, match="OPENAI_API_KEY"):
        provider_variables({"OPENAI_API_KEY": "two words"})


def test_demos_environment__is_not_bent_by_the_callers_settings() -> None:
    given = {
        "HTTP_PORT": "1",
        "ARCHITECT_MODEL": "x/y",
        "OPENAI_BASE_URL": "http://a",
        "AIDER_VENV": "/a",
        "HOME": "/h",
    }
    kept = clean_environment(given)
    assert kept["AIDER_VENV"] == "/a"
    assert kept["HOME"] == "/h"
    assert not {"HTTP_PORT", "ARCHITECT_MODEL", "OPENAI_BASE_URL"} & kept.keys()

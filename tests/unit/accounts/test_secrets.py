"""The secrets of accounts: made once, taken from the environment, refused where anybody can guess them."""

import json
from pathlib import Path

import pytest

from runtime.accounts.secrets import ACCOUNT_SECRETS
from runtime.config import Secrets, Settings
from runtime.errors import BadInputError

GOOD = "6b1f0c93a7d84e52b8c1f09e7d64a2b8355c0e9a"


def test_secrets__are_made_once_and_differ(tmp_path: Path) -> None:
    first = Secrets.load(tmp_path, {})
    made = [first.unlock_code, first.bootstrap_code, first.jwt_secret, first.bot_service_token]
    assert len({*made}) == 4
    assert all(len(secret) >= 20 for secret in made)
    assert len(first.jwt_secret.encode()) >= 32
    assert Secrets.load(tmp_path, {}) == first
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_secrets_of_an_older_version__are_completed_and_all_processes_make_the_same(tmp_path: Path) -> None:
    Secrets.load(tmp_path, {})
    path = tmp_path / "secrets.json"
    kept = json.loads(path.read_text())
    older = {name: value for name, value in kept.items() if name not in ACCOUNT_SECRETS}
    path.write_text(json.dumps(older))
    loaded = Secrets.load(tmp_path, {})
    assert len(loaded.jwt_secret) >= 32
    assert loaded == Secrets.load(tmp_path, {}) == Secrets.keep(tmp_path, {}) == Secrets.load(tmp_path, {})
    assert json.loads(path.read_text())["unlock_code"] == loaded.unlock_code
    assert path.stat().st_mode & 0o777 == 0o600


def test_secrets__that_are_given_stay_for_processes_that_see_no_variable(tmp_path: Path) -> None:
    given = {"JWT_SECRET_KEY": GOOD, "DEMO_UNLOCK_CODE": "tell-no-one", "TELEGRAM_BOT_TOKEN": "1:abc"}
    Secrets.keep(tmp_path, given)
    kept = Secrets.load(tmp_path, {})
    assert (kept.jwt_secret, kept.unlock_code, kept.telegram_bot_token) == (GOOD, "tell-no-one", "1:abc")


@pytest.mark.parametrize("name", ["JWT_SECRET_KEY", "JWT_SECRET_KEY_PREVIOUS", "BOT_SERVICE_TOKEN"])
@pytest.mark.parametrize("secret", [GOOD[:31], "CHANGE_ME" * 5, "a" * 64])
def test_secret__that_is_short_or_a_placeholder_is_refused_by_name(tmp_path: Path, name: str, secret: str) -> None:
    with pytest.raises(BadInputError, match=name) as refusal:
        Secrets.load(tmp_path, {name: secret})
    assert secret not in str(refusal.value)


@pytest.mark.parametrize("code", ["DEMO2024", "ADMIN2024", "CHANGE_ME", "1234567", "aaaaaaaaaa"])
@pytest.mark.parametrize("name", ["DEMO_UNLOCK_CODE", "BOOTSTRAP_ADMIN_CODE"])
def test_code__that_anybody_can_guess_is_refused(tmp_path: Path, name: str, code: str) -> None:
    with pytest.raises(BadInputError, match=name):
        Secrets.load(tmp_path, {name: code})


def test_codes__must_differ(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="same"):
        Secrets.load(tmp_path, {"DEMO_UNLOCK_CODE": "tell-no-one", "BOOTSTRAP_ADMIN_CODE": "tell-no-one"})


@pytest.mark.parametrize("name", ["ADMIN_USER_IDS", "FULL_TELEGRAM_IDS", "DEMO_TELEGRAM_IDS", "ALLOWED_USER_IDS"])
@pytest.mark.parametrize(
    "text", ["[1, ]", "abc", "[true]", '["x"]', "1;2", "0", "-5", "[1.5]", "{}", "99" * 20, "1,,2"]
)
def test_list_of_ids__that_is_none_is_no_start(name: str, text: str) -> None:
    with pytest.raises(BadInputError, match=name):
        Settings.from_environment({name: text})


@pytest.mark.parametrize("text", ["[1, 22]", "1,22", " 1 , 22 ", '["1", 22]'])
def test_list_of_ids__is_read_either_way(tmp_path: Path, text: str) -> None:
    settings = Settings.from_environment({"ADMIN_USER_IDS": text, "FULL_TELEGRAM_IDS": "[]"})
    rules = settings.account_rules(Secrets.load(tmp_path, {}))
    assert rules.admin_ids == {1, 22}
    assert rules.full_ids == frozenset()
    assert rules.unlock_code

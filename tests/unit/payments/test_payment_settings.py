"""Who takes the money is a setting; the secret shared with them is not, and reaches nobody but the API."""

import json
import stat
from pathlib import Path

import pytest

from cluster.environment import ray_environment, settings_as_environment
from cluster.instance import Instance
from runtime.config import Secrets, Settings
from runtime.errors import BadInputError, NotFoundError, StoreUnavailableError, UnavailableError
from runtime.payments.products import PRODUCTS, more_credits, product_of
from runtime.payments.providers import Payments
from runtime.payments.secrets import FILE, PaymentSecrets
from runtime.payments.terms import parse_providers

SECRET = "2f6c1a90b7d84e53a1c09f7e64d2b8355c0e9a71"
NEWER = "77aa0c1f54e3b9d2c8661f0e9b3d4a52c7e8f019"
SHOP = {"id": "shop", "page_url": "https://pay.example.com/", "secret_variable": "SHOP_PAYMENT_SECRET"}
TERMS = parse_providers(json.dumps([SHOP]))


def test_products__cost_what_the_specification_says() -> None:
    """Source: spec/assistant.md §15."""
    told = {each.id: (each.amount_minor("XTR"), each.ucredits // 10**6, each.days) for each in PRODUCTS.values()}
    assert told == {
        "full_access_monthly": (500, 1_000, 30),
        "credits_100": (50, 100, 0),
        "credits_500": (200, 500, 0),
        "credits_1000": (350, 1_000, 0),
    }
    assert {each.usd_cents - 2 * each.stars for each in PRODUCTS.values()} == {0}, "a Star is sold for two cents"
    assert [each.amount_minor("USD") * 10**10 for each in PRODUCTS.values()] == [
        each.worth_pusd for each in PRODUCTS.values()
    ]
    assert product_of("credits_500").id == "credits_500"
    with pytest.raises(NotFoundError, match="credits_100"):
        product_of("full_access_yearly")


def test_who_needs_more__is_sent_to_the_operator_while_payments_are_off() -> None:
    assert more_credits(False) == "Ask the operator for credits."
    assert "operator" not in more_credits(True)


def test_payments__are_off_unless_they_are_switched_on() -> None:
    assert not Settings().payments_enabled
    given = {"PAYMENTS_ENABLED": "true", "PAYMENT_PROVIDERS_JSON": json.dumps([SHOP])}
    settings = Settings.from_environment(given)
    assert settings.payments_enabled
    assert Settings.from_environment(settings_as_environment(settings)) == settings


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "Shop"},
        {"id": "a/b"},
        {"id": ""},
        {"id": "telegram"},
        {"page_url": "http://pay.example.com/"},
        {"page_url": "ftp://127.0.0.1/"},
        {"page_url": "pay.example.com"},
        {"page_url": "https://"},
        {"page_url": "https://me:pw@pay.example.com/"},
        {"page_url": "https://pay.example.com/#top"},
        {"page_url": "https://pay.example.com/ x"},
        {"page_url": "https://[::1/"},
        {"secret_variable": "SHOP_PAYMENT"},
        {"secret_variable": SECRET},
        {"secret": SECRET},
    ],
)
def test_provider_that_cannot_be_one__is_refused_by_the_settings(changes: dict[str, str]) -> None:
    with pytest.raises(BadInputError, match="PAYMENT_PROVIDERS_JSON") as refused:
        Settings.from_environment({"PAYMENT_PROVIDERS_JSON": json.dumps([{**SHOP, **changes}])})
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("text", ["{", "{}", "[7]", json.dumps([SHOP, SHOP])])
def test_list_that_is_none__is_refused(text: str) -> None:
    with pytest.raises(BadInputError, match="PAYMENT_PROVIDERS_JSON"):
        parse_providers(text)


def test_page_on_this_machine__may_be_plain_http() -> None:
    (terms,) = parse_providers(json.dumps([{**SHOP, "page_url": "http://127.0.0.1:8900/pay"}]))
    assert terms.page_url == "http://127.0.0.1:8900/pay"


def test_secret__is_in_the_environment_of_no_process_of_the_service(tmp_path: Path) -> None:
    given = {"SHOP_PAYMENT_SECRET": SECRET, "PAYMENT_PROVIDERS_JSON": json.dumps([SHOP])}
    settings = Settings.from_environment(given, data_dir=tmp_path)
    secrets = Secrets.load(tmp_path, {})
    environment = ray_environment(given, settings, secrets, Instance(data_dir=tmp_path), tmp_path)
    assert SECRET not in environment.values()
    assert environment["PAYMENT_PROVIDERS_JSON"] == json.dumps([SHOP])


def test_secret_that_was_kept__is_known_without_the_environment_and_on_disk_only_sealed(tmp_path: Path) -> None:
    PaymentSecrets(tmp_path, {"SHOP_PAYMENT_SECRET": SECRET}).keep(TERMS)
    assert PaymentSecrets(tmp_path, {}).secret("SHOP_PAYMENT_SECRET") == SECRET.encode()
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert not any(SECRET.encode() in file.read_bytes() for file in tmp_path.iterdir())
    provider = Payments(TERMS, PaymentSecrets(tmp_path, {})).provider("shop")
    assert (provider.id, provider.currency) == ("shop", "USD")


def test_newer_secret__replaces_the_kept_one_and_a_start_without_any_keeps_it(tmp_path: Path) -> None:
    for environment in ({"SHOP_PAYMENT_SECRET": SECRET}, {"SHOP_PAYMENT_SECRET": NEWER}, {}):
        PaymentSecrets(tmp_path, environment).keep(TERMS)
    assert PaymentSecrets(tmp_path, {}).secret("SHOP_PAYMENT_SECRET") == NEWER.encode()
    assert PaymentSecrets(tmp_path, {"SHOP_PAYMENT_SECRET": SECRET}).secret("SHOP_PAYMENT_SECRET") == SECRET.encode()
    assert sorted(file.name for file in tmp_path.iterdir()) == [FILE, "secrets.json"]


@pytest.mark.parametrize("environment", [{}, {"SHOP_PAYMENT_SECRET": ""}, {"SHOP_PAYMENT_SECRET": "short"}])
def test_start_without_a_usable_secret__is_refused_by_name(tmp_path: Path, environment: dict[str, str]) -> None:
    with pytest.raises(BadInputError, match="SHOP_PAYMENT_SECRET"):
        PaymentSecrets(tmp_path, environment).keep(TERMS)
    assert not (tmp_path / FILE).exists()


def test_secret_nobody_gave__makes_the_provider_unavailable(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="SHOP_PAYMENT_SECRET"):
        Payments(TERMS, PaymentSecrets(tmp_path, {})).provider("shop")
    with pytest.raises(NotFoundError):
        Payments(TERMS, PaymentSecrets(tmp_path, {})).provider("another")


@pytest.mark.parametrize("damage", ["", "not base64!", "AAAA"])
def test_damaged_file__is_told_and_no_secret_is_guessed(tmp_path: Path, damage: str) -> None:
    PaymentSecrets(tmp_path, {"SHOP_PAYMENT_SECRET": SECRET}).keep(TERMS)
    (tmp_path / FILE).write_text(damage)
    with pytest.raises(StoreUnavailableError):
        PaymentSecrets(tmp_path, {}).secret("SHOP_PAYMENT_SECRET")

"""The secrets that accounts need: where each comes from, what is none. Source: spec/assistant.md §14, DESIGN §11."""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping

from runtime.errors import BadInputError

ACCOUNT_SECRETS = {
    "unlock_code": "DEMO_UNLOCK_CODE",
    "bootstrap_code": "BOOTSTRAP_ADMIN_CODE",
    "jwt_secret": "JWT_SECRET_KEY",
    "jwt_secret_previous": "JWT_SECRET_KEY_PREVIOUS",
    "bot_service_token": "BOT_SERVICE_TOKEN",
    "telegram_bot_token": "TELEGRAM_BOT_TOKEN",
    "webhook_secret_token": "WEBHOOK_SECRET_TOKEN",
}
"""Their names in `secrets.json`, and the variables that win over it."""
_BYTES_MIN = {"unlock_code": 8, "bootstrap_code": 8, "jwt_secret": 32, "jwt_secret_previous": 32,
              "bot_service_token": 32,
              "webhook_secret_token": 16}  # fmt: skip
_MAY_BE_MISSING = {"jwt_secret_previous", "telegram_bot_token", "webhook_secret_token"}
_PLACEHOLDER = re.compile(r"change[ _-]?(me|it|this)|placeholder|example|your[ _-]|secret[ _-]?key|(demo|admin)20\d\d",
                          re.IGNORECASE)  # fmt: skip
_CHARACTERS_MIN = 4
"""Different ones."""


def account_secrets(kept: Mapping[str, str], environment: Mapping[str, str], data_key: bytes) -> dict[str, str]:
    """By name. What neither says is made from `data_key`, so that all processes make the same.

    Raises BadInputError for a placeholder, one that is too short, and two codes that are the same.
    """
    found = {}
    for name, variable in ACCOUNT_SECRETS.items():
        given = environment.get(variable, "").strip()
        if given:
            _check(given, name, variable)
        made = "" if name in _MAY_BE_MISSING else _made(data_key, name)
        found[name] = given or kept.get(name) or made
    if hmac.compare_digest(found["unlock_code"].encode(), found["bootstrap_code"].encode()):
        raise BadInputError(
            "DEMO_UNLOCK_CODE and BOOTSTRAP_ADMIN_CODE are the same, so whoever may chat could administer.",
            "Change one of them, or unset both to have them made.",
        )
    return found


def _made(data_key: bytes, name: str) -> str:
    return base64.urlsafe_b64encode(hmac.new(data_key, name.encode(), hashlib.sha256).digest()).decode().rstrip("=")


def _check(given: str, name: str, variable: str) -> None:
    least = _BYTES_MIN.get(name, 1)
    if len(given.encode()) < least:
        raise BadInputError(
            f"{variable} is too short: it must have at least {least} bytes.",
            "Make one with `openssl rand -base64 32`, or unset it to have one made.",
        )
    if not given.isprintable() or any(each.isspace() for each in given):
        raise BadInputError(
            f"{variable} has a space or an invisible character in it: it was cut off, or is two things.",
            "Make one with `openssl rand -base64 32`, or unset it to have one made.",
        )
    if _PLACEHOLDER.search(given) or len(set(given)) < _CHARACTERS_MIN:
        raise BadInputError(
            f"{variable} is a placeholder, which anybody can guess.",
            "Make one with `openssl rand -base64 32`, or unset it to have one made.",
        )

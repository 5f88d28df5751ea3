"""Who may call which provider. Source: spec/assistant.md §4.1, and §3.9 and §21 for PROVIDER_POLICY_JSON."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from runtime.catalogue.endpoints import SERVICES
from runtime.catalogue.model import canonical_provider
from runtime.errors import BadInputError
from runtime.ledger.port import Role

POLICY = "PROVIDER_POLICY_JSON"
DEFAULT = "default"
DEMO_PROVIDERS = frozenset({"gemini", "deepseek", "groq", "openrouter", "grok", "ollama", "vllm"})
"""FULL_ACCESS and ADMIN may call every provider. What the operator added beside the list may cost them anything, so
DEMO may not call it."""
_EXAMPLE = '\'{"default": {"groq": {"enabled": false}}, "DEMO": {"grok": false}}\''


@dataclass(frozen=True, slots=True)
class Access:
    """`switched` holds, by `default` or role, which providers are on; one that is missing is on."""

    switched: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, known: Collection[str] = tuple(SERVICES)) -> "Access":
        """The value of PROVIDER_POLICY_JSON; empty for every provider on.

        A name that is no provider's is refused: whoever misspells one believes it to be off.
        Raises BadInputError naming the place.
        """
        if not text.strip():
            return cls()
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            raise _malformed("it is not JSON") from None
        return cls({scope: _switches(scope, given, known) for scope, given in _object("it", document).items()})

    def refusal(self, provider: str, role: Role) -> tuple[str, str] | None:
        """Why this role may not call this provider, and what to do; None where it may."""
        if role == "DEMO" and provider not in DEMO_PROVIDERS:
            return (
                f"The role DEMO may not use the provider {provider}.",
                "Ask for the role FULL_ACCESS (/subscribe), or name another provider.",
            )
        if not self._is_on(provider, role):
            return (f"The operator has switched the provider {provider} off.", "Name another provider.")
        return None

    def _is_on(self, provider: str, role: Role) -> bool:
        """A role's own switch counts before the default."""
        by_default = self.switched.get(DEFAULT, {}).get(provider, True)
        return self.switched.get(role, {}).get(provider, by_default)


def _switches(scope: str, given: Any, known: Collection[str]) -> Mapping[str, bool]:
    if scope != DEFAULT and scope not in get_args(Role):
        raise _malformed(f"{scope[:40]!r} is neither {DEFAULT} nor a role")
    switches: dict[str, bool] = {}
    for name, value in _object(scope, given).items():
        provider = canonical_provider(name)
        if provider not in known:
            raise _malformed(f"{scope}.{name[:40]}: there is no such provider")
        enabled = value.get("enabled", True) if isinstance(value, dict) else value
        if not isinstance(enabled, bool):
            raise _malformed(f"{scope}.{name[:40]} must be true or false")
        switches[provider] = enabled
    return switches


def _object(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _malformed(f"{where} must be an object")
    return value


def _malformed(what: str) -> BadInputError:
    return BadInputError(f"{POLICY} is not usable: {what}.", f"Give it as {_EXAMPLE}, or leave it out.")

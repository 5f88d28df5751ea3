"""Which model services there are, and which of them this installation has a key for.

Every service here speaks OpenAI's chat completions. Source: spec/assistant.md §2.1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from runtime.errors import BadInputError, NoProviderError
from runtime.providers.catalogue import canonical_provider

JsonMode = Literal["json_schema", "json_object"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A model service, and the environment variables that configure it."""

    provider: str
    key_variable: str | None
    """None for a service that wants no key: it is configured by its base URL alone."""
    url_variable: str
    base_url: str
    json_mode: JsonMode = "json_object"
    """What its `response_format` understands on every model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A service that may be called: where, and with which key."""

    provider: str
    base_url: str
    key: str = field(repr=False)


SERVICES: Mapping[str, Service] = {
    service.provider: service
    for service in (
        Service(
            provider="openai",
            key_variable="OPENAI_API_KEY",
            url_variable="OPENAI_BASE_URL",
            base_url="https://api.openai.com/v1",
            json_mode="json_schema",
        ),
        Service(
            provider="deepseek",
            key_variable="DEEPSEEK_API_KEY",
            url_variable="DEEPSEEK_BASE_URL",
            base_url="https://api.deepseek.com",
        ),
        Service(
            provider="groq",
            key_variable="GROQ_API_KEY",
            url_variable="GROQ_BASE_URL",
            base_url="https://api.groq.com/openai/v1",
        ),
        Service(
            provider="openrouter",
            key_variable="OPENROUTER_API_KEY",
            url_variable="OPENROUTER_BASE_URL",
            base_url="https://openrouter.ai/api/v1",
        ),
        Service(
            provider="grok",
            key_variable="XAI_API_KEY",
            url_variable="XAI_BASE_URL",
            base_url="https://api.x.ai/v1",
            json_mode="json_schema",
        ),
        Service(
            provider="ollama",
            key_variable=None,
            url_variable="OLLAMA_BASE_URL",
            base_url="http://127.0.0.1:11434",
            json_mode="json_schema",
        ),
    )
}


def configured(environment: Mapping[str, str]) -> list[Endpoint]:
    """The services this environment configures, in the table's order; maybe none.

    Raises BadInputError for a key or URL that cannot be one, without showing the key.
    """
    return [endpoint for service in SERVICES.values() if (endpoint := _endpoint(service, environment))]


def require_configured(environment: Mapping[str, str]) -> list[Endpoint]:
    """Like `configured`, but raises NoProviderError, which says what to type, where there is none."""
    if endpoints := configured(environment):
        return endpoints
    raise no_provider()


def no_provider(provider: str | None = None) -> NoProviderError:
    """What to tell someone who has no provider at all, or not this one."""
    simulator = "or run `masterbuilder simulate` and the two exports it prints (no key, no cost)"
    if provider is None:
        others = ", ".join(s.key_variable for s in SERVICES.values() if s.key_variable and s.provider != "openai")
        return NoProviderError(
            "No model provider is configured.",
            f"Run `export OPENAI_API_KEY=...` (or set {others}; for local models "
            f"`export OLLAMA_BASE_URL=http://127.0.0.1:11434`), {simulator}; then `masterbuilder up`.",
        )
    service = SERVICES.get(canonical_provider(provider))
    if service is None:
        return NoProviderError(f"There is no provider {provider[:60]!r}.", f"Use one of: {', '.join(SERVICES)}.")
    command = (
        f"`export {service.key_variable}=...`"
        if service.key_variable
        else f"`export {service.url_variable}={service.base_url}`"
    )
    return NoProviderError(
        f"The provider {service.provider} is not configured.",
        f"Run {command}, {simulator}; then `masterbuilder up`.",
    )


def _endpoint(service: Service, environment: Mapping[str, str]) -> Endpoint | None:
    url = environment.get(service.url_variable, "").strip()
    if service.key_variable is None:
        if not url:
            return None
        key = service.provider
    else:
        key = environment.get(service.key_variable, "").strip()
        if not key:
            return None
        if not key.isascii() or not key.isprintable() or " " in key:
            raise BadInputError(
                f"{service.key_variable} is not a key: it holds characters no key has.",
                f"Copy the key again: `export {service.key_variable}=...`.",
            )
    return Endpoint(provider=service.provider, base_url=_base_url(service, url), key=key)


def _base_url(service: Service, given: str) -> str:
    url = (given or service.base_url).rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInputError(
            f"{service.url_variable} is not a web address.",
            f"Give it as `export {service.url_variable}={service.base_url}`.",
        )
    if service.provider == "ollama" and not parts.path.endswith("/v1"):
        url += "/v1"
    return url

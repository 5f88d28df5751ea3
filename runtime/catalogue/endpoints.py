"""Which model services there are, how each is spoken to, and which of them this installation has a key for.

Beside the services named here, OPENAI_COMPATIBLE_JSON adds any that speaks OpenAI's wire format:

    OPENAI_COMPATIBLE_JSON='[{"id": "local", "base_url": "http://127.0.0.1:8080/v1", "key_variable": "LOCAL_API_KEY"}]'

`key_variable` is left out for a service that wants no key. Source: spec/assistant.md §2.1.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from runtime.catalogue.model import PROVIDER_ALIASES, canonical_provider
from runtime.errors import BadInputError, NoProviderError
from runtime.validation import problems

Family = Literal["openai", "anthropic", "gemini"]
"""Whose wire format a service speaks."""
JsonMode = Literal["json_schema", "json_object"]

MORE_SERVICES = "OPENAI_COMPATIBLE_JSON"
MORE_SERVICES_MAX = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A model service, and the environment variables that configure it."""

    provider: str
    base_url: str
    url_variable: str
    """Its value replaces `base_url`."""
    key_variable: str | None
    needs_key: bool = True
    """A service that needs none is configured by its address alone."""
    family: Family = "openai"
    json_mode: JsonMode = "json_object"
    """What its `response_format` understands on every model."""
    path: str = ""
    """Appended to an address that lacks it."""


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
            base_url="https://api.openai.com/v1",
            url_variable="OPENAI_BASE_URL",
            key_variable="OPENAI_API_KEY",
            json_mode="json_schema",
        ),
        Service(
            provider="gemini",
            base_url="https://generativelanguage.googleapis.com",
            url_variable="GEMINI_BASE_URL",
            key_variable="GEMINI_API_KEY",
            family="gemini",
            json_mode="json_schema",
        ),
        Service(
            provider="deepseek",
            base_url="https://api.deepseek.com",
            url_variable="DEEPSEEK_BASE_URL",
            key_variable="DEEPSEEK_API_KEY",
        ),
        Service(
            provider="groq",
            base_url="https://api.groq.com/openai/v1",
            url_variable="GROQ_BASE_URL",
            key_variable="GROQ_API_KEY",
        ),
        Service(
            provider="openrouter",
            base_url="https://openrouter.ai/api/v1",
            url_variable="OPENROUTER_BASE_URL",
            key_variable="OPENROUTER_API_KEY",
        ),
        Service(
            provider="grok",
            base_url="https://api.x.ai/v1",
            url_variable="XAI_BASE_URL",
            key_variable="XAI_API_KEY",
            json_mode="json_schema",
        ),
        Service(
            provider="claude",
            base_url="https://api.anthropic.com",
            url_variable="ANTHROPIC_BASE_URL",
            key_variable="ANTHROPIC_API_KEY",
            family="anthropic",
        ),
        Service(
            provider="ollama",
            base_url="http://127.0.0.1:11434",
            url_variable="OLLAMA_BASE_URL",
            key_variable=None,
            needs_key=False,
            json_mode="json_schema",
            path="/v1",
        ),
        Service(
            provider="vllm",
            base_url="http://127.0.0.1:8001/v1",
            url_variable="VLLM_BASE_URL",
            key_variable="VLLM_API_KEY",
            needs_key=False,
            json_mode="json_schema",
            path="/v1",
        ),
    )
}


def services(environment: Mapping[str, str]) -> Mapping[str, Service]:
    """The services named above and those of OPENAI_COMPATIBLE_JSON. Raises BadInputError naming entry and field."""
    text = environment.get(MORE_SERVICES, "").strip()
    if not text:
        return SERVICES
    try:
        more = _MORE.validate_json(text)
    except ValidationError as error:
        where, what = problems(error)[0]
        raise _not_services(f"{where}: {what}" if where else what) from None
    found = dict(SERVICES)
    for entry in more:
        if entry.id in found or entry.id in PROVIDER_ALIASES:
            raise _not_services(f"the id {entry.id} is taken")
        found[entry.id] = Service(
            provider=entry.id,
            base_url=entry.base_url,
            url_variable=MORE_SERVICES,
            key_variable=entry.key_variable,
            needs_key=entry.key_variable is not None,
            json_mode=entry.json_mode,
        )
        _base_url(found[entry.id], "")
    return found


def configured(environment: Mapping[str, str]) -> list[Endpoint]:
    """The services this environment configures, in the table's order; maybe none.

    Raises BadInputError for a key or URL that cannot be one, without showing the key.
    """
    return [e for service in services(environment).values() if (e := _endpoint(service, environment))]


def require_configured(environment: Mapping[str, str]) -> list[Endpoint]:
    """Like `configured`, but raises NoProviderError, which says what to type, where there is none."""
    if endpoints := configured(environment):
        return endpoints
    raise no_provider()


def variables(environment: Mapping[str, str]) -> frozenset[str]:
    """The environment variables that configure services; some of them hold keys."""
    known = services(environment).values()
    names = {name for service in known for name in (service.key_variable, service.url_variable) if name}
    return frozenset(names | {MORE_SERVICES})


def family(provider: str, known: Mapping[str, Service] = SERVICES) -> Family:
    """Whose wire format a provider speaks; every one that is not among the known speaks OpenAI's."""
    service = known.get(canonical_provider(provider))
    return service.family if service else "openai"


def limit_name(provider: str) -> str:
    """How a service that speaks OpenAI's wire calls the output limit. One it does not know it ignores, as DeepSeek does
    with the new name; OpenAI's newer models refuse the old one."""
    return "max_completion_tokens" if provider == "openai" else "max_tokens"


def json_mode(provider: str, known: Mapping[str, Service] = SERVICES) -> JsonMode:
    service = known.get(canonical_provider(provider))
    return service.json_mode if service else "json_object"


def endpoint_of(service: Service, key: str, base_url: str = "") -> Endpoint:
    """A key of this service, at its own address or another. Raises BadInputError, without showing the key."""
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        variable = service.key_variable or f"the key of {service.provider}"
        raise BadInputError(
            f"{variable} is not a key: it holds characters no key has.",
            f"Copy the key again: `export {variable}=...`." if service.key_variable else "Copy the key again.",
        )
    return Endpoint(provider=service.provider, base_url=_base_url(service, base_url), key=key)


def no_provider(provider: str | None = None) -> NoProviderError:
    """What to tell someone who has no provider at all, or not this one."""
    simulator = "or run `masterbuilder simulate` and the two exports it prints (no key, no cost)"
    if provider is None:
        others = ", ".join(_key_variables("openai"))
        return NoProviderError(
            "No model provider is configured.",
            f"Run `export OPENAI_API_KEY=...` (or set {others}; for local models "
            f"`export OLLAMA_BASE_URL=http://127.0.0.1:11434`), {simulator}; then `masterbuilder up`.",
        )
    service = SERVICES.get(canonical_provider(provider))
    if service is None:
        return NoProviderError(
            f"There is no provider {provider[:60]!r} here.",
            f"Use one of: {', '.join(SERVICES)}; or add it to {MORE_SERVICES}, then `masterbuilder up`.",
        )
    command = (
        f"`export {service.key_variable}=...`"
        if service.needs_key
        else f"`export {service.url_variable}={service.base_url}`"
    )
    return NoProviderError(
        f"The provider {service.provider} is not configured.",
        f"Run {command}, {simulator}; then `masterbuilder up`.",
    )


class _Entry(BaseModel):
    """Of OPENAI_COMPATIBLE_JSON. The name of a key's variable ends as those do that no other process may see."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
    base_url: Annotated[str, Field(max_length=500)]
    key_variable: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,80}_API_KEY$")] | None = None
    json_mode: JsonMode = "json_object"


_MORE = TypeAdapter(Annotated[list[_Entry], Field(max_length=MORE_SERVICES_MAX)])


def _endpoint(service: Service, environment: Mapping[str, str]) -> Endpoint | None:
    of_more = service.url_variable == MORE_SERVICES
    url = "" if of_more else environment.get(service.url_variable, "").strip()
    key = environment.get(service.key_variable, "").strip() if service.key_variable else ""
    if service.needs_key:
        return endpoint_of(service, key, url) if key else None
    return endpoint_of(service, key or service.provider, url) if url or of_more else None


def _base_url(service: Service, given: str) -> str:
    url = (given or service.base_url).strip().rstrip("/")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or not url.isprintable() or " " in url:
        raise _no_address(service, "is not a web address")
    if parts.username is not None or parts.password is not None:
        raise _no_address(service, "holds a user's name or password, which would be shown wherever the address is")
    return url if parts.path.endswith(service.path) else url + service.path


def _no_address(service: Service, what: str) -> BadInputError:
    if service.url_variable == MORE_SERVICES:
        return _not_services(f"the base_url of {service.provider} {what}")
    return BadInputError(
        f"{service.url_variable} {what}.", f"Give it as `export {service.url_variable}={service.base_url}`."
    )


def _not_services(what: str) -> BadInputError:
    return BadInputError(
        f"{MORE_SERVICES} is not a list of services: {what}.",
        'Give it as \'[{"id": "local", "base_url": "http://127.0.0.1:8080/v1", "key_variable": "LOCAL_API_KEY"}]\'.',
    )


def _key_variables(but: str) -> Iterable[str]:
    return (s.key_variable for s in SERVICES.values() if s.key_variable and s.needs_key and s.provider != but)

"""The provider keys that an environment holds.

Per service: its own variable (`OPENAI_API_KEY`); a list, `OPENAI_API_KEYS_JSON`, which is JSON or the path of a file
that holds it; and `OPENAI_KEY_LIMITS_JSON`, the limits of those of its keys that name none. `[{"key": "sk-...",
"active": true, "label": "...", "limits": {"requests_per_minute": 500}, "expires_at": "2027-01-31T00:00:00Z"}]`: all but
`key` may be left out.
`GOOGLE_API_KEYS_JSON` and `GOOGLE_API_KEY` feed Gemini's pool. Source: spec/builder.md §16, spec/assistant.md §2.1.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StrictBool, StrictStr, TypeAdapter, ValidationError

from runtime.catalogue.endpoints import Endpoint, Service, configured, endpoint_of, services, variables
from runtime.errors import BadInputError
from runtime.keys.quotas import parse_quotas
from runtime.validation import problems

KEYS_MAX = 1_000
FILE_BYTES_MAX = 1 << 20
_MORE_STEMS = {"gemini": ("GOOGLE",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundKey:
    """`limits` as in `runtime.keys.quotas.parse_quotas`."""

    endpoint: Endpoint
    limits: str
    expires_at: datetime | None = None


def found_keys(environment: Mapping[str, str]) -> list[FoundKey]:
    """Every active key, each once, in the order of services and lists; maybe none.

    Raises BadInputError for a key, an address, a list or limits that cannot be read, without showing a key. Blocks for
    files.
    """
    single = {endpoint.provider: endpoint for endpoint in configured(environment)}
    found: dict[tuple[str, str], FoundKey] = {}
    for service in services(environment).values():
        usual = _usual_limits(service, environment)
        if endpoint := single.get(service.provider):
            found[endpoint.provider, endpoint.key] = FoundKey(endpoint=endpoint, limits=usual)
        for entry in _entries(service, environment):
            endpoint = endpoint_of(service, entry.key, environment.get(service.url_variable, "").strip())
            limits = json.dumps(entry.limits) if entry.limits else usual
            parse_quotas(limits)
            name = endpoint.provider, endpoint.key
            if not entry.active:
                found.pop(name, None)
            else:
                found[name] = FoundKey(endpoint=endpoint, limits=limits, expires_at=entry.expires_at)
    return list(found.values())


def import_variables(environment: Mapping[str, str]) -> frozenset[str]:
    """Every variable that `found_keys` may read; some of them hold keys."""
    stems = [stem for service in services(environment).values() for stem in _stems(service)]
    lists = {f"{stem}{end}" for stem in stems for end in ("_API_KEYS_JSON", "_KEY_LIMITS_JSON", "_API_KEY")}
    return variables(environment) | lists


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    key: Annotated[StrictStr, Field(min_length=1, max_length=4_096)]
    active: StrictBool = True
    label: Annotated[StrictStr, Field(max_length=255)] = ""
    limits: dict[str, Any] | None = None
    expires_at: AwareDatetime | None = None


_LIST = TypeAdapter(Annotated[list[_Entry], Field(max_length=KEYS_MAX)])


def _stems(service: Service) -> Iterator[str]:
    if service.key_variable:
        yield service.key_variable.removesuffix("_API_KEY")
    yield from _MORE_STEMS.get(service.provider, ())


def _entries(service: Service, environment: Mapping[str, str]) -> Iterator[_Entry]:
    for stem in _stems(service):
        variable = f"{stem}_API_KEYS_JSON"
        if given := environment.get(variable, "").strip():
            yield from _parsed(variable, given if given.startswith("[") else _read(variable, given))
        if stem in _MORE_STEMS.get(service.provider, ()) and (key := environment.get(f"{stem}_API_KEY", "").strip()):
            yield _Entry(key=key)


def _parsed(variable: str, text: str) -> list[_Entry]:
    try:
        return _LIST.validate_json(text)
    except ValidationError as error:
        where, what = problems(error)[0]
        raise BadInputError(
            f"{variable} is not a list of keys: {where or 'it'}: {what}.",
            'Give it as \'[{"key": "...", "active": true}]\', or as the path of a file that holds this.',
        ) from None


def _read(variable: str, path: str) -> str:
    file = Path(path).expanduser()
    try:
        if not file.is_absolute():
            raise ValueError("the path must be absolute")
        if file.stat().st_size > FILE_BYTES_MAX:
            raise ValueError(f"the file is larger than {FILE_BYTES_MAX} bytes")
        return file.read_text()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadInputError(
            f"{variable} is neither a JSON list nor the path of a file that can be read: {reason}.",
            'Give it as \'[{"key": "...", "active": true}]\', or as the path of a file that holds this.',
        ) from None


def _usual_limits(service: Service, environment: Mapping[str, str]) -> str:
    for stem in _stems(service):
        if given := environment.get(f"{stem}_KEY_LIMITS_JSON", "").strip():
            parse_quotas(given)
            return given
    return ""

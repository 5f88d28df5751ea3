"""What an operator says a key may do, per model: read from JSON, kept as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt, ValidationError

from runtime.errors import BadInputError
from runtime.validation import problems

LIMITS_BYTES_MAX = 16 << 10
MODELS_MAX = 200
_Amount = Annotated[StrictInt, Field(ge=1, le=10**12)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """Of one key and model; None is no limit. The two rates hold in every sliding window of 60 s."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Input and output together."""
    concurrency: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyQuotas:
    """`every` holds for each model by itself; a model named in `models` has its own instead."""

    every: Quota = Quota()
    models: Mapping[str, Quota] = field(default_factory=dict)

    def of(self, model: str) -> Quota:
        return self.models.get(model, self.every)


def parse_quotas(text: str) -> KeyQuotas:
    """`{"requests_per_minute": 60, "tokens_per_minute": 90000, "concurrency": 8, "models": {"NAME": {...}}}`, all of
    it optional; empty text limits nothing. Raises BadInputError, naming the field."""
    if not text.strip():
        return KeyQuotas()
    if len(text.encode()) > LIMITS_BYTES_MAX:
        raise BadInputError(f"A key's limits are longer than {LIMITS_BYTES_MAX} bytes.", "Shorten them.")
    try:
        read = _Limits.model_validate_json(text)
    except ValidationError as error:
        where, what = problems(error)[0]
        raise BadInputError(
            f"A key's limits cannot be read: {where or 'they'}: {what}.",
            'Give them like {"requests_per_minute": 60, "tokens_per_minute": 90000, "concurrency": 8}.',
        ) from None
    return KeyQuotas(every=_quota(read), models={name: _quota(each) for name, each in read.models.items()})


class _ModelLimits(BaseModel):
    model_config = ConfigDict(extra="forbid")

    requests_per_minute: _Amount | None = None
    tokens_per_minute: _Amount | None = None
    concurrency: _Amount | None = None


class _Limits(_ModelLimits):
    models: dict[str, _ModelLimits] = Field(default_factory=dict, max_length=MODELS_MAX)


def _quota(limits: _ModelLimits) -> Quota:
    fields: dict[str, Any] = {name: getattr(limits, name) for name in _ModelLimits.model_fields}
    return Quota(**fields)

"""Which payment providers an operator named, in PAYMENT_PROVIDERS_JSON:

    [{"id": "shop", "page_url": "https://pay.example.com/", "secret_variable": "SHOP_PAYMENT_SECRET"}]

The secret itself stands in the environment variable of that name, and never in a setting.
"""

from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from runtime.errors import BadInputError
from runtime.payments import stars
from runtime.validation import problems

PROVIDERS_MAX = 20
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _page_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        raise ValueError("is not a web address") from None
    if not usable or not url.isascii() or not url.isprintable() or " " in url or parts.fragment:
        raise ValueError("is not a web address")
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a user's name or password, which would be shown to every payer")
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise ValueError("must begin with https:// unless it is on this machine")
    return url


class ProviderTerms(BaseModel):
    """A `runtime.payments.signed.SignedPage`. The name of the secret's variable ends as those do that no process of the
    service may see."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
    page_url: Annotated[str, Field(max_length=500), AfterValidator(_page_url)]
    secret_variable: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,80}_SECRET$")]


_LIST = TypeAdapter(Annotated[list[ProviderTerms], Field(max_length=PROVIDERS_MAX)])


def parse_providers(text: str) -> Sequence[ProviderTerms]:
    """Raises BadInputError naming entry and field."""
    if not text.strip():
        return ()
    try:
        found = _LIST.validate_json(text)
    except ValidationError as error:
        where, what = problems(error)[0]
        raise _not_providers(f"{where or 'it'}: {what.removeprefix('Value error, ')}") from None
    ids = [terms.id for terms in found]
    if len(set(ids)) < len(ids):
        raise _not_providers("an id is given twice")
    if stars.PROVIDER in ids:
        raise _not_providers(f"{stars.PROVIDER} is the id of payments with Telegram's Stars")
    return found


def _not_providers(what: str) -> BadInputError:
    return BadInputError(
        f"PAYMENT_PROVIDERS_JSON is not a list of payment providers: {what}.",
        'Give it as \'[{"id": "shop", "page_url": "https://pay.example.com/", '
        '"secret_variable": "SHOP_PAYMENT_SECRET"}]\'.',
    )

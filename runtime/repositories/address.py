"""Which repositories may be asked for: `https://github.com/<owner>/<name>`, and those of forges an operator named.

An address is taken apart and put together again from what was understood of it; nothing else of it is ever used. More
forges stand in GITHUB_ALLOWED_JSON, an object of web address -> address of an API that answers as GitHub's does:

    {"https://git.example.org": "https://git.example.org/api/v1"}
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from runtime.errors import BadInputError
from runtime.validation import problems

GITHUB = "https://github.com"
BRANCH = "main"
"""Where none is named. Source: spec/assistant.md §12."""
FORGES_MAX = 20

_ADDRESS = re.compile(r"(https?://[^/?#@\\\s]{1,200})/([^/?#\s]{1,200})/([^/?#\s]{1,200}?)(?:\.git)?/?")
_FULL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}/(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}")
_BRANCH = re.compile(r"(?![-./])(?!.*(?:\.\.|//|/\.|\.lock(?:/|$)|[./]$))[A-Za-z0-9._/+#=-]{1,200}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Forge:
    """A place of repositories."""

    name: str
    """Its host, as in the addresses that people send; empty for GitHub."""
    url: str
    """Where its repositories are fetched from: `<url>/<owner>/<name>`."""
    api_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    forge: Forge
    full_name: str
    """`octocat/Hello-World`"""

    @property
    def clone_url(self) -> str:
        return f"{self.forge.url}/{self.full_name}.git"

    @property
    def shown(self) -> str:
        return f"{'https://' + self.forge.name if self.forge.name else GITHUB}/{self.full_name}"

    @property
    def repo_name(self) -> str:
        """`octocat__Hello-World`: repositories of the same name do not collide."""
        return "__".join([*([self.forge.name] if self.forge.name else []), *self.full_name.split("/")])


class Forges:
    """Those that this installation may ask."""

    def __init__(self, url: str, api_url: str, allowed_json: str = "") -> None:
        """`url` and `api_url` are where GitHub is: elsewhere for whoever tests. Raises BadInputError."""
        github = Forge(name="", url=_checked("GITHUB_URL", url), api_url=_checked("GITHUB_API_URL", api_url))
        self._by_url = {GITHUB: github}
        for web, api in _more(allowed_json).items():
            self._by_url.setdefault(web.lower(), Forge(name=urlsplit(web).netloc.lower(), url=web, api_url=api))

    def address(self, text: str) -> Address:
        """Raises BadInputError for what is no repository of a forge that may be asked."""
        found = _ADDRESS.fullmatch(text.strip())
        forge = self._by_url.get(found[1].lower()) if found else None
        if found is None or forge is None or not is_full_name(f"{found[2]}/{found[3]}"):
            raise BadInputError(
                "This is not the address of a repository that may be cloned.",
                f"Send it as {' or '.join(f'{url}/<owner>/<name>' for url in self._by_url)}.",
            )
        return Address(forge=forge, full_name=f"{found[2]}/{found[3]}")


def is_full_name(text: str) -> bool:
    return _FULL_NAME.fullmatch(text) is not None


def checked_branch(name: str) -> str:
    """Raises BadInputError. Narrower than git's own rule. Source: git-check-ref-format(1)."""
    if not _BRANCH.fullmatch(name):
        raise BadInputError("This is not the name of a branch.", "Name one, as `main` or `feature/login`.")
    return name


def _web_address(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("https", "http") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or not url.isascii() or not url.isprintable() or set(url) & set(" ?#@\\"):
        raise ValueError("is not a web address")
    return url.rstrip("/")


_MORE = TypeAdapter(
    Annotated[
        dict[Annotated[str, AfterValidator(_web_address)], Annotated[str, AfterValidator(_web_address)]],
        Field(max_length=FORGES_MAX),
    ]
)


def _more(text: str) -> Mapping[str, str]:
    try:
        found = _MORE.validate_json(text or "{}")
    except ValidationError as error:
        where, what = problems(error)[0]
        raise _unusable(f"{where or 'it'}: {what.removeprefix('Value error, ')}") from None
    if any(urlsplit(web).path for web in found):
        raise _unusable("a forge is named by its host alone, without a path")
    return found


def _unusable(what: str) -> BadInputError:
    return BadInputError(
        f"GITHUB_ALLOWED_JSON is not usable: {what}.",
        'Give it as \'{"https://git.example.org": "https://git.example.org/api/v1"}\'.',
    )


def _checked(name: str, url: str) -> str:
    try:
        return _web_address(url)
    except ValueError as error:
        raise BadInputError(f"{name} is not usable: it {error}.", f"Correct {name} and start again.") from None

"""What a forge says of a repository before anything of it is downloaded.

Source: https://docs.github.com/en/rest/repos/repos#get-a-repository; Gitea and Forgejo answer the same fields.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import urljoin, urlsplit

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from runtime.errors import BadInputError, GitHubError
from runtime.repositories.address import Address, is_full_name

API_S_MAX = 15.0
ANSWER_BYTES_MAX = 1 << 20
MOVES_MAX = 3
"""A repository that was renamed is somewhere else."""
_HEADERS = {
    "accept": "application/vnd.github+json",
    "accept-encoding": "identity",
    "user-agent": "masterbuilder",
    "x-github-api-version": "2022-11-28",
}


def _full_name(text: str) -> str:
    if not is_full_name(text):
        raise ValueError("is not a repository's name")
    return text


class _Repository(BaseModel):
    model_config = ConfigDict(strict=True)

    full_name: Annotated[str, AfterValidator(_full_name)]
    size: Annotated[int, Field(ge=0)]
    default_branch: Annotated[str, Field(max_length=300)] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    address: Address
    """With the name as the forge writes it, and as it is now."""
    size_bytes: int
    """With all of its history, which is not downloaded."""
    default_branch: str


class ForgeApi:
    """Asks without a token, so it hears of public repositories only; GitHub answers 60 questions an hour then.

    Source: https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
    """

    async def describe(self, address: Address) -> Described:
        """Raises BadInputError where there is no such public repository; GitHubError where the forge does not say."""
        url = f"{address.forge.api_url}/repos/{address.full_name}"
        try:
            async with httpx.AsyncClient(timeout=API_S_MAX, headers=_HEADERS) as client:
                body = await self._asked(client, url, address)
        except httpx.HTTPError as error:
            raise GitHubError(f"GitHub did not answer: {type(error).__name__}.", "Try again in a moment.") from error
        try:
            found = _Repository.model_validate_json(body)
        except ValidationError as error:
            raise GitHubError("GitHub's answer was not understood.", "Try again later.") from error
        return Described(
            address=Address(forge=address.forge, full_name=found.full_name),
            size_bytes=found.size * 1_000,
            default_branch=found.default_branch,
        )

    async def _asked(self, client: httpx.AsyncClient, url: str, address: Address) -> bytes:
        for _ in range(MOVES_MAX + 1):
            async with client.stream("GET", url) as answer:
                if answer.is_redirect:
                    url = _moved(url, answer.headers.get("location", ""))
                    continue
                _check(answer, address)
                body = b""
                async for chunk in answer.aiter_raw():
                    body += chunk
                    if len(body) > ANSWER_BYTES_MAX:
                        raise GitHubError("GitHub's answer was far too long.", "Try again later.")
                return body
        raise GitHubError("GitHub only said that the repository has moved, again and again.", "Try again later.")


def _moved(url: str, location: str) -> str:
    """Within the same API only: where else it leads is not for us to ask."""
    there = urljoin(url, location)
    if urlsplit(there)[:2] != urlsplit(url)[:2]:
        raise GitHubError("GitHub said that the repository has moved to another service.", "Send its new address.")
    return there


def _check(answer: httpx.Response, address: Address) -> None:
    status = answer.status_code
    if status == 200:
        return
    if status in (403, 429) and (status == 429 or answer.headers.get("x-ratelimit-remaining") == "0"):
        raise GitHubError("GitHub has been asked too often from here.", f"Try again {_when(answer)}.")
    if status in (401, 403, 404, 410, 451):
        raise BadInputError(
            f"There is no public repository {address.shown}.",
            "See that owner and name are right. Private repositories cannot be cloned.",
        )
    raise GitHubError(f"GitHub answered with status {status}.", "Try again in a moment.")


def _when(answer: httpx.Response) -> str:
    try:
        reset = datetime.fromtimestamp(int(answer.headers["x-ratelimit-reset"]), UTC)
    except (KeyError, ValueError, OverflowError, OSError):
        return "in some minutes"
    return f"after {reset:%H:%M} UTC"

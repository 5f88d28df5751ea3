"""What may be asked of a person's repositories and of the copy and index of one, and the answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from runtime.ids import RepositoryId, UserId
from runtime.index.hit import Hit
from runtime.repositories.address import BRANCH, Address

Activity = Literal["", "cloning", "indexing"]
RepositoryStatus = Literal["cloning", "indexing", "cloned", "indexed", "outdated", "failed"]
TOP_K = 5
"""Source: spec/assistant.md §12."""
LEFT_OUT_SHOWN_MAX = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """As its owner sees it."""

    id: RepositoryId
    name: str
    """`octocat__Hello-World`"""
    url: str
    """As people know it."""
    clone_url: str
    branch: str
    created_at: datetime
    commit: str = ""
    """Of the copy; empty until it is there."""
    size_bytes: int = 0
    indexed_commit: str = ""
    file_count: int = 0
    """Files that are searched, and their chunks."""
    chunk_count: int = 0
    left_out_count: int = 0
    """Files that could be searched by their endings, and are not."""
    activity: Activity = ""
    """What is under way."""
    reason: str = ""
    """Why there is nothing to search in this commit, although there are files."""

    @property
    def status(self) -> RepositoryStatus:
        if self.activity:
            return self.activity
        if self.reason:
            return "failed"
        if not self.indexed_commit:
            return "cloned"
        return "indexed" if self.indexed_commit == self.commit else "outdated"


@dataclass(frozen=True, slots=True, kw_only=True)
class CloneRepository:
    """Answers `Cloned`. Repeating it costs a question to the forge."""

    owner: UserId
    address: Address
    branch: str = BRANCH


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloned:
    repository: Repository
    status: Literal["cloned", "updated"]
    """`updated` where there was a copy already, also where nothing was new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexRepository:
    """Answers `Indexed`. Repeating it embeds nothing that was embedded."""

    owner: UserId
    name: str
    """As `Repository.name`; capitals do not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexed:
    repository: Repository
    left_out: Mapping[str, str]
    """Path -> reason, of the first LEFT_OUT_SHOWN_MAX files that are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRepository:
    """Answers `RepositoryFound`. Served beside a running clone or index, from the state before it."""

    owner: UserId
    name: str
    query: str
    limit: int = TOP_K


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryFound:
    repository: Repository
    commit: str
    hits: Sequence[Hit]
    """Best first."""
    waits: str = ""
    """As `IndexStatus.waits`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListRepositories:
    """Answers a sequence of `Repository`, the newest first."""

    owner: UserId


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteRepository:
    """Answers True. Raises NotFoundError for one that is not there, or no longer."""

    owner: UserId
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchCopy:
    """To the copy: brings it to the newest commit of a branch. Answers `Fetched`; None where there is no such branch.

    Raises as `Remote` does; the copy is then what it was.
    """

    owner: UserId
    clone_url: str
    branch: str
    bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    commit: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexCopy:
    """To the copy: makes its commit what is searched. Answers `CopyIndexed`.

    Raises NotFoundError where the copy is lost, or of another commit.
    """

    owner: UserId
    commit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyIndexed:
    file_count: int
    chunk_count: int
    left_out_count: int
    left_out: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetCopy:
    """To the copy: removes it, and its index. Answers True. May be repeated."""

    owner: UserId

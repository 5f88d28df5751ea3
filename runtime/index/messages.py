"""What may be asked of an index, and its answers. Imports nothing of what an index is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runtime.ids import BlobId, ProjectId, UserId
from runtime.index.filter import EVERYTHING, Filter
from runtime.index.hit import Hit


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What the files of one commit are that those of an earlier one are not."""

    since: str
    """The earlier commit."""
    files: Mapping[str, tuple[str, bytes]]
    """Path -> git's id of the content, and the content, of what is new or other."""
    removed: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateIndex:
    """Brings the index to a commit of the bundle; answers its `IndexStatus`. Repeating it costs nothing."""

    owner: UserId
    commit: str
    bundle: BlobId
    change: Change | None = None
    """To `commit`: an index that stands where it begins need not unpack the bundle."""
    project: ProjectId | None = None
    """Under whose ceiling it is embedded, where that costs: of a running build. None: its owner asks for it himself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribeIndex:
    """To an index of a project or of documents: answers its `IndexStatus`. Changes nothing."""

    owner: UserId


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchIndex:
    """To an index of a project or of documents: answers all of it, as `IndexShard.dumps` gives it."""

    owner: UserId


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptIndex:
    """To an index of a project or of documents: takes another in its place, whole. Answers its `IndexStatus`.

    It is on disk then. Refused (BadInputError) where `saved` is damaged, foreign or empty, and (ConflictError) where
    the index stands neither at `instead_of` nor at the commit of `saved`: it must not go backwards. May be repeated.
    """

    owner: UserId
    saved: bytes
    instead_of: str
    """The commit that the sender saw the index at, before it asked for the newest one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelateSymbol:
    """Answers `Related`. Served beside a running update, from the state before it."""

    owner: UserId
    symbol: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchIndex:
    """Answers `Found`. Served beside a running update, from the state before it."""

    owner: UserId
    query: str
    limit: int
    wanted: Filter = EVERYTHING
    score_min: float = 0.0
    project: ProjectId | None = None
    """As of `UpdateIndex`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    commit: str
    """Where the index stands: empty before its first update, and older than main where it was lost with its process."""
    hits: Sequence[Hit]
    """Best first."""
    waits: str = ""
    """As `IndexStatus.waits`."""

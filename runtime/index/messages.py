"""What may be asked of an index, and its answers. Imports nothing of what an index is made of."""

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.ids import BlobId, UserId
from runtime.index.filter import EVERYTHING, Filter
from runtime.index.hit import Hit


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateIndex:
    """Brings the index to a commit of the bundle; answers its `IndexStatus`. Repeating it costs nothing."""

    owner: UserId
    commit: str
    bundle: BlobId


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchIndex:
    """Answers `Found`. Served beside a running update, from the state before it."""

    owner: UserId
    query: str
    limit: int
    wanted: Filter = EVERYTHING
    score_min: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    commit: str
    """Where the index stands: empty before its first update, and older than main where it was lost with its process."""
    hits: Sequence[Hit]
    """Best first."""

"""What a search finds."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """What each part gives to a score: the nearness of the vectors, the words, the names of symbol and file.

    The score is their sum, or three quarters of it where a test was not asked for.
    """

    meaning: float
    words: float
    names: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A chunk of code or text: lines `start_line` to `end_line` (from 1, inclusive) of `path` at `commit`."""

    path: str
    start_line: int
    end_line: int
    symbol: str
    kind: str
    """`function`, `class`, `module` or `text`: see `Chunk`."""
    text: str
    score: float
    """0 to 1 within one result list; comparable only there."""
    why: Why
    commit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something stands, as in a `Hit`."""

    path: str
    start_line: int
    end_line: int
    symbol: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Related:
    """What has to do with a symbol, by the names that the code calls: likely, not certain."""

    commit: str
    definitions: Sequence[Place]
    """Of the symbol; empty where there is none of this name."""
    callers: Sequence[Place]
    """Those in the files of the definitions first."""
    callees: Sequence[Place]
    """In the order of the calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexStatus:
    """Where an index stands."""

    commit: str
    chunks: int
    embedder: str
    embedded: int
    """Vectors computed by the last update; the rest were reused by content hash."""
    generation: str = ""
    """The job that made it from nothing; empty where none did. Updates keep it."""
    waits: str = ""
    """Why it is searched by words and names alone for now; empty where it is not. It is embedded at a later update."""

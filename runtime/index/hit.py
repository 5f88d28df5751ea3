"""What a search finds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A chunk of code or text: lines `start_line` to `end_line` (from 1, inclusive) of `path` at `commit`."""

    path: str
    start_line: int
    end_line: int
    symbol: str
    text: str
    score: float
    """0 to 1 within one result list; comparable only there."""
    commit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexStatus:
    """Where an index stands."""

    commit: str
    chunks: int
    embedder: str
    embedded: int
    """Vectors computed by the last update; the rest were reused by content hash."""

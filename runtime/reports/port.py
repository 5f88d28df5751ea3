"""What the operator's doors ask about the whole. Implemented by the store's parts and by the Ledger actor's handle."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from runtime.ids import ProjectId, UserId

FileForm = Literal["csv", "parquet"]
Cell = str | int | float | bool | None
"""Amounts are whole numbers, times are texts in UTC (ISO 8601)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A report by its name, over `since` <= time < `until`; None is no bound. Both are aware."""

    name: str
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A table. A column that ends in `_pusd` or `_ucredits` is exact; the text behind it is for people."""

    name: str
    tells: str
    note: str
    """What it does not know; may be empty."""
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """How content a project's owner is, from 1 (not at all) to 5, and why."""

    project: ProjectId
    user: UserId
    score: int
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexFigures:
    """That a project's index came to a commit. The queries are those since it came to the one before."""

    project: ProjectId
    commit: str
    chunks: int
    update_ms: int
    queries: int
    query_ms: int
    """Of all of them together."""
    query_ms_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenFeedback:
    feedback: Feedback
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """`condition` names what it is about; of each, one is open at most. `cleared_at` is None while it is open."""

    alert: str
    condition: str
    text: str
    raised_at: datetime
    cleared_at: datetime | None


class Reporting(Protocol):
    async def report(self, asked: Asked) -> Report:
        """Raises NotFoundError for a name that no report has, BadInputError for a period without a moment."""

    async def report_file(self, asked: Asked, form: FileForm) -> bytes:
        """The same as a file, written by the database. Raises like `report`."""

    async def rate(self, feedback: Feedback) -> None:
        """Again, it replaces score and text. Raises NotFoundError unless the project is the user's, BadInputError."""

    async def feedback(self) -> Sequence[GivenFeedback]:
        """The newest two hundred, newest first."""

    async def indexed(self, figures: IndexFigures) -> None:
        """Of the same commit the first ones stay."""

    async def alerts(self, open_only: bool) -> Sequence[Alert]:
        """Open ones first, then the newest first; a few hundred at most."""

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
    """How content a project's owner is, from 1 (not at all) to 5."""

    project: ProjectId
    user: UserId
    score: int


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
        """Again, it replaces the score. Raises NotFoundError unless the project is the user's, BadInputError."""

    async def alerts(self, open_only: bool) -> Sequence[Alert]:
        """Open ones first, then the newest first; a few hundred at most."""

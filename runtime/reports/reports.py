"""Runs reports on the database, in a thread of their own, and writes them as files."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb

from runtime.errors import BadInputError, NotFoundError
from runtime.ids import ProjectId, project_entity
from runtime.ledger.money import Tariff
from runtime.ledger.records import at_us
from runtime.reports.alerts import Alerts
from runtime.reports.listing import Definition, definition
from runtime.reports.port import Asked, Cell, Feedback, FileForm, GivenFeedback, IndexFigures, Report
from runtime.store import schema
from runtime.store.database import Database
from runtime.store.queries import arguments, fetch_all, sql
from runtime.store.transaction import DuplicateRowError, Transaction

STALE_AFTER = timedelta(days=90)
IDLE_AFTER = timedelta(days=3)
ALWAYS = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)

_PEOPLE = {
    "_pusd": ("_usd", "({}::DECIMAL(25, 0) * 0.000000000001)::DECIMAL(30, 6)::VARCHAR"),
    "_ucredits": ("_credits", "({}::DECIMAL(30, 0) * 0.000001)::DECIMAL(32, 2)::VARCHAR"),
}
"""Unit -> the unit that people are shown, and how: exact decimals, halves rounded away from zero."""
_TIME = "strftime({} AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%SZ')"
_HARMLESS = "CASE WHEN regexp_matches({0}, '^[=+@\\t\\r-]') THEN '''' || {0} ELSE {0} END"
"""A spreadsheet runs a cell that begins so; models and users are named by others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _IndexUpdate(IndexFigures):
    made_at: datetime


class Reports(Alerts):
    """Implements `runtime.reports.port.Reporting`."""

    def __init__(self, *, database: Database, tariff: Tariff, low_ucredits: int, clock: Callable[[], datetime]) -> None:
        super().__init__(database, clock)
        self._tariff = tariff
        self._low_ucredits = low_ucredits

    async def report(self, asked: Asked) -> Report:
        found, values = definition(asked.name), self._values(asked)

        def act(connection: duckdb.DuckDBPyConnection) -> Report:
            columns = _keep(connection, found, values)
            rows = connection.execute(_selected(columns, _as_text)).fetchall()
            return Report(
                name=found.name,
                tells=found.tells,
                note=found.note,
                columns=[column.name for column in columns],
                rows=[[_cell(value) for value in row] for row in rows],
            )

        return await self._database.read_long(act)

    async def report_file(self, asked: Asked, form: FileForm) -> bytes:
        found, values = definition(asked.name), self._values(asked)
        folder = self._database.data_dir / schema.EXPORTS

        def act(connection: duckdb.DuckDBPyConnection) -> bytes:
            columns = _keep(connection, found, values)
            statement = _selected(columns, _as_is if form == "parquet" else _as_harmless_text)
            folder.mkdir(mode=0o700, exist_ok=True)
            return _written(connection, statement, form, folder / f"{uuid.uuid4().hex}.{form}")

        return await self._database.read_long(act)

    async def rate(self, feedback: Feedback) -> None:
        if feedback.score not in range(1, 6):
            raise BadInputError("A score is a whole number from 1 to 5.")
        now = self._clock()
        text = self._database.seal.close(feedback.text.encode(), feedback_subject(feedback.project))

        def act(tx: Transaction) -> None:
            owners = tx.committed("owner_of_entity", {"entity": project_entity(feedback.project)})
            if owners != [(feedback.user,)]:
                raise NotFoundError(f"There is no project {feedback.project}.", "`masterbuilder projects` lists yours.")
            tx.execute(
                "put_feedback", project=feedback.project, user_id=feedback.user, score=feedback.score, made_at=now,
                text_sealed=text,
            )  # fmt: skip

        await self._database.write(act)

    async def feedback(self) -> Sequence[GivenFeedback]:
        rows = await self._database.rows("feedback")
        return [
            GivenFeedback(
                feedback=Feedback(project=project, user=user, score=score, text=self._feedback_text(project, text)),
                at=at_us(made_us),
            )
            for project, user, score, text, made_us in rows
        ]

    async def indexed(self, figures: IndexFigures) -> None:
        """What was told of a commit first stays."""
        update = _IndexUpdate(**asdict(figures), made_at=self._clock())
        key = {"project": figures.project, "commit": figures.commit}

        def act(tx: Transaction) -> None:
            if not tx.committed("select_index_update", key):
                tx.insert("index_updates", update)

        with suppress(DuplicateRowError):  # Told twice at once.
            await self._database.write(act)

    def _feedback_text(self, project: ProjectId, sealed: bytes | None) -> str:
        return "" if sealed is None else self._database.seal.open(sealed, feedback_subject(project)).decode()

    def _values(self, asked: Asked) -> dict[str, Any]:
        since, until = asked.since or ALWAYS[0], asked.until or ALWAYS[1]
        if since >= until:
            raise BadInputError(
                "`since` is not before `until`.", "`until` is not part of the period: take a later one."
            )
        now = self._clock()
        return {
            "since": since,
            "until": until,
            "now": now,
            "stale_before": now - STALE_AFTER,
            "idle_since": now - IDLE_AFTER,
            "low_ucredits": self._low_ucredits,
            "credit_value_pusd": self._tariff.credit_value_pusd,
            "markup_numerator": self._tariff.markup_numerator,
            "markup_denominator": self._tariff.markup_denominator,
        }


def feedback_subject(project: ProjectId) -> str:
    return f"feedback/{project}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """`expression` makes it of the kept report's columns; `kind` is DuckDB's name of its type."""

    name: str
    expression: str
    kind: str


def _keep(connection: duckdb.DuckDBPyConnection, found: Definition, values: Mapping[str, Any]) -> list[_Column]:
    """Makes the report a table of this connection's own, and says which columns it is shown with."""
    statement = sql("keep_report").replace("$statement", sql(found.statement))
    connection.execute(statement, arguments(found.statement, dict(values)))
    columns: list[_Column] = []
    for name, kind in fetch_all(connection, "report_columns"):
        columns.append(_Column(name=name, expression=f'"{name}"', kind=kind))
        for unit, (people, text) in _PEOPLE.items():
            if name.endswith(unit):
                shown = name.removesuffix(unit) + people
                columns.append(_Column(name=shown, expression=text.format(f'"{name}"'), kind="AMOUNT TEXT"))
    return columns


def _selected(columns: Sequence[_Column], shown: Callable[[_Column], str]) -> str:
    return "SELECT " + ", ".join(f'{shown(column)} AS "{column.name}"' for column in columns) + " FROM report"


def _as_is(column: _Column) -> str:
    return column.expression


def _as_text(column: _Column) -> str:
    return _TIME.format(column.expression) if column.kind == "TIMESTAMP WITH TIME ZONE" else column.expression


def _as_harmless_text(column: _Column) -> str:
    return _HARMLESS.format(column.expression) if column.kind == "VARCHAR" else _as_text(column)


def _written(connection: duckdb.DuckDBPyConnection, statement: str, form: FileForm, path: Path) -> bytes:
    try:
        command = sql(f"write_{form}").replace("$statement", statement)
        connection.execute(command.replace("$path", schema.quoted(str(path))))
        return path.read_bytes()
    finally:
        path.unlink(missing_ok=True)


def _cell(value: Any) -> Cell:
    """Amounts come as decimals without a fraction."""
    if isinstance(value, Decimal):
        assert value == value.to_integral_value(), "an amount is whole"
        return int(value)
    cell: Cell = value
    return cell

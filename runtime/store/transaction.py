"""What one write sees and changes.

A write is a function of a `Transaction`. It reads records by key, and everything it changes is kept in memory until
the group it belongs to reaches the disk; a write that raises leaves no trace. Rows are collected so that a group
becomes one statement a table: DuckDB takes 100 rows in the time of two single ones.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Generic, Protocol, TypeVar

import duckdb

from runtime.store.queries import arguments, sql

V = TypeVar("V")

RECORDS_IN_MEMORY_MAX = 200_000


class DuplicateRowError(Exception):
    """A row with this key is already in the table. Nothing was written."""

    def __init__(self, table: str) -> None:
        super().__init__(table)
        self.table = table


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind(Generic[V]):
    """A kind of record that writes look up by key: kept in memory once used, else found by `query` ($key)."""

    name: str
    query: str
    read: Callable[[list[tuple[Any, ...]]], V | None]
    """Makes the record from the query's rows; None when there is none."""


def first_as(record: type[V]) -> Callable[[list[tuple[Any, ...]]], V | None]:
    """Reads the first row into a dataclass whose fields are the query's columns, in order."""
    names = [field.name for field in fields(record)]  # type: ignore[arg-type]
    return lambda rows: record(**dict(zip(names, rows[0], strict=True))) if rows else None


class Records(Protocol):
    """Where a transaction finds what it has not changed itself."""

    def get(self, kind: Kind[V], key: str) -> V | None: ...

    def peek(self, kind: Kind[V], key: str) -> V | None: ...

    def committed(self, query: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]: ...


class Memory:
    """Committed records that were used lately, before the database's own. Only the writer's thread touches it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._records: dict[tuple[str, str], Any] = {}

    def get(self, kind: Kind[V], key: str) -> V | None:
        known: V | None = self._records.get((kind.name, key))
        if known is None:
            known = kind.read(self.committed(kind.query, {"key": key}))
            if known is not None:
                self._records[kind.name, key] = known
        return known

    def peek(self, kind: Kind[V], key: str) -> V | None:
        return self._records.get((kind.name, key))

    def committed(self, query: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql(query), dict(values)).fetchall()

    def absorb(self, records: Mapping[tuple[str, str], Any]) -> None:
        """Takes over what a committed group changed. Forgets everything when that is too much: it is only a cache."""
        if len(self._records) + len(records) > RECORDS_IN_MEMORY_MAX:
            self._records.clear()
        self._records.update(records)


class Transaction:
    """Reads through to what is beneath; keeps its own changes until they are absorbed or flushed."""

    def __init__(self, beneath: Records) -> None:
        self._beneath = beneath
        self.records: dict[tuple[str, str], Any] = {}
        self._inserts: dict[str, list[Any]] = {}
        self._updates: dict[str, dict[str, Any]] = {}
        self._statements: list[tuple[str, dict[str, Any]]] = []

    def get(self, kind: Kind[V], key: str) -> V | None:
        """The record as this transaction sees it, from memory or the database."""
        own: V | None = self.records.get((kind.name, key))
        return own if own is not None else self._beneath.get(kind, key)

    def peek(self, kind: Kind[V], key: str) -> V | None:
        """Like `get`, but None without asking the database when the record is not in memory."""
        own: V | None = self.records.get((kind.name, key))
        return own if own is not None else self._beneath.peek(kind, key)

    def committed(self, query: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Rows as the last committed group left them: blind to this group's own changes."""
        return self._beneath.committed(query, values)

    def keep(self, kind: Kind[V], key: str, record: V) -> None:
        """From now on `get` answers this. Its rows are the caller's to insert or update."""
        self.records[kind.name, key] = record

    def insert(self, table: str, row: Any) -> None:
        """Adds a row by `insert_<table>`. A key that exists fails the write with DuplicateRowError."""
        self._inserts.setdefault(table, []).append(row)

    def update(self, table: str, key: str, row: Any) -> None:
        """Replaces a row by `update_<table>`; the last of several for one key is written."""
        self._updates.setdefault(table, {})[key] = row

    def execute(self, statement: str, **values: Any) -> None:
        """Runs a statement after the rows; for rare things."""
        self._statements.append((statement, values))

    def absorb(self, later: "Transaction") -> None:
        """Takes over the changes of a write that succeeded."""
        self.records.update(later.records)
        for table, rows in later._inserts.items():
            self._inserts.setdefault(table, []).extend(rows)
        for table, keyed in later._updates.items():
            self._updates.setdefault(table, {}).update(keyed)
        self._statements.extend(later._statements)

    def is_empty(self) -> bool:
        return not (self._inserts or self._updates or self._statements)

    def flush(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Sends every change to the database, inside its open transaction. Raises DuplicateRowError."""
        for table, rows in self._inserts.items():
            try:
                _send(connection, f"insert_{table}", rows)
            except duckdb.ConstraintException as error:
                if "uplicate key" not in str(error):
                    raise
                raise DuplicateRowError(table) from error
        for table, keyed in self._updates.items():
            _send(connection, f"update_{table}", keyed.values())
        for statement, values in self._statements:
            connection.execute(sql(statement), arguments(statement, values))


def _send(connection: duckdb.DuckDBPyConnection, statement: str, rows: Iterable[Any]) -> None:
    rows = list(rows)
    names = [field.name for field in fields(rows[0])]
    columns = zip(*map(attrgetter(*names), rows), strict=True)
    values = {name: list(column) for name, column in zip(names, columns, strict=True)}
    connection.execute(sql(statement), arguments(statement, values))

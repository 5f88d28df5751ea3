"""What one write sees and changes.

A write is a function of its group's `Transaction`. It reads records by key, and everything it changes is kept in
memory until the group reaches the disk; a write that raises is undone and leaves no trace. Rows are collected so that
a group becomes one statement a table: DuckDB takes 100 rows in the time of two single ones.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Generic, TypeVar

import duckdb

from runtime.store.queries import FOR_ONE, arguments, fetch_all, for_one, parsed

V = TypeVar("V")

RECORDS_IN_MEMORY_MAX = 400_000
_NOWHERE = object()
"""In memory for a record of which the database has none."""


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
    query_many: str = ""
    """Finds many at once ($keys): the rows of `query`, each after its key. A kind without it cannot be wanted."""
    query_exists: str = ""
    """Says for less than `query` costs that there is none: it answers no row then."""
    remembers_absence: bool = False
    """That there is none is kept in memory too. Only for a kind whose every new row comes with a `keep`."""


Wanted = tuple[Kind[Any], Collection[str]]
"""Records that a batch of writes is going to look up: fetched together before it runs, one query a kind."""


def first_as(record: type[V]) -> Callable[[list[tuple[Any, ...]]], V | None]:
    """Reads the first row into a dataclass whose fields are the query's columns, in order."""
    names = [field.name for field in fields(record)]  # type: ignore[arg-type]
    return lambda rows: record(**dict(zip(names, rows[0], strict=True))) if rows else None


class Memory:
    """Committed records that were used lately, before the database's own. Only the writer's thread touches it.

    Records live in two generations: what is used moves to the young one; when that is full it becomes the old one, and
    the old one is forgotten. So never everything is forgotten at once.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._generation = max(1, RECORDS_IN_MEMORY_MAX // 2)
        self._young: dict[tuple[str, str], Any] = {}
        self._old: dict[tuple[str, str], Any] = {}
        self._absent: set[tuple[str, str]] = set()

    def get(self, kind: Kind[V], key: str) -> V | None:
        place = (kind.name, key)
        known = self._known(place)
        if known is None and place not in self._absent:
            known = self._read(kind, key)
            if known is None and kind.remembers_absence:
                known = _NOWHERE
            if known is not None:
                self._keep(place, known)
        return known if known is not _NOWHERE else None

    def peek(self, kind: Kind[V], key: str) -> V | None:
        known = self._known((kind.name, key))
        return known if known is not _NOWHERE else None

    def committed(self, query: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        return fetch_all(self._connection, query, values)

    def fetch(self, wanted: Iterable[Wanted]) -> None:
        """Fetches those that are not in memory. What the database does not have is known to be absent until `absorb`
        or the next `fetch`."""
        self._absent.clear()
        missing: dict[str, tuple[Kind[Any], set[str]]] = {}
        for kind, keys in wanted:
            unknown = {key for key in keys if self.peek(kind, key) is None}
            if unknown:
                missing.setdefault(kind.name, (kind, set()))[1].update(unknown)
        for kind, keys in missing.values():
            found: dict[str, list[tuple[Any, ...]]] = {}
            for key, *columns in self.committed(kind.query_many, {"keys": sorted(keys)}):
                found.setdefault(key, []).append(tuple(columns))
            for key, rows in found.items():
                self._keep((kind.name, key), kind.read(rows))
            self._absent.update((kind.name, key) for key in keys - found.keys())

    def absorb(self, records: Mapping[tuple[str, str], Any]) -> None:
        """Takes over what a committed group changed."""
        self._absent.clear()
        for place, record in records.items():
            self._keep(place, record)

    def forget_all(self) -> None:
        self._young, self._old = {}, {}
        self._absent.clear()

    def _read(self, kind: Kind[V], key: str) -> V | None:
        if kind.query_exists and not self.committed(kind.query_exists, {"key": key}):
            return None
        return kind.read(self.committed(kind.query, {"key": key}))

    def _known(self, place: tuple[str, str]) -> Any:
        known = self._young.get(place)
        if known is None and (known := self._old.get(place)) is not None:
            self._keep(place, known)
        return known

    def _keep(self, place: tuple[str, str], record: Any) -> None:
        if len(self._young) >= self._generation:
            self._old, self._young = self._young, {}
        self._young[place] = record


class Transaction:
    """One for a whole group. Between its writes it is told that the last one stays (`settle`) or not (`undo`)."""

    def __init__(self, memory: Memory, *, peeks_on_disk: bool = False) -> None:
        self._memory = memory
        self._peeks_on_disk = peeks_on_disk
        self.records: dict[tuple[str, str], Any] = {}
        self._notes: dict[str, int] = {}
        self._inserts: dict[str, list[Any]] = {}
        self._keyed: dict[str, dict[str, Any]] = {}
        self._statements: list[tuple[str, dict[str, Any]]] = []
        self._last_statements: list[tuple[str, dict[str, Any]]] = []
        self._lists: list[list[Any]] = []
        self._changed: list[tuple[dict[Any, Any], Any, Any]] = []
        self.forgets_all = False

    def get(self, kind: Kind[V], key: str) -> V | None:
        """The record as the group sees it so far, from memory or the database."""
        own: V | None = self.records.get((kind.name, key))
        return own if own is not None else self._memory.get(kind, key)

    def peek(self, kind: Kind[V], key: str) -> V | None:
        """Like `get`, but None without asking the database when the record is not in memory. A row that is there after
        all fails its group, which is run again with `peeks_on_disk`: then kinds with a `query_exists` are asked for."""
        if self._peeks_on_disk and kind.query_exists:
            return self.get(kind, key)
        own: V | None = self.records.get((kind.name, key))
        return own if own is not None else self._memory.peek(kind, key)

    def note(self, name: str, amount: int) -> None:
        """For later writes of this group, and nobody after it."""
        self._set(self._notes, name, amount)

    def noted(self, name: str) -> int:
        """0 for what nobody noted."""
        return self._notes.get(name, 0)

    def committed(self, query: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Rows as the last committed group left them: blind to this group's own changes."""
        return self._memory.committed(query, values)

    def keep(self, kind: Kind[V], key: str, record: V) -> None:
        """From now on `get` answers this. Its rows are the caller's to insert or update."""
        self._set(self.records, (kind.name, key), record)

    def insert(self, table: str, row: Any) -> None:
        """Adds a row by `insert_<table>`. A key that exists fails the write with DuplicateRowError."""
        rows = self._inserts.get(table)
        if rows is None:
            rows = self._inserts[table] = []
        self._add(rows, row)

    def update(self, table: str, key: str, row: Any) -> None:
        """Replaces a row by `update_<table>`; the last of several for one key is written."""
        self._set(self._keyed.setdefault(f"update_{table}", {}), key, row)

    def replace(self, table: str, key: str, row: Any, *, remains: bool) -> None:
        """Removes a row by `remove_<table>` and, when it `remains`, adds it by `insert_<table>`. The last word for one
        key counts. For tables without an index, whose rows nothing inserts otherwise."""
        self._set(self._keyed.setdefault(f"remove_{table}", {}), key, row)
        self._set(self._keyed.setdefault(f"insert_{table}", {}), key, row if remains else None)

    def execute(self, statement: str, **values: Any) -> None:
        """Runs a statement after the rows; for rare things."""
        self._add(self._statements, (statement, values))

    def execute_last(self, statement: str, **values: Any) -> None:
        """Runs it after everything else of the group, later writes included."""
        self._add(self._last_statements, (statement, values))

    def forget_all(self) -> None:
        """After this group every record is read anew: its statements change rows whose records were kept."""
        self.forgets_all = True

    def settle(self) -> None:
        """The last write succeeded: what it changed stays."""
        self._lists.clear()
        self._changed.clear()

    def undo(self) -> None:
        """The last write was refused: everything is again as it was before it."""
        for rows in reversed(self._lists):
            rows.pop()
        for mapping, key, before in reversed(self._changed):
            if before is None:
                mapping.pop(key, None)
            else:
                mapping[key] = before
        self.settle()

    def is_empty(self) -> bool:
        return not (
            any(self._inserts.values()) or any(self._keyed.values()) or self._statements or self._last_statements
        )

    def flush(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Sends every change to the database, inside its open transaction. Raises DuplicateRowError."""
        for name, values in self.statements():
            try:
                connection.execute(parsed(name, connection), values)
            except duckdb.ConstraintException as error:
                if "uplicate key" not in str(error):
                    raise
                raise DuplicateRowError(name.removeprefix("insert_").removesuffix(FOR_ONE)) from error

    def statements(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every change as the name of a statement and its arguments, in order."""
        for table, rows in self._inserts.items():
            yield from _of_rows(f"insert_{table}", rows)
        for name, keyed in self._keyed.items():
            yield from _of_rows(name, [row for row in keyed.values() if row is not None])
        for name, values in [*self._statements, *self._last_statements]:
            yield name, arguments(name, values)

    def _set(self, mapping: dict[Any, Any], key: Any, value: Any) -> None:
        self._changed.append((mapping, key, mapping.get(key)))
        mapping[key] = value

    def _add(self, rows: list[Any], row: Any) -> None:
        rows.append(row)
        self._lists.append(rows)


def _of_rows(name: str, rows: list[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """One statement for all rows, dataclasses or named tuples; each column a list, where there is more than one."""
    if not rows:
        return
    if isinstance(rows[0], tuple):
        names = rows[0]._fields  # type: ignore[attr-defined]
    else:
        names = tuple(field.name for field in fields(rows[0]))
        rows = list(map(attrgetter(*names), rows))
    if len(rows) == 1:
        name, columns = for_one(name), rows[0]
    else:
        columns = map(list, zip(*rows, strict=True))
    yield name, arguments(name, dict(zip(names, columns, strict=True)))

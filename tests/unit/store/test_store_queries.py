"""Statements for many rows, and what is made of them for a single one."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from runtime.store import queries, schema

FOR_ROWS = sorted(name for name in queries._statements() if re.match("(insert|update|remove)_", name))
VALUES: dict[str, tuple[Any, Any]] = {
    "VARCHAR": ("a", "b"),
    "VARCHAR[]": (["a"], ["b", "c"]),
    "BIGINT": (1, 2),
    "DOUBLE": (0.5, 1.5),
    "BOOLEAN": (True, False),
    "BLOB": (b"a", b"b"),
    "TIMESTAMPTZ": (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)),
    "DECIMAL(38, 0)": (10**30, 3),
}
"""Of each type a value, and another."""
CHOICES: dict[str, tuple[str, str]] = {
    "unit": ("credit", "usd"),
    "role": ("DEMO", "FULL_ACCESS"),
    "verdict": ("pass", "fail"),
    "step": ("started", "merged"),
    "state": ("settled", "lost"),
}
"""Where the table allows few."""
NOW = ("created_at", "effective_from")
"""What the database itself may fill in."""


@pytest.fixture
def databases(tmp_path: Path) -> Iterator[list[duckdb.DuckDBPyConnection]]:
    connections = [schema.connect(tmp_path / f"{name}.duckdb") for name in ("many", "one")]
    for connection in connections:
        schema.migrate(connection)
    yield connections
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("name", FOR_ROWS)
def test_statement_for_one_row__does_what_the_one_for_many_does(
    name: str, databases: list[duckdb.DuckDBPyConnection]
) -> None:
    many, one = databases
    table = name.partition("_")[2]
    if not name.startswith("insert_"):
        before = f"insert_{table}" if f"insert_{table}" in FOR_ROWS else "insert_entities"
        for connection in databases:
            connection.execute(queries.sql(before), {key: [value] for key, value in _row(before).items()})
    row = _row(name)
    assert _changed(many, name, {key: [value] for key, value in row.items()}) == 1
    assert _changed(one, queries.for_one(name), row) == 1
    assert _all_rows(many, name) == _all_rows(one, name)


def test_statement_for_one_row__takes_no_lists_and_joins_nothing() -> None:
    for name in FOR_ROWS:
        text = queries.sql(queries.for_one(name))
        assert "unnest" not in text
        assert not re.search(r"\bs\b", text), text


def _row(name: str) -> dict[str, Any]:
    """The same key for every statement; what an update sets differs from what was inserted."""
    text = queries.sql(name)
    keys = set(re.findall(r"\w+\.\w+ = s\.(\w+)", text.partition("\nWHERE ")[2]))
    is_first = name.startswith("insert_")
    types = re.findall(r"unnest\(\$(\w+)::(.+?)\[\]\)", text)
    return {
        column: CHOICES.get(column, VALUES[type_])[0 if is_first or column in keys else 1] for column, type_ in types
    }


def _changed(connection: duckdb.DuckDBPyConnection, name: str, values: dict[str, Any]) -> int:
    """How many rows."""
    ((count,),) = queries.fetch_all(connection, name, values)
    return int(count)


def _all_rows(connection: duckdb.DuckDBPyConnection, name: str) -> list[tuple[Any, ...]]:
    found = re.search(r"(?:INTO|UPDATE|DELETE FROM) (\w+)", queries.sql(name))
    assert found
    table = found[1]
    columns = [column for (column, *_) in connection.execute(f"DESCRIBE {table}").fetchall()]
    given = ", ".join(f"{column}::VARCHAR" for column in columns if column not in NOW)
    return connection.execute(f"SELECT {given} FROM {table}").fetchall()

"""Finds SQL by name. Every statement is in `queries.sql`, a report's in `reports.sql`; tables are in `migrations/`."""

import re
import time
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import duckdb

ROWS_PER_FETCH = 500
_FILES = (("runtime.store", "queries.sql"), ("runtime.reports", "reports.sql"))
_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_PARAMETER = re.compile(r"\$(\w+)")
_PARSED: dict[str, duckdb.Statement] = {}
_UNNAMED_LIST = re.compile(r"(?<!\()(unnest\(\$(\w+)::[^\[]+\[\]\))(?! AS)")


def sql(name: str) -> str:
    """The statement that stands under `-- name: <name>`. A name that does not exist is a bug: KeyError."""
    return _statements()[name]


def parsed(name: str, connection: duckdb.DuckDBPyConnection) -> duckdb.Statement:
    """The same, read once for all connections: of a statement with many columns that is a third of a millisecond."""
    if name not in _PARSED:
        (_PARSED[name],) = connection.extract_statements(sql(name))
    return _PARSED[name]


def arguments(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Those of `values` that the statement mentions; DuckDB refuses any other."""
    return {parameter: values[parameter] for parameter in _parameters(name)}


def rested_rows(
    connection: duckdb.DuckDBPyConnection, name: str, values: Mapping[str, Any]
) -> Iterator[tuple[Any, ...]]:
    """Row by row, with a rest after every few hundred: writers and other readers come first."""
    result = connection.execute(sql(name), dict(values))
    while True:
        begun = time.perf_counter()
        rows = result.fetchmany(ROWS_PER_FETCH)
        if not rows:
            return
        yield from rows
        time.sleep(time.perf_counter() - begun)


@cache
def _statements() -> dict[str, str]:
    """Lists get their parameters' names: DuckDB calls a column without one after its expression, and would write out
    every value of the list for that."""
    found: dict[str, str] = {}
    for package, name in _FILES:
        text = files(package).joinpath(name).read_text()
        parts = _NAME.split(_UNNAMED_LIST.sub(r"\1 AS \2", text))[1:]
        found |= zip(parts[::2], (part.strip() for part in parts[1::2]), strict=True)
    return found


@cache
def _parameters(name: str) -> frozenset[str]:
    return frozenset(_PARAMETER.findall(sql(name)))

"""Finds SQL by name. Every statement is in `queries.sql`, a report's in `reports.sql`; tables are in `migrations/`."""

import re
import time
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import duckdb

_Rows = list[tuple[Any, ...]]

ROWS_PER_FETCH = 500
_FILES = (("runtime.store", "queries.sql"), ("runtime.reports", "reports.sql"))
_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_PARAMETER = re.compile(r"\$(\w+)")
_PARSED: dict[str, duckdb.Statement] = {}
_UNNAMED_LIST = re.compile(r"(?<!\()(unnest\(\$(\w+)::.+?\[\]\))(?! AS)")
_LIST = re.compile(r"unnest\(\$(?P<name>\w+)::(?P<type>.+?)\[\]\)")
_ROWS = re.compile(r"\n(FROM|USING) \(SELECT .*\) s\b", re.DOTALL)
_COLUMN = re.compile(r"\bs\.(\w+)")
FOR_ONE = "/1"
"""Behind a statement's name: the same for a single row."""


def sql(name: str) -> str:
    """The statement that stands under `-- name: <name>`. A name that does not exist is a bug: KeyError."""
    return _statements()[name] if not name.endswith(FOR_ONE) else _for_one(name.removesuffix(FOR_ONE))


def for_one(name: str) -> str:
    """The name of a statement that takes one list a column, for a single row: it takes values, and half the time."""
    return name + FOR_ONE


def fetch_all(
    connection: duckdb.DuckDBPyConnection, name: str, values: Mapping[str, Any] = MappingProxyType({})
) -> _Rows:
    """All that a statement finds."""
    return connection.execute(parsed(name, connection), dict(values)).fetchall()


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
    result = connection.execute(parsed(name, connection), dict(values))
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
def _for_one(name: str) -> str:
    """`INSERT ... SELECT unnest($a::T[])` becomes `INSERT ... SELECT $a::T`. An update or removal joins its table with
    the rows it is given: `UPDATE t SET a = s.a FROM (SELECT unnest($k::T[]) AS k, ...) s WHERE t.k = s.k` becomes
    `UPDATE t SET a = $a::T WHERE t.k = $k::T`."""
    text = sql(name)
    types = {found["name"]: found["type"] for found in _LIST.finditer(text)}
    text = _LIST.sub(r"$\g<name>::\g<type>", _ROWS.sub("", text))
    return _COLUMN.sub(lambda column: f"${column[1]}::{types[column[1]]}", text)


@cache
def _parameters(name: str) -> frozenset[str]:
    return frozenset(_PARAMETER.findall(sql(name)))

"""The command that tells the operator the figures: reports on the whole, and alerts."""

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import click
from rich.measure import Measurement
from rich.table import Column, Table

from cluster.terminal import Terminal, pass_terminal, plain, print_json
from cluster.wire import Answer
from runtime.errors import BadInputError, NotFoundError

ALERTS = "alerts"
TOO_WIDE = 1.5
"""Times the screen: a row that needs more is shown line by line."""
UNBOUNDED = 10_000
_PEOPLE = {"_pusd": "_usd", "_ucredits": "_credits"}
"""A screen shows the text instead of the exact number that stands before it."""


class ReportLine(Answer):
    name: str
    tells: str


class ReportLines(Answer):
    reports: Sequence[ReportLine]


class ReportTable(Answer):
    name: str
    tells: str
    note: str = ""
    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any]]


class AlertLine(Answer):
    condition: str
    text: str
    raised_at: datetime
    cleared_at: datetime | None = None


class AlertLines(Answer):
    alerts: Sequence[AlertLine]


@click.command()
@click.argument("name", required=False)
@click.option("--since", metavar="DATE", help="From 2026-11-25, or 2026-11-25T10:00Z; UTC.")
@click.option("--until", metavar="DATE", help="Up to that moment, which is not part of it any more.")
@click.option(
    "--format", "form", type=click.Choice(["table", "json", "csv", "parquet"]), default="table", show_default=True
)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Into this file.")
@pass_terminal
def report(
    terminal: Terminal, name: str | None, since: str | None, until: str | None, form: str, output: Path | None
) -> None:
    """Prints the report NAME; without a name, lists them. `alerts` are what an operator should know now.

    Amounts that end in _pusd (picodollars) or _ucredits (microcredits) are exact whole numbers; on a screen they are
    shown with 6 and 2 decimals.
    """
    if output is not None and form == "table":
        raise BadInputError("A table is for the screen.", "Add --format csv, json or parquet.")
    if form == "parquet" and output is None and sys.stdout.isatty():
        raise BadInputError("Parquet is not for a screen.", "Name a file with -o.")
    period = {name: value for name, value in (("since", since), ("until", until)) if value}
    if name in (None, ALERTS) and (period or form in ("csv", "parquet") or output):
        raise BadInputError("This list has no period and is no file.", "Name a report, or leave the options out.")
    if name is None:
        _list(terminal, form)
    elif name == ALERTS:
        _alerts(terminal, form)
    else:
        try:
            _report(terminal, name, period, form, output)
        except NotFoundError as error:
            raise BadInputError(error.message, "`masterbuilder report` lists them.") from error


def _report(terminal: Terminal, name: str, period: Mapping[str, str], form: str, output: Path | None) -> None:
    if form == "table":
        _table(terminal, terminal.client.ask(ReportTable, "GET", _path(name, period)))
    elif form == "json" and output is None:
        print_json(terminal.client.ask(ReportTable, "GET", _path(name, period)))
    else:
        _file(terminal.client.admin_file(_path(name, {**period, "format": form})), output)


def _path(name: str, query: Mapping[str, str]) -> str:
    return f"reports/{quote(name, safe='')}" + (f"?{urlencode(query)}" if query else "")


def _list(terminal: Terminal, form: str) -> None:
    found = terminal.client.ask(ReportLines, "GET", "reports")
    if form == "json":
        print_json(found)
        return
    table = _plain_table("name", "what it tells")
    for line in found.reports:
        table.add_row(line.name, plain(line.tells))
    table.add_row(ALERTS, "What an operator should know now, and what was raised before.")
    terminal.console.print(table)


def _alerts(terminal: Terminal, form: str) -> None:
    found = terminal.client.ask(AlertLines, "GET", "alerts")
    if form == "json":
        print_json(found)
        return
    if not found.alerts:
        click.echo("No alert was ever raised.")
        return
    table = _plain_table("state", "raised", "cleared", "what")
    for line in found.alerts:
        state = "[red]open[/red]" if line.cleared_at is None else "cleared"
        table.add_row(state, _minute(line.raised_at), _minute(line.cleared_at), plain(line.text))
    terminal.console.print(table)


def _table(terminal: Terminal, found: ReportTable) -> None:
    click.echo(found.tells)
    if found.rows:
        columns = [column for column in found.columns if not _has_text(column, found.columns)]
        table = _wide(columns, found.rows)
        unbounded = terminal.console.options.update(max_width=UNBOUNDED)
        if Measurement.get(terminal.console, unbounded, table).maximum > TOO_WIDE * terminal.console.width:
            _one_by_one(terminal, columns, found.rows)
        else:
            terminal.console.print(table)
    else:
        click.echo("(nothing in this period)")
    if found.note:
        click.echo(found.note)


def _wide(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Table:
    numbers = {column for column in columns if all(isinstance(row.get(column), int | float | None) for row in rows)}
    table = Table(
        *(
            Column(c, justify="right" if c in numbers or c.endswith(tuple(_PEOPLE.values())) else "left")
            for c in columns
        ),
        box=None, header_style="bold", pad_edge=False,
    )  # fmt: skip
    for row in rows:
        table.add_row(*(_shown(row.get(column)) for column in columns))
    return table


def _one_by_one(terminal: Terminal, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """For rows that would lose most of their text side by side."""
    for row in rows:
        table = _plain_table("", "")
        table.show_header = False
        for column in columns:
            if row.get(column) is not None:
                table.add_row(f"[bold]{column}[/bold]", _shown(row[column]))
        terminal.console.print(table)
        click.echo()


def _file(data: bytes, output: Path | None) -> None:
    if output is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        output.write_bytes(data)
        click.echo(f"{output}: {len(data)} bytes", err=True)


def _has_text(column: str, columns: Sequence[str]) -> bool:
    return any(
        column.endswith(unit) and column.removesuffix(unit) + people in columns for unit, people in _PEOPLE.items()
    )


def _shown(value: Any) -> str:
    return "" if value is None else plain(str(value))


def _minute(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else ""


def _plain_table(*headings: str) -> Table:
    return Table(*headings, box=None, header_style="bold", pad_edge=False)

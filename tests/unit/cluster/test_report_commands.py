"""Reports by the command: on the screen, and as files."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_door import FakeDoor, Run, error_answer

from cluster.report_commands import report
from cluster.terminal import CommandGroup

REPORT = {
    "name": "spend", "tells": "What providers are owed.", "note": "By when it was booked.",
    "since": None, "until": None,
    "columns": ["name", "cost_pusd", "cost_usd", "calls", "charged_ucredits"],
    "rows": [
        {"name": "[red]\x1b[31mx", "cost_pusd": 10_000_000_000, "cost_usd": "0.010000", "calls": 3,
         "charged_ucredits": 7},
        {"name": None, "cost_pusd": 0, "cost_usd": "0.000000", "calls": 0, "charged_ucredits": 8},
    ],
}  # fmt: skip
ALERT = {
    "alert": "a", "condition": "spend", "text": "[bold]much", "raised_at": "2026-11-21T12:00:00+00:00",
    "cleared_at": None,
}  # fmt: skip


@pytest.fixture
def run(door: FakeDoor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    group = CommandGroup(commands={"report": report})
    variables = {
        "DATA_DIR": str(tmp_path / "data"),
        "MASTERBUILDER_URL": door.url,
        "MASTERBUILDER_TOKEN": "mb-test",
        "COLUMNS": "250",
    }
    return lambda *arguments: CliRunner(env={**os.environ, **variables}).invoke(group, ["report", *arguments])


def test_without_a_name__lists_them(run: Run, door: FakeDoor) -> None:
    door.says("GET /api/v1/admin/reports", {"reports": [{"name": "spend", "tells": "What is owed."}]})
    shown = run().output
    for text in ("spend", "What is owed.", "alerts"):
        assert text in shown


def test_table__shows_amounts_as_people_read_them_and_plain_text(run: Run, door: FakeDoor) -> None:
    door.says("GET /api/v1/admin/reports/spend", REPORT)
    result = run("spend", "--since", "2026-11-01", "--until", "2026-12-01T00:00:00+01:00")
    assert result.exit_code == 0, result.output
    assert door.asked[0][1] == "since=2026-11-01&until=2026-12-01T00%3A00%3A00%2B01%3A00"
    for text in ("What providers are owed.", "[red][31mx", "0.010000", "charged_ucredits", "By when it was booked."):
        assert text in result.output
    for text in ("cost_pusd", "\x1b"):
        assert text not in result.output


def test_rows_that_do_not_fit_side_by_side__are_shown_line_by_line_with_all_their_text(
    run: Run, door: FakeDoor
) -> None:
    columns = [f"column_{number}" for number in range(16)]
    row = {column: f"a text that is rather long, of {column}" for column in columns} | {"column_3": None}
    door.says("GET /api/v1/admin/reports/usage", {**REPORT, "name": "usage", "columns": columns, "rows": [row]})
    shown = run("usage").output
    assert all(f"a text that is rather long, of {column}" in shown for column in columns if row[column])
    assert "column_3" not in shown.split()


def test_table_of_nothing__says_so(run: Run, door: FakeDoor) -> None:
    door.says("GET /api/v1/admin/reports/spend", {**REPORT, "rows": []})
    assert "nothing in this period" in run("spend").output


def test_json__is_the_report(run: Run, door: FakeDoor) -> None:
    door.says("GET /api/v1/admin/reports/spend", REPORT)
    assert json.loads(run("spend", "--format", "json").stdout)["rows"][0]["cost_pusd"] == 10_000_000_000


@pytest.mark.parametrize("form", ["json", "csv", "parquet"])
def test_file__is_written_as_it_came(run: Run, door: FakeDoor, tmp_path: Path, form: str) -> None:
    door.routes["GET /api/v1/admin/reports/spend"] = (200, {}, b"PAR1\0\xff")
    result = run("spend", "--format", form, "-o", "out")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out").read_bytes() == b"PAR1\0\xff"
    assert door.asked[0][1] == f"format={form}"


def test_csv__goes_through_a_pipe(run: Run, door: FakeDoor) -> None:
    door.routes["GET /api/v1/admin/reports/spend"] = (200, {}, b"a,b\n1,2\n")
    assert run("spend", "--format", "csv").stdout_bytes == b"a,b\n1,2\n"


def test_alerts__are_shown_with_their_state(run: Run, door: FakeDoor) -> None:
    over = {**ALERT, "text": "less", "cleared_at": "2026-11-21T13:00:00+00:00"}
    door.says("GET /api/v1/admin/alerts", {"alerts": [ALERT, over]})
    _, first, second = run("alerts").output.splitlines()
    assert first.split() == ["open", "2026-11-21", "12:00", "[bold]much"]
    assert second.split() == ["cleared", "2026-11-21", "12:00", "2026-11-21", "13:00", "less"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("spend", "-o", "x"),
        ("--since", "2026-11-01"),
        ("alerts", "--format", "csv"),
        ("alerts", "--until", "2026-11-01"),
    ],
)
def test_options_that_do_not_fit__are_refused_before_anybody_is_asked(
    run: Run, door: FakeDoor, arguments: tuple[str, ...]
) -> None:
    assert run(*arguments).exit_code == 2
    assert door.asked == []


def test_unknown_report__is_told_with_those_that_exist(run: Run, door: FakeDoor) -> None:
    door.routes["GET /api/v1/admin/reports/x"] = error_answer(
        "not_found", 404, "There is no report 'x'; there are spend."
    )
    for form in ("table", "csv"):
        result = run("x", "--format", form, *(("-o", "out") if form == "csv" else ()))
        assert result.exit_code == 2
        for text in ("there are spend", "`masterbuilder report` lists them"):
            assert text in result.output
    assert not Path("out").exists()

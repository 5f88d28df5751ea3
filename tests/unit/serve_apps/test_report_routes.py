"""Reports and alerts over HTTP: for administrators, in three formats, with refusals that say what is allowed."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from runtime.ids import LOCAL_ADMIN, ProjectId, UserId
from runtime.ledger.money import Tariff
from runtime.ledger.port import NewToken
from runtime.reports.listing import REPORTS, definition
from runtime.reports.port import Alert, Asked, Cell, Feedback, FileForm, GivenFeedback, Report
from runtime.testing.memory_ledger import MemoryLedger
from runtime.tokens import token_hash
from serve_apps import report_routes
from serve_apps.door import application
from tests.uncounted import Uncounted

OPERATOR = {"authorization": "Bearer operator-token"}
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
OPEN = Alert(alert="a2", condition="spend", text="much", raised_at=NOON, cleared_at=None)
OVER = Alert(alert="a1", condition="spend", text="much", raised_at=NOON, cleared_at=NOON)


class FakeReports:
    def __init__(self) -> None:
        self.asked: list[tuple[Asked, str]] = []

    async def report(self, asked: Asked) -> Report:
        self.asked.append((asked, "json"))
        found = definition(asked.name)
        rows: list[list[Cell]] = [["2026-11-21", 2**70, "1.000000"]]
        return Report(name=found.name, tells=found.tells, note="", columns=["day", "cost_pusd", "cost_usd"], rows=rows)

    async def report_file(self, asked: Asked, form: FileForm) -> bytes:
        definition(asked.name)
        self.asked.append((asked, form))
        return b"PAR1\0" if form == "parquet" else b"day\n"

    async def feedback(self) -> Sequence[GivenFeedback]:
        said = Feedback(project=ProjectId("p1"), user=UserId("ann"), score=4, text="neat")
        return [GivenFeedback(feedback=said, at=NOON)]

    async def alerts(self, open_only: bool) -> Sequence[Alert]:
        return [OPEN] if open_only else [OPEN, OVER]


@pytest.fixture
def reports() -> FakeReports:
    return FakeReports()


@pytest.fixture
async def door(reports: FakeReports) -> AsyncIterator[httpx.AsyncClient]:
    ledger = MemoryLedger(Tariff(), 10**8)
    for token, user in (("operator-token", LOCAL_ADMIN), ("ann-token", UserId("ann"))):
        await ledger.open_wallet(user, is_admin=user == LOCAL_ADMIN)
        await ledger.add_token(NewToken(token_sha256=token_hash(token), user=user, kind="user", label=""))
    system: Any = SimpleNamespace(ledger=ledger, reports=reports, entities=Uncounted())
    app = application((report_routes.router,), system, under_serve=False)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api/api/v1/admin", headers=OPERATOR) as client:
        yield client


@pytest.mark.parametrize("path", ["/reports", "/reports/spend", "/reports/spend?format=csv", "/alerts", "/feedback"])
@pytest.mark.parametrize(
    ("headers", "status"), [({"authorization": "Bearer ann-token"}, 403), ({"authorization": ""}, 401)]
)
async def test_route__is_for_administrators(
    door: httpx.AsyncClient, reports: FakeReports, path: str, headers: dict[str, str], status: int
) -> None:
    assert (await door.get(path, headers=headers)).status_code == status
    assert reports.asked == []


async def test_feedback__is_listed_with_what_was_written(door: httpx.AsyncClient) -> None:
    assert (await door.get("/feedback")).json()["feedback"] == [
        {"project": "p1", "user": "ann", "score": 4, "text": "neat", "at": NOON.isoformat()}
    ]


async def test_list__names_every_report_and_what_it_tells(door: httpx.AsyncClient) -> None:
    told = (await door.get("/reports")).json()
    assert [line["name"] for line in told["reports"]] == [report.name for report in REPORTS]
    assert all(line["tells"] for line in told["reports"])
    assert told["formats"] == ["json", "csv", "parquet"]


async def test_report__is_told_in_columns_and_rows_with_exact_amounts(door: httpx.AsyncClient) -> None:
    told = (await door.get("/reports/profit", params={"since": "2026-11-01"})).json()
    assert (told["name"], told["since"], told["until"]) == ("profit", "2026-11-01T00:00:00+00:00", None)
    assert told["columns"] == ["day", "cost_pusd", "cost_usd"]
    assert told["rows"] == [{"day": "2026-11-21", "cost_pusd": 2**70, "cost_usd": "1.000000"}]


async def test_period__is_read_as_utc(door: httpx.AsyncClient, reports: FakeReports) -> None:
    await door.get("/reports/spend", params={"since": "2026-11-21T12:00", "until": "2026-11-21T14:00:00+02:00"})
    ((asked, _),) = reports.asked
    assert asked == Asked(name="spend", since=NOON, until=NOON)


@pytest.mark.parametrize(
    ("form", "media_type", "data"),
    [("csv", "text/csv; charset=utf-8", b"day\n"), ("parquet", "application/vnd.apache.parquet", b"PAR1\0")],
)
async def test_file__comes_as_the_database_wrote_it(
    door: httpx.AsyncClient, form: str, media_type: str, data: bytes
) -> None:
    answer = await door.get("/reports/spend", params={"format": form})
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, media_type, data)
    assert answer.headers["content-disposition"] == f'attachment; filename="spend.{form}"'


@pytest.mark.parametrize(
    ("path", "status", "allowed"),
    [
        ("/reports/nothing", 404, "completion, satisfaction"),
        ("/reports/nothing?format=csv", 404, "completion, satisfaction"),
        ("/reports/..%2fspend", 404, ""),
        ("/reports/spend?format=xml", 400, "json, csv, parquet"),
        ("/reports/spend?since=yesterday", 400, "2026-11-25"),
        ("/reports/spend?until=2026-02-30", 400, "2026-11-25"),
        ("/reports/spend?until=0001-01-01T00:00:00%2B14:00", 400, "2026-11-25"),
        ("/alerts?open=maybe", 400, "1 or 0"),
    ],
)
async def test_refusal__says_what_is_allowed(
    door: httpx.AsyncClient, reports: FakeReports, path: str, status: int, allowed: str
) -> None:
    answer = await door.get(path)
    assert answer.status_code == status, answer.text
    assert allowed in answer.text


async def test_alerts__are_told_open_or_all(door: httpx.AsyncClient) -> None:
    assert [alert["alert"] for alert in (await door.get("/alerts")).json()["alerts"]] == ["a2", "a1"]
    (alert,) = (await door.get("/alerts?open=1")).json()["alerts"]
    assert alert == {
        "alert": "a2", "condition": "spend", "text": "much", "raised_at": "2026-11-21T12:00:00+00:00",
        "cleared_at": None,
    }  # fmt: skip

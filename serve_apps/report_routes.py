"""The operator's part of the HTTP door that tells reports on the whole, as JSON or as a file, and alerts."""

from datetime import UTC, datetime
from typing import Any, get_args

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from runtime.errors import BadInputError
from runtime.reports.listing import REPORTS
from runtime.reports.port import Alert, Asked, FileForm, GivenFeedback, Report
from serve_apps.auth import Admin, TheSystem

MEDIA_TYPES: dict[FileForm, str] = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
FORMS = ("json", *get_args(FileForm))
SWITCH = {"1": True, "true": True, "0": False, "false": False}
SHOWN_MAX = 60
router = APIRouter(prefix="/api/v1/admin")


@router.get("/reports")
async def list_reports(admin: Admin) -> JSONResponse:
    told = [{"name": report.name, "tells": report.tells, "note": report.note} for report in REPORTS]
    return JSONResponse({"reports": told, "formats": FORMS})


@router.get("/reports/{name}")
async def show_report(
    name: str,
    system: TheSystem,
    admin: Admin,
    since: str | None = None,
    until: str | None = None,
    format: str = "json",
) -> Response:
    """Over `since` <= time < `until`. Amounts in `_pusd` and `_ucredits` are whole numbers and exact."""
    asked = Asked(name=name, since=moment_of("since", since), until=moment_of("until", until))
    for form, media_type in MEDIA_TYPES.items():
        if form == format:
            data = await system.reports.report_file(asked, form)
            attached = {"content-disposition": f'attachment; filename="{name}.{form}"'}
            return Response(data, media_type=media_type, headers=attached)
    if format != "json":
        raise BadInputError(
            f"{format[:SHOWN_MAX]!r} is not a format of reports.", f"Ask for one of: {', '.join(FORMS)}."
        )
    return JSONResponse(_told(await system.reports.report(asked), asked))


@router.get("/alerts")
async def list_alerts(system: TheSystem, admin: Admin, open: str = "0") -> JSONResponse:
    """Open ones first. With `open=1` only those."""
    if open not in SWITCH:
        raise BadInputError(f"open is 1 or 0, not {open[:SHOWN_MAX]!r}.")
    return JSONResponse({"alerts": [_alert(alert) for alert in await system.reports.alerts(SWITCH[open])]})


@router.get("/feedback")
async def list_feedback(system: TheSystem, admin: Admin) -> JSONResponse:
    """What owners said of their projects, newest first."""
    return JSONResponse({"feedback": [_given(given) for given in await system.reports.feedback()]})


def moment_of(what: str, text: str | None) -> datetime | None:
    """A date is its first moment in UTC, and so is a time without a zone. Raises BadInputError."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadInputError(
            f"{what} is not a date: {text[:SHOWN_MAX]!r}.", "Write 2026-11-25 or 2026-11-25T10:00:00Z."
        ) from None


def _told(report: Report, asked: Asked) -> dict[str, Any]:
    return {
        "name": report.name,
        "tells": report.tells,
        "note": report.note,
        "since": asked.since.isoformat() if asked.since else None,
        "until": asked.until.isoformat() if asked.until else None,
        "columns": report.columns,
        "rows": [dict(zip(report.columns, row, strict=True)) for row in report.rows],
    }


def _given(given: GivenFeedback) -> dict[str, Any]:
    said = given.feedback
    return {
        "project": said.project,
        "user": said.user,
        "score": said.score,
        "text": said.text,
        "at": given.at.isoformat(),
    }


def _alert(alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.alert,
        "condition": alert.condition,
        "text": alert.text,
        "raised_at": alert.raised_at.isoformat(),
        "cleared_at": alert.cleared_at.isoformat() if alert.cleared_at else None,
    }

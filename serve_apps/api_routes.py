"""The HTTP door: health, projects, their events, packages and receipts; the operator's in `admin_routes`.

Routes say what may be asked; what happens is the entities' and the ledger's.
"""

import asyncio
import re
import secrets
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from runtime.accounts.logins import Logins
from runtime.accounts.proofs import Proofs
from runtime.entity.journal import Head
from runtime.errors import BadInputError, ConflictError, MasterbuilderError, QuarantinedError
from runtime.ids import ProjectId, name_of, project_entity, user_entity
from runtime.ledger.port import Identity
from runtime.ledger.receipt import receipt_csv, receipt_json, receipt_text
from runtime.project.messages import (
    Answer,
    Approve,
    Back,
    Cancel,
    Change,
    Confirm,
    Describe,
    OpenProject,
    Pause,
    ProjectMessage,
    ProjectView,
    Reject,
    Resume,
    Retry,
    Rewind,
    Skip,
    Status,
)
from runtime.reports.port import Feedback
from serve_apps import (
    admin_routes,
    answers,
    auth_routes,
    delivery_routes,
    github_routes,
    key_routes,
    me_routes,
    model_routes,
    payment_routes,
    rag_routes,
    report_routes,
    search_routes,
    token_routes,
    user_routes,
    wallet_routes,
)
from serve_apps.auth import TheSystem, User
from serve_apps.bodies import (
    AnswerBody,
    ApproveBody,
    ChangeBody,
    ConfirmBody,
    FeedbackBody,
    NoBody,
    OpenBody,
    RejectBody,
    ResumeBody,
    RetryBody,
    RewindBody,
    SkipBody,
    bounded,
    idempotency_key,
    read_body,
)
from serve_apps.door import application
from serve_apps.event_stream import EventStream
from serve_apps.follow import follow
from serve_apps.owned import owned
from serve_apps.project_json import project_json, set_aside_json
from serve_apps.system import System

BODY_BYTES_MAX = 1 << 20
HEALTH_TIMEOUT_S = 5.0
PROJECTS_MAX = 100
router = APIRouter()


def create_app(
    system: System,
    *,
    under_serve: bool = False,
    operator_sha256: str | None = None,
    link_key: bytes | None = None,
    logins: Logins | None = None,
    proofs: Proofs | None = None,
) -> FastAPI:
    """`link_key` signs download links and `logins` logins; without them they hold in this process only. Without
    `proofs` nobody can prove who they are on Telegram."""
    routers = (
        router, delivery_routes.router, me_routes.router, wallet_routes.router, admin_routes.router,
        key_routes.router, model_routes.router, token_routes.router, payment_routes.router, report_routes.router,
        search_routes.router, rag_routes.router, github_routes.router, auth_routes.router, user_routes.router,
    )  # fmt: skip
    app = application(routers, system, under_serve=under_serve, operator_sha256=operator_sha256)
    app.state.link_key = link_key or secrets.token_bytes(32)
    app.state.logins = logins or Logins(secrets.token_urlsafe(32))
    app.state.proofs = proofs or Proofs("")
    return app


@router.get("/live")
async def live() -> JSONResponse:
    return JSONResponse({"status": "ok"})


@router.get("/health")
async def health(system: TheSystem) -> JSONResponse:
    """503 while the ledger does not answer; `degraded` while no provider is configured."""
    found: Mapping[str, str]
    try:
        async with asyncio.timeout(HEALTH_TIMEOUT_S):
            found = await system.health()
    except (MasterbuilderError, TimeoutError):
        found = {"ledger": "does not answer", "provider": "unknown"}
    ledger_ok = found["ledger"] == "ok"
    status = "ok" if ledger_ok and found["provider"] != "none" else "degraded"
    return JSONResponse({"status": status, **found, "version": version("masterbuilder")}, 200 if ledger_ok else 503)


@router.post("/api/v1/projects")
async def open_project(request: Request, system: TheSystem, user: User) -> JSONResponse:
    """Answers as soon as the project is on disk; the rest comes as events."""
    body = await read_body(request, OpenBody, BODY_BYTES_MAX)
    message = OpenProject(
        key=idempotency_key(request, "open"),
        brief=bounded("The brief", body.brief, system.settings.brief_bytes_max),
        answers={str(topic): text for topic, text in (body.answers or {}).items()},
        max_ucredits=body.max_ucredits,
        confirmed=body.confirm,
        gates=tuple(dict.fromkeys(body.gates)),
    )
    view = await system.entities.ask(user_entity(user.user), message)
    return JSONResponse(project_json(view), 202)


@router.get("/api/v1/projects")
async def list_projects(system: TheSystem, user: User) -> JSONResponse:
    """The newest hundred; each tells its own state, and one in quarantine hides none of the others."""
    heads = (await system.journal.heads("project", user.user))[:PROJECTS_MAX]
    return JSONResponse({"projects": await asyncio.gather(*(_listed(system, head) for head in heads))})


@router.get("/api/v1/projects/{project}")
async def show_project(project: str, system: TheSystem, user: User) -> JSONResponse:
    return JSONResponse(project_json(await owned(system, user, project)))


@router.post("/api/v1/projects/{project}/answers")
async def answer_question(project: str, request: Request, system: TheSystem, user: User) -> JSONResponse:
    body = await read_body(request, AnswerBody, BODY_BYTES_MAX)
    text = bounded("The answer", body.text, system.settings.brief_bytes_max)
    return await _tell(system, user, project, Answer(key=idempotency_key(request, "answer"), text=text))


@router.post("/api/v1/projects/{project}/back")
async def ask_again(project: str, request: Request, system: TheSystem, user: User) -> JSONResponse:
    """Asks the question before the open one again."""
    await read_body(request, NoBody, BODY_BYTES_MAX)
    return await _tell(system, user, project, Back(key=idempotency_key(request, "back")))


@router.post("/api/v1/projects/{project}/confirm")
async def confirm_scope(project: str, request: Request, system: TheSystem, user: User) -> JSONResponse:
    body = await read_body(request, ConfirmBody, BODY_BYTES_MAX)
    change = bounded("The change", body.change, system.settings.brief_bytes_max)
    confirm = Confirm(key=idempotency_key(request, "confirm"), accept=body.accept, change=change)
    return await _tell(system, user, project, confirm)


@router.post("/api/v1/projects/{project}/pause")
async def pause_project(project: str, request: Request, system: TheSystem, user: User) -> JSONResponse:
    await read_body(request, NoBody, BODY_BYTES_MAX)
    return await _tell(system, user, project, Pause(key=idempotency_key(request, "pause")))


@router.post("/api/v1/projects/{project}/cancel")
async def cancel_project(project: str, request: Request, system: TheSystem, user: User) -> JSONResponse:
    """Answers when nothing can be spent any more and what exists is packed."""
    return await _tell(system, user, project, Cancel(key=idempotency_key(request, "cancel")))


@router.post("/api/v1/projects/{project}/change")
async def change_project(project: str, request: Request, system: TheSystem, user: User) -> JSONResponse:
    body = await read_body(request, ChangeBody, BODY_BYTES_MAX)
    text = bounded("The change", body.text, system.settings.brief_bytes_max)
    return await _tell(system, user, project, Change(key=idempotency_key(request, "change"), text=text))


@router.post("/api/v1/projects/{project}/retry")
async def retry_task(project: str, request: Request, system: TheSystem, user: User) -> JSONResponse:
    body = await read_body(request, RetryBody, BODY_BYTES_MAX)
    return await _tell(system, user, project, Retry(key=idempotency_key(request, "retry"), task=body.task))


@router.post("/api/v1/projects/{project}/skip")
async def skip_task(project: str, request: Request, system: TheSystem, user: User) -> JSONResponse:
    body = await read_body(request, SkipBody, BODY_BYTES_MAX)
    skip = Skip(
        key=idempotency_key(request, "skip"),
        task=body.task,
        reason=body.reason,
        with_dependents=body.with_dependents,
    )
    return await _tell(system, user, project, skip)


@router.post("/api/v1/projects/{project}/approve")
async def approve(project: str, request: Request, system: TheSystem, user: User) -> JSONResponse:
    body = await read_body(request, ApproveBody, BODY_BYTES_MAX)
    return await _tell(system, user, project, Approve(key=idempotency_key(request, "approve"), about=body.about))


@router.post("/api/v1/projects/{project}/reject")
async def reject(project: str, request: Request, system: TheSystem, user: User) -> JSONResponse:
    body = await read_body(request, RejectBody, BODY_BYTES_MAX)
    text = bounded("The text", body.text, system.settings.brief_bytes_max)
    return await _tell(
        system, user, project, Reject(key=idempotency_key(request, "reject"), text=text, about=body.about)
    )


@router.post("/api/v1/projects/{project}/rewind")
async def rewind_project(project: str, request: Request, system: TheSystem, user: User) -> JSONResponse:
    body = await read_body(request, RewindBody, BODY_BYTES_MAX)
    return await _tell(system, user, project, Rewind(key=idempotency_key(request, "rewind"), phase=body.phase))


@router.post("/api/v1/projects/{project}/resume")
async def resume_project(project: str, request: Request, system: TheSystem, user: User) -> JSONResponse:
    body = await read_body(request, ResumeBody, BODY_BYTES_MAX)
    resume = Resume(key=idempotency_key(request, "resume"), ceiling_ucredits=body.max_ucredits)
    return await _tell(system, user, project, resume)


@router.post("/api/v1/projects/{project}/feedback")
async def rate_project(project: str, request: Request, system: TheSystem, user: User) -> JSONResponse:
    """Of a project that was delivered; the last one given counts."""
    body = await read_body(request, FeedbackBody, BODY_BYTES_MAX)
    view = await owned(system, user, project)
    if view.status is not Status.COMPLETED:
        raise ConflictError(f"There is nothing to judge yet: the project is {view.status.value}.", "Wait for its end.")
    await system.reports.rate(Feedback(project=view.id, user=user.user, score=body.score, text=body.text))
    return JSONResponse({"project": view.id, "score": body.score, "text": body.text})


@router.get("/api/v1/projects/{project}/events")
async def project_events(project: str, request: Request, system: TheSystem, user: User) -> Response:
    view = await owned(system, user, project)
    after_seq = _after(request, view)
    return EventStream(follow(system.entities, view, after_seq, answers.request_id_of(request)))


@router.get("/api/v1/projects/{project}/receipt")
async def project_receipt(project: str, request: Request, system: TheSystem, user: User) -> Response:
    wanted = request.query_params.get("format", "json")
    if wanted not in ("json", "text", "csv"):
        raise BadInputError("format must be json, text or csv.", "Correct it and ask again.")
    view = await owned(system, user, project)
    receipt = await system.ledger.receipt(view.id)
    if wanted == "json":
        return Response(receipt_json(receipt), media_type="application/json")
    if wanted == "csv":
        return Response(receipt_csv(receipt), media_type="text/csv")
    return PlainTextResponse(receipt_text(receipt))


async def _listed(system: System, head: Head) -> dict[str, Any]:
    try:
        return project_json(await system.entities.ask(head.entity, Describe()))
    except QuarantinedError as error:
        project = ProjectId(name_of(head.entity))
        return set_aside_json(head, project, await system.ledger.spent(project), str(error))


async def _tell(system: System, user: Identity, project: str, message: ProjectMessage) -> JSONResponse:
    view = await owned(system, user, project)
    return JSONResponse(project_json(await system.entities.ask(project_entity(view.id), message)))


def _after(request: Request, view: ProjectView) -> int:
    """The number of the last event the client has: `Last-Event-ID`, which browsers send, before `after`."""
    given: Any = request.headers.get("last-event-id") or request.query_params.get("after") or "0"
    if not re.fullmatch(r"[0-9]{1,15}", given) or int(given) > view.last_seq:
        raise BadInputError(
            f"after must be a number from 0 to {view.last_seq}, the last event so far.", "Ask with after=0 for all."
        )
    return int(given)

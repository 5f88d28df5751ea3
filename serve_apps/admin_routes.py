"""The operator's part of the HTTP door: what runs, whether what is stored agrees, and how it is kept."""

import asyncio
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import TypeAdapter

from runtime.entity.vitals import SystemVitals
from runtime.errors import BadInputError, UnavailableError
from runtime.ids import EntityId
from runtime.store.keeping import BackupReport, CompactReport
from serve_apps.auth import Admin, TheSystem
from serve_apps.bodies import BackupBody, read_body
from serve_apps.system import System

BODY_BYTES_MAX = 64 << 10
VITALS_S_MAX = 10.0
COUNTS_S_MAX = 3.0
ENTITY = re.compile(r"[a-z]+:[\x21-\x7e]{1,200}")
router = APIRouter(prefix="/api/v1/admin")

_VITALS = TypeAdapter(SystemVitals)
_BACKUP = TypeAdapter(BackupReport)
_COMPACTED = TypeAdapter(CompactReport)


@router.get("/status")
async def status(system: TheSystem, admin: Admin) -> JSONResponse:
    """Answered while parts are down: `silent` names them. 503 only when nobody answers at all."""
    vitals, projects = await asyncio.gather(_vitals(system), _projects(system))
    if projects is None:
        vitals = replace(vitals, silent=[*vitals.silent, "projects"])
    return JSONResponse({**_VITALS.dump_python(vitals, mode="json"), "projects": projects})


@router.post("/check")
async def check(system: TheSystem, admin: Admin) -> JSONResponse:
    """Reads everything that is stored; work goes on meanwhile."""
    began_s = time.monotonic()
    mismatches = await system.keeper.check()
    found = [{"subject": mismatch.subject, "text": mismatch.text} for mismatch in mismatches]
    return JSONResponse({"mismatches": found, "seconds": round(time.monotonic() - began_s, 3)})


@router.post("/backup")
async def backup(request: Request, system: TheSystem, admin: Admin) -> JSONResponse:
    """Answers when the backup is whole, on the disk of the service."""
    body = await read_body(request, BackupBody, BODY_BYTES_MAX)
    folder = Path(body.folder)
    if not folder.is_absolute():
        raise BadInputError("folder must be an absolute path on the service's machine.", "Begin it with `/`.")
    report = await system.keeper.backup(folder, body.with_secrets)
    return JSONResponse(_BACKUP.dump_python(report, mode="json"))


@router.post("/compact")
async def compact(system: TheSystem, admin: Admin) -> JSONResponse:
    return JSONResponse(_COMPACTED.dump_python(await system.keeper.compact(), mode="json"))


@router.post("/entities/{entity}/pardon")
async def pardon(entity: str, system: TheSystem, admin: Admin) -> JSONResponse:
    """Lifts a quarantine. `pardoned` is false when there was none, as after a second time."""
    if not ENTITY.fullmatch(entity):
        raise BadInputError("An entity's id is `kind:name`.", "Take it from the status, as it stands there.")
    return JSONResponse({"entity": entity, "pardoned": await system.pardon(EntityId(entity))})


async def _vitals(system: System) -> SystemVitals:
    try:
        async with asyncio.timeout(VITALS_S_MAX):
            return await system.vitals()
    except TimeoutError as error:
        raise UnavailableError("No part of the service answered in time.", "Try again in a few seconds.") from error


async def _projects(system: System) -> dict[str, Any] | None:
    """Of all users; None while the journal does not answer."""
    try:
        async with asyncio.timeout(COUNTS_S_MAX):
            heads = await system.journal.heads("project", None)
    except (UnavailableError, TimeoutError):
        return None
    return {"total": len(heads), "unfinished": sum(head.open for head in heads)}

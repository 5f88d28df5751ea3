"""The operator's part of the HTTP door that keeps provider keys. No answer, error or log line ever holds one."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, Field, StrictStr, TypeAdapter

from runtime.catalogue.endpoints import MORE_SERVICES, SERVICES, Service, endpoint_of
from runtime.catalogue.model import canonical_provider
from runtime.errors import BadInputError
from runtime.keys.masters import parse_master
from runtime.keys.office import KeyFacts, KeyOffice, Rotated
from runtime.keys.quotas import parse_quotas
from runtime.ledger.port import KeyRotation
from serve_apps.auth import Admin
from serve_apps.bodies import Body, read_body

BODY_BYTES_MAX = 64 << 10
router = APIRouter(prefix="/api/v1/admin/keys")

_FACTS = TypeAdapter(list[KeyFacts])
_ROTATED = TypeAdapter(Rotated)
_ROTATIONS = TypeAdapter(list[KeyRotation])


class KeyBody(Body):
    provider: Annotated[StrictStr, Field(min_length=1, max_length=40, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    key: Annotated[StrictStr, Field(min_length=1, max_length=4_096, repr=False)]
    base_url: Annotated[StrictStr, Field(max_length=500)] = ""
    label: Annotated[StrictStr, Field(max_length=255)] = ""
    limits: dict[str, Any] | None = None
    expires_at: AwareDatetime | None = None


class RotateBody(Body):
    new_master_key: Annotated[StrictStr, Field(max_length=100, repr=False)] = ""


def office_of(request: Request) -> KeyOffice:
    office: KeyOffice = request.app.state.system.keys
    return office


TheOffice = Annotated[KeyOffice, Depends(office_of)]


@router.get("")
async def listed(office: TheOffice, admin: Admin) -> JSONResponse:
    keys = _FACTS.dump_python(list(await office.listed()), mode="json")
    rotations = _ROTATIONS.dump_python(list(await office.rotations()), mode="json")
    return JSONResponse({"keys": keys, "rotations": rotations})


@router.post("")
async def add(request: Request, office: TheOffice, admin: Admin) -> JSONResponse:
    """The same key again replaces its label, limits, expiry and address."""
    body = await read_body(request, KeyBody, BODY_BYTES_MAX)
    limits = json.dumps(body.limits) if body.limits else ""
    parse_quotas(limits)
    label = body.label.strip() or "added"
    if label == "environment" or not label.isprintable():
        raise BadInputError("This label cannot be used.", "Choose another one.")
    if body.expires_at is not None and body.expires_at <= datetime.now(UTC):
        raise BadInputError(f"expires_at, {body.expires_at:%Y-%m-%d %H:%M %Z}, is over.", "Give a later one, or none.")
    endpoint = endpoint_of(_service(body), body.key, body.base_url)
    key_id = await office.add(endpoint, label, limits, body.expires_at)
    return JSONResponse({"key_id": key_id, "provider": endpoint.provider})


@router.post("/rotate")
async def rotate(request: Request, office: TheOffice, admin: Admin) -> JSONResponse:
    """Seals every key under another master key: the given one, or a random one."""
    body = await read_body(request, RotateBody, BODY_BYTES_MAX)
    new_master = parse_master(body.new_master_key) if body.new_master_key else None
    return JSONResponse(_ROTATED.dump_python(await office.rotate(new_master), mode="json"))


@router.post("/{key_id}/disable")
async def disable(key_id: str, office: TheOffice, admin: Admin) -> JSONResponse:
    await office.set_disabled(key_id, True)
    return JSONResponse({"key_id": key_id, "disabled": True})


@router.post("/{key_id}/enable")
async def enable(key_id: str, office: TheOffice, admin: Admin) -> JSONResponse:
    """Also has a key tried again that its provider refused."""
    await office.set_disabled(key_id, False)
    return JSONResponse({"key_id": key_id, "disabled": False})


def _service(body: KeyBody) -> Service:
    provider = canonical_provider(body.provider)
    known = SERVICES.get(provider)
    if known is not None:
        return known
    if not body.base_url.strip():
        raise BadInputError(
            f"{provider} is no service that is known here, so its address must be given.",
            f"Give base_url, or use one of: {', '.join(SERVICES)}.",
        )
    return Service(provider=provider, base_url=body.base_url, url_variable=MORE_SERVICES, key_variable=None)

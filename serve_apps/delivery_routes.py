"""The doors through which a project leaves: its package, a link to that which expires, and its git repository."""

import re
from datetime import UTC, datetime, timedelta

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from runtime.errors import ConflictError, ExpiredError, ForbiddenError, NotFoundError
from runtime.ids import ProjectId, project_entity
from runtime.project.delivery import file_stem
from runtime.project.links import Link, check_link, make_link
from runtime.project.messages import Describe, PackageView, ProjectView
from runtime.project.stopping import pack_what_exists
from serve_apps.auth import TheSystem, User
from serve_apps.owned import owned
from serve_apps.system import System

router = APIRouter()

_NO_COMMIT_YET = "It is there from the end of the planning on."


@router.get("/api/v1/projects/{project}/package")
async def project_package(project: str, system: TheSystem, user: User, unfinished: bool = False) -> Response:
    """With `unfinished`, of a project without a package, what was merged until now, packed for this answer alone."""
    view = await owned(system, user, project)
    if view.package is None and unfinished:
        return await _unfinished(system, view)
    return await _packed(system, view, _package_of(view))


@router.post("/api/v1/projects/{project}/link")
async def project_link(project: str, request: Request, system: TheSystem, user: User) -> JSONResponse:
    """A link that needs no token. Each call makes a new one; none can be taken back before it expires."""
    view = await owned(system, user, project)
    package = _package_of(view)
    lifetime = timedelta(hours=system.settings.download_link_ttl_hours)
    link = make_link(request.app.state.link_key, view.id, package.sha256, datetime.now(UTC), lifetime)
    return JSONResponse(
        {
            "url": f"{str(request.base_url).rstrip('/')}{link.path}",
            "expires_at": datetime.fromtimestamp(link.expires_s, UTC).isoformat(),
            "sha256": package.sha256,
            "size_bytes": package.size_bytes,
        },
        201,
    )


@router.get("/api/v1/downloads/{project}/{sha256}/{expires}/{signature}")
async def download(
    project: str, sha256: str, expires: str, signature: str, request: Request, system: TheSystem
) -> Response:
    """For whoever has the link. Its signature is looked at first, so that a guess learns nothing of any project."""
    if not re.fullmatch(r"[0-9]{1,12}", expires):
        raise ForbiddenError("This download link is not valid: it was cut off or changed.", "Ask for a new one.")
    link = Link(project=ProjectId(project), sha256=sha256, expires_s=int(expires), signature=signature)
    check_link(request.app.state.link_key, link, datetime.now(UTC))
    gone = ExpiredError("What this link led to is no longer there.", "Build the project again.")
    if await system.journal.head(project_entity(link.project)) is None:
        raise gone
    view: ProjectView = await system.entities.ask(project_entity(link.project), Describe())
    if view.package is None or view.package.sha256 != sha256:
        raise gone
    return await _packed(system, view, view.package)


@router.get("/api/v1/projects/{project}/repository")
async def project_repository(project: str, system: TheSystem, user: User) -> Response:
    """A git bundle of what is built so far: `git clone -b main project.bundle`."""
    view = await owned(system, user, project)
    if view.bundle is None:
        raise ConflictError(
            f"There is no repository yet: the project is {view.status.value}.",
            _NO_COMMIT_YET,
        )
    headers = {"content-disposition": f'attachment; filename="{file_stem(view.title)}.bundle"'}
    bundle = await system.ledger.get_blob(view.bundle)
    return Response(bundle, media_type="application/x-git-bundle", headers=headers)


def _package_of(view: ProjectView) -> PackageView:
    if view.package is None:
        raise ConflictError(
            f"The package is not ready: the project is {view.status.value}.",
            "Follow the events until package.ready, or fetch what exists: `masterbuilder package PROJECT --unfinished` "
            "(?unfinished=true).",
        )
    return view.package


async def _packed(system: System, view: ProjectView, package: PackageView) -> Response:
    try:
        data = await system.ledger.get_blob(package.blob)
    except NotFoundError:
        raise ExpiredError("This package was removed.", "Build the project again.") from None
    return _zip(view, data, package.sha256, "-unfinished" if package.partial else "")


async def _unfinished(system: System, view: ProjectView) -> Response:
    asks = f" and asks: {view.question}" if view.question else ""
    stands = view.failure_reason or f"When it was fetched it was {view.status.value.replace('_', ' ')}{asks}."
    try:
        packed = await pack_what_exists(view, stands, system.ledger)
    except NotFoundError:
        raise ExpiredError("What was built was removed.", "Build the project again.") from None
    if packed is None:
        raise ConflictError(f"Nothing is built yet: the project is {view.status.value}.", _NO_COMMIT_YET)
    return _zip(view, packed.data, packed.sha256, "-unfinished")


def _zip(view: ProjectView, data: bytes, sha256: str, mark: str) -> Response:
    headers = {
        "x-sha256": sha256,
        "content-disposition": f'attachment; filename="{file_stem(view.title)}{mark}.zip"',
        "cache-control": "private, no-store",
        "referrer-policy": "no-referrer",
    }
    return Response(data, media_type="application/zip", headers=headers)

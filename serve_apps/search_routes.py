"""The door to a project's index."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from runtime.errors import ConflictError
from runtime.ids import index_entity
from runtime.index.filter import Filter
from runtime.index.messages import Found, SearchIndex, UpdateIndex
from runtime.project.messages import ProjectView
from serve_apps.auth import TheSystem, User
from serve_apps.bodies import SearchBody, read_body
from serve_apps.hit_json import hit_json
from serve_apps.owned import owned
from serve_apps.system import System

BODY_BYTES_MAX = 64 << 10
UPDATE_S_MAX = 120.0
router = APIRouter()


@router.post("/api/v1/projects/{project}/search")
async def search_project(project: str, request: Request, system: TheSystem, user: User) -> JSONResponse:
    """The code and text of the newest commit that is nearest to a question."""
    view = await owned(system, user, project)
    body = await read_body(request, SearchBody, BODY_BYTES_MAX)
    wanted = Filter(path=body.path, language=body.language, kind=body.kind)
    search = SearchIndex(owner=user.user, query=body.query, limit=body.limit, wanted=wanted, score_min=body.threshold)
    found = await _found(system, view, search)
    return JSONResponse({"commit": found.commit, "hits": [hit_json(hit) for hit in found.hits]})


async def _found(system: System, view: ProjectView, search: SearchIndex) -> Found:
    """An index that is behind main, or was lost, is brought to it first."""
    if view.bundle is None:
        raise ConflictError(
            f"There is nothing to search: the project is {view.status.value}.",
            "Its code is there from its first commit until it is purged.",
        )
    index = index_entity(view.id)
    found: Found = await system.entities.ask(index, search)
    if found.commit != view.commit:
        update = UpdateIndex(owner=view.owner, commit=view.commit, bundle=view.bundle)
        await system.entities.ask(index, update, timeout_s=UPDATE_S_MAX)
        found = await system.entities.ask(index, search)
    return found

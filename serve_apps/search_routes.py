"""The door to a project's index."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from runtime.errors import BadInputError, ConflictError
from runtime.ids import index_entity
from runtime.index.filter import Filter
from runtime.index.hit import Related
from runtime.index.messages import Found, RelateSymbol, SearchIndex, UpdateIndex
from runtime.project.messages import ProjectView
from serve_apps.auth import TheSystem, User
from serve_apps.bodies import SearchBody, read_body
from serve_apps.hit_json import hit_json, related_json
from serve_apps.owned import owned
from serve_apps.system import System

BODY_BYTES_MAX = 64 << 10
UPDATE_S_MAX = 120.0
router = APIRouter()
SYMBOL_CHARACTERS_MAX = 500


@router.post("/api/v1/projects/{project}/search")
async def search_project(project: str, request: Request, system: TheSystem, user: User) -> JSONResponse:
    """The code and text of the newest commit that is nearest to a question."""
    view = await owned(system, user, project)
    body = await read_body(request, SearchBody, BODY_BYTES_MAX)
    wanted = Filter(path=body.path, language=body.language, kind=body.kind)
    search = SearchIndex(owner=user.user, query=body.query, limit=body.limit, wanted=wanted, score_min=body.threshold)
    found = await _asked(system, view, search)
    hits = [hit_json(hit) for hit in found.hits]
    return JSONResponse({"commit": found.commit, "hits": hits, "by_words_because": found.waits or None})


@router.get("/api/v1/projects/{project}/related")
async def related_code(project: str, system: TheSystem, user: User, symbol: str = "") -> JSONResponse:
    """Where `Class.method`, or `method`, is defined in the newest commit, who calls it, and what it calls."""
    view = await owned(system, user, project)
    if not 0 < len(symbol.strip()) <= SYMBOL_CHARACTERS_MAX:
        raise BadInputError("There is no symbol to look for.", "Name one: ?symbol=Cart.total, up to 500 characters.")
    related = await _asked(system, view, RelateSymbol(owner=user.user, symbol=symbol.strip()))
    return JSONResponse(related_json(related))


async def _asked(system: System, view: ProjectView, message: SearchIndex | RelateSymbol) -> Any:
    """An index that is behind main, or was lost, is brought to it first."""
    if view.bundle is None:
        raise ConflictError(
            f"There is nothing to search: the project is {view.status.value}.",
            "Its code is there from its first commit until it is purged.",
        )
    index = index_entity(view.id)
    found: Found | Related = await system.entities.ask(index, message)
    if found.commit != view.commit:
        update = UpdateIndex(owner=view.owner, commit=view.commit, bundle=view.bundle)
        await system.entities.ask(index, update, timeout_s=UPDATE_S_MAX)
        found = await system.entities.ask(index, message)
    return found

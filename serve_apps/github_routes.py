"""The doors to repositories of others: clone, index, search. Source: spec/assistant.md §12."""

from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from runtime.errors import ForbiddenError, NotFoundError
from runtime.ids import repositories_entity
from runtime.index.filter import language_name
from runtime.index.hit import Hit
from runtime.ledger.port import Identity
from runtime.repositories.address import Forges, checked_branch
from runtime.repositories.messages import (
    Cloned,
    CloneRepository,
    DeleteRepository,
    Indexed,
    IndexRepository,
    ListRepositories,
    Repository,
    RepositoryFound,
    SearchRepository,
)
from runtime.repositories.repositories import ASK_S, BYTES_MAX, FETCH_S_MAX, REPOSITORIES_MAX
from serve_apps.auth import TheSystem, User
from serve_apps.bodies import CloneBody, RepositoryBody, RepositorySearchBody, read_body
from serve_apps.system import System

BODY_BYTES_MAX = 64 << 10
SEARCH_S_MAX = 60.0


def _is_there(system: TheSystem, user: User) -> None:
    """Told to users alone: whoever has no token of one is refused before."""
    if not system.settings.github_enabled:
        raise NotFoundError("GitHub mode is switched off here.", "Its operator switches it on: GITHUB_ENABLED=true.")


router = APIRouter(prefix="/api/v1/github", dependencies=[Depends(_is_there)])


async def _permitted(user: User) -> Identity:
    if user.role == "DEMO" and not user.is_admin:
        raise ForbiddenError(
            "Searching repositories needs full access.", "Get it with /subscribe, or ask the operator for it."
        )
    return user


Permitted = Annotated[Identity, Depends(_permitted)]


@router.post("/clone")
async def clone(request: Request, system: TheSystem, user: Permitted) -> JSONResponse:
    """Answers when the copy is on disk, and at its branch's newest commit."""
    body = await read_body(request, CloneBody, BODY_BYTES_MAX)
    return JSONResponse(_cloned_json(await _clone(system, user, body)))


@router.post("/index")
async def index(request: Request, system: TheSystem, user: Permitted) -> JSONResponse:
    """Makes the copy what is searched, in the place of what was. It goes on for whoever does not wait, or is told to
    ask again after ten minutes; the list says `indexing` meanwhile."""
    body = await read_body(request, RepositoryBody, BODY_BYTES_MAX)
    return JSONResponse(_indexed_json(await _index(system, user, body.repo_name)))


@router.post("/sync")
async def sync(request: Request, system: TheSystem, user: Permitted) -> JSONResponse:
    """Both of them."""
    body = await read_body(request, CloneBody, BODY_BYTES_MAX)
    cloned = await _clone(system, user, body)
    indexed = await _index(system, user, cloned.repository.name)
    return JSONResponse({"repo_url": cloned.repository.url, **_cloned_json(cloned), **_indexed_json(indexed)})


@router.post("/search")
async def search(request: Request, system: TheSystem, user: Permitted) -> JSONResponse:
    body = await read_body(request, RepositorySearchBody, BODY_BYTES_MAX)
    message = SearchRepository(owner=user.user, name=body.repo_name, query=body.query, limit=body.top_k)
    found: RepositoryFound = await system.entities.ask(repositories_entity(user.user), message, timeout_s=SEARCH_S_MAX)
    return JSONResponse(
        {
            "repo_name": found.repository.name,
            "commit": found.commit,
            "is_newest": found.commit == found.repository.commit,
            "results": [_hit_json(hit) for hit in found.hits],
            "by_words_because": found.waits or None,
        }
    )


@router.get("/repositories")
async def list_repositories(system: TheSystem, user: Permitted) -> JSONResponse:
    """The caller's own, the newest first."""
    message = ListRepositories(owner=user.user)
    items: list[Repository] = await system.entities.ask(repositories_entity(user.user), message)
    quota = {
        "repositories": len(items),
        "repositories_max": REPOSITORIES_MAX,
        "bytes": sum(item.size_bytes for item in items),
        "bytes_max": BYTES_MAX,
    }
    return JSONResponse({"items": [_item_json(item) for item in items], "total": len(items), "quota": quota})


@router.delete("/repositories/{repo_name}")
async def delete_repository(repo_name: str, system: TheSystem, user: Permitted) -> JSONResponse:
    """The copy, its chunks and their vectors. 404 for what is not there, and nobody sees another's."""
    message = DeleteRepository(owner=user.user, name=repo_name[:400])
    await system.entities.ask(repositories_entity(user.user), message)
    return JSONResponse({"success": True, "message": "The repository and everything read from it is removed."})


async def _clone(system: System, user: Identity, body: CloneBody) -> Cloned:
    settings = system.settings
    forges = Forges(settings.github_url, settings.github_api_url, settings.github_allowed_json)
    message = CloneRepository(
        owner=user.user, address=forges.address(body.repo_url), branch=checked_branch(body.branch)
    )
    cloned: Cloned = await system.entities.ask(repositories_entity(user.user), message, timeout_s=FETCH_S_MAX + 30)
    return cloned


async def _index(system: System, user: Identity, repo_name: str) -> Indexed:
    message = IndexRepository(owner=user.user, name=repo_name)
    indexed: Indexed = await system.entities.ask(repositories_entity(user.user), message, timeout_s=ASK_S + 30)
    return indexed


def _cloned_json(cloned: Cloned) -> dict[str, Any]:
    item = cloned.repository
    return {
        "repo_name": item.name,
        "repo_path": f"repos/{item.name}",
        "status": cloned.status,
        "branch": item.branch,
        "commit": item.commit,
        "size_mb": round(item.size_bytes / 1e6, 3),
    }


def _indexed_json(indexed: Indexed) -> dict[str, Any]:
    item = indexed.repository
    return {
        "repo_name": item.name,
        "files_indexed": item.file_count,
        "chunks_created": item.chunk_count,
        "rag_item_id": item.id,
        "commit": item.indexed_commit,
        "index_status": item.status,
        "reason": item.reason or None,
        "left_out_count": item.left_out_count,
        "left_out": [{"file_path": path, "reason": reason} for path, reason in indexed.left_out.items()],
    }


def _item_json(item: Repository) -> dict[str, Any]:
    return {
        "id": item.id,
        "repo_name": item.name,
        "source_type": "github",
        "source_url": item.url,
        "branch": item.branch,
        "commit": item.commit or None,
        "indexed_commit": item.indexed_commit or None,
        "size_mb": round(item.size_bytes / 1e6, 3),
        "files_indexed": item.file_count,
        "chunk_count": item.chunk_count,
        "left_out_count": item.left_out_count,
        "status": item.status,
        "reason": item.reason or None,
        "created_at": item.created_at.isoformat(),
    }


def _hit_json(hit: Hit) -> dict[str, Any]:
    return {
        "file_path": hit.path,
        "file_ext": PurePosixPath(hit.path).suffix,
        "start_line": hit.start_line,
        "end_line": hit.end_line,
        "symbol": hit.symbol,
        "kind": hit.kind,
        "language": language_name(hit.path),
        "content": hit.text,
        "similarity_score": round(hit.score, 4),
        "why": {
            "meaning": round(hit.why.meaning, 4),
            "words": round(hit.why.words, 4),
            "names": round(hit.why.names, 4),
        },
        "commit": hit.commit,
    }

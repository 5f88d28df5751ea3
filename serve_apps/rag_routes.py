"""The doors to a person's documents."""

import asyncio
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from runtime.documents.formats import recognise
from runtime.documents.library import BYTES_MAX, DOCUMENTS_MAX
from runtime.documents.messages import (
    AddDocument,
    DeleteDocument,
    Item,
    LibraryFound,
    ListDocuments,
    PassageHit,
    SearchLibrary,
)
from runtime.errors import BadInputError, ForbiddenError
from runtime.ids import EVERYBODY, DocumentId, UserId, library_entity
from runtime.ledger.port import Identity
from serve_apps.auth import TheSystem, User
from serve_apps.bodies import RagSearchBody, read_body, read_upload
from serve_apps.system import System

BODY_BYTES_MAX = 64 << 10
UPLOAD_S_MAX = 120.0
SEARCH_S_MAX = 60.0
router = APIRouter()

Scope = Literal["user", "global"]


@router.post("/api/v1/rag/upload")
async def upload(request: Request, system: TheSystem, user: User) -> JSONResponse:
    """Answers when the file is on disk; it is read and indexed afterwards, as its status tells."""
    if user.role == "DEMO" and not user.is_admin:
        raise ForbiddenError(
            "Uploading documents needs full access.", "Get it with /subscribe, or ask the operator for it."
        )
    sent = await read_upload(request, system.settings.rag_max_bytes)
    scope = _scope(sent.fields.get("scope", "user"), user)
    document = await asyncio.to_thread(recognise, sent.filename, sent.content, bytes_max=system.settings.rag_max_bytes)
    owner = _owner(scope, user)
    add = AddDocument(owner=owner, filename=document.name, ending=document.ending, content=document.content)
    item: Item = await system.entities.ask(library_entity(owner), add, timeout_s=UPLOAD_S_MAX)
    message = {
        "pending": "It is stored, and will be read in a moment.",
        "processing": "You uploaded it before; it is being read.",
        "indexed": "You uploaded it before; it can be searched.",
    }.get(item.status, item.reason)
    shown = _item_json(item, scope)
    return JSONResponse({"item_id": item.id, "message": message, **shown}, 202)


@router.get("/api/v1/rag/list")
async def list_documents(system: TheSystem, user: User) -> JSONResponse:
    """The caller's own, the newest first, then those for everybody."""
    own, shared = await asyncio.gather(*(_items(system, owner) for owner in (user.user, EVERYBODY)))
    items = [*(_item_json(item, "user") for item in own), *(_item_json(item, "global") for item in shared)]
    quota = {
        "documents": len(own),
        "documents_max": DOCUMENTS_MAX,
        "bytes": sum(item.size_bytes for item in own),
        "bytes_max": BYTES_MAX,
    }
    return JSONResponse({"items": items, "total": len(items), "quota": quota})


@router.post("/api/v1/rag/search")
async def search(request: Request, system: TheSystem, user: User) -> JSONResponse:
    """Passages of the caller's own documents and of those for everybody; of no one else's."""
    body = await read_body(request, RagSearchBody, BODY_BYTES_MAX)
    asked = [
        (scope, SearchLibrary(owner=owner, query=body.query, limit=body.top_k, score_min=body.threshold))
        for scope, owner in _libraries(user)
    ]
    answers: list[LibraryFound] = await asyncio.gather(
        *(system.entities.ask(library_entity(each.owner), each, timeout_s=SEARCH_S_MAX) for _, each in asked)
    )
    found = [(hit, scope) for (scope, _), answer in zip(asked, answers, strict=True) for hit in answer.hits]
    best = sorted(found, key=lambda it: -it[0].score)[: body.top_k]
    return JSONResponse({"embedder": answers[0].embedder, "results": [_hit_json(*it) for it in best]})


@router.delete("/api/v1/rag/{item_id}")
async def delete_document(item_id: str, system: TheSystem, user: User) -> JSONResponse:
    """The file, its passages and their vectors. 404 for what is not there and for what is another's alike."""
    owner = user.user
    if user.is_admin and item_id in {item.id for item in await _items(system, EVERYBODY)}:
        owner = EVERYBODY
    message = DeleteDocument(owner=owner, document=DocumentId(item_id[:64]))
    await system.entities.ask(library_entity(owner), message)
    return JSONResponse({"success": True, "message": "The document and everything read from it is removed."})


async def _items(system: System, owner: UserId) -> list[Item]:
    items: list[Item] = await system.entities.ask(library_entity(owner), ListDocuments(owner=owner))
    return items


def _libraries(user: Identity) -> list[tuple[Scope, UserId]]:
    return [("user", user.user), ("global", EVERYBODY)]


def _scope(given: str, user: Identity) -> Scope:
    match given:
        case "user":
            return "user"
        case "global" if user.is_admin:
            return "global"
        case "global":
            raise ForbiddenError("Only administrators upload documents for everybody.", "Leave `scope` out.")
        case _:
            raise BadInputError("scope must be user or global.", "Correct it and send it again.")


def _owner(scope: Scope, user: Identity) -> UserId:
    return EVERYBODY if scope == "global" else user.user


def _item_json(item: Item, scope: Scope) -> dict[str, Any]:
    return {
        "id": item.id,
        "filename": item.filename,
        "scope": scope,
        "source_type": "upload",
        "source_url": None,
        "extension": item.ending,
        "size_bytes": item.size_bytes,
        "hash": item.content_sha256,
        "chunk_count": item.chunk_count,
        "status": item.status,
        "reason": item.reason or None,
        "created_at": item.created_at.isoformat(),
    }


def _hit_json(hit: PassageHit, scope: Scope) -> dict[str, Any]:
    return {
        "item_id": hit.document,
        "filename": hit.filename,
        "scope": scope,
        "source_url": None,
        "chunk_index": hit.index,
        "page": hit.page,
        "heading": hit.heading,
        "content": hit.text,
        "similarity_score": round(hit.score, 4),
        "cosine": round(hit.similarity, 4),
        "keyword_matches": hit.keyword_matches,
    }

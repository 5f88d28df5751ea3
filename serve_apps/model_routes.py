"""The operator's part of the HTTP door that keeps the catalogue of models and prices."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from runtime.catalogue.catalogue import Catalogue
from runtime.catalogue.files import MODELS_MAX
from runtime.catalogue.listing import ListedModel, listed
from runtime.catalogue.model import Model
from runtime.errors import BadInputError
from runtime.ledger.port import ModelRow
from serve_apps.auth import Admin, TheSystem
from serve_apps.bodies import Body, read_body
from serve_apps.system import System

BODY_BYTES_MAX = 8 << 20
router = APIRouter(prefix="/api/v1/admin")


class ModelsBody(Body):
    models: Annotated[list[ListedModel], Field(min_length=1, max_length=MODELS_MAX)]


@router.get("/models")
async def models(system: TheSystem, admin: Admin) -> JSONResponse:
    """What is in force, and what is to come. `built_in` models are those no administrator has set."""
    catalogue = await _catalogue(system)
    return JSONResponse(
        {
            "models": [_told(model) for model in catalogue.rows()],
            "upcoming": [_told(model) for model in catalogue.upcoming()],
        }
    )


@router.post("/models")
async def set_models(request: Request, system: TheSystem, admin: Admin) -> JSONResponse:
    """All or none, for new calls from `effective_from` on, which is now where it is not said.

    What a model leaves out stays as it is, or becomes its provider's default. Answers what was written.
    """
    body = await read_body(request, ModelsBody, BODY_BYTES_MAX)
    entries, rows = await asyncio.to_thread(_completed, await _catalogue(system), body.models)
    await system.ledger.set_models(rows)
    return JSONResponse({"models": [_told(entry) for entry in entries]})


async def _catalogue(system: System) -> Catalogue:
    """As the ledger has it at this moment; the calls of this process may be some seconds behind."""
    now = datetime.now(UTC)
    return Catalogue.of((row.body for row in await system.ledger.models()), lambda: now)


def _completed(catalogue: Catalogue, said: Sequence[ListedModel]) -> tuple[list[Model], list[ModelRow]]:
    """The catalogue's rows and the table's. Raises BadInputError."""
    whole = [catalogue.completed(listing) for listing in said]
    times = Counter((listing.id, listing.effective_from) for listing in whole)
    if twice := [name for (name, _), count in times.items() if count > 1]:
        raise BadInputError(f"{twice[0]} stands there twice for the same moment.", "Keep one of them.")
    entries = [listing.entry() for listing in whole]
    return entries, [_row(listing, entry) for listing, entry in zip(whole, entries, strict=True)]


def _row(listing: ListedModel, entry: Model) -> ModelRow:
    assert entry.effective_from is not None
    return ModelRow(
        provider=entry.provider,
        model=entry.name,
        effective_from=entry.effective_from,
        price=entry.price,
        body=listing.model_dump_json(),
    )


def _told(model: Model) -> dict[str, Any]:
    facts = listed(model).model_dump(mode="json")
    return {"id": model.id, "built_in": model.effective_from is None, **facts}

"""The model door, in OpenAI's wire format: any tool with a base-URL setting is a client.

A task's token pays under its run; a user's token pays from the wallet, call by call.
"""

import secrets
from collections.abc import AsyncGenerator

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response

from runtime.errors import BadInputError, MasterbuilderError
from runtime.ids import CallId, new_call_id
from runtime.ledger.port import Identity
from runtime.providers.calls import CallOrder
from runtime.providers.catalogue import Model
from runtime.providers.endpoints import SERVICES
from runtime.providers.wire import event
from serve_apps import answers
from serve_apps.auth import Caller, TheSystem
from serve_apps.bodies import read_json
from serve_apps.door import application, log_unforeseen
from serve_apps.event_stream import EventStream
from serve_apps.system import System

BODY_BYTES_MAX = 20 << 20
router = APIRouter()


def create_app(system: System, *, under_serve: bool = False) -> FastAPI:
    """Routes are relative to `/v1`, which Serve takes off as its prefix and others mount it under."""
    return application((router,), system, under_serve=under_serve)


@router.get("/models")
async def list_models(system: TheSystem, caller: Caller) -> JSONResponse:
    """The named models of the configured providers."""
    configured = [provider for provider in SERVICES if await system.ledger.keys(provider)]
    models = system.calls.catalogue.listed(configured)
    return JSONResponse({"object": "list", "data": [_model_json(model) for model in models]})


@router.post("/chat/completions")
async def chat_completions(request: Request, system: TheSystem, caller: Caller) -> Response:
    body = await read_json(request, BODY_BYTES_MAX)
    name = body.get("model")
    if not isinstance(name, str):
        raise BadInputError("model must be a model's name.", "GET /v1/models lists them.")
    order = _order(caller, system.calls.catalogue.named(name))
    if not body.get("stream"):
        return JSONResponse(await system.calls.complete(order, body))
    events = system.calls.stream(order, body)
    # The answer begins with the first event: until then an error still has its own status.
    first = await anext(events)
    return EventStream(_to_the_end(first, events, answers.request_id_of(request)))


async def _to_the_end(first: bytes, rest: AsyncGenerator[bytes, None], request_id: str) -> AsyncGenerator[bytes, None]:
    try:
        yield first
        async for item in rest:
            yield item
    except MasterbuilderError as error:
        yield event(answers.error_body(error, request_id))
    except Exception as error:
        log_unforeseen(error, request_id)
        yield event(answers.unforeseen_body(request_id))
    finally:
        await rest.aclose()


def _order(caller: Identity, model: Model) -> CallOrder:
    return CallOrder(
        call=CallId(f"{caller.run}/{secrets.token_hex(6)}") if caller.run else new_call_id(),
        user=caller.user,
        run=caller.run,
        task_type="coding" if caller.run else "chat",
        provider=model.provider,
        model=model.name,
    )


def _model_json(model: Model) -> dict[str, object]:
    return {
        "id": model.id,
        "object": "model",
        "created": 0,
        "owned_by": model.provider,
        "context_window": model.context_tokens,
        "max_output_tokens": model.output_tokens_max,
    }

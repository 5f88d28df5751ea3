"""How every error leaves by every HTTP door: one shape, one table.

The shape is a superset of OpenAI's, so that its SDKs show our message.
"""

import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from runtime import errors
from runtime.errors import MasterbuilderError

STATUS: dict[type[MasterbuilderError], int] = {
    errors.MasterbuilderError: 500,
    errors.RefusedError: 400,
    errors.BadInputError: 400,
    errors.ReplyRejectedError: 400,
    errors.NotAuthenticatedError: 401,
    errors.NotEnoughCreditsError: 402,
    errors.CeilingReachedError: 402,
    errors.AccountStoppedError: 403,
    errors.ForbiddenError: 403,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.ExpiredError: 410,
    errors.StaleWriterError: 409,
    errors.InvalidValueError: 422,
    errors.TooLargeError: 413,
    errors.UnpricedModelError: 422,
    errors.TooManyRequestsError: 429,
    errors.DailyCapError: 429,
    errors.ProviderError: 502,
    errors.GitHubError: 502,
    errors.UnavailableError: 503,
}
RETRY_AFTER_S = 5
MOVED_RETRY_AFTER_S = 1
"""An entity is at home again within a second or two."""


def install(app: FastAPI) -> None:
    """Makes the app answer in this shape, whatever is raised in it. What nobody foresaw is the Door's to answer."""
    app.add_exception_handler(MasterbuilderError, _answer_ours)
    app.add_exception_handler(HTTPException, _answer_http)


def status_of(error: MasterbuilderError) -> int:
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def answer(error: MasterbuilderError, request_id: str) -> JSONResponse:
    return JSONResponse(error_body(error, request_id), status_of(error), headers_of(error))


def headers_of(error: MasterbuilderError) -> dict[str, str]:
    status = status_of(error)
    headers = {}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, errors.QuarantinedError):
        headers["x-should-retry"] = "false"  # It stays so until an operator lifts it.
    elif status in (429, 503):
        headers["retry-after"] = str(retry_after_s(error))
    if status == 502:
        headers["x-should-retry"] = "false"  # What could be retried was; OpenAI's SDKs would do it all again.
    return headers


def retry_after_s(error: MasterbuilderError) -> int:
    """Whole seconds, at least one: the header takes nothing finer. Source: RFC 9110, 10.2.3."""
    if isinstance(error, errors.OverloadedError):
        return max(1, math.ceil(error.retry_after_s))
    return MOVED_RETRY_AFTER_S if isinstance(error, errors.MovedError) else RETRY_AFTER_S


def error_body(error: MasterbuilderError, request_id: str) -> dict[str, Any]:
    return _shape(error.code, str(error), error.charged, error.next_step, request_id)


def unforeseen_body(request_id: str) -> dict[str, Any]:
    """The last resort says nothing about what happened inside."""
    next_step = "Try again; if it happens again, report the request id."
    message = f"Something went wrong inside Masterbuilder. {next_step}"
    charged = "What was charged, if anything, stands in the receipt."
    return _shape("internal_error", message, charged, next_step, request_id)


def request_id_of(request: Request) -> str:
    return str(request.state.request_id)


async def _answer_ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, MasterbuilderError)
    return answer(error, request_id_of(request))


async def _answer_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        code, message, next_step = "not_found", "There is nothing at this address.", "Check the path."
    elif error.status_code == 405:
        code, message, next_step = (
            "method_not_allowed",
            "This address does not take that method.",
            "See the header Allow.",
        )
    else:
        code, message, next_step = "bad_input", "The request is malformed.", "Correct it and send it again."
    body = _shape(code, f"{message} {next_step}", "Nothing was charged.", next_step, request_id_of(request))
    return JSONResponse(body, error.status_code, error.headers)


def _shape(code: str, message: str, charged: str, next_step: str, request_id: str) -> dict[str, Any]:
    return {
        "error": {
            "type": code,
            "code": code,
            "message": message,
            "charged": charged,
            "next": next_step,
            "request_id": request_id,
        }
    }

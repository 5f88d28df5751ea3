"""Who is asking: `Authorization: Bearer TOKEN`, known to the ledger by the token's SHA-256 only."""

import hmac
from typing import Annotated

from fastapi import Depends, Request

from runtime.errors import ForbiddenError, NotAuthenticatedError
from runtime.ids import LOCAL_ADMIN
from runtime.ledger.port import Identity, TokenTerms
from runtime.tokens import token_hash
from serve_apps.system import System

TOKEN_CHARACTERS_MAX = 512


def system_of(request: Request) -> System:
    system: System = request.app.state.system
    return system


TheSystem = Annotated[System, Depends(system_of)]


async def caller_of(request: Request, system: TheSystem) -> Identity:
    """Raises NotAuthenticatedError without telling a missing token from a wrong, expired or revoked one."""
    sha256 = _token_sha256(request)
    identity = await system.ledger.authenticate(sha256) if sha256 else None
    if identity is None:
        raise NotAuthenticatedError(
            "This needs a valid token.", "Send it as `Authorization: Bearer TOKEN`; the operator issues tokens."
        )
    return identity


Caller = Annotated[Identity, Depends(caller_of)]
"""Whoever a valid token speaks for."""


def user_of(caller: Caller) -> Identity:
    """Raises ForbiddenError for a token that may call models and nothing else: a task's, a project's, or one with
    models, a budget or a rate, for a build would spend past them."""
    if caller.kind != "user" or caller.terms != TokenTerms():
        raise ForbiddenError("This token may only call models.", "Use a user's token without limits here.")
    return caller


User = Annotated[Identity, Depends(user_of)]


async def admin_of(request: Request, system: TheSystem) -> Identity:
    """Raises NotAuthenticatedError, and ForbiddenError for whoever is no administrator.

    The operator's own token is known to every replica, so that an operator can look while the ledger is silent.
    """
    operator_sha256: str | None = request.app.state.operator_sha256
    if operator_sha256 and hmac.compare_digest(_token_sha256(request), operator_sha256):
        return Identity(user=LOCAL_ADMIN, is_admin=True, kind="user")
    identity = user_of(await caller_of(request, system))
    if not identity.is_admin:
        raise ForbiddenError("This is for administrators.", "Use the token of one, such as the local admin's.")
    return identity


Admin = Annotated[Identity, Depends(admin_of)]


def _token_sha256(request: Request) -> str:
    """Empty when there is no token that could be one."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    return token_hash(token) if scheme.lower() == "bearer" and 0 < len(token) <= TOKEN_CHARACTERS_MAX else ""

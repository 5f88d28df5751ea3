"""Who is asking: `Authorization: Bearer TOKEN`, known to the ledger by the token's SHA-256 only."""

from typing import Annotated

from fastapi import Depends, Request

from runtime.errors import ForbiddenError, NotAuthenticatedError
from runtime.ledger.port import Identity
from runtime.tokens import token_hash
from serve_apps.system import System

TOKEN_CHARACTERS_MAX = 512


def system_of(request: Request) -> System:
    system: System = request.app.state.system
    return system


TheSystem = Annotated[System, Depends(system_of)]


async def caller_of(request: Request, system: TheSystem) -> Identity:
    """Raises NotAuthenticatedError without telling a missing token from a wrong, expired or revoked one."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    identity = None
    if scheme.lower() == "bearer" and 0 < len(token) <= TOKEN_CHARACTERS_MAX:
        identity = await system.ledger.authenticate(token_hash(token))
    if identity is None:
        raise NotAuthenticatedError(
            "This needs a valid token.", "Send it as `Authorization: Bearer TOKEN`; the operator issues tokens."
        )
    return identity


Caller = Annotated[Identity, Depends(caller_of)]
"""Whoever a valid token speaks for."""


def user_of(caller: Caller) -> Identity:
    """Raises ForbiddenError for a task's token, which may call models and nothing else."""
    if caller.kind != "user":
        raise ForbiddenError("A task's token may only call models.", "Use a user's token here.")
    return caller


User = Annotated[Identity, Depends(user_of)]

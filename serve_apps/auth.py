"""Who is asking: `Authorization: Bearer TOKEN`, one that the ledger knows by its SHA-256, or a login that we signed.

Whoever is let in is counted: one request of their minute, whatever it leads to and however long its answer streams.
"""

import hmac
from typing import Annotated

from fastapi import Depends, Request

from runtime.accounts.logins import Logins, looks_like_login
from runtime.accounts.port import By
from runtime.accounts.proofs import Proofs
from runtime.entity.port import Entities
from runtime.errors import ForbiddenError, NotAuthenticatedError, OverloadedError, UnavailableError
from runtime.ids import LOCAL_ADMIN, user_entity
from runtime.ledger.port import Identity, TokenTerms
from runtime.session.messages import Admit
from runtime.tokens import token_hash
from serve_apps.system import System

TOKEN_CHARACTERS_MAX = 2_048
ADMIT_S_MAX = 2.0
"""How long a request waits to be counted. A part of ours that is silent locks nobody out."""


def system_of(request: Request) -> System:
    system: System = request.app.state.system
    return system


TheSystem = Annotated[System, Depends(system_of)]


async def caller_of(request: Request, system: TheSystem) -> Identity:
    """Raises NotAuthenticatedError without telling a missing token from a wrong, expired or revoked one;
    ForbiddenError for who is banned."""
    token = token_of(request)
    identity = await _identity_of(request, system, token) if token else None
    if identity is None:
        raise NotAuthenticatedError(
            "This needs a valid token.", "Send it as `Authorization: Bearer TOKEN`; the operator issues tokens."
        )
    check_let_in(identity)
    return identity


Caller = Annotated[Identity, Depends(caller_of)]
"""Whoever a valid token speaks for."""


async def user_of(system: TheSystem, caller: Caller) -> Identity:
    """Raises ForbiddenError for a token that may call models and nothing else: a task's, a project's, or one with
    models, a budget or a rate, for a build would spend past them; TooManyRequestsError."""
    if calls_models_only(caller):
        raise ForbiddenError("This token may only call models.", "Use a user's token without limits here.")
    await count(system.entities, caller)
    return caller


User = Annotated[Identity, Depends(user_of)]


async def admin_of(request: Request, system: TheSystem) -> Identity:
    """Raises NotAuthenticatedError, and ForbiddenError for whoever is no administrator.

    The operator's own token is known to every replica, so that an operator can look while the ledger is silent.
    """
    operator_sha256: str | None = request.app.state.operator_sha256
    if operator_sha256 and hmac.compare_digest(token_hash(token_of(request)), operator_sha256):
        return Identity(user=LOCAL_ADMIN, is_admin=True, kind="user")
    identity = await user_of(system, await caller_of(request, system))
    if not identity.is_admin:
        raise ForbiddenError("This is for administrators.", "Use the token of one, such as the local admin's.")
    return identity


Admin = Annotated[Identity, Depends(admin_of)]


def calls_models_only(identity: Identity) -> bool:
    return identity.kind != "user" or identity.terms != TokenTerms()


def check_let_in(identity: Identity) -> None:
    """Raises ForbiddenError for somebody who is banned, or whom the operator's list does not name."""
    if identity.refusal:
        raise ForbiddenError(identity.refusal, "Write to the operator if you think that this is a mistake.")


def check_bot(request: Request) -> None:
    """Raises NotAuthenticatedError for whoever is not the bot."""
    proofs: Proofs = request.app.state.proofs
    if not proofs.is_bot(token_of(request)):
        raise NotAuthenticatedError("This is for the bot.", "Send BOT_SERVICE_TOKEN as `Authorization: Bearer TOKEN`.")


async def count(entities: Entities, identity: Identity) -> None:
    """One request of the user's minute. Raises TooManyRequestsError. Nobody counts the local admin."""
    if identity.user == LOCAL_ADMIN:
        return
    try:
        one = Admit(kind="request", role=identity.role)
        await entities.ask(user_entity(identity.user), one, timeout_s=ADMIT_S_MAX)
    except OverloadedError:
        raise
    except UnavailableError:
        return


def by_of(request: Request, identity: Identity) -> By:
    """Who does it, for what is written down."""
    return By(user=identity.user, address=address_of(request))


def address_of(request: Request) -> str:
    return request.client.host if request.client else ""


def logins_of(request: Request) -> Logins:
    logins: Logins = request.app.state.logins
    return logins


TheLogins = Annotated[Logins, Depends(logins_of)]


def token_of(request: Request) -> str:
    """Empty when there is none that could be one."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and len(token) <= TOKEN_CHARACTERS_MAX else ""


async def _identity_of(request: Request, system: System, token: str) -> Identity | None:
    if not looks_like_login(token):
        return await system.ledger.authenticate(token_hash(token))
    login = logins_of(request).read(token)
    return await system.ledger.authenticate_login(login) if login else None

"""Accounts at the HTTP door: registering with proof, codes, one's own settings. Source: spec/assistant.md §16.1."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BeforeValidator, Field, StrictBool, StrictInt, StringConstraints

from runtime.accounts.port import Account, TelegramIdentity
from runtime.accounts.proofs import Name, Proofs
from runtime.accounts.rules import TELEGRAM_ID_MAX, check_admitted
from runtime.errors import ConflictError, ForbiddenError, NotAuthenticatedError, NotFoundError
from runtime.ids import user_entity
from runtime.ledger.port import Identity
from runtime.session.messages import ChangeSettings, DescribeSession, SessionView
from runtime.tokens import LINK_LIFE, new_link_token, token_hash
from serve_apps.auth import TheLogins, TheSystem, User, address_of, check_bot, token_of
from serve_apps.bodies import Body, Words, idempotency_key, no_nul, read_body
from serve_apps.system import System

BODY_BYTES_MAX = 64 << 10
router = APIRouter(prefix="/api/v1/auth")

TelegramId = Annotated[StrictInt, Field(ge=1, le=TELEGRAM_ID_MAX)]
TelegramName = Annotated[Name, BeforeValidator(no_nul)]
Code = Annotated[Words, StringConstraints(max_length=200)]
Setting = Annotated[str, StringConstraints(max_length=100), BeforeValidator(no_nul)]


class RegisterBody(Body):
    """With one proof that the id is the sender's: the bot's own token in the header, or one of the last three."""

    telegram_id: TelegramId
    username: TelegramName = ""
    first_name: TelegramName = ""
    last_name: TelegramName = ""
    language_code: Annotated[str, StringConstraints(max_length=35), BeforeValidator(no_nul)] = ""
    login: dict[str, str | int] | None = None
    """What Telegram's login button gave."""
    init_data: Annotated[str, StringConstraints(max_length=4_096)] | None = None
    """A Mini App's."""
    link: Annotated[str, StringConstraints(max_length=200)] | None = None
    """What the bot gave, for once."""


class LinkBody(Body):
    telegram_id: TelegramId


class CodeBody(Body):
    telegram_id: TelegramId | None = None
    """When it is said it must be the caller's own."""


class UnlockBody(CodeBody):
    unlock_code: Code


class BootstrapBody(CodeBody):
    bootstrap_code: Code


class InviteCodeBody(CodeBody):
    invite_code: Code


class ChosenBody(Body):
    language: Setting | None = None
    provider: Setting | None = None


class SettingsBody(Body):
    """What is not given stays as it is."""

    default_mode: Setting | None = None
    settings: ChosenBody = ChosenBody()


class LogoutBody(Body):
    everywhere: StrictBool = False
    """Every login of the caller, not only this one."""


def proofs_of(request: Request) -> Proofs:
    proofs: Proofs = request.app.state.proofs
    return proofs


TheProofs = Annotated[Proofs, Depends(proofs_of)]


@router.post("/register")
async def register(request: Request, system: TheSystem, logins: TheLogins, proofs: TheProofs) -> JSONResponse:
    """Whoever is known gets a new token."""
    body = await read_body(request, RegisterBody, BODY_BYTES_MAX)
    account = await _proved(request, system, proofs, body)
    check_admitted(account.banned)
    issued = logins.issue(account)
    told = {
        **_account_json(account),
        "verified": account.verified,
        "is_new": account.is_new,
        "token": issued.token,
        "expires_at": issued.expires_at.isoformat(),
    }
    return JSONResponse(told, headers={"cache-control": "no-store"})


@router.post("/link", dependencies=[Depends(check_bot)])
async def link(request: Request, system: TheSystem) -> JSONResponse:
    """For the bot: what logs one person in elsewhere, once."""
    body = await read_body(request, LinkBody, BODY_BYTES_MAX)
    account = await system.ledger.account_of(body.telegram_id)
    if account is None:
        raise NotFoundError("Nobody with this Telegram id is registered.", "Register them first.")
    token = new_link_token()
    expires_at = datetime.now(UTC) + LINK_LIFE
    await system.ledger.add_login_link(account.user, token_hash(token), expires_at)
    told = {"link": token, "expires_at": expires_at.isoformat()}
    return JSONResponse(told, 201, headers={"cache-control": "no-store"})


@router.post("/unlock")
async def unlock(request: Request, system: TheSystem, user: User) -> JSONResponse:
    body = await read_body(request, UnlockBody, BODY_BYTES_MAX)
    await _check_own(system, user, body)
    account = await system.ledger.unlock(user.user, body.unlock_code, address_of(request))
    return JSONResponse({**_account_json(account), "message": "You may chat now."})


@router.post("/bootstrap")
async def bootstrap(request: Request, system: TheSystem, user: User) -> JSONResponse:
    body = await read_body(request, BootstrapBody, BODY_BYTES_MAX)
    await _check_own(system, user, body)
    account = await system.ledger.bootstrap(user.user, body.bootstrap_code, address_of(request))
    return JSONResponse({**_account_json(account), "message": "You are an administrator now."})


@router.post("/invite")
async def invite(request: Request, system: TheSystem, user: User) -> JSONResponse:
    body = await read_body(request, InviteCodeBody, BODY_BYTES_MAX)
    await _check_own(system, user, body)
    account = await system.ledger.redeem_invite(user.user, body.invite_code, address_of(request))
    return JSONResponse({**_account_json(account), "message": f"You are let in, as {account.role}."})


@router.post("/logout")
async def logout(request: Request, system: TheSystem, user: User) -> JSONResponse:
    body = await read_body(request, LogoutBody, BODY_BYTES_MAX)
    if body.everywhere:
        await system.ledger.revoke_logins(user.user)
    elif user.login is None:
        raise ConflictError("This token is no login, so it does not end by a logout.", "The operator revokes it.")
    else:
        await system.ledger.revoke_login(user.login)
    return JSONResponse({"user_id": user.user, "everywhere": body.everywhere})


@router.get("/me")
async def me(system: TheSystem, user: User) -> JSONResponse:
    view = await system.entities.ask(user_entity(user.user), DescribeSession())
    return JSONResponse(await _me(system, user, view))


@router.put("/settings")
async def settings(request: Request, system: TheSystem, user: User) -> JSONResponse:
    body = await read_body(request, SettingsBody, BODY_BYTES_MAX)
    change = ChangeSettings(
        key=idempotency_key(request, "settings"),
        default_mode=body.default_mode,
        language=body.settings.language,
        provider=body.settings.provider,
    )
    view = await system.entities.ask(user_entity(user.user), change)
    return JSONResponse(await _me(system, user, view))


async def _proved(request: Request, system: System, proofs: Proofs, body: RegisterBody) -> Account:
    """Raises NotAuthenticatedError without a proof that holds, ForbiddenError for one of another id."""
    if body.link is not None:
        account = await system.ledger.use_login_link(token_hash(body.link))
        if account is None:
            raise NotAuthenticatedError("This link was used, or is too old.", "Ask the bot for another.")
        _check_same(account.telegram_id, body.telegram_id)
        return account
    if body.login is not None:
        identity = proofs.of_widget(body.login)
    elif body.init_data is not None:
        identity = proofs.of_mini_app(body.init_data)
    elif not proofs.is_bot(token_of(request)):
        raise NotAuthenticatedError(
            "Nothing proves that this Telegram id is yours.",
            "Send what Telegram's login gave (login or init_data), or a link from the bot.",
        )
    else:
        told = body.model_dump(include=set(TelegramIdentity.__dataclass_fields__))
        identity = TelegramIdentity(**told)
    _check_same(identity.telegram_id, body.telegram_id)
    return await system.ledger.register(identity)


def _check_same(proved: int | None, named: int) -> None:
    if proved != named:
        raise ForbiddenError("The proof is of another Telegram id than the one you named.", "Name your own.")


async def _check_own(system: System, user: Identity, body: CodeBody) -> None:
    """What a code changes is always the caller: the id in the body chooses nobody."""
    if body.telegram_id is not None:
        account = await system.ledger.account(user.user)
        _check_same(account.telegram_id if account else None, body.telegram_id)


async def _me(system: System, user: Identity, view: SessionView) -> dict[str, Any]:
    account, person = await system.ledger.account(user.user), await system.ledger.person(user.user)
    if account is None or person is None:
        raise NotFoundError(f"There is no user {user.user}.")
    return {
        **_account_json(account),
        "username": account.username,
        "first_name": account.first_name,
        "last_name": account.last_name,
        "verified": account.verified,
        "subscription_tier": person.subscription_tier,
        "default_mode": view.default_mode,
        "settings": {"language": view.language, "provider": view.provider},
        "conversation_state": view.conversation,
        "project": view.project,
    }


def _account_json(account: Account) -> dict[str, Any]:
    return {
        "user_id": account.user,
        "telegram_id": account.telegram_id,
        "role": account.role,
        "authorized": account.authorized,
    }

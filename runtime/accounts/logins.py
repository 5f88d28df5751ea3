"""Signed tokens of people who came by Telegram: JWTs, HS256. Source: spec/assistant.md §14; RFC 7519.

A token says who it is for. What they may do, the ledger says: the token's role is for whoever shows it to somebody.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from runtime.accounts.port import Account, Login
from runtime.errors import NotFoundError
from runtime.ids import UserId

ALGORITHM = "HS256"
ISSUER = "masterbuilder"
AUDIENCE = "masterbuilder-api"
_REQUIRED = ["telegram_id", "role", "username", "iat", "exp", "jti", "iss", "aud", "sub", "gen"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedLogin:
    token: str
    expires_at: datetime


class Logins:
    """Signs with the first secret; what the previous one signed is good until it expires."""

    def __init__(
        self,
        secret: str,
        previous: str = "",
        *,
        hours: int = 24,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._secrets = [secret, previous] if previous else [secret]
        self._hours = hours
        self._now = now

    def issue(self, account: Account) -> IssuedLogin:
        """Raises NotFoundError for somebody without Telegram: they have the operator's tokens."""
        if account.telegram_id is None:
            raise NotFoundError(f"{account.user} did not come by Telegram.", "The operator issues tokens.")
        now = self._now().replace(microsecond=0)
        expires_at = now + timedelta(hours=self._hours)
        claims = {
            "telegram_id": account.telegram_id,
            "role": account.role,
            "username": account.username,
            "iat": now,
            "exp": expires_at,
            "jti": secrets.token_hex(16),
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": account.user,
            "gen": account.logins,
        }
        return IssuedLogin(token=jwt.encode(claims, self._secrets[0], ALGORITHM), expires_at=expires_at)

    def read(self, token: str) -> Login | None:
        """None for what is not signed by us, has expired, or lacks a claim."""
        for secret in self._secrets:
            try:
                claims: dict[str, Any] = jwt.decode(
                    token, secret, [ALGORITHM], issuer=ISSUER, audience=AUDIENCE,
                    options={"require": _REQUIRED, "verify_exp": False, "verify_iat": False},
                )  # fmt: skip
                return self._login(claims)
            except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError):
                continue
        return None

    def _login(self, claims: dict[str, Any]) -> Login | None:
        """By our own clock: `jwt` knows only the machine's."""
        expires_at = datetime.fromtimestamp(int(claims["exp"]), UTC)
        if expires_at <= self._now():
            return None
        return Login(
            id=str(claims["jti"]),
            user=UserId(str(claims["sub"])),
            telegram_id=int(claims["telegram_id"]),
            generation=int(claims["gen"]),
            expires_at=expires_at,
        )


def looks_like_login(token: str) -> bool:
    """Our own tokens have no dots."""
    return token.count(".") == 2

"""Whom a request's token speaks for, without asking the ledger each time: a replica knows each token for seconds."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from runtime.errors import NotAuthenticatedError, OverloadedError, TooManyRequestsError
from runtime.ledger.port import Identity
from runtime.tokens import token_hash
from serve_apps.auth import check_let_in

REFRESH_AFTER_S = 2.0
KNOWN_S_MAX = 4.5
"""A token that is revoked stops within this time."""
UNKNOWN_S_MAX = 1.0
"""A wrong token is not asked about again for so long; one that was just issued works after it."""
TOKENS_MAX = 10_000
ASKING_MAX = 200
"""Different tokens the ledger is asked about at once; who guesses tokens meets this bound."""
WINDOW_S = 60.0


@dataclass(slots=True)
class Bearer:
    """A token that was good a moment ago. `arrivals` are the calls of the last minute, where their rate is limited."""

    token_sha256: str
    identity: Identity
    asked_s: float
    arrivals: deque[float] = field(default_factory=deque)


class Tokens:
    """The tokens one replica knows. Their rates are counted for this replica alone."""

    def __init__(
        self,
        authenticate: Callable[[str], Awaitable[Identity | None]],
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._authenticate = authenticate
        self._clock = clock
        self._now = now
        self._known: dict[str, Bearer] = {}
        self._unknown: dict[str, float] = {}
        self._asking: dict[str, asyncio.Task[Bearer | None]] = {}

    async def bearer(self, token: str) -> Bearer:
        """Raises NotAuthenticatedError without telling a missing token from a wrong, expired or revoked one;
        ForbiddenError for who is banned; UnavailableError where the ledger cannot say; OverloadedError where too many
        unknown tokens come at once.
        """
        sha256 = token_hash(token)
        clock_s = self._clock()
        bearer = self._known.get(sha256)
        if bearer is None or clock_s >= bearer.asked_s + KNOWN_S_MAX or self._has_lost_role(bearer.identity):
            bearer = None
            if clock_s >= self._unknown.get(sha256, -UNKNOWN_S_MAX) + UNKNOWN_S_MAX:
                bearer = await asyncio.shield(self._ask(sha256))
        elif clock_s >= bearer.asked_s + REFRESH_AFTER_S:
            with suppress(OverloadedError):
                self._ask(sha256)
        if bearer is None or self._has_expired(bearer.identity):
            raise not_authenticated()
        check_let_in(bearer.identity)
        return bearer

    def admit(self, bearer: Bearer) -> None:
        """Counts a call. Raises TooManyRequestsError where the token's minute is full; that call is not counted."""
        limit = bearer.identity.terms.requests_per_minute
        if limit is None:
            return
        clock_s, arrivals = self._clock(), bearer.arrivals
        while arrivals and arrivals[0] <= clock_s - WINDOW_S:
            arrivals.popleft()
        if len(arrivals) >= limit:
            wait_s = arrivals[0] + WINDOW_S - clock_s if arrivals else WINDOW_S
            raise TooManyRequestsError(
                f"This token may make {limit} calls a minute.",
                f"Try again in {wait_s:.0f} s, or ask for a token with a higher limit.",
                retry_after_s=wait_s,
            )
        arrivals.append(clock_s)

    def _ask(self, sha256: str) -> asyncio.Task[Bearer | None]:
        """One question at a time for each token."""
        task = self._asking.get(sha256)
        if task is None:
            if len(self._asking) >= ASKING_MAX:
                raise OverloadedError("Too many unknown tokens are being looked up.")
            task = self._asking[sha256] = asyncio.create_task(self._look_up(sha256))
            task.add_done_callback(lambda done: self._answered(sha256, done))
        return task

    async def _look_up(self, sha256: str) -> Bearer | None:
        asked_s = self._clock()
        identity = await self._authenticate(sha256)
        before = self._known.pop(sha256, None)
        if identity is None:
            _make_room(self._unknown)
            self._unknown[sha256] = asked_s
            return None
        self._unknown.pop(sha256, None)
        _make_room(self._known)
        bearer = Bearer(sha256, identity, asked_s, before.arrivals if before else deque())
        self._known[sha256] = bearer
        return bearer

    def _answered(self, sha256: str, task: asyncio.Task[Bearer | None]) -> None:
        del self._asking[sha256]
        if not task.cancelled():
            task.exception()  # Whoever waits hears of it; a refresh that failed is tried again by the next call.

    def _has_expired(self, identity: Identity) -> bool:
        return identity.expires_at is not None and identity.expires_at <= self._now()

    def _has_lost_role(self, identity: Identity) -> bool:
        return identity.role_until is not None and identity.role_until <= self._now()


def not_authenticated() -> NotAuthenticatedError:
    return NotAuthenticatedError(
        "This needs a valid token.",
        "Send it as `Authorization: Bearer TOKEN` or `x-api-key: TOKEN`; the operator issues tokens.",
    )


def _make_room(entries: dict[str, Bearer] | dict[str, float]) -> None:
    """Forgets who came first: what is refreshed moves to the end."""
    if len(entries) >= TOKENS_MAX:
        del entries[next(iter(entries))]

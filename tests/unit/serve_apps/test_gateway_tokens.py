import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from runtime.errors import NotAuthenticatedError, OverloadedError, StoreUnavailableError, TooManyRequestsError
from runtime.ids import UserId
from runtime.ledger.port import Identity, TokenTerms
from runtime.tokens import token_hash
from serve_apps import gateway_tokens
from serve_apps.gateway_tokens import Tokens

NOW = datetime(2026, 11, 22, tzinfo=UTC)
ANN = Identity(user=UserId("ann"), is_admin=False, kind="user")


class Ledger:
    def __init__(self) -> None:
        self.identities = {token_hash("good"): ANN}
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.is_silent = False

    async def authenticate(self, token_sha256: str) -> Identity | None:
        self.asked += 1
        await self.answers.wait()
        if self.is_silent:
            raise StoreUnavailableError("silent")
        return self.identities.get(token_sha256)


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(ledger: Ledger, clock: Clock) -> Tokens:
    return Tokens(ledger.authenticate, clock=clock, now=lambda: NOW)


async def test_token__is_asked_about_once_for_seconds_however_many_call(tokens, ledger, clock):
    bearers = await asyncio.gather(*(tokens.bearer("good") for _ in range(50)))
    clock.s += 1.9
    bearers.append(await tokens.bearer("good"))
    assert {bearer.identity for bearer in bearers} == {ANN}
    assert bearers[0].token_sha256 == token_hash("good")
    assert ledger.asked == 1


async def test_known_token__is_refreshed_beside_the_call_that_uses_it(tokens, ledger, clock):
    await tokens.bearer("good")
    clock.s += 2.1
    ledger.answers.clear()
    await tokens.bearer("good")
    await asyncio.sleep(0)
    assert ledger.asked == 2
    ledger.answers.set()
    await asyncio.sleep(0)
    clock.s += 4
    await asyncio.sleep(0)
    await tokens.bearer("good")


async def test_revoked_token__stops_within_five_seconds_whether_it_was_in_use_or_not(tokens, ledger, clock):
    await tokens.bearer("good")
    ledger.identities.clear()
    clock.s += 4.6
    with pytest.raises(NotAuthenticatedError):
        await tokens.bearer("good")


async def test_role_that_has_ended__is_asked_about_before_the_next_call(ledger, clock):
    """However young what is known of the token is: a subscription ends in the moment it ends."""
    times = [NOW]
    tokens = Tokens(ledger.authenticate, clock=clock, now=lambda: times[-1])
    sha256, end = token_hash("good"), NOW + timedelta(seconds=1)
    ledger.identities[sha256] = replace(ANN, role="FULL_ACCESS", role_until=end)
    assert (await tokens.bearer("good")).identity.role == "FULL_ACCESS"
    ledger.identities[sha256] = replace(ANN, role="DEMO")
    assert (await tokens.bearer("good")).identity.role == "FULL_ACCESS"
    times.append(end)
    assert [(await tokens.bearer("good")).identity.role for _ in range(3)] == ["DEMO"] * 3
    assert ledger.asked == 2


async def test_revoked_token__stops_although_the_ledger_fell_silent(tokens, ledger, clock):
    await tokens.bearer("good")
    ledger.is_silent = True
    clock.s += 3
    await tokens.bearer("good")
    await asyncio.sleep(0)
    clock.s += 1.6
    with pytest.raises(StoreUnavailableError):
        await tokens.bearer("good")


async def test_wrong_token__is_not_asked_about_again_for_a_second_and_then_may_have_become_right(tokens, ledger, clock):
    for _ in range(3):
        with pytest.raises(NotAuthenticatedError):
            await tokens.bearer("new")
    assert ledger.asked == 1
    ledger.identities[token_hash("new")] = ANN
    clock.s += 1
    assert (await tokens.bearer("new")).identity == ANN


async def test_token__expires_on_time_although_it_is_known(ledger, clock):
    now = NOW
    tokens = Tokens(ledger.authenticate, clock=clock, now=lambda: now)
    expires_at = NOW + timedelta(seconds=1)
    ledger.identities[token_hash("good")] = Identity(user=ANN.user, is_admin=False, kind="user", expires_at=expires_at)
    await tokens.bearer("good")
    now = expires_at
    with pytest.raises(NotAuthenticatedError):
        await tokens.bearer("good")


async def test_guessed_tokens__are_neither_remembered_nor_asked_about_without_bound(tokens, ledger, monkeypatch):
    monkeypatch.setattr(gateway_tokens, "TOKENS_MAX", 5)
    for number in range(20):
        with pytest.raises(NotAuthenticatedError):
            await tokens.bearer(f"guess-{number}")
    assert len(tokens._unknown) == 5
    ledger.answers.clear()
    asking = [asyncio.create_task(tokens.bearer(f"more-{number}")) for number in range(gateway_tokens.ASKING_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await tokens.bearer("one too many")
    ledger.answers.set()
    await asyncio.gather(*asking, return_exceptions=True)


async def test_rate__is_counted_over_a_sliding_minute_and_outlives_refreshes(tokens, ledger, clock):
    terms = TokenTerms(requests_per_minute=2)
    ledger.identities[token_hash("good")] = Identity(user=ANN.user, is_admin=False, kind="user", terms=terms)
    for _ in range(2):
        tokens.admit(await tokens.bearer("good"))
        clock.s += 10
    with pytest.raises(TooManyRequestsError) as refused:
        tokens.admit(await tokens.bearer("good"))
    assert refused.value.retry_after_s == 40
    clock.s += 40
    tokens.admit(await tokens.bearer("good"))
    with pytest.raises(TooManyRequestsError):
        tokens.admit(await tokens.bearer("good"))

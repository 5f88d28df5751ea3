"""How an operator issues, lists and revokes tokens."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from runtime.entity.journal import Head
from runtime.ids import LOCAL_ADMIN, EntityId, UserId
from runtime.ledger.money import Tariff
from runtime.ledger.port import NewToken
from runtime.testing.memory_ledger import MemoryLedger
from runtime.tokens import token_hash
from serve_apps import token_routes
from serve_apps.door import application
from tests.uncounted import Uncounted

OPERATOR = {"authorization": "Bearer operator-token"}
NOW = datetime.now(UTC)


class OneProject:
    async def head(self, entity: EntityId) -> Head | None:
        if entity != "project:p1":
            return None
        return Head(entity=entity, owner=UserId("ann"), last_seq=1, open=True, updated_at=NOW, data={})


@pytest.fixture
async def ledger() -> MemoryLedger:
    ledger = MemoryLedger(Tariff(), 10**8)
    await ledger.open_wallet(LOCAL_ADMIN, is_admin=True)
    for token, user in (("operator-token", LOCAL_ADMIN), ("ann-token", UserId("ann"))):
        await ledger.add_token(NewToken(token_sha256=token_hash(token), user=user, kind="user", label=""))
    return ledger


@pytest.fixture
async def door(ledger: MemoryLedger) -> AsyncIterator[httpx.AsyncClient]:
    system: Any = SimpleNamespace(ledger=ledger, journal=OneProject(), entities=Uncounted())
    app = application((token_routes.router,), system, under_serve=False, operator_sha256=token_hash("operator-token"))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api/api/v1/admin", headers=OPERATOR) as client:
        yield client


@pytest.mark.parametrize(("method", "path"), [("POST", "/tokens"), ("GET", "/tokens"), ("DELETE", "/tokens/aa")])
@pytest.mark.parametrize(
    ("headers", "status"), [({"authorization": "Bearer ann-token"}, 403), ({"authorization": ""}, 401)]
)
async def test_route__is_for_administrators(
    door: httpx.AsyncClient, ledger: MemoryLedger, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    assert (await door.request(method, path, json={}, headers=headers)).status_code == status
    assert len(await ledger.tokens(None)) == 2


async def test_issued_token__carries_its_terms_and_is_never_told_again(
    door: httpx.AsyncClient, ledger: MemoryLedger
) -> None:
    said = {
        "user": "new",
        "models": ["openai/*", "eco", "eco"],
        "budget_credits": "1.5",
        "requests_per_minute": 60,
        "expires_in_s": 86_400,
        "label": "editor",
    }
    response = await door.post("/tokens", json=said)
    assert response.status_code == 201
    told = response.json()
    token = told.pop("token")
    assert token.startswith("mb-")
    identity = await ledger.authenticate(token_hash(token))
    assert identity is not None
    assert (identity.user, identity.kind, identity.is_admin, identity.role) == ("new", "user", False, "DEMO")
    assert identity.terms.models == ("openai/*", "eco")
    assert (identity.terms.budget_ucredits, identity.terms.requests_per_minute) == (1_500_000, 60)
    assert identity.expires_at is not None
    assert abs(identity.expires_at - datetime.now(UTC) - timedelta(days=1)) < timedelta(minutes=1)
    (listed,) = (await door.get("/tokens", params={"user": "new"})).json()["tokens"]
    assert {**listed, "administers": False, "role": told["role"]} == told
    assert (listed["budget_credits"], listed["spent_credits"], listed["state"]) == ("1.50", "0.00", "valid")
    assert token not in (await door.get("/tokens")).text


async def test_token_without_terms_of_an_administrator__says_that_it_administers(door: httpx.AsyncClient) -> None:
    assert (await door.post("/tokens", json={})).json()["administers"] is True
    assert (await door.post("/tokens", json={"budget_credits": 1})).json()["administers"] is False


async def test_projects_token__is_its_owners(door: httpx.AsyncClient, ledger: MemoryLedger) -> None:
    told = (await door.post("/tokens", json={"project": "p1"})).json()
    identity = await ledger.authenticate(token_hash(told["token"]))
    assert identity is not None
    assert (identity.user, identity.kind, identity.project) == ("ann", "project", "p1")
    assert (await door.post("/tokens", json={"project": "p1", "user": "bob"})).status_code == 400
    assert (await door.post("/tokens", json={"project": "p2"})).status_code == 404


@pytest.mark.parametrize(
    "said",
    [
        {"user": "a/held"},
        {"user": "a b"},
        {"user": ""},
        {"models": ["gpt-4o"]},
        {"models": ["openai/x y"]},
        {"models": ["openai/'x"]},
        {"models": ["openai/x"] * 201},
        {"budget_credits": 0},
        {"budget_credits": -1},
        {"budget_credits": "lots"},
        {"requests_per_minute": 0},
        {"requests_per_minute": 1.5},
        {"expires_in_s": 0},
        {"expires_in_s": 10**12},
        {"label": "x" * 201},
        {"is_admin": True},
    ],
)
async def test_token_that_cannot_be__is_refused(
    door: httpx.AsyncClient, ledger: MemoryLedger, said: dict[str, Any]
) -> None:
    response = await door.post("/tokens", json=said)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "bad_input")
    assert len(await ledger.tokens(None)) == 2


async def test_revoked_token__is_worthless_and_shown_so(door: httpx.AsyncClient, ledger: MemoryLedger) -> None:
    told = (await door.post("/tokens", json={"user": "new"})).json()
    for _ in range(2):
        response = await door.delete(f"/tokens/{told['token_id']}")
        assert response.json() == {"token_id": told["token_id"], "revoked": True}
    assert await ledger.authenticate(token_hash(told["token"])) is None
    (listed,) = (await door.get("/tokens", params={"user": "new"})).json()["tokens"]
    assert listed["state"] == "revoked"


@pytest.mark.parametrize("token_id", ["0" * 12, "x", "0" * 64, "%25"])
async def test_token_nobody_issued__is_not_found(door: httpx.AsyncClient, token_id: str) -> None:
    assert (await door.delete(f"/tokens/{token_id}")).status_code == 404


async def test_operators_own_token__cannot_be_revoked_here(door: httpx.AsyncClient, ledger: MemoryLedger) -> None:
    sha256 = token_hash("operator-token")
    assert (await door.delete(f"/tokens/{sha256[:12]}")).status_code == 409
    assert await ledger.authenticate(sha256) is not None


async def test_role__is_given_to_the_named_user_and_never_to_oneself(door: httpx.AsyncClient) -> None:
    assert (await door.post("/tokens", json={"user": "ann"})).json()["role"] == "DEMO"
    assert (await door.post("/tokens", json={"user": "ann", "role": "FULL_ACCESS"})).json()["role"] == "FULL_ACCESS"
    assert (await door.post("/tokens", json={"user": "ann"})).json()["role"] == "FULL_ACCESS"
    for body in ({"role": "DEMO"}, {"user": "ann", "role": "ADMIN"}):
        assert (await door.post("/tokens", json=body)).status_code == 400

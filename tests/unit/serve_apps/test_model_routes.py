"""How an operator keeps the catalogue, through the real door over a ledger that holds rows in a list."""

from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from runtime.catalogue.catalogue import Catalogue
from runtime.ids import UserId
from runtime.ledger.port import Identity, ModelRow
from runtime.tokens import token_hash
from serve_apps import model_routes
from serve_apps.door import application
from tests.uncounted import Uncounted

ADMIN = {"authorization": "Bearer admin-token"}
CHANGE = {"provider": "openai", "model": "gpt-4o", "input_cost_per_million_tokens": "3"}


class ListLedger:
    def __init__(self) -> None:
        self.rows: list[ModelRow] = []
        self.writes = 0

    async def authenticate(self, token_sha256: str) -> Identity | None:
        known = {token_hash("admin-token"): True, token_hash("ann-token"): False}
        if token_sha256 not in known:
            return None
        return Identity(user=UserId("u"), is_admin=known[token_sha256], kind="user")

    async def models(self) -> Sequence[ModelRow]:
        return self.rows

    async def set_models(self, rows: Sequence[ModelRow]) -> None:
        self.writes += 1
        self.rows += rows


@pytest.fixture
def ledger() -> ListLedger:
    return ListLedger()


@pytest.fixture
async def client(ledger: ListLedger) -> AsyncIterator[httpx.AsyncClient]:
    system: Any = SimpleNamespace(ledger=ledger, entities=Uncounted())
    app = application([model_routes.router], system, under_serve=False)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=ADMIN) as client:
        yield client


async def models_of(client: httpx.AsyncClient) -> dict[str, Any]:
    told = (await client.get("/api/v1/admin/models")).json()
    return {line["id"]: line for line in told["models"]}


async def test_models__are_the_built_in_ones_until_an_administrator_sets_one(client, ledger):
    before = (await models_of(client))["openai/gpt-4o"]
    assert (before["built_in"], before["input_cost_per_million_tokens"]) == (True, "2.5")
    response = await client.post("/api/v1/admin/models", json={"models": [CHANGE]})
    assert response.status_code == 200, response.text
    after = (await models_of(client))["openai/gpt-4o"]
    assert (after["built_in"], after["input_cost_per_million_tokens"]) == (False, "3")
    assert {**after, "built_in": True, "effective_from": None, "input_cost_per_million_tokens": "2.5"} == before
    assert response.json()["models"] == [after]


async def test_row__that_is_stored_is_what_the_catalogue_reads(client, ledger):
    await client.post("/api/v1/admin/models", json={"models": [CHANGE]})
    (row,) = ledger.rows
    model = Catalogue.of([row.body]).model("openai", "gpt-4o")
    assert (row.provider, row.model, row.price, row.effective_from) == (
        model.provider,
        model.name,
        model.price,
        model.effective_from,
    )
    assert len(row.body.encode()) <= 4096


async def test_price_to_come__is_listed_apart(client):
    change = {**CHANGE, "effective_from": "2999-01-01"}
    await client.post("/api/v1/admin/models", json={"models": [change]})
    told = (await client.get("/api/v1/admin/models")).json()
    assert [line["effective_from"] for line in told["upcoming"]] == ["2999-01-01T00:00:00Z"]
    assert (await models_of(client))["openai/gpt-4o"]["built_in"]


@pytest.mark.parametrize(
    ("models", "says"),
    [
        ([CHANGE, {**CHANGE, "currency": "EUR"}], "models.1.currency"),
        ([CHANGE, {**CHANGE, "price": 1}], "models.1.price"),
        ([CHANGE, {**CHANGE, "input_cost_per_million_tokens": -1}], "models.1.input_cost_per_million_tokens"),
        ([CHANGE, {"provider": "local", "model": "*"}], "local/* lacks input_cost_per_million_tokens"),
        ([CHANGE, CHANGE], "twice"),
        ([], "models"),
        ([CHANGE] * 5001, "models"),
    ],
)
async def test_models__are_set_all_or_none(client, ledger, models, says):
    response = await client.post("/api/v1/admin/models", json={"models": models})
    assert response.status_code == 400
    assert says in response.json()["error"]["message"]
    assert ledger.writes == 0


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_models__are_for_administrators(client, ledger, method):
    for token, status in (("ann-token", 403), ("wrong", 401)):
        headers = {"authorization": f"Bearer {token}"}
        response = await client.request(method, "/api/v1/admin/models", json={"models": [CHANGE]}, headers=headers)
        assert response.status_code == status
    assert ledger.writes == 0

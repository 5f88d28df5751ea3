"""What an operator may do with provider keys over HTTP: everything but see one."""

import base64
import os
from datetime import UTC, datetime

import httpx
import pytest

from runtime.errors import BadInputError, NotFoundError
from runtime.keys.office import KeyFacts, Rotated
from runtime.ledger.port import KeyRotation
from serve_apps import key_routes
from serve_apps.door import application

ADMIN = {"authorization": "Bearer bob-token"}
ROUTES = [(method, route.path) for route in key_routes.router.routes for method in route.methods]
FACTS = KeyFacts(
    key_id="openai-1", provider="openai", label="l", state="usable", limits="", cooling_s=0.0, in_flight=0,
    expires_at=None, calls_last_minute=1, tokens_last_minute=2, calls=3, last_used_at=datetime(2026, 11, 1, tzinfo=UTC),
)  # fmt: skip


class FakeOffice:
    def __init__(self):
        self.done = []

    async def add(self, endpoint, label, limits, expires_at):
        self.done.append((endpoint.provider, endpoint.key, endpoint.base_url, label, limits, expires_at))
        return "openai-1"

    async def set_disabled(self, key_id, disabled):
        if key_id != "openai-1":
            raise NotFoundError("There is no such key.")
        self.done.append((key_id, disabled))

    async def rotate(self, new_master):
        if new_master is None:
            raise BadInputError("It must be given.")
        self.done.append(new_master)
        return Rotated(keys=1, unreadable=(), old_master="a", new_master="b", is_from_environment=True)

    async def listed(self):
        return [FACTS]

    async def rotations(self):
        return [KeyRotation(rotated_at=datetime(2026, 11, 1, tzinfo=UTC), keys=1, old_master="a", new_master="b")]


@pytest.fixture
def office():
    return FakeOffice()


@pytest.fixture
async def keys(system, office):
    system.keys = office
    app = application([key_routes.router], system, under_serve=False)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api") as client:
        yield client


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_key_route__is_for_administrators(keys, office, method, path):
    for headers, status in (({}, 401), ({"authorization": "Bearer ann-token"}, 403)):
        response = await keys.request(method, path, json={"provider": "openai", "key": "k"}, headers=headers)
        assert response.status_code == status
    assert office.done == []


async def test_list__tells_facts_and_rotations(keys):
    told = (await keys.get("/api/v1/admin/keys", headers=ADMIN)).json()
    assert told["keys"][0] | {"label": "l"} == told["keys"][0]
    assert (told["keys"][0]["state"], told["rotations"][0]["new_master"]) == ("usable", "b")


async def test_add__seals_at_the_providers_own_address_or_another(keys, office):
    url = "/api/v1/admin/keys"
    body = {"provider": "xAI", "key": " sk-1 ", "limits": {"requests_per_minute": 5}}
    assert (await keys.post(url, json=body, headers=ADMIN)).json() == {"key_id": "openai-1", "provider": "grok"}
    body = {"provider": "mine", "key": "sk-2", "base_url": "http://127.0.0.1:9/v1", "label": "lab"}
    body["expires_at"] = "2127-01-31T00:00:00Z"
    assert (await keys.post(url, json=body, headers=ADMIN)).status_code == 200
    assert office.done == [
        ("grok", "sk-1", "https://api.x.ai/v1", "added", '{"requests_per_minute": 5}', None),
        ("mine", "sk-2", "http://127.0.0.1:9/v1", "lab", "", datetime(2127, 1, 31, tzinfo=UTC)),
    ]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"provider": "openai"},
        {"provider": "openai", "key": ""},
        {"provider": "openai", "key": "sk-secret with spaces"},
        {"provider": "openai", "key": 7},
        {"provider": "openai", "key": "sk-secret", "colour": 1},
        {"provider": "../x", "key": "sk-secret"},
        {"provider": "mine", "key": "sk-secret"},
        {"provider": "openai", "key": "sk-secret", "base_url": "file:///etc/passwd"},
        {"provider": "openai", "key": "sk-secret", "label": "environment"},
        {"provider": "openai", "key": "sk-secret", "limits": {"requests_per_minute": -1}},
        {"provider": "openai", "key": "sk-secret", "expires_at": "2127-01-31T00:00:00"},
        {"provider": "openai", "key": "sk-secret", "expires_at": "2020-01-31T00:00:00Z"},
        {"provider": "openai", "key": "sk-secret" * 1_000},
    ],
)
async def test_add__of_what_is_no_key_is_refused_without_showing_it(keys, office, body):
    response = await keys.post("/api/v1/admin/keys", json=body, headers=ADMIN)
    assert response.status_code in (400, 422)
    assert "secret" not in response.text
    assert office.done == []


async def test_disable_and_enable__name_the_key(keys, office):
    for how, disabled in (("disable", True), ("enable", False)):
        response = await keys.post(f"/api/v1/admin/keys/openai-1/{how}", headers=ADMIN)
        assert response.json() == {"key_id": "openai-1", "disabled": disabled}
    assert (await keys.post("/api/v1/admin/keys/none/disable", headers=ADMIN)).status_code == 404
    assert office.done == [("openai-1", True), ("openai-1", False)]


async def test_rotate__takes_a_master_key_and_never_tells_it(keys, office):
    master = os.urandom(32)
    text = base64.b64encode(master).decode()
    response = await keys.post("/api/v1/admin/keys/rotate", json={"new_master_key": text}, headers=ADMIN)
    assert (response.status_code, office.done) == (200, [master])
    assert text not in response.text
    response = await keys.post("/api/v1/admin/keys/rotate", json={"new_master_key": "c2VjcmV0"}, headers=ADMIN)
    assert response.status_code in (400, 422)
    assert "c2VjcmV0" not in response.text
    assert (await keys.post("/api/v1/admin/keys/rotate", headers=ADMIN)).status_code in (400, 422)

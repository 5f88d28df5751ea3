"""What an operator may ask of the running service, and nobody else."""

import asyncio
from pathlib import Path

import pytest

from runtime.errors import ConflictError, StoreUnavailableError, UnavailableError
from runtime.ledger.port import Mismatch
from serve_apps import admin_routes

ADMIN = {"authorization": "Bearer bob-token"}
OPERATOR = {"authorization": "Bearer operator-token"}
ROUTES = [(method, route.path) for route in admin_routes.router.routes for method in route.methods]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_admin_route__is_for_administrators(door, system, method, path):
    response = await door.request(method, path, json={"folder": "/b"})
    assert (response.status_code, response.json()["error"]["code"]) == (403, "forbidden")
    assert system.keeper.backups == []


async def test_status__is_every_part_and_the_projects_of_all_users(door, names):
    response = await door.get("/api/v1/admin/status", headers=ADMIN)
    assert response.status_code == 200
    told = response.json()
    assert told["hosts"][0]["residents"] == 2
    assert told["hosts"][0]["quarantined"] == [
        {"entity": f"project:{names.bobs}", "error": "KeyError: 'x'", "failures": 3, "since": "2026-11-21T12:00:00Z"}
    ]
    assert (told["map_version"], told["store"], told["silent"]) == (4, None, ["ledger"])
    assert told["projects"] == {"total": 2, "unfinished": 1}


async def test_status__is_answered_to_the_operator_while_the_ledger_is_silent(door, system):
    async def silent(*_):
        raise UnavailableError("The ledger is restarting.")

    system.ledger.authenticate = system.journal.heads = silent
    response = await door.get("/api/v1/admin/status", headers=OPERATOR)
    assert response.status_code == 200
    assert response.json()["projects"] is None
    assert response.json()["silent"] == ["ledger", "projects"]


async def test_status__of_parts_that_never_answer_is_503(door, system, monkeypatch):
    monkeypatch.setattr(admin_routes, "VITALS_S_MAX", 0.01)
    system.vitals = asyncio.Event().wait
    response = await door.get("/api/v1/admin/status", headers=ADMIN)
    assert response.status_code == 503
    assert response.json()["error"]["next"]


async def test_operators_token__opens_no_other_door(door):
    assert (await door.get("/api/v1/me", headers=OPERATOR)).status_code == 401


async def test_check__tells_what_does_not_agree(door, system):
    system.keeper.finds = [Mismatch(subject="wallet ann", text="1 is not 2")]
    response = await door.post("/api/v1/admin/check", headers=ADMIN)
    assert response.json()["mismatches"] == [{"subject": "wallet ann", "text": "1 is not 2"}]


async def test_backup__is_made_where_it_was_asked_for(door, system):
    body = {"folder": "/backups/one", "with_secrets": True}
    response = await door.post("/api/v1/admin/backup", json=body, headers=ADMIN)
    assert response.status_code == 200
    assert system.keeper.backups == [(Path("/backups/one"), True)]
    assert response.json() == {
        "folder": "/backups/one",
        "cluster_id": "c1",
        "entities": 2,
        "events": 9,
        "blobs": 1,
        "bytes": 4096,
        "seconds": 0.5,
    }


@pytest.mark.parametrize("body", [{}, {"folder": "backups"}, {"folder": " "}, {"folder": 3}, {"folder": "/b", "x": 1}])
async def test_backup__of_a_folder_that_is_none_is_refused(door, system, body):
    response = await door.post("/api/v1/admin/backup", json=body, headers=ADMIN)
    assert response.status_code == 400
    assert system.keeper.backups == []


@pytest.mark.parametrize(
    ("error", "status"),
    [(ConflictError("/b is not empty.", "Choose another."), 409), (StoreUnavailableError("Full.", "Free some."), 503)],
)
async def test_keeping__that_fails_says_why(door, system, error, status):
    system.keeper.raises = error
    for what in ("check", "backup", "compact"):
        response = await door.post(f"/api/v1/admin/{what}", json={"folder": "/b"}, headers=ADMIN)
        assert response.status_code == status
        assert response.json()["error"]["next"] == error.next_step


async def test_compact__tells_what_it_saved(door):
    response = await door.post("/api/v1/admin/compact", headers=ADMIN)
    assert response.json() == {"events_dropped": 7, "bytes_before": 9000, "bytes_after": 5000}


async def test_pardon__lifts_a_quarantine_once(door, system):
    system.quarantine = {"project:p1"}
    told = [(await door.post("/api/v1/admin/entities/project:p1/pardon", headers=ADMIN)).json() for _ in range(2)]
    assert told == [{"entity": "project:p1", "pardoned": True}, {"entity": "project:p1", "pardoned": False}]


async def test_pardon__of_what_is_no_entity_is_refused(door):
    response = await door.post("/api/v1/admin/entities/p1/pardon", headers=ADMIN)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "bad_input")

"""What doctor says of stored things and of the running parts: a verdict, and the command that mends it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fake_door import FakeDoor, error_answer

from cluster import doctor
from cluster.client import Client
from cluster.keeper import Keeper
from runtime.config import Secrets, Settings
from runtime.store.store import Store

BROKEN = "project:6f1c0a52-1111-4111-8111-111111111111"


def test_books__that_agree_say_who_checked_them(door: FakeDoor, keeper: Keeper) -> None:
    door.says("POST /api/v1/admin/check", {"mismatches": [], "seconds": 1.25})
    check = doctor.books(keeper)
    assert check.verdict == "ok"
    assert "by the running service" in check.text


def test_books__that_disagree_are_broken_and_tell_the_first(door: FakeDoor, keeper: Keeper) -> None:
    found = [{"subject": f"wallet {number}", "text": "1 is not 2"} for number in range(9)]
    door.says("POST /api/v1/admin/check", {"mismatches": found, "seconds": 1.0})
    check = doctor.books(keeper)
    assert check.verdict == "broken"
    assert "9 things" in check.text
    assert "wallet 0: 1 is not 2" in check.text
    assert "wallet 3" not in check.text
    assert "masterbuilder restore" in check.fix


def test_books__that_cannot_be_checked_are_broken(door: FakeDoor, keeper: Keeper) -> None:
    door.routes["POST /api/v1/admin/check"] = error_answer("store_unavailable", 503, "The disk fails.", "Mend it.")
    check = doctor.books(keeper)
    assert (check.verdict, check.fix) == ("broken", "Mend it.")


def test_books__of_a_new_data_folder_are_fine(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    check = doctor.books(Keeper(settings, {}, Client("http://127.0.0.1:9", "")))
    assert (check.verdict, check.text) == ("ok", "nothing is stored yet")
    assert not (tmp_path / "data").exists()


def test_books__are_checked_here_while_the_service_is_down(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    asyncio.run(make_store(settings))
    check = doctor.books(Keeper(settings, {}, Client("http://127.0.0.1:9", "")))
    assert (check.verdict, "checked here" in check.text) == ("ok", True), check
    (blob,) = (tmp_path / "blobs").glob("*/*")
    blob.write_bytes(b"damaged")
    check = doctor.books(Keeper(settings, {}, Client("http://127.0.0.1:9", "")))
    assert check.verdict == "broken"


def test_parts__in_order_are_ok_and_stale_appends_only_information(door: FakeDoor, client: Client) -> None:
    door.says("GET /api/v1/admin/status", status(refused_stale=12))
    checks = {check.name: check for check in doctor.parts(client)}
    assert {check.verdict for check in checks.values()} == {"ok"}
    assert "12 appends" in checks["fence"].text


def test_quarantine__is_broken_and_names_the_command_that_lifts_it(door: FakeDoor, client: Client) -> None:
    quarantined = {"entity": BROKEN, "error": "KeyError: 'x'", "failures": 3, "since": "2026-11-21T12:00:00+00:00"}
    door.says("GET /api/v1/admin/status", status(quarantined=[quarantined]))
    (check,) = [check for check in doctor.parts(client) if check.name == "quarantine"]
    assert check.verdict == "broken"
    assert "KeyError: 'x'" in check.text
    assert f"masterbuilder pardon {BROKEN}" in check.fix


def test_silent_parts__are_broken_and_named(door: FakeDoor, client: Client) -> None:
    door.says("GET /api/v1/admin/status", status(silent=["entities-1", "implementers"]))
    (check,) = [check for check in doctor.parts(client) if check.verdict == "broken"]
    assert "entities-1, implementers" in check.text


async def make_store(settings: Settings) -> None:
    store = Store(settings, Secrets.load(settings.data_dir, {}))
    await store.open()
    await store.books.put_blob(b"a package")
    await store.close()


@pytest.fixture
def client(door: FakeDoor) -> Client:
    return Client(door.url, "mb-test")


@pytest.fixture
def keeper(client: Client, tmp_path: Path) -> Keeper:
    return Keeper(Settings(data_dir=tmp_path / "data"), {"MASTERBUILDER_URL": client.url}, client)


def status(*, quarantined: Any = (), silent: Any = (), refused_stale: int = 0) -> dict[str, Any]:
    host = {
        "name": "entities-0", "incarnation": "i1", "pid": 7, "node": "n1", "kinds": ["project"], "partitions": 1024,
        "residents": 1, "working": 0, "queued": 0, "memory_bytes": 1, "turns": 1, "activations": 1, "passivations": 0,
        "failures": 0, "stale": 0, "quarantined": list(quarantined),
    }  # fmt: skip
    store = {
        "pid": 9, "entities": 1, "events": 1, "queued": 0, "groups": 1, "writes": 1, "refused_stale": refused_stale,
        "commit_p50_ms": 4.1, "checkpoint_max_ms": 9.0, "database_bytes": 1, "log_bytes": 1,
    }  # fmt: skip
    return {
        "hosts": [host], "map_version": 1, "moving": 0, "store": store, "implementers": None, "key_pools": [],
        "silent": list(silent), "projects": None,
    }  # fmt: skip


def test_account_that_is_stopped__is_shown_with_the_way_out(door: FakeDoor, client: Client) -> None:
    line = {"user": "ann", "reason": "user:ann: balance 5, transfers 4", "since": "2026-11-21T12:00:00+00:00"}
    door.says("GET /api/v1/admin/accounts/stopped", {"stopped": [line]})
    (check,) = doctor.accounts(client)
    assert check.verdict == "broken"
    assert "balance 5, transfers 4" in check.text
    assert "masterbuilder credits release ann" in check.fix
    door.says("GET /api/v1/admin/accounts/stopped", {"stopped": []})
    assert [each.verdict for each in doctor.accounts(client)] == ["ok"]


def test_stack__that_is_missing_says_what_needs_it_and_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    check = doctor.stack("npm", ("npm",), "JavaScript projects", "npm")
    assert (check.verdict, check.text) == ("warning", "is not installed: no JavaScript projects")
    assert "make setup-stacks" in check.fix


def test_stack__that_the_sandbox_cannot_see_is_as_good_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/opt/node/bin/{name}")
    assert doctor.stack("node", ("node",), "JavaScript projects", "nodejs").verdict == "warning"
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/env")
    assert doctor.stack("node", ("node",), "JavaScript projects", "nodejs").verdict == "ok"


def test_packages__that_are_not_allowed_are_said_so(tmp_path: Path) -> None:
    assert str(tmp_path / "packages") in doctor.packages(Settings(data_dir=tmp_path)).text
    assert "PACKAGES_ALLOWED" in doctor.packages(Settings(data_dir=tmp_path, packages_allowed=False)).text

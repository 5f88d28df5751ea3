"""Backups and checks by the command: through the service while it runs, by itself while it does not."""

import asyncio
import fcntl
import json
import shutil
from pathlib import Path

import pytest
from click.testing import Result
from fake_door import FakeDoor, Run, error_answer

from cluster.instance import Instance, Record, write_record
from runtime.config import Secrets, Settings
from runtime.ids import UserId
from runtime.store.store import Store

RECORD = Record(
    state="ready", detail="", next_step="", error_code="", supervisor_pid=1, url="http://127.0.0.1:9",
    dashboard_url="", ray_address="", restarts=0,
)  # fmt: skip
BACKUP = {
    "folder": "/backups/one", "cluster_id": "c1", "entities": 2, "events": 1234, "blobs": 3, "bytes": 5 << 20,
    "seconds": 0.5,
}  # fmt: skip


def test_backup__is_asked_of_the_service_with_the_whole_path(run: Run, door: FakeDoor, tmp_path: Path) -> None:
    door.says("POST /api/v1/admin/backup", BACKUP)
    result = run("backup", "one")
    assert result.exit_code == 0, result.stderr
    assert door.asked[0][2] == {"folder": str(tmp_path / "one"), "with_secrets": False}
    assert "1,234 events" in result.stdout
    assert "secrets.json" in result.stdout


def test_backup_with_secrets__does_not_ask_to_keep_them_elsewhere(run: Run, door: FakeDoor) -> None:
    door.says("POST /api/v1/admin/backup", BACKUP)
    result = run("backup", "one", "--with-secrets")
    assert door.asked[0][2]["with_secrets"] is True
    assert "secrets.json" not in result.stdout


def test_backup_as_json__is_the_report(run: Run, door: FakeDoor) -> None:
    door.says("POST /api/v1/admin/backup", BACKUP)
    assert json.loads(run("backup", "one", "--json").stdout) == BACKUP


def test_backup_that_is_refused__is_told_with_what_to_do(run: Run, door: FakeDoor) -> None:
    door.routes["POST /api/v1/admin/backup"] = error_answer("conflict", 409, "/b is not empty.", "Choose another.")
    result = run("backup", "/b")
    assert result.exit_code == 3
    assert result.stderr.splitlines()[:2] == ["error: /b is not empty. Nothing was charged.", "next: Choose another."]


def test_compact__tells_what_it_saved(run: Run, door: FakeDoor) -> None:
    door.says("POST /api/v1/admin/compact", {"events_dropped": 1500, "bytes_before": 9 << 20, "bytes_after": 5 << 20})
    assert "1,500 events dropped; 9.0 MiB before, 5.0 MiB now" in run("compact").stdout
    assert json.loads(run("compact", "--json").stdout)["events_dropped"] == 1500


def test_pardon__says_whether_there_was_a_quarantine(run: Run, door: FakeDoor) -> None:
    route = "POST /api/v1/admin/entities/project:p1/pardon"
    door.says(route, {"entity": "project:p1", "pardoned": True})
    assert "out of quarantine" in run("pardon", "project:p1").stdout
    door.says(route, {"entity": "project:p1", "pardoned": False})
    result = run("pardon", "project:p1")
    assert result.exit_code == 0
    assert "was not in quarantine" in result.stdout


def test_pardon__of_a_path_reaches_no_other_route(run: Run, door: FakeDoor) -> None:
    run("pardon", "../../me?x#y")
    assert door.asked[0][0] == "POST /api/v1/admin/entities/..%2F..%2Fme%3Fx%23y/pardon"


# While the service is down


@pytest.fixture
def down(run: Run) -> Run:
    def invoke(*arguments: str, **variables: str) -> Result:
        return run(*arguments, **{"MASTERBUILDER_URL": "", **variables})

    return invoke


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with one user's wallet and one file."""

    async def fill() -> None:
        store = Store(Settings(data_dir=folder), Secrets.load(folder, {}))
        await store.open()
        await store.books.open_wallet(UserId("ann"), False)
        await store.books.put_blob(b"a package")
        await store.close()

    folder = tmp_path / "data"
    asyncio.run(fill())
    return folder


def wallet(folder: Path) -> int:
    async def ask() -> int:
        store = Store(Settings(data_dir=folder), Secrets.load(folder, {}))
        await store.open()
        try:
            return (await store.books.balance(UserId("ann"))).balance_ucredits
        finally:
            await store.close()

    return asyncio.run(ask())


def test_backup_and_restore__offline_bring_the_wallet_into_another_folder(
    down: Run, door: FakeDoor, data: Path, tmp_path: Path
) -> None:
    made = down("backup", "kept", "--with-secrets", "--json")
    assert made.exit_code == 0, made.stderr
    assert json.loads(made.stdout)["blobs"] == 1
    restored = down("restore", "kept", DATA_DIR=str(tmp_path / "other"))
    assert restored.exit_code == 0, restored.stderr
    assert "masterbuilder up" in restored.stdout
    assert wallet(tmp_path / "other") == wallet(data) > 0
    assert door.asked == []


def test_restore__of_a_backup_without_secrets_asks_for_them(down: Run, data: Path, tmp_path: Path) -> None:
    assert "secrets.json" in down("backup", "kept").stdout
    restored = down("restore", "kept", DATA_DIR=str(tmp_path / "other"))
    assert restored.exit_code == 0
    assert "put back the secrets.json" in restored.stdout
    assert not (tmp_path / "other" / "secrets.json").exists()
    refused = down("compact", DATA_DIR=str(tmp_path / "other"))
    assert (refused.exit_code, "secrets.json is missing" in refused.stderr) == (2, True)
    shutil.copy(data / "secrets.json", tmp_path / "other")
    assert wallet(tmp_path / "other") > 0


def test_restore__beside_other_secrets_says_so(down: Run, data: Path, tmp_path: Path) -> None:
    down("backup", "kept")
    down("backup", "with", "--with-secrets")
    for backup, status, words in (("kept", 2, "cannot be opened"), ("with", 3, "not the one in the backup")):
        other = tmp_path / f"other-{backup}"
        Secrets.load(other, {})
        result = down("restore", backup, DATA_DIR=str(other))
        assert result.exit_code == status
        assert words in result.stderr
        assert "next:" in result.stderr


def test_restore__of_what_is_no_whole_backup_is_refused(down: Run, data: Path, tmp_path: Path) -> None:
    down("backup", "damaged")
    with (tmp_path / "damaged" / "ledger.duckdb").open("r+b") as file:
        file.write(b"x")
    for name, words in (("damaged", "damaged"), ("missing", "is not a whole backup")):
        result = down("restore", name, DATA_DIR=str(tmp_path / "other"))
        assert result.exit_code == 2
        assert words in result.stderr
        assert not (tmp_path / "other" / "ledger.duckdb").exists()


def test_restore__over_data_is_refused(down: Run, data: Path) -> None:
    down("backup", "kept", "--with-secrets")
    result = down("restore", "kept")
    assert result.exit_code == 3
    assert "holds data already" in result.stderr


def test_restore__beside_a_running_service_is_refused(down: Run, data: Path, tmp_path: Path) -> None:
    down("backup", "kept", "--with-secrets")
    instance = Instance(data_dir=tmp_path / "other")
    instance.run_dir.mkdir(parents=True)
    write_record(instance, RECORD)
    with instance.lock_file.open("w") as supervisor:
        fcntl.flock(supervisor, fcntl.LOCK_EX)
        supervisor.write("1")
        supervisor.flush()
        result = down("restore", "kept", DATA_DIR=str(tmp_path / "other"))
    assert result.exit_code == 3
    assert "masterbuilder down" in result.stderr
    assert not (tmp_path / "other" / "ledger.duckdb").exists()


def test_backup__into_a_folder_with_something_in_it_is_refused(down: Run, data: Path) -> None:
    assert down("backup", "kept").exit_code == 0
    again = down("backup", "kept")
    assert again.exit_code == 3
    assert "not empty" in again.stderr


def test_keeping__of_a_store_that_another_process_owns_says_so(down: Run, data: Path) -> None:
    store = Store(Settings(data_dir=data), Secrets.load(data, {}))
    asyncio.run(store.open())
    try:
        result = down("backup", "kept")
    finally:
        asyncio.run(store.close())
    assert result.exit_code == 4
    assert "in use" in result.stderr
    assert "masterbuilder down" in result.stderr


def test_keeping__of_nothing_makes_no_data_folder(down: Run, tmp_path: Path) -> None:
    for command in (("backup", "kept"), ("compact",)):
        result = down(*command)
        assert result.exit_code == 3
        assert "holds nothing yet" in result.stderr
    assert not (tmp_path / "data").exists()


def test_compact__offline_works_on_the_store_itself(down: Run, data: Path) -> None:
    report = json.loads(down("compact", "--json").stdout)
    assert report["events_dropped"] == 0
    assert report["bytes_after"] > 0


def test_pardon__needs_the_service(down: Run, data: Path) -> None:
    result = down("pardon", "project:p1", HTTP_PORT="9")
    assert result.exit_code == 4
    assert "masterbuilder up" in result.stderr

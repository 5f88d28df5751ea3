"""Backups are one moment of a store at work, and restoring one gives that moment back."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from runtime.config import Secrets, Settings
from runtime.errors import BadInputError, ConflictError, StoreUnavailableError
from runtime.ids import EntityId
from runtime.store.backup import restore
from runtime.store.store import Store

ENTITIES = [EntityId(f"counter:{n}") for n in range(50)]


async def opened(data_dir: Path, secrets: Secrets) -> Store:
    store = Store(Settings(data_dir=data_dir), secrets)
    await store.open()
    return store


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_backup_under_load__holds_all_that_was_answered_before_it(store, an_append, tmp_path: Path) -> None:
    answered = 0
    blobs = []
    stop, enough = asyncio.Event(), asyncio.Event()

    async def write() -> None:
        nonlocal answered
        while not stop.is_set():
            blobs.append(await store.books.put_blob(f"blob {answered}".encode()))
            appends = [an_append(entity, answered, snapshot=answered % 5 == 0) for entity in ENTITIES]
            assert await store.journal.append_all(appends) == [answered + 1] * len(ENTITIES)
            answered += 1
            if answered == 20:
                enough.set()

    writing = asyncio.create_task(write())
    await enough.wait()
    before, blobs_before = answered, list(blobs)
    report = await store.backup(tmp_path / "backups" / "one")
    after = answered
    stop.set()
    await writing
    assert (report.cluster_id, report.entities) == (store.cluster_id, len(ENTITIES))
    assert not list((tmp_path / "data").glob("*.tmp"))
    assert names_in(tmp_path / "backups") == ["one"]

    restored_to = tmp_path / "restored"
    restore(tmp_path / "backups" / "one", restored_to)
    restored = await opened(restored_to, Secrets.load(tmp_path / "data", {}))
    assert await restored.check() == []
    assert restored.cluster_id == store.cluster_id
    loaded = await restored.journal.load_all(ENTITIES)
    (seq,) = {one.head.last_seq for one in loaded}
    assert before <= seq <= after + 1
    assert report.events == seq * len(ENTITIES)
    for entity in ENTITIES:
        events = await restored.journal.read(entity, 0)
        assert [event.data["n"] for event in events] == list(range(1, seq + 1))
    for blob in blobs_before:
        assert await restored.books.get_blob(blob) == await store.books.get_blob(blob)
    assert await restored.journal.append(an_append(ENTITIES[0], seq)) == seq + 1
    await restored.close()
    assert len({one.head.last_seq for one in await store.journal.load_all(ENTITIES)}) == 1


async def test_backup__needs_a_new_or_empty_folder(store, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").write_text("dear")
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for folder, error in (("full", ConflictError), ("file", BadInputError)):
        with pytest.raises(error):
            await store.backup(tmp_path / folder)
    with pytest.raises(BadInputError):
        await store.backup(Path("relative"))
    with pytest.raises(StoreUnavailableError):
        await store.backup(tmp_path / "file" / "below")
    await store.backup(tmp_path / "empty")
    with pytest.raises(ConflictError):
        await store.backup(tmp_path / "empty")
    assert names_in(tmp_path) == ["data", "empty", "file", "full"]


async def test_secrets__are_in_a_backup_only_when_asked_for(store, an_append, tmp_path: Path) -> None:
    await store.journal.append(an_append(ENTITIES[0]))
    own = (tmp_path / "data" / "secrets.json").read_bytes()
    await store.backup(tmp_path / "without")
    await store.backup(tmp_path / "with", with_secrets=True)
    assert not (tmp_path / "without" / "secrets.json").exists()
    files = [path for path in (tmp_path / "with").rglob("*") if path.is_file()]
    assert len(files) >= 3
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert "secrets.json" in json.loads((tmp_path / "with" / "manifest.json").read_text())["files"]

    restore(tmp_path / "with", tmp_path / "a")
    assert (tmp_path / "a" / "secrets.json").read_bytes() == own
    assert (tmp_path / "a" / "secrets.json").stat().st_mode & 0o777 == 0o600
    restored = await opened(tmp_path / "a", Secrets.load(tmp_path / "a", {}))
    assert await restored.check() == []
    await restored.close()

    Secrets.load(tmp_path / "b", {})
    with pytest.raises(ConflictError, match="not the one in the backup"):
        restore(tmp_path / "with", tmp_path / "b")
    assert [path.name for path in (tmp_path / "b").iterdir() if path.name != "ledger.lock"] == ["secrets.json"]


async def test_restore__refuses_a_folder_that_holds_data_or_is_in_use(store, tmp_path: Path) -> None:
    await store.backup(tmp_path / "backup")
    with pytest.raises(StoreUnavailableError, match="in use"):
        restore(tmp_path / "backup", tmp_path / "data")
    restore(tmp_path / "backup", tmp_path / "other")
    with pytest.raises(ConflictError):
        restore(tmp_path / "backup", tmp_path / "other")
    (tmp_path / "lost" / "blobs" / "ab").mkdir(parents=True)
    (tmp_path / "lost" / "blobs" / "ab" / "abcd").write_bytes(b"sealed")
    with pytest.raises(ConflictError):
        restore(tmp_path / "backup", tmp_path / "lost")
    assert (tmp_path / "lost" / "blobs" / "ab" / "abcd").exists()


@pytest.mark.parametrize("damage", ["change", "remove", "add", "add manifest", "manifest", "none", "escape"])
async def test_restore__refuses_what_is_not_the_whole_backup(store, tmp_path: Path, damage: str) -> None:
    await store.books.put_blob(b"blob")
    backup = tmp_path / "backup"
    await store.backup(backup)
    (blob,) = backup.glob("blobs/*/*")
    manifest = json.loads((backup / "manifest.json").read_text())
    if damage == "change":
        content = bytearray((backup / "ledger.duckdb").read_bytes())
        content[len(content) // 2] ^= 1
        (backup / "ledger.duckdb").write_bytes(content)
    elif damage == "remove":
        blob.unlink()
    elif damage == "add":
        (backup / "blobs" / "more").write_bytes(b"")
    elif damage == "add manifest":
        (backup / "blobs" / "manifest.json").write_bytes(b"")
    elif damage == "manifest":
        (backup / "manifest.json").write_text("{")
    elif damage == "escape":
        (backup.parent / "evil").write_bytes(blob.read_bytes())
        manifest["files"]["../evil"] = manifest["files"][blob.relative_to(backup).as_posix()]
        manifest |= {"format": 1, "sha256": ""}
        (backup / "manifest.json").write_text(json.dumps(manifest))
    else:
        shutil.rmtree(backup)
    with pytest.raises(BadInputError):
        restore(backup, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()


async def test_restore__refuses_a_manifest_of_which_any_byte_was_changed(store, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    await store.backup(backup)
    text = (backup / "manifest.json").read_bytes()
    for at in range(len(text)):
        changed = bytearray(text)
        changed[at] ^= 1 if text[at] != ord("\n") else 0x2A
        (backup / "manifest.json").write_bytes(changed)
        with pytest.raises(BadInputError):
            restore(backup, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()
    (backup / "manifest.json").write_bytes(text)
    assert restore(backup, tmp_path / "restored").cluster_id == store.cluster_id


async def test_restore__takes_backups_from_before_manifests_had_a_sum(store, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    await store.backup(backup)
    manifest = json.loads((backup / "manifest.json").read_text())
    del manifest["sha256"]
    (backup / "manifest.json").write_text(json.dumps(manifest | {"format": 1}))
    assert restore(backup, tmp_path / "restored").cluster_id == store.cluster_id


async def test_restore_cut_off__cannot_be_opened_and_may_be_run_again(
    store, an_append, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.journal.append(an_append(ENTITIES[0]))
    await store.books.put_blob(b"blob")
    await store.backup(tmp_path / "backup")
    secrets = Secrets.load(tmp_path / "data", {})
    rename = Path.rename
    for last in ("restore.tmp/blobs", "restore.tmp/ledger.duckdb"):

        def cut_off(path: Path, target: Path, last: str = last) -> Path:
            if path.as_posix().endswith(last):
                raise OSError(5, "cut off")
            return rename(path, target)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", cut_off)
            with pytest.raises(StoreUnavailableError, match="cut off"):
                restore(tmp_path / "backup", tmp_path / "restored")
        with pytest.raises(StoreUnavailableError):
            await opened(tmp_path / "restored", secrets)
    restore(tmp_path / "backup", tmp_path / "restored")
    restored = await opened(tmp_path / "restored", secrets)
    assert await restored.check() == []
    assert (await restored.journal.load(ENTITIES[0])).head.last_seq == 1
    await restored.close()


async def test_backup_that_fails__leaves_nothing_and_may_be_tried_again(
    store, an_append, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.journal.append(an_append(ENTITIES[0]))

    def broken(path: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", broken)
        with pytest.raises(StoreUnavailableError, match="full"):
            await store.backup(tmp_path / "backup")
    assert names_in(tmp_path) == ["data"]
    await store.backup(tmp_path / "backup")
    assert await store.journal.append(an_append(ENTITIES[0], 1)) == 2

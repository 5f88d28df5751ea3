"""What lies on the disk: no text of people, no key, no plain file."""

import asyncio
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runtime.config import Secrets, Settings
from runtime.entity.journal import Append, Claim, NewEvent, Reminder, Snapshot
from runtime.errors import NotFoundError, StoreUnavailableError, TooLargeError
from runtime.ids import BlobId, CallId, EntityId, UserId, partition_of
from runtime.ledger.money import Price
from runtime.ledger.port import EscrowId, Hold, NewToken
from runtime.ledger.spool import Spool
from runtime.store import blobs
from runtime.store.seal import Seal
from runtime.store.store import Store

SECRET = "Meine Schwester heisst Waltraud"
EMAIL = "kassandra"
ENTITY = EntityId("project:p1")
A_CALL = Hold(
    call=CallId("gw-1"), user=UserId("u"), run=None, task_type="chat", provider="openai", model="m", input_tokens_max=1,
    output_tokens_max=1, price=Price(pricing_id="p", input_udollars_per_mtok=1, output_udollars_per_mtok=1),
)  # fmt: skip


async def an_open_store(folder: Path) -> Store:
    store = Store(Settings(data_dir=folder), Secrets.load(folder, {}))
    await store.open()
    return store


async def test_raw_files__hold_no_text_of_people(tmp_path: Path) -> None:
    store = await an_open_store(tmp_path)
    await store.journal.claim(Claim(host="h", incarnation="i", partitions={partition_of(ENTITY): 0}))
    event = NewEvent(type="t", version=1, key=f"key {SECRET}", data={"text": SECRET})
    append = Append(
        entity=ENTITY,
        owner=UserId("u"),
        epoch=1,
        expected_seq=0,
        events=[event],
        open=True,
        head={"title": SECRET},
        snapshot=Snapshot(seq=1, version=1, data={"text": SECRET}),
        remind=[Reminder(name="r", due_at=datetime(2026, 11, 21, tzinfo=UTC), data={"text": SECRET})],
    )
    await store.journal.append(append)
    blob = await store.books.put_blob(SECRET.encode() * 100)
    await store.books.add_token(NewToken(token_sha256="a" * 64, user=UserId("u"), kind="user", label=SECRET))
    await store.books.set_email(UserId("u"), f"{EMAIL}@{EMAIL}.example")
    spool = Spool(tmp_path, "p")
    spool.begin(EscrowId("e"), A_CALL, datetime(2026, 11, 21, tzinfo=UTC))

    assert_absent(tmp_path)
    await store.backup(tmp_path.with_name(f"{tmp_path.name}-backup"))
    assert_absent(tmp_path.with_name(f"{tmp_path.name}-backup"))
    await store.close()
    assert_absent(tmp_path)

    store = await an_open_store(tmp_path)
    assert (await store.journal.read(ENTITY, 0))[0].data == {"text": SECRET}
    assert await store.books.get_blob(blob) == SECRET.encode() * 100
    person = await store.books.person(UserId("u"))
    assert person is not None
    assert person.email == f"{EMAIL}@{EMAIL}.example"
    await store.close()


async def test_email_moved_to_another_user__does_not_open(tmp_path: Path) -> None:
    store = await an_open_store(tmp_path)
    for user in ("u", "v"):
        await store.books.open_wallet(UserId(user), is_admin=False)
    await store.books.set_email(UserId("u"), f"{EMAIL}@{EMAIL}.example")
    moved = "UPDATE users SET email = (SELECT email FROM users WHERE user_id = 'u') WHERE user_id = 'v'"
    await store._database.read_long(lambda connection: connection.execute(moved))
    with pytest.raises(StoreUnavailableError):
        await store.books.person(UserId("v"))
    await store.close()


def assert_absent(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.name.startswith("ledger.duckdb") and path.stat().st_size > 1_000 for path in files)
    for path in files:
        content = path.read_bytes()
        for word in [*SECRET.split(), EMAIL]:
            assert word.encode() not in content or len(word) < 6, f"{word} is readable in {path.name}"


async def test_damaged_or_moved_blob__is_noticed(tmp_path: Path) -> None:
    store = await an_open_store(tmp_path)
    first, second = await store.books.put_blob(b"first"), await store.books.put_blob(b"second")
    where = {blob: tmp_path / "blobs" / blob[:2] / blob for blob in (first, second)}
    where[second].write_bytes(where[first].read_bytes())
    where[first].write_bytes(b"short")
    for blob in (first, second):
        with pytest.raises(StoreUnavailableError):
            await store.books.get_blob(blob)
    await store.close()


@pytest.mark.parametrize("name", ["", "..", "../ledger.lock", "A" * 64, "a" * 63, "a" * 64 + "\n", "/etc/passwd"])
async def test_blob_id_that_is_no_hash__never_becomes_a_path(tmp_path: Path, name: str) -> None:
    store = await an_open_store(tmp_path)
    with pytest.raises(NotFoundError):
        await store.books.get_blob(BlobId(name))
    await store.close()


async def test_blob_over_the_bound__is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "BLOB_BYTES_MAX", 10)
    store = await an_open_store(tmp_path)
    await store.books.put_blob(b"0123456789")
    with pytest.raises(TooLargeError):
        await store.books.put_blob(b"0123456789a")
    await store.close()


async def test_blob_in_a_folder_of_an_earlier_process__has_the_folders_name_put_on_disk_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        store = await an_open_store(tmp_path)
        synced: list[Path] = []
        monkeypatch.setattr(blobs, "sync", synced.append)
        for _ in range(2):
            blob = await store.books.put_blob(b"0")
            path = tmp_path / "blobs" / blob[:2] / blob
            path.unlink()
        assert synced == [path.parents[1], tmp_path, path.parent, path.parent]
        await store.close()


async def test_blob_whose_folder_was_removed_meanwhile__makes_it_again_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await an_open_store(tmp_path)
    blob = await store.books.put_blob(b"0")
    shutil.rmtree(tmp_path / "blobs")
    synced: list[Path] = []
    monkeypatch.setattr(blobs, "sync", synced.append)
    assert await store.books.get_blob(await store.books.put_blob(b"0")) == b"0"
    assert synced == [tmp_path / "blobs", tmp_path, tmp_path / "blobs" / blob[:2]]
    await store.close()


async def test_blob_left_half_written__is_cleared_and_closed_store_writes_none(tmp_path: Path) -> None:
    store = await an_open_store(tmp_path)
    await store.close()
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "ab.tmp").write_bytes(b"half")
    with pytest.raises(StoreUnavailableError):
        await store.books.put_blob(b"x")
    await store.open()
    assert not (tmp_path / "blobs" / "ab.tmp").exists()
    await store.close()


def test_seal__opens_only_for_its_subject_and_key() -> None:
    seal = Seal(bytes(range(32)))
    sealed = seal.close(b"text", "event a 1")
    assert seal.open(sealed, "event a 1") == b"text"
    assert seal.close(b"text", "event a 1") != sealed
    altered = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for wrong in (lambda: seal.open(sealed, "event a 2"), lambda: Seal(bytes(32)).open(sealed, "event a 1"),
                  lambda: seal.open(altered, "event a 1"), lambda: seal.open(b"", "event a 1")):  # fmt: skip
        with pytest.raises(StoreUnavailableError):
            wrong()


async def test_store_that_cannot_open__may_try_again(tmp_path: Path) -> None:
    first = await an_open_store(tmp_path)
    second = Store(Settings(data_dir=tmp_path), Secrets.load(tmp_path, {}))
    with pytest.raises(StoreUnavailableError):
        await second.open()
    with pytest.raises(StoreUnavailableError):
        await second.books.balance(UserId("u"))
    await first.close()
    await second.open()
    await asyncio.gather(*(second.books.open_wallet(UserId("u"), is_admin=False) for _ in range(3)))
    assert (await second.books.balance(UserId("u"))).balance_ucredits == 100 * 10**6
    await second.close()

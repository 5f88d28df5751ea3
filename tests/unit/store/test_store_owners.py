"""Two copies of a ledger, started on purpose: one serves, the other is refused, and nothing acknowledged is lost."""

import asyncio
import errno
import itertools
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runtime.config import Secrets, Settings
from runtime.errors import StoreUnavailableError
from runtime.ids import UserId
from runtime.ledger.port import Adjustment
from runtime.ledger.postings import PROMOTIONS, post
from runtime.ledger.postings import wallet as account_of
from runtime.store import lock
from runtime.store.backup import restore
from runtime.store.lock import OwnerLock
from runtime.store.store import Store
from runtime.store.transaction import Transaction

USER = UserId("u")
FREE = 100 * 10**6
TRIES_MAX = 200

SECOND = """
import asyncio, sys
from pathlib import Path
from runtime.config import Secrets, Settings
from runtime.errors import StoreUnavailableError
from runtime.ids import UserId
from runtime.store.store import Store

async def main(folder, key_folder):
    store = Store(Settings(data_dir=folder), Secrets.load(key_folder, {}))
    try:
        await store.open()
    except StoreUnavailableError as error:
        print("refused", error)
        return
    wrong, balance = await store.check(), await store.books.balance(UserId("u"))
    await store.close()
    print("opened", store.cluster_id, balance.balance_ucredits, *wrong)

asyncio.run(main(*map(Path, sys.argv[1:3])))
"""


@pytest.fixture
async def wallet(store: Store) -> "Wallet":
    await store.books.open_wallet(USER, is_admin=False)
    return Wallet(store)


class Wallet:
    """Adds a microcredit at a time, and counts what was acknowledged."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.acknowledged = 0
        self._sent = 0

    async def add(self) -> None:
        self._sent += 1
        await self.store.books.adjust(
            Adjustment(id=f"a{self._sent}", user=USER, amount_ucredits=1, reason="a test " * 70, made_by=USER)
        )
        self.acknowledged += 1

    def forget_last(self) -> None:
        """What is added next has the id of what was not acknowledged."""
        self._sent -= 1

    async def agrees(self) -> bool:
        balance = await self.store.books.balance(USER)
        return balance.balance_ucredits == FREE + self.acknowledged and await self.store.check() == []


async def second(folder: Path, key_folder: Path) -> str:
    """What a process that opens this folder says."""
    arguments = [sys.executable, "-c", SECOND, str(folder), str(key_folder)]
    done = await asyncio.to_thread(subprocess.run, arguments, capture_output=True, text=True, check=True)
    return done.stdout.strip()


async def command(*arguments: str | Path) -> None:
    """In another process: an owner that opens and closes its own database by name loses DuckDB's lock."""
    await asyncio.to_thread(subprocess.run, arguments, check=True)


@contextmanager
def mounted(folder: Path, *arguments: str | Path) -> Iterator[None]:
    """Skips the test where that is not allowed."""
    folder.mkdir(exist_ok=True)
    if subprocess.run(["mount", *arguments, folder], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


async def test_folder_by_another_name__is_the_same_folder(wallet, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (tmp_path / "link").symlink_to(data)
    assert "in use: process" in await second(tmp_path / "link", data)
    await wallet.add()
    assert await wallet.agrees()


async def test_folder_that_is_mounted_elsewhere__is_the_same_folder(wallet, tmp_path: Path) -> None:
    data, bound = tmp_path / "data", tmp_path / "bound"
    with mounted(bound, "--bind", data):
        assert "in use: process" in await second(bound, data)
    await wallet.add()
    assert await wallet.agrees()


async def test_database_that_is_linked_into_another_folder__is_refused_there(wallet, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    os.link(tmp_path / "data" / "ledger.duckdb", tmp_path / "other" / "ledger.duckdb")
    assert (await second(tmp_path / "other", tmp_path / "data")).startswith("refused")
    await wallet.add()
    assert await wallet.agrees()


async def test_copy_of_the_folder__is_a_ledger_of_its_own_and_leaves_the_first_alone(wallet, tmp_path: Path) -> None:
    await wallet.add()
    await command("cp", "-r", tmp_path / "data", tmp_path / "copy")
    copied = await second(tmp_path / "copy", tmp_path / "data")
    assert copied == f"opened {wallet.store.cluster_id} {FREE + 1}"
    await wallet.add()
    assert await wallet.agrees()
    assert await second(tmp_path / "copy", tmp_path / "data") == copied


async def test_lock_that_is_removed__makes_no_second_owner(wallet, tmp_path: Path) -> None:
    data = tmp_path / "data"
    await wallet.store.backup(tmp_path / "backup")
    (data / "ledger.lock").unlink()
    assert (await second(data, data)).startswith("refused")
    with pytest.raises(Exception, match="holds data"):
        restore(tmp_path / "backup", data)
    (data / "ledger.lock").unlink()
    await wallet.add()
    assert "in use: process" in await second(data, data)
    assert await wallet.agrees()


async def test_owner_whose_lock_another_has__writes_no_more_until_it_is_free(wallet, tmp_path: Path) -> None:
    data = tmp_path / "data"
    await wallet.add()
    (data / "ledger.lock").unlink()
    shutil.copy(data / "ledger.duckdb", tmp_path / "copy")  # By its owner: DuckDB's own lock falls.
    another = OwnerLock(data / "ledger.lock")
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="in use"):
            await wallet.add()
    assert "in use: process" in await second(data, data)
    another.release()
    await wallet.add()
    assert await wallet.agrees()


async def test_database_that_is_replaced__is_not_written_until_it_is_back(wallet, tmp_path: Path) -> None:
    data = tmp_path / "data"
    await wallet.add()
    await command("cp", data / "ledger.duckdb", tmp_path / "older")
    await wallet.add()
    (data / "ledger.duckdb").rename(tmp_path / "aside")
    (tmp_path / "older").rename(data / "ledger.duckdb")
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="was replaced"):
            await wallet.add()
    assert "in use: process" in await second(data, data)
    (tmp_path / "aside").rename(data / "ledger.duckdb")
    await wallet.add()
    assert await wallet.agrees()
    await wallet.store.close()
    assert await second(data, data) == f"opened {wallet.store.cluster_id} {FREE + wallet.acknowledged}"


async def test_write_under_way_when_the_database_is_replaced__is_not_acknowledged(
    wallet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, data = wallet.store._database, tmp_path / "data"
    run = database._commit

    def replaced_meanwhile(group: object) -> object:
        shutil.copyfile(data / "ledger.duckdb", tmp_path / "older")
        (tmp_path / "older").rename(data / "ledger.duckdb")
        return run(group)

    with monkeypatch.context() as patched:
        patched.setattr(database, "_commit", replaced_meanwhile)
        with pytest.raises(StoreUnavailableError):
            await wallet.add()


@pytest.mark.parametrize("looks", range(8))
async def test_look_that_fails_at_any_moment__books_nothing_twice_and_is_no_success(
    wallet, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    now = datetime.now(UTC)

    def give(tx: Transaction) -> None:
        """Each time it runs it is another gift: running it twice shows."""
        post(tx, "credit", PROMOTIONS, account_of(USER), 1, "grant", secrets.token_hex(8), now, user=USER)

    left = itertools.count(looks, -1)

    class FailingOs:
        def __getattr__(self, name: str) -> object:
            return getattr(os, name)

        def stat(self, path: Path) -> os.stat_result:
            if next(left) == 0:
                raise OSError(errno.EIO, "a disk that fails")
            return os.stat(path)

    with monkeypatch.context() as patched:
        patched.setattr(lock, "os", FailingOs())
        write = wallet.store._database.write
        tried = await asyncio.gather(write(give), write(give), return_exceptions=True)
    refused = [error for error in tried if error is not None]
    assert all(isinstance(error, StoreUnavailableError) for error in refused)
    await wallet.add()
    assert await wallet.store.check() == []
    balance = (await wallet.store.books.balance(USER)).balance_ucredits
    assert balance in (FREE + 1, FREE + 3)
    assert refused or balance == FREE + 3


async def test_bug_in_the_writer__is_no_success_and_not_its_end(wallet, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(wallet.store._database, "_run", lambda group: {}["a bug"])
        with pytest.raises(StoreUnavailableError):
            await wallet.add()
    wallet.forget_last()
    await wallet.add()
    assert await wallet.agrees()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MB."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=24m", "tmpfs"):
        yield tmp_path / "disk"


async def test_disk_that_fills_up__loses_nothing_and_work_goes_on_when_there_is_space(small_disk: Path) -> None:
    data = small_disk / "data"
    store = Store(Settings(data_dir=data), Secrets.load(data, {}))
    await store.open()
    await store.books.open_wallet(USER, is_admin=False)
    wallet = Wallet(store)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - (200 << 10)))
    for _ in range(TRIES_MAX):
        tried = await asyncio.gather(*(wallet.add() for _ in range(100)), return_exceptions=True)
        if refused := [error for error in tried if error is not None]:
            break
    assert all(isinstance(error, StoreUnavailableError) and "full" in str(error) for error in refused)
    assert refused
    with pytest.raises(StoreUnavailableError, match="full"):
        await store.backup(small_disk / "backup")
    assert (await second(data, data)).startswith("refused")
    ballast.unlink()
    await wallet.add()
    assert await wallet.agrees()
    await store.close()
    assert await second(data, data) == f"opened {store.cluster_id} {FREE + wallet.acknowledged}"

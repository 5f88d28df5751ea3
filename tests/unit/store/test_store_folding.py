"""A checkpoint that is cut off in the middle of what it writes in place, and the file that opens after it."""

import asyncio
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from runtime.errors import StoreUnavailableError
from runtime.store import folding, schema
from runtime.store.database import Database
from runtime.store.folding import HEADERS_BYTES, aside_of
from runtime.store.schema import DATABASE
from tests.unit.store.test_store_database import KEY, add_user

BLOCK_BYTES = 256 << 10
TABLES = ("one", "two")
OLD, NEW = "of the first checkpoint", "only in the log"


class CutOffError(Exception):
    pass


def names(database: Database) -> set[str]:
    return {name for (name,) in database._connection.execute("SELECT user_id FROM users").fetchall()}


def described_in(path: Path) -> list[int]:
    with duckdb.connect(str(path), read_only=True) as connection:
        return described_by(connection)


def described_by(connection: duckdb.DuckDBPyConnection) -> list[int]:
    """Where the blocks are that hold descriptions."""
    blocks = connection.execute("SELECT block_id FROM pragma_metadata_info()").fetchall()
    return [HEADERS_BYTES + block * BLOCK_BYTES for (block,) in blocks]


@pytest.fixture
def cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes a data folder as a kill in a checkpoint leaves it: the headers and the log from before it, one block of
    descriptions half from before and half from after, everything else from after."""

    async def filled(folder: Path) -> tuple[Path, Path]:
        database = Database(folder, KEY)
        await asyncio.to_thread(database.open)
        await database.write(add_user(OLD))
        await asyncio.to_thread(database.checkpoint)
        await database.write(add_user(NEW))
        before, after = tmp_path / "before", tmp_path / "after"
        shutil.copytree(folder, before)
        monkeypatch.setattr(folding, "remove", lambda path: None)
        await asyncio.to_thread(database.checkpoint)
        monkeypatch.undo()
        shutil.copytree(folder, after)
        await asyncio.to_thread(database.close)
        return before, after

    def make(*, keeps_aside: bool = True) -> Path:
        before, after = asyncio.run(filled(tmp_path / "data"))
        torn = tmp_path / "torn"
        shutil.copytree(before, torn)
        old, new = (bytearray((folder / DATABASE).read_bytes()) for folder in (before, after))
        mixed = old[:HEADERS_BYTES] + new[HEADERS_BYTES:] + old[len(new) :]
        changed = [
            at for at in described_in(before / DATABASE) if old[at : at + BLOCK_BYTES] != new[at : at + BLOCK_BYTES]
        ]
        assert changed, "the second checkpoint wrote nothing in its place"
        for at in changed:
            differs = next(i for i in range(at + 8, at + BLOCK_BYTES) if old[i] != new[i])
            mixed[differs : at + BLOCK_BYTES] = old[differs : at + BLOCK_BYTES]  # The checksum and no more is new.
        (torn / DATABASE).write_bytes(mixed)
        if keeps_aside:
            shutil.copy(aside_of(after / DATABASE), aside_of(torn / DATABASE))
        return torn

    return make


def put_back(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        folding.put_back(path, descriptor)
    finally:
        os.close(descriptor)


def reopened(folder: Path) -> set[str]:
    database = Database(folder, KEY)
    database.open()
    try:
        return names(database)
    finally:
        database.close()


def test_checkpoint_that_was_cut_off__is_taken_back_and_the_log_has_the_rest(cut_off: Callable[..., Path]) -> None:
    folder = cut_off()
    assert reopened(folder) == {OLD, NEW}
    assert not aside_of(folder / DATABASE).exists()
    assert reopened(folder) == {OLD, NEW}


def test_without_what_was_put_aside__the_file_would_not_open(cut_off: Callable[..., Path]) -> None:
    with pytest.raises(StoreUnavailableError, match="checksum"):
        reopened(cut_off(keeps_aside=False))


@pytest.mark.parametrize("step", ["write", "remove"])
def test_taking_back_that_is_cut_off_itself__is_done_again(
    cut_off: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    folder = cut_off()

    def dies(*given: Any) -> None:
        raise CutOffError

    monkeypatch.setattr(*((os, "fsync") if step == "write" else (folding, "remove")), dies)
    with pytest.raises(CutOffError):
        put_back(folder / DATABASE)
    monkeypatch.undo()
    assert reopened(folder) == {OLD, NEW}


def test_what_was_put_aside_of_another_state__is_not_put_back(tmp_path: Path, cut_off: Callable[..., Path]) -> None:
    aside = aside_of(cut_off() / DATABASE)
    whole = tmp_path / "after"  # Its checkpoint came to its end; only the removing did not.
    assert aside.read_bytes() == aside_of(whole / DATABASE).read_bytes()
    bytes_before = (whole / DATABASE).read_bytes()
    put_back(whole / DATABASE)
    assert (whole / DATABASE).read_bytes() == bytes_before
    assert reopened(whole) == {OLD, NEW}


@pytest.mark.parametrize("left", [0, 20, HEADERS_BYTES, -1])
def test_putting_aside_that_was_cut_off__changes_nothing(
    tmp_path: Path, cut_off: Callable[..., Path], left: int
) -> None:
    cut_off()
    folder = tmp_path / "before"
    data = aside_of(tmp_path / "after" / DATABASE).read_bytes()
    aside_of(folder / DATABASE).write_bytes(data[:left])
    assert reopened(folder) == {OLD, NEW}


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_that_a_checkpoint_writes__is_needed_before_its_end(tmp_path: Path, seed: int) -> None:
    """Random changes of tables with indexes; then every block that a checkpoint wrote is noise, and the headers and the
    log are those from before it."""
    dice = random.Random(seed)
    path, torn = tmp_path / "whole" / DATABASE, tmp_path / "torn" / DATABASE
    path.parent.mkdir()
    in_place = 0
    with schema.connect(path) as database:
        for table in TABLES:
            database.execute(f"CREATE TABLE {table} (id VARCHAR PRIMARY KEY, n BIGINT, text VARCHAR)")
            database.execute(f"CREATE INDEX {table}_n ON {table} (n)")
        descriptor = os.open(path, os.O_RDONLY)
        for number in range(10):
            _change(database, dice, number)
            whole = [_content(database, table) for table in TABLES]
            shutil.copytree(path.parent, torn.parent)
            before = path.read_bytes()
            described = described_by(database)
            with folding.may_be_cut_off(database, path, descriptor):
                shutil.copy(aside_of(path), aside_of(torn))
                database.execute("CHECKPOINT")
            after = path.read_bytes()
            with torn.open("r+b") as file:
                for at in range(HEADERS_BYTES, len(after), BLOCK_BYTES):
                    if before[at : at + BLOCK_BYTES] != after[at : at + BLOCK_BYTES]:
                        in_place += at in described
                        file.seek(at)
                        file.write(dice.randbytes(BLOCK_BYTES))
            put_back(torn)
            with schema.connect(torn) as again:
                assert [_content(again, table) for table in TABLES] == whole
            shutil.rmtree(torn.parent)
        os.close(descriptor)
    assert in_place > 5


def _change(database: duckdb.DuckDBPyConnection, dice: random.Random, number: int) -> None:
    for step in range(4):
        table, rows = dice.choice(TABLES), dice.choice([1, 30, 5_000])
        database.execute(
            f"INSERT INTO {table} SELECT '{number}/{step}/' || i, i, md5(i::VARCHAR) FROM range({rows}) made(i)"
        )
        table = dice.choice(TABLES)
        database.execute(f"UPDATE {table} SET n = n + 1, text = 'new ' || n WHERE n % {dice.randint(2, 9)} = 0")
        database.execute(f"DELETE FROM {table} WHERE n % {dice.randint(3, 20)} = 1")


def _content(database: duckdb.DuckDBPyConnection, table: str) -> list[Any]:
    return database.execute(f"SELECT count(*), sum(n), bit_xor(hash(id || n || text)) FROM {table}").fetchall()


async def test_checkpoint_that_fails__keeps_the_first_that_was_put_aside(tmp_path: Path) -> None:
    database = Database(tmp_path / "data", KEY)
    await asyncio.to_thread(database.open)
    path = database.data_dir / DATABASE
    await database.write(add_user(OLD))
    with database._root.cursor() as cursor:  # type: ignore[union-attr]
        with pytest.raises(CutOffError), folding.may_be_cut_off(cursor, path, database._raw):
            raise CutOffError
        first = aside_of(path).read_bytes()
        assert aside_of(path).stat().st_mode & 0o777 == 0o600
        os.utime(aside_of(path), ns=(1, 1))
        with pytest.raises(CutOffError), folding.may_be_cut_off(cursor, path, database._raw):
            raise CutOffError
        assert aside_of(path).stat().st_mtime_ns == 1
    assert aside_of(path).read_bytes() == first
    await asyncio.to_thread(database.checkpoint)
    assert not aside_of(path).exists()
    await asyncio.to_thread(database.close)
    assert not aside_of(path).exists()
    assert reopened(database.data_dir) == {OLD}

"""The database: one owner, group commit, refusals that disturb nobody, disks that fail."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import duckdb
import pytest

from runtime.errors import ConflictError, StoreUnavailableError
from runtime.store import database as database_module
from runtime.store import schema
from runtime.store.database import Database
from runtime.store.queries import sql
from runtime.store.seal import Seal
from runtime.store.transaction import DuplicateRowError, Kind, Transaction

KEY = bytes(range(32))


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRow:
    user_id: str
    is_admin: bool
    role: str = "DEMO"
    invited_by: str | None = None


FLAGS: Kind[bool] = Kind(name="flag", query="select_user", read=lambda rows: rows[0][1] if rows else None)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(tmp_path / "data", KEY)
    await asyncio.to_thread(made.open)
    yield made
    await asyncio.to_thread(made.close)


def add_user(name: str) -> object:
    def act(tx: Transaction) -> str:
        tx.insert("users", UserRow(user_id=name, is_admin=False))
        tx.keep(FLAGS, name, False)
        return name

    return act


def wait_until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        time.sleep(0.02)


async def users(database: Database) -> list[str]:
    query = "SELECT user_id FROM users ORDER BY user_id"
    return [name for (name,) in await database.read(lambda connection: connection.execute(query).fetchall())]


async def test_write__is_seen_by_the_next_read(database: Database) -> None:
    assert await database.write(add_user("a")) == "a"
    assert await users(database) == ["a"]


async def test_group__commits_all_but_the_members_that_fail(database: Database) -> None:
    await database.write(add_user("taken"))

    def refuse(tx: Transaction) -> None:
        tx.insert("users", UserRow(user_id="of the refused", is_admin=False))
        tx.keep(FLAGS, "of the refused", True)
        raise ConflictError("no")

    def mistake(tx: Transaction) -> None:
        tx.execute("add_migration", name=None)

    acts = [add_user(f"u{i:02}") for i in range(20)]
    acts[3], acts[7], acts[11] = add_user("taken"), refuse, mistake
    outcomes = await asyncio.gather(*(database.write(act) for act in acts), return_exceptions=True)

    assert isinstance(outcomes[3], DuplicateRowError)
    assert isinstance(outcomes[7], ConflictError)
    assert isinstance(outcomes[11], duckdb.ConstraintException)
    good = [f"u{i:02}" for i in range(20) if i not in (3, 7, 11)]
    assert [outcome for outcome in outcomes if isinstance(outcome, str)] == good
    assert await users(database) == ["taken", *good]
    assert await database.write(lambda tx: tx.get(FLAGS, "of the refused")) is None


async def test_write_of_a_group__sees_what_earlier_ones_changed_unless_they_failed(database: Database) -> None:
    await database.write(add_user("taken"))

    def fail(tx: Transaction) -> None:
        add_user("ghost")(tx)
        add_user("taken")(tx)

    def refuse_if_ghost(tx: Transaction) -> str:
        if tx.get(FLAGS, "ghost") is not None:
            raise ConflictError("the ghost is there")
        return "no ghost"

    _, failed, answer = await asyncio.gather(
        database.write(add_user("real")), database.write(fail), database.write(refuse_if_ghost), return_exceptions=True
    )
    assert isinstance(failed, DuplicateRowError)
    assert answer == "no ghost"
    assert await users(database) == ["real", "taken"]


async def test_batch__answers_each_of_its_writes_in_order(database: Database) -> None:
    await database.write(add_user("taken"))

    def refuse(tx: Transaction) -> None:
        add_user("ghost")(tx)
        raise ConflictError("no")

    acts = [add_user("a"), refuse, add_user("taken"), add_user("b"), lambda tx: tx.get(FLAGS, "ghost")]
    a, refused, duplicate, b, ghost = await database.write_many(acts)
    assert (a, b, ghost) == ("a", "b", None)
    assert isinstance(refused, ConflictError)
    assert isinstance(duplicate, DuplicateRowError)
    assert await users(database) == ["a", "b", "taken"]
    assert await database.write_many([]) == []


async def test_group_that_a_row_makes_impossible__loses_only_that_row(database: Database) -> None:
    def impossible(tx: Transaction) -> None:
        tx.insert("users", UserRow(user_id="x", is_admin=object()))  # type: ignore[arg-type]

    acts = [add_user("a"), impossible, add_user("b")]
    outcomes = await asyncio.gather(*(database.write(act) for act in acts), return_exceptions=True)
    assert [isinstance(outcome, Exception) for outcome in outcomes] == [False, True, False]
    assert await users(database) == ["a", "b"]


async def test_write__is_answered_only_after_its_commit(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    arrived, go = threading.Event(), threading.Event()
    commit = database._end_group

    def held_up() -> None:
        arrived.set()
        assert go.wait(30)
        commit()

    def refuse(tx: Transaction) -> None:
        raise ConflictError("no")

    monkeypatch.setattr(database, "_end_group", held_up)
    answers = asyncio.gather(database.write_many([add_user("a"), refuse]), database.write(add_user("b")))
    await asyncio.to_thread(arrived.wait, 30)
    await asyncio.sleep(0.05)
    assert not answers.done()
    go.set()
    (name, refusal), _ = await answers
    assert name == "a"
    assert isinstance(refusal, ConflictError)


async def test_write_whose_commit_fails__is_not_answered_as_done(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise duckdb.IOException("No space left on device")

    with monkeypatch.context() as failing:
        failing.setattr(database, "_end_group", broken)
        outcomes = await database.write_many([add_user("a"), add_user("b")])
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailableError] * 2
    assert await users(database) == []
    assert await database.write(add_user("a")) == "a"


async def test_log__is_folded_into_the_file_beside_the_writes(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "LOG_BYTES_MAX", 10_000)
    names = [f"{number}-" + "x" * 1_000 for number in range(400)]
    for name in names:
        await database.write(add_user(name))
    await asyncio.to_thread(wait_until, lambda: database.log_bytes <= 10_000)
    assert database.checkpoint_max_s > 0
    assert set(await users(database)) == set(names)


async def test_log_that_cannot_be_folded__is_a_line_in_the_log(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise duckdb.IOException("No space left on device")

    monkeypatch.setattr(database_module, "LOG_BYTES_MAX", 0)
    monkeypatch.setattr(database, "checkpoint", broken)
    await database.write(add_user("a"))
    await asyncio.to_thread(wait_until, lambda: "No space left on device" in caplog.text)
    assert await database.write(add_user("b")) == "b"
    assert await users(database) == ["a", "b"]


async def test_cancelled_caller__does_not_disturb_the_others(database: Database) -> None:
    tasks = [asyncio.ensure_future(database.write(add_user(f"u{i}"))) for i in range(10)]
    await asyncio.sleep(0)
    tasks[4].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(outcome, str) for outcome in outcomes) == 9
    assert {f"u{i}" for i in range(10) if i != 4} <= set(await users(database))


async def test_second_owner__is_refused_while_the_first_lives(database: Database) -> None:
    with pytest.raises(StoreUnavailableError, match="in use: process"):
        Database(database.data_dir, KEY).open()

    script = (
        "import sys; from pathlib import Path; from runtime.store.database import Database\n"
        "try: Database(Path(sys.argv[1]), bytes(range(32))).open()\n"
        "except Exception as error: print(type(error).__name__)"
    )
    for _ in range(2):
        arguments = [sys.executable, "-c", script, str(database.data_dir)]
        other = await asyncio.to_thread(subprocess.run, arguments, capture_output=True, text=True, check=True)
        assert other.stdout.strip() == "StoreUnavailableError"
    await database.write(add_user("a"))

    await asyncio.to_thread(database.close)
    second = Database(database.data_dir, KEY)
    second.open()
    assert await users(second) == ["a"]
    assert second.cluster_id == database.cluster_id
    second.close()


async def test_closed_database__answers_unavailable(tmp_path: Path) -> None:
    database = Database(tmp_path, KEY)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError):
            await database.write(add_user("a"))
        with pytest.raises(StoreUnavailableError):
            await users(database)
        database.open()
        database.close()
        database.close()


def test_folder_with_data_but_no_database__is_refused(tmp_path: Path) -> None:
    (tmp_path / "blobs" / "ab").mkdir(parents=True)
    (tmp_path / "blobs" / "ab" / "abcd").write_bytes(b"sealed")
    with pytest.raises(StoreUnavailableError, match="not a data folder of Masterbuilder"):
        Database(tmp_path, KEY).open()
    assert not (tmp_path / schema.DATABASE).exists()


@pytest.mark.parametrize("statement", ["CREATE TABLE other (a INT)", None])
def test_database_without_its_cluster_id__is_refused(tmp_path: Path, statement: str | None) -> None:
    if statement is None:
        schema.create(tmp_path, Seal(KEY))
        statement = "DELETE FROM cluster"
    with duckdb.connect(str(tmp_path / schema.DATABASE)) as connection:
        connection.execute(statement)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="cluster_id"):
            Database(tmp_path, KEY).open()


def test_other_key__is_refused(tmp_path: Path) -> None:
    database = Database(tmp_path, KEY)
    database.open()
    database.close()
    with pytest.raises(StoreUnavailableError, match="does not open with this key"):
        Database(tmp_path, bytes(32)).open()


def test_creation_cut_off_half_way__is_begun_again(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / f"{schema.DATABASE}.new")) as connection:
        connection.execute("CREATE TABLE cluster (half INT)")
    database = Database(tmp_path, KEY)
    database.open()
    database.close()
    assert not list(tmp_path.glob("*.new*"))


def test_folder_that_cannot_be_written__says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailableError, match="cannot be used"):
        Database(tmp_path / "file" / "data", KEY).open()


async def test_migrations__are_applied_once(database: Database) -> None:
    await asyncio.to_thread(database.close)
    await asyncio.to_thread(database.open)
    rows = await database.read(lambda connection: connection.execute(sql("applied_migrations")).fetchall())
    assert sorted(rows) == sorted(
        (file.name,) for file in files("runtime.store.migrations").iterdir() if ".sql" in file.name
    )


FULL_DISK = """
import asyncio, resource, signal, sys
from pathlib import Path
from dataclasses import dataclass
from runtime.errors import StoreUnavailableError
from runtime.store.database import Database

@dataclass(frozen=True, slots=True, kw_only=True)
class UserRow:
    user_id: str
    is_admin: bool
    role: str = "DEMO"
    invited_by: str | None = None

async def main():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    database = Database(Path(sys.argv[1]), bytes(range(32)))
    database.open()
    write = lambda name: database.write(lambda tx: tx.insert("users", UserRow(user_id=name, is_admin=False)))
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    acknowledged, refused = [], 0
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 << 10, unlimited[1]))
    for i in range(40):
        try:
            await write(f"{i}-" + "x" * 20_000)
            acknowledged.append(i)
        except StoreUnavailableError as error:
            refused += 1
            text = str(error)
    assert refused > 0 and "full" in text, (refused, text if refused else "")
    read = lambda: database.read(lambda c: c.execute("SELECT user_id FROM users").fetchall())
    assert len(await read()) >= len(acknowledged)
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    await write("after")
    rows = await read()
    names = [name.split("-")[0] for (name,) in rows]
    assert len(names) == len(set(names)) and {str(i) for i in acknowledged} | {"after"} <= set(names)
    database.close()
    print(len(acknowledged), refused, text)

asyncio.run(main())
"""


def test_full_disk__refuses_with_a_clear_text_and_goes_on_when_there_is_space(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr

"""A real build of a person's: what lies on the disk of it, what they take out, and that nothing of it is left."""

import asyncio
import io
import json
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runtime.ids import EntityId, ProjectId, UserId, index_entity, name_of, project_entity, user_entity
from runtime.index.embedder import NoEmbedder
from runtime.index.entity import IndexEntity
from runtime.index.messages import UpdateIndex
from runtime.ledger.port import NewToken
from runtime.privacy.export import export
from runtime.project.messages import Answer, OpenProject, ProjectView, Status
from runtime.store.seal import Seal
from tests.e2e.needles import Haystack
from tests.e2e.world import ANSWERS, BRIEF, World

ANN = UserId("telegram:annabell-77")
EMAIL = "annabell@needle.example"
LABEL = "the laptop in Annabell's kitchen"
PLAIN = {
    "brief": "three spreadsheets and a bank export",
    "answer": "Two people who share a household",
    "email": EMAIL,
    "label": LABEL,
    "code": "def test_",
    "document": "All data stays in one file",
}


@pytest.fixture
async def ann(world: World) -> World:
    await world.store.books.open_wallet(ANN, is_admin=False)
    await world.store.books.set_role(ANN, "FULL_ACCESS")
    await world.store.books.set_email(ANN, EMAIL)
    await world.store.books.add_token(NewToken(token_sha256="a" * 64, user=ANN, kind="user", label=LABEL))
    return world


async def order(world: World, **changes: Any) -> ProjectId:
    asked: dict[str, Any] = {"brief": BRIEF, "answers": ANSWERS, "max_ucredits": None, "confirmed": True}
    view: ProjectView = await world.host.ask(user_entity(ANN), OpenProject(**{"key": "one", **asked, **changes}))
    return view.id


async def index(world: World, project: ProjectId) -> Path:
    """As the index's host does it; this world has none."""
    folder = world.settings.data_dir / "index"
    seal = Seal(world.secrets.data_encryption_key)
    shard = IndexEntity(index_entity(project), world.store.books, NoEmbedder(), folder, seal)
    records = await world.store.journal.read(project_entity(project), 0)
    newest = next(record.data for record in reversed(records) if "bundle" in record.data)
    await shard.receive(UpdateIndex(owner=ANN, commit=newest["commit"], bundle=newest["bundle"]))
    await shard.saved()
    (file,) = folder.glob(f"{project}*")
    return file


async def erased(world: World) -> None:
    """The keeper's rounds and the host's, as both go on by themselves in the service."""
    world.store.erasing.rest = timedelta(0)
    async with asyncio.timeout(60):
        while not await world.store.erase_due():
            await world.host._look_after()
            await asyncio.sleep(0.05)


async def rows_naming(world: World, word: str) -> list[str]:
    """Tables with a text that holds the word."""

    def look(connection: Any) -> list[str]:
        columns = connection.execute(
            "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal AND data_type LIKE 'VARCHAR%' "
            "AND table_name IN (SELECT table_name FROM duckdb_tables())"
        ).fetchall()
        return [
            table
            for table, column in columns
            if connection.execute(
                f"SELECT 1 FROM {table} WHERE contains({column}::VARCHAR, ?) LIMIT 1", [word]
            ).fetchall()
        ]

    return await world.store._database.read_long(look)


async def test_disk__holds_no_word_of_a_build_and_its_owner_takes_all_of_it_out(
    ann: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, data_dir = ann, ann.settings.data_dir
    project = await order(world)
    events = await world.until(project, "project.finished")
    assert events[-1].data["status"] == Status.COMPLETED
    await index(world, project)
    await world.store.backup(tmp_path / "backup", False)
    package = next(event.data for event in events if event.type == "package.ready")
    plain = await world.store.books.get_blob(package["blob"])
    with zipfile.ZipFile(io.BytesIO(plain)) as archive:
        delivered = b"".join(archive.read(name) for name in archive.namelist())
    haystack = Haystack(PLAIN)
    said = json.dumps([event.data for event in events]).encode()
    assert haystack.in_bytes(delivered) >= {"code"}, "or nothing would be looked for"
    assert haystack.in_bytes(said) >= {"brief", "answer", "document"}
    assert {path.name for path in data_dir.iterdir()} >= {"ledger.duckdb", "ledger.duckdb.wal", "blobs", "index"}
    await working_copy_is_gone(world, project)
    assert haystack.in_files([data_dir, tmp_path / "backup"]) == {}

    at = datetime(2026, 11, 21, tzinfo=UTC)
    pieces = [piece async for piece in export(ANN, world.store.books, world.store.journal, at)]
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        assert archive.testzip() is None
        taken = {name: archive.read(name) for name in archive.namelist()}
    assert haystack.in_bytes(b"".join(taken.values())) >= {"brief", "answer", "email", "label", "document"}
    shown = json.loads(taken[f"projects/{project}/project.json"])
    assert (shown["status"], len(shown["requirements"]["requirements"])) == ("completed", 10)
    assert shown["package"]["sha256"] == package["sha256"]
    receipt = await world.store.books.receipt(project)
    moves = json.loads(taken["statement.json"])
    assert (
        -sum(move["amount_ucredits"] for move in moves if move["type"] == "usage_deduction") == receipt.total_ucredits
    )
    assert len(json.loads(taken["calls.json"])) == len(receipt.charged) + len(receipt.losses)

    await world.store.books.delete_person(ANN, 10**15)
    await erased(world)
    assert await rows_naming(world, "annabell") == []
    assert [path for folder in ("blobs", "index") for path in (data_dir / folder).rglob("*") if path.is_file()] == []
    assert (await world.store.journal.load(project_entity(project))).head is None
    assert await world.store.check() == []
    after = await world.store.books.receipt(project)
    assert (after.total_ucredits, len(after.charged)) == (receipt.total_ucredits, len(receipt.charged))


async def working_copy_is_gone(world: World, project: ProjectId) -> None:
    """Its host removes it when the project is over, a moment after that is told."""
    folder = world.settings.data_dir / f"host-{world.incarnations}" / project
    async with asyncio.timeout(60):
        while True:
            if not folder.exists():
                return
            await asyncio.sleep(0.02)


async def test_build_under_way__is_stopped_and_erased_although_everything_dies_meanwhile(ann: World) -> None:
    world = ann
    project = await order(world)
    await world.until(project, "task.merged")
    deletion = await world.store.books.delete_person(ANN, 10**15)
    assert await world.store.books.authenticate("a" * 64) is None
    served = len(world.served())
    await world.crash_and_restart()
    await world.store.close()
    await world.store.open()
    await erased(world)
    assert deletion.user == ANN
    assert await rows_naming(world, "annabell") == []
    await asyncio.sleep(0.3)
    assert len(world.served()) - served <= 8, "calls went on after the request"
    assert await rows_naming(world, "annabell") == []
    receipt = await world.store.books.receipt(project)
    assert not receipt.pending
    assert await world.store.check() == []
    await working_copy_is_gone(world, project)


async def test_project_that_waits_for_an_answer__is_cancelled_for_an_owner_who_left(ann: World) -> None:
    world = ann
    project = await order(world, answers={}, confirmed=False)
    entity: EntityId = project_entity(project)
    await world.until(project, "project.question")
    await world.host.ask(entity, Answer(key="a", text="Whoever knows Annabell."))
    await world.store.books.delete_person(ANN, 10**15)
    world.store.erasing.rest = timedelta(0)
    async with asyncio.timeout(60):
        while (head := await world.store.journal.head(entity)) is not None and head.open:
            await world.host._look_after()
            await asyncio.sleep(0.05)
    assert head is not None
    assert head.data["status"] == Status.CANCELLED
    await erased(world)
    assert await world.store.journal.head(entity) is None
    assert await rows_naming(world, name_of(user_entity(ANN))) == []

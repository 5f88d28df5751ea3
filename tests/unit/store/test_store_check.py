"""The check finds what is wrong and says it; a store that is right has nothing to say."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from runtime.entity.journal import BeginRun, Claim, Moves, Reminder
from runtime.ids import CallId, ProjectId, RunId, UserId, partition_of
from runtime.ledger.money import Price
from runtime.ledger.port import Hold, Meter
from runtime.store import checking

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
async def filled(store, an_append):
    """Three entities of every sort, a reminder, a blob, and money that moved."""
    journal = store.journal
    await store.books.open_wallet(UserId("u"), is_admin=False)
    run = BeginRun(run=RunId("r"), user=UserId("u"), project=ProjectId("1"), task="T-001", attempt=1)
    await journal.append(an_append("project:1", 0, 3, moves=Moves(begin=[run], ceiling_ucredits=10**9)))
    price = Price(pricing_id="p", input_udollars_per_mtok=1000, output_udollars_per_mtok=1000)
    hold = Hold(
        call=CallId("c"), user=UserId("u"), run=run.run, task_type="coding", provider="x", model="m",
        input_tokens_max=100, output_tokens_max=100, price=price,
    )  # fmt: skip
    await store.books.hold(hold)
    await store.books.meter(Meter(call=hold.call, input_tokens=50, output_tokens=50, response_time_ms=1, key_id="k"))
    await journal.append(an_append("project:1", 3, 1, moves=Moves(settle=[run.run])))
    await journal.append(an_append("counter:1", 0, 2, snapshot=True, drop_history=True))
    await journal.append(an_append("counter:1", 2, 2, snapshot=True))
    partition = partition_of("counter:1")
    await journal.claim(Claim(host="h2", incarnation="i2", partitions={partition: 1}))
    reminder = Reminder(name="r", due_at=NOON, data={"n": 1})
    await journal.append(replace(an_append("counter:1", 4, 2), epoch=2, remind=[reminder]))
    await journal.append(an_append("counter:2", 0, 0))
    await store.books.put_blob(b"first")
    await store.books.put_blob(b"second")
    return store


async def test_check__finds_nothing_wrong_with_a_store_that_is_right(filled) -> None:
    assert await filled.check() == []
    await filled.compact()
    assert await filled.check() == []
    await filled.close()
    await filled.open()
    assert await filled.check() == []


DAMAGES = [
    ("DELETE FROM entries WHERE entity = 'project:1' AND seq = 2", "project:1", "event 3 follows event 1"),
    ("DELETE FROM entries WHERE entity = 'project:1' AND seq = 1", "project:1", "first event is 2, but only those up"),
    ("DELETE FROM entries WHERE entity = 'project:1' AND seq = 4", "project:1", "last event is 3, but its row says 4"),
    ("DELETE FROM entries WHERE entity = 'counter:1' AND seq = 4 AND type IS NOT NULL", "counter:1", "5 follows event"),
    (
        "INSERT INTO entries SELECT * FROM entries WHERE entity = 'project:1' AND seq = 4",
        "project:1",
        "event 4 is there twice",
    ),
    ("UPDATE entities SET last_seq = 9 WHERE entity = 'counter:2'", "counter:2", "its row says 9"),
    ("DELETE FROM entities WHERE entity = 'counter:1'", "counter:1", "no row in `entities`"),
    ("UPDATE entries SET seq = 7 WHERE type IS NULL AND seq = 4", "counter:1", "beyond its last event, which is 6"),
    (
        "UPDATE entries SET epoch = 9 WHERE entity = 'project:1' AND seq = 4",
        "project:1",
        "newest of its partition is 1",
    ),
    (
        "UPDATE entries SET epoch = 1 WHERE entity = 'counter:1' AND seq = 6",
        "counter:1",
        "epoch 1 after one of epoch 2",
    ),
    ("DELETE FROM partitions", "counter:1", "newest of its partition is none"),
    (
        "UPDATE entries SET payload = 'x'::BLOB WHERE seq = 2 AND type IS NULL",
        "counter:1",
        "snapshot of event 2 does not",
    ),
    ("UPDATE entries SET payload = 'x'::BLOB WHERE seq = 3", "project:1", "event 3 does not open"),
    (
        "UPDATE entries SET payload = (SELECT payload FROM entries WHERE entity = 'project:1' AND seq = 2)"
        " WHERE entity = 'project:1' AND seq = 1",
        "project:1",
        "event 1 does not open",
    ),
    ("UPDATE entities SET head = 'x'::BLOB", "counter:2", "its head does not open"),
    ("UPDATE entities SET kind = 'user' WHERE entity = 'counter:2'", "counter:2", "of kind user"),
    ("UPDATE entities SET tail = '1 2' WHERE entity = 'project:1'", "project:1", "its list of positions"),
    ("UPDATE reminders SET entity = 'counter:9'", "counter:9", "has the reminder r, but no row"),
    ("UPDATE reminders SET data = 'x'::BLOB", "counter:1", "the reminder r does not open"),
    ("UPDATE reminders SET partition = 1", "counter:1", "stands under partition 1"),
    ("INSERT INTO reminders SELECT * FROM reminders", "counter:1", "has the reminder r 2 times"),
    ("UPDATE accounts SET balance = balance + 1 WHERE account = 'user:u'", "user:u", "balance"),
]


@pytest.mark.parametrize(("damage", "subject", "text"), DAMAGES)
async def test_check__says_what_is_wrong(filled, execute, monkeypatch, damage, subject, text) -> None:
    monkeypatch.setattr(checking, "ENTRIES_PER_SHARE", 3)
    await execute(damage)
    found = [mismatch.text for mismatch in await filled.check() if mismatch.subject == subject]
    assert any(text in one for one in found), found


async def test_check__reads_every_blob(filled, tmp_path) -> None:
    first, second = sorted((tmp_path / "data" / "blobs").glob("*/*"))
    first.write_bytes(second.read_bytes())
    second.rename(second.with_name("0" * 64))
    stray = tmp_path / "data" / "blobs" / "ab" / "notes.txt"
    stray.parent.mkdir(exist_ok=True)
    stray.write_text("hello")
    found = {mismatch.subject: mismatch.text for mismatch in await filled.check()}
    assert len(found) == 3
    assert "damaged" in found[f"blobs/{first.parent.name}/{first.name}"]
    assert "no file of ours" in found["blobs/ab/notes.txt"]


async def test_check_of_a_ruin__is_bounded(filled, execute, monkeypatch) -> None:
    monkeypatch.setattr(checking, "MISMATCHES_MAX", 3)
    await execute("UPDATE entries SET payload = 'x'::BLOB")
    found = await filled.check()
    assert len(found) == 4
    assert found[-1].text == "there are more mismatches than are listed"

"""What only the real journal can show: refusals that are seen, and tails that lead astray."""

import asyncio
import logging
from dataclasses import replace

import pytest

from runtime.entity.journal import Claim
from runtime.errors import StoreUnavailableError
from runtime.ids import EntityId
from runtime.store.journal import StoreJournal

ENTITY = EntityId("counter:1")


async def test_refused_appends__are_counted_and_a_few_of_them_logged(store, an_append, caplog) -> None:
    caplog.set_level(logging.WARNING)
    await store.journal.append(an_append(ENTITY))
    await store.journal.append_all([replace(an_append(ENTITY, 1), epoch=7)] + [an_append(ENTITY, 5)] * 49)
    assert (await store.vitals()).refused_stale == 50
    refused = [record.getMessage() for record in caplog.records if "refused" in record.message]
    assert 1 < len(refused) <= 20
    assert "counter:1" in refused[0]
    assert "epoch of its partition is 1, not 7" in refused[0]
    assert "last event is number 1, not 5" in refused[1]


async def test_mark_of_ownerships__is_another_after_each_claim_and_each_start(store) -> None:
    seen = [store.journal.ownerships_mark]
    assert store.journal.ownerships_mark == seen[0]
    await store.journal.claim(Claim(host="h", incarnation="i", partitions={3: 0}))
    seen.append(store.journal.ownerships_mark)
    await store.journal.ownerships()
    assert store.journal.ownerships_mark == seen[1]
    await store.journal.claim(Claim(host="other", incarnation="i", partitions={3: 9}))  # Refused, perhaps.
    seen.append(store.journal.ownerships_mark)
    seen.append(StoreJournal(store._database).ownerships_mark)
    assert len(set(seen)) == 4


async def test_vitals__count_what_was_written(store, an_append) -> None:
    await store.journal.append_all([an_append(f"counter:{n}", 0, 2, snapshot=True) for n in range(30)])
    vitals = await store.vitals()
    assert (vitals.entities, vitals.events, vitals.queued, vitals.refused_stale) == (30, 60, 0, 0)
    assert vitals.groups >= 2
    assert vitals.writes >= 31
    assert vitals.commit_p50_ms > 0
    assert vitals.database_bytes > 0
    assert vitals.log_bytes > 0


WRONG_TAILS = ["", "0", "999", "s0", "s999 1", "0 1 2 3 4", "4 3", "s2 3", "*", "s2 *", "nonsense", "1 2 x", "s2 3 4 5"]


@pytest.mark.parametrize("wrong", WRONG_TAILS)
async def test_load_by_a_wrong_tail__is_right_all_the_same(store, an_append, execute, caplog, wrong: str) -> None:
    caplog.set_level(logging.WARNING)
    await store.journal.append(an_append(ENTITY, 0, 2, snapshot=True))
    await store.journal.append(an_append("counter:2", 0, 2))
    await store.journal.append(an_append(ENTITY, 2, 2))
    before = await store.journal.load(ENTITY)
    assert [event.seq for event in before.events] == [3, 4]
    assert caplog.text == ""

    await execute("UPDATE entities SET tail = $tail WHERE entity = $entity", tail=wrong, entity=ENTITY)
    assert await store.journal.load_all([EntityId("counter:2"), ENTITY]) == [
        await store.journal.load(EntityId("counter:2")),
        before,
    ]
    for after in range(5):
        events = await store.journal.read(ENTITY, after)
        assert [event.seq for event in events] == list(range(after + 1, 5))
    assert ENTITY in caplog.text or wrong.endswith("*")


async def test_load_of_a_journal_with_a_gap__says_so_and_disturbs_no_other(store, an_append, execute) -> None:
    await store.journal.append(an_append(ENTITY, 0, 3))
    await store.journal.append(an_append("counter:2"))
    await execute("DELETE FROM entries WHERE entity = $entity AND seq = 2", entity=ENTITY)
    damaged, whole = await store.journal.load_all([ENTITY, EntityId("counter:2")])
    assert isinstance(damaged, StoreUnavailableError)
    assert whole == await store.journal.load(EntityId("counter:2"))
    for read in (store.journal.load(ENTITY), store.journal.read(ENTITY, 0)):
        with pytest.raises(StoreUnavailableError, match="gap"):
            await read


async def test_compaction__goes_on_beside_writes_and_loses_nothing(store, an_append) -> None:
    entities = [EntityId(f"counter:{n}") for n in range(40)]
    stop = asyncio.Event()

    async def write() -> int:
        seq = 0
        while not stop.is_set():
            appends = [an_append(entity, seq, 2, snapshot=seq % 6 == 0, drop_history=True) for entity in entities]
            assert await store.journal.append_all(appends) == [seq + 2] * len(entities)
            seq += 2
        return seq

    writing = asyncio.create_task(write())
    dropped = [(await store.compact()).events_dropped for _ in range(8)]
    stop.set()
    seq = await writing
    dropped.append((await store.compact()).events_dropped)
    assert await store.check() == []
    assert sum(dropped) + (await store.vitals()).events == seq * len(entities)
    for loaded in await store.journal.load_all(entities):
        assert loaded.head.last_seq == seq
        assert [event.seq for event in loaded.events] == list(range(loaded.snapshot.seq + 1, seq + 1))
        assert loaded.snapshot.data == {"n": loaded.snapshot.seq}


async def test_compaction__frees_space_for_what_comes(store, an_append, execute) -> None:
    async def fill(first_position: int) -> None:
        values = {"first": first_position}
        await execute(
            "INSERT INTO entries SELECT $first + i, 'counter:2', $first + i, 1, 't', 1, false,"
            " (md5(i::VARCHAR) || md5((-i)::VARCHAR))::BLOB, now() FROM range(600_000) r(i)",
            **values,
        )
        store._database.checkpoint()

    await store.journal.append(an_append(ENTITY))
    await fill(1_000)
    await execute("INSERT INTO entries VALUES (700_000, 'counter:2', 601_000, 1, NULL, 1, true, 'sealed'::BLOB, now())")
    await execute(
        "INSERT INTO entities VALUES ('counter:2', 7, 'counter', 'u', 1, false, ''::BLOB, now(), 1_000, 's700000')"
    )
    report = await store.compact()
    assert report.events_dropped == 600_000
    await fill(800_000)
    assert store._database.file_bytes < report.bytes_before * 1.3
    assert [event.seq for event in (await store.journal.load(ENTITY)).events] == [1]
    await store.journal.append(an_append(ENTITY, 1))
    assert [event.seq for event in (await store.journal.load(ENTITY)).events] == [1, 2]

"""What every journal does, in memory or on disk. Each test holds for both."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runtime.entity.journal import Append, BeginRun, Claim, Journal, NewEvent
from runtime.errors import BadInputError, ConflictError, NotFoundError, StaleWriterError
from runtime.ids import EntityId, ProjectId, RunId, UserId, partition_of
from runtime.ledger.money import Tariff
from runtime.store.database import Database
from runtime.store.journal import StoreJournal
from runtime.testing.memory_journal import MemoryJournal
from runtime.testing.memory_ledger import MemoryLedger

ENTITY = EntityId("project:p1")
OWNER = UserId("u1")
PARTITION = partition_of(ENTITY)
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture(params=["memory", "duckdb"])
async def journal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Journal]:
    ticks = iter(range(10**6))

    def clock() -> datetime:
        return NOON + timedelta(seconds=next(ticks))

    if request.param == "memory":
        yield MemoryJournal(MemoryLedger(Tariff(), 0, clock), clock)
        return
    database = Database(tmp_path, bytes(range(32)))
    await asyncio.to_thread(database.open)
    yield StoreJournal(database, clock)
    await asyncio.to_thread(database.close)


def a_claim(incarnation: str, *partitions: int) -> Claim:
    return Claim(host="h", incarnation=incarnation, partitions=partitions or [PARTITION])


def an_event(key: str, **data: object) -> NewEvent:
    return NewEvent(type="project.answer", version=1, key=key, data=data)


def an_append(*keys: str, expected: int = 0, epoch: int = 1, entity: EntityId = ENTITY) -> Append:
    events = [an_event(key) for key in keys]
    return Append(
        entity=entity, owner=OWNER, epoch=epoch, expected_seq=expected, events=events, open=True, head={"n": expected}
    )


async def test_claim__raises_the_epoch_for_another_incarnation_only(journal: Journal) -> None:
    assert await journal.claim(a_claim("a", 1, 2)) == {1: 1, 2: 1}
    assert await journal.claim(a_claim("a", 1, 2)) == {1: 1, 2: 1}
    assert await journal.claim(a_claim("b", 2, 3)) == {2: 2, 3: 1}
    assert await journal.claim(a_claim("a", 1, 2)) == {1: 1, 2: 3}


async def test_claim__refuses_partitions_that_do_not_exist(journal: Journal) -> None:
    for partition in (-1, 1024):
        with pytest.raises(BadInputError):
            await journal.claim(a_claim("a", partition))


async def test_append__numbers_events_from_1_and_read_returns_them(journal: Journal) -> None:
    await journal.claim(a_claim("a"))
    first = replace(
        an_append("k1", "k2"), events=[an_event("k1", text="grüß dich"), an_event("k2", n=[1, {"a": None}])]
    )
    assert await journal.append(first) == 2
    assert await journal.append(an_append("k3", expected=2)) == 3

    one, two, three = await journal.read(ENTITY, 0)
    assert [(event.seq, event.key, event.epoch) for event in (one, two, three)] == [
        (1, "k1", 1),
        (2, "k2", 1),
        (3, "k3", 1),
    ]
    assert (one.data, two.data) == ({"text": "grüß dich"}, {"n": [1, {"a": None}]})
    assert (one.type, one.version, one.entity) == ("project.answer", 1, ENTITY)
    assert one.at.utcoffset() == timedelta(0)
    assert NOON <= one.at <= three.at
    assert [event.seq for event in await journal.read(ENTITY, 2)] == [3]
    assert list(await journal.read(EntityId("project:unknown"), 0)) == []


async def test_append_without_a_claim__is_refused(journal: Journal) -> None:
    for epoch in (0, 1):
        with pytest.raises(StaleWriterError):
            await journal.append(an_append("k", epoch=epoch))


async def test_append_of_an_old_or_future_epoch__is_refused_and_writes_nothing(journal: Journal) -> None:
    await journal.claim(a_claim("a"))
    await journal.append(an_append("k1"))
    await journal.claim(a_claim("b"))
    for epoch in (0, 1, 3):
        with pytest.raises(StaleWriterError):
            await journal.append(an_append("k2", expected=1, epoch=epoch))
    assert len(await journal.read(ENTITY, 0)) == 1
    assert await journal.append(an_append("k2", expected=1, epoch=2)) == 2


async def test_append_at_the_wrong_place__is_refused(journal: Journal) -> None:
    await journal.claim(a_claim("a"))
    await journal.append(an_append("k1"))
    for expected in (0, 2):
        with pytest.raises(StaleWriterError):
            await journal.append(an_append("k2", expected=expected))


async def test_append_of_a_known_key__is_refused_with_all_that_came_with_it(journal: Journal) -> None:
    await journal.claim(a_claim("a"))
    await journal.append(an_append("k1"))
    with pytest.raises(StaleWriterError):
        await journal.append(an_append("k2", "k1", expected=1))
    with pytest.raises(StaleWriterError):
        await journal.append(an_append("k3", "k3", expected=1))
    assert [event.key for event in await journal.read(ENTITY, 0)] == ["k1"]
    assert await journal.append(an_append("k2", expected=1)) == 2


async def test_same_key__may_stand_in_two_entities(journal: Journal) -> None:
    other = EntityId("project:p2")
    await journal.claim(a_claim("a", PARTITION, partition_of(other)))
    await journal.append(an_append("k"))
    await journal.append(an_append("k", entity=other))


async def test_one_of_many_rivals__wins_each_place(journal: Journal) -> None:
    await journal.claim(a_claim("a"))
    for expected in range(3):
        outcomes = await asyncio.gather(
            *(journal.append(an_append(f"k{expected}-{i}", expected=expected)) for i in range(20)),
            return_exceptions=True,
        )
        assert sum(outcome == expected + 1 for outcome in outcomes) == 1
        assert sum(isinstance(outcome, StaleWriterError) for outcome in outcomes) == 19


async def test_head__follows_every_append_even_one_without_events(journal: Journal) -> None:
    await journal.claim(a_claim("a"))
    assert await journal.head(ENTITY) is None
    await journal.append(replace(an_append("k1"), head={"title": "ü"}))
    await journal.append(replace(an_append(expected=1), head={"title": "b"}, open=False))
    head = await journal.head(ENTITY)
    assert head is not None
    assert (head.owner, head.last_seq, head.open, head.data) == (OWNER, 1, False, {"title": "b"})
    assert head.updated_at.utcoffset() == timedelta(0)


async def test_heads__are_of_one_kind_and_owner_newest_first(journal: Journal) -> None:
    entities = [EntityId(name) for name in ("project:a", "project:b", "user:c", "project:d")]
    await journal.claim(a_claim("a", *{partition_of(entity) for entity in entities}))
    for entity in entities:
        owner = UserId("u2") if entity == "project:d" else OWNER
        await journal.append(replace(an_append("k", entity=entity), owner=owner))
    await journal.append(an_append("k2", expected=1, entity=entities[0]))

    assert [head.entity for head in await journal.heads("project", None)] == ["project:a", "project:d", "project:b"]
    assert [head.entity for head in await journal.heads("project", OWNER)] == ["project:a", "project:b"]
    assert list(await journal.heads("index", None)) == []


async def test_open_entities__are_those_with_unfinished_work(journal: Journal) -> None:
    entities = [EntityId(name) for name in ("project:a", "user:b", "index:c", "project:d")]
    await journal.claim(a_claim("a", *{partition_of(entity) for entity in entities}))
    for entity in entities:
        await journal.append(replace(an_append("k", entity=entity), open=entity != "project:d"))
    assert set(await journal.open_entities(["project", "user"])) == {"project:a", "user:b"}
    assert list(await journal.open_entities([])) == []


async def test_append_whose_money_is_refused__writes_no_event(journal: Journal) -> None:
    run = BeginRun(run=RunId("r"), user=OWNER, project=ProjectId("p1"), task="T-001", attempt=1)
    await journal.claim(a_claim("a"))
    await journal.append(replace(an_append("k1"), begin_runs=[run], settle_runs=[run.run]))
    with pytest.raises(ConflictError):
        await journal.append(replace(an_append("k2", expected=1), abandon_runs=[run.run]))
    with pytest.raises(NotFoundError):
        await journal.append(replace(an_append("k2", expected=1), settle_runs=[RunId("unknown")]))
    assert len(await journal.read(ENTITY, 0)) == 1
    head = await journal.head(ENTITY)
    assert head is not None
    assert head.last_seq == 1

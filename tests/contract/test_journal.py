"""What every journal does, in memory or on disk. Each test holds for both."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import pytest

from runtime.entity.journal import (
    Append,
    BeginRun,
    Claim,
    DueReminder,
    Journal,
    Loaded,
    Moves,
    NewEvent,
    Ownership,
    Reminder,
    Snapshot,
)
from runtime.errors import BadInputError, ConflictError, NotFoundError, StaleWriterError
from runtime.ids import PARTITION_COUNT, EntityId, ProjectId, RunId, UserId, partition_of
from runtime.ledger.money import Tariff
from runtime.store import compaction
from runtime.store.database import Database
from runtime.store.journal import StoreJournal
from runtime.testing.memory_journal import MemoryJournal
from runtime.testing.memory_ledger import MemoryLedger

ENTITY = EntityId("project:p1")
OTHER = EntityId("project:p2")
OWNER = UserId("u1")
PARTITION = partition_of(ENTITY)
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


class BatchJournal(Journal, Protocol):
    """What the owner of a store also offers: many at once."""

    async def append_all(self, appends: Sequence[Append]) -> list[int | Exception]: ...

    async def load_all(self, entities: Sequence[EntityId]) -> list[Loaded | Exception]: ...


@dataclass
class World:
    """A journal and what may happen to it from outside: a restart (nothing, for the fake) and compaction."""

    journal: BatchJournal
    restart: Callable[[], Awaitable[None]]
    compact: Callable[[], Awaitable[int]]


@pytest.fixture(params=["memory", "duckdb"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    ticks = iter(range(10**6))

    def clock() -> datetime:
        return NOON + timedelta(seconds=next(ticks))

    if request.param == "memory":
        fake = MemoryJournal(MemoryLedger(Tariff(), 0, clock), clock)

        async def nothing() -> None: ...

        async def forget() -> int:
            return fake.compact()

        yield World(fake, nothing, forget)
        return
    database = Database(tmp_path, bytes(range(32)))

    async def restart() -> None:
        await asyncio.to_thread(database.close)
        await asyncio.to_thread(database.open)

    await asyncio.to_thread(database.open)
    yield World(StoreJournal(database, clock), restart, lambda: compaction.compact(database))
    await asyncio.to_thread(database.close)


@pytest.fixture
def journal(world: World) -> BatchJournal:
    return world.journal


def a_claim(incarnation: str, partitions: Mapping[int, int] | None = None, host: str = "h") -> Claim:
    return Claim(host=host, incarnation=incarnation, partitions=partitions or {PARTITION: 0})


async def claim_all(journal: Journal) -> None:
    await journal.claim(a_claim("all", dict.fromkeys(range(PARTITION_COUNT), 0)))


def an_event(key: str, **data: object) -> NewEvent:
    return NewEvent(type="project.answer", version=1, key=key, data=data)


def an_append(*keys: str, expected: int = 0, epoch: int = 1, entity: EntityId = ENTITY) -> Append:
    events = [an_event(key) for key in keys]
    return Append(
        entity=entity, owner=OWNER, epoch=epoch, expected_seq=expected, events=events, open=True, head={"n": expected}
    )


def with_snapshot(append: Append, *, drop_history: bool = False, **data: object) -> Append:
    seq = append.expected_seq + len(append.events)
    return replace(append, snapshot=Snapshot(seq=seq, version=3, data=data), drop_history=drop_history)


def keys_of(loaded: Loaded | Exception) -> list[tuple[int, str]]:
    assert isinstance(loaded, Loaded)
    return [(event.seq, event.key) for event in loaded.events]


async def test_claim__raises_the_epoch_of_those_partitions_that_are_as_expected(journal: Journal) -> None:
    assert await journal.claim(a_claim("a", {1: 0, 2: 0})) == {1: 1, 2: 1}
    assert await journal.claim(a_claim("b", {1: 0, 2: 1, 3: 0})) == {2: 2, 3: 1}
    assert await journal.claim(a_claim("c", {1: 2, 2: 1, 3: 7})) == {}
    assert await journal.claim(a_claim("a", {1: 1})) == {1: 2}


async def test_repeated_claim__is_granted_again_until_somebody_else_was_granted(journal: Journal) -> None:
    for _ in range(2):
        assert await journal.claim(a_claim("a", {1: 0})) == {1: 1}
    assert await journal.claim(a_claim("a", {1: 0}, host="another")) == {}
    assert await journal.claim(a_claim("b", {1: 1})) == {1: 2}
    assert await journal.claim(a_claim("a", {1: 0})) == {}
    assert await journal.claim(a_claim("b", {1: 1})) == {1: 2}


async def test_one_of_many_rivals__is_granted_each_partition(journal: Journal) -> None:
    wishes = [a_claim(f"i{number}", dict.fromkeys(range(20), 0)) for number in range(10)]
    granted = await asyncio.gather(*(journal.claim(wish) for wish in wishes))
    assert sorted(partition for epochs in granted for partition in epochs) == list(range(20))


async def test_claim__refuses_partitions_that_do_not_exist(journal: Journal) -> None:
    for partition in (-1, 1024):
        with pytest.raises(BadInputError):
            await journal.claim(a_claim("a", {partition: 0}))


async def test_ownerships__are_the_newest_holders_by_number(world: World) -> None:
    assert list(await world.journal.ownerships()) == []
    await world.journal.claim(a_claim("a", {100: 0, 20: 0, 3: 0}))
    await world.journal.claim(a_claim("b", {20: 1}, host="h2"))
    await world.restart()
    assert list(await world.journal.ownerships()) == [
        Ownership(partition=3, epoch=1, host="h", incarnation="a"),
        Ownership(partition=20, epoch=2, host="h2", incarnation="b"),
        Ownership(partition=100, epoch=1, host="h", incarnation="a"),
    ]


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
    await journal.claim(a_claim("b", {PARTITION: 1}))
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


async def test_same_key__may_stand_in_two_entities(journal: Journal) -> None:
    await claim_all(journal)
    await journal.append(an_append("k"))
    await journal.append(an_append("k", entity=OTHER))


async def test_one_of_many_appends__wins_each_place(journal: Journal) -> None:
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
    await claim_all(journal)
    for entity in entities:
        owner = UserId("u2") if entity == "project:d" else OWNER
        await journal.append(replace(an_append("k", entity=entity), owner=owner))
    await journal.append(an_append("k2", expected=1, entity=entities[0]))

    assert [head.entity for head in await journal.heads("project", None)] == ["project:a", "project:d", "project:b"]
    assert [head.entity for head in await journal.heads("project", OWNER)] == ["project:a", "project:b"]
    assert list(await journal.heads("index", None)) == []


async def test_open_entities__are_those_with_unfinished_work(journal: Journal) -> None:
    entities = [EntityId(name) for name in ("project:a", "user:b", "index:c", "project:d")]
    await claim_all(journal)
    for entity in entities:
        await journal.append(replace(an_append("k", entity=entity), open=entity != "project:d"))
    assert set(await journal.open_entities(["project", "user"])) == {"project:a", "user:b"}
    assert list(await journal.open_entities([])) == []


async def test_append_whose_money_is_refused__writes_no_event(journal: Journal) -> None:
    run = BeginRun(run=RunId("r"), user=OWNER, project=ProjectId("p1"), task="T-001", attempt=1)
    await journal.claim(a_claim("a"))
    await journal.append(replace(an_append("k1"), moves=Moves(begin=[run], settle=[run.run])))
    with pytest.raises(ConflictError):
        await journal.append(replace(an_append("k2", expected=1), moves=Moves(abandon=[run.run])))
    with pytest.raises(NotFoundError):
        await journal.append(replace(an_append("k2", expected=1), moves=Moves(settle=[RunId("unknown")])))
    assert len(await journal.read(ENTITY, 0)) == 1
    head = await journal.head(ENTITY)
    assert head is not None
    assert head.last_seq == 1


async def test_append_all__answers_each_for_itself(journal: BatchJournal) -> None:
    run = BeginRun(run=RunId("r"), user=OWNER, project=ProjectId("p1"), task="T-001", attempt=1)
    await claim_all(journal)
    third = EntityId("project:p3")
    appends = [
        an_append("a"),
        an_append("b", epoch=2, entity=OTHER),
        replace(an_append("c", entity=third), moves=Moves(begin=[run])),
        an_append("d"),
        replace(an_append("e", expected=1, entity=third), moves=Moves(settle=[RunId("unknown")])),
        an_append("f", expected=1),
        replace(an_append("g", expected=1, entity=third), events=[an_event("g", what=object())]),
        an_append("h", entity=OTHER),
        with_snapshot(an_append("i", expected=1, entity=OTHER)),
    ]
    appends[8] = replace(appends[8], snapshot=Snapshot(seq=9, version=1, data={}))
    outcomes = await journal.append_all(appends)
    kinds = [outcome if isinstance(outcome, int) else type(outcome) for outcome in outcomes]
    assert kinds == [1, StaleWriterError, 1, StaleWriterError, NotFoundError, 2, TypeError, 1, BadInputError]
    assert [event.key for event in await journal.read(ENTITY, 0)] == ["a", "f"]
    assert [event.key for event in await journal.read(OTHER, 0)] == ["h"]
    assert [event.key for event in await journal.read(third, 0)] == ["c"]
    assert await journal.append_all([]) == []


async def test_append_all__carries_an_entity_forward_within_one_batch(world: World) -> None:
    await claim_all(world.journal)
    many = [an_append(f"k{n}", expected=n) for n in range(50)]
    assert await world.journal.append_all(many) == list(range(1, 51))
    await world.restart()
    assert keys_of(await world.journal.load(ENTITY)) == [(n + 1, f"k{n}") for n in range(50)]


async def test_load__is_the_newest_snapshot_and_every_event_after_it(world: World) -> None:
    journal = world.journal
    await claim_all(journal)
    assert await journal.load(ENTITY) == Loaded(head=None, snapshot=None, events=[])
    await journal.append(an_append("k1", "k2"))
    assert keys_of(await journal.load(ENTITY)) == [(1, "k1"), (2, "k2")]
    await journal.append(with_snapshot(an_append("k3", expected=2), state="ü"))
    await journal.append(an_append("k4", expected=3))
    await journal.append(an_append("k5", "k6", expected=4))
    for _ in range(2):
        loaded = await journal.load(ENTITY)
        assert loaded.snapshot == Snapshot(seq=3, version=3, data={"state": "ü"})
        assert keys_of(loaded) == [(4, "k4"), (5, "k5"), (6, "k6")]
        assert loaded.head == await journal.head(ENTITY)
        assert list(loaded.events) == list(await journal.read(ENTITY, 3))
        await world.restart()
    await journal.append(with_snapshot(an_append(expected=6), state="newer"))
    loaded = await journal.load(ENTITY)
    assert (loaded.snapshot, list(loaded.events)) == (Snapshot(seq=6, version=3, data={"state": "newer"}), [])
    assert [event.seq for event in await journal.read(ENTITY, 0)] == [1, 2, 3, 4, 5, 6]


async def test_snapshot__may_come_before_any_event(journal: Journal) -> None:
    await claim_all(journal)
    await journal.append(with_snapshot(an_append(), empty=True))
    await journal.append(an_append("k1"))
    loaded = await journal.load(ENTITY)
    assert (loaded.snapshot, keys_of(loaded)) == (Snapshot(seq=0, version=3, data={"empty": True}), [(1, "k1")])


async def test_snapshot_of_another_place__is_refused_with_its_append(journal: Journal) -> None:
    await claim_all(journal)
    for seq in (0, 2):
        with pytest.raises(BadInputError):
            await journal.append(replace(an_append("k1"), snapshot=Snapshot(seq=seq, version=1, data={})))
    assert await journal.head(ENTITY) is None


async def test_refused_append__leaves_snapshot_and_reminders_as_they_were(journal: Journal) -> None:
    await claim_all(journal)
    reminder = Reminder(name="r", due_at=NOON)
    await journal.append(replace(with_snapshot(an_append("k1"), n=1), remind=[reminder]))
    refused = replace(with_snapshot(an_append("k2"), n=2), remind=[Reminder(name="s", due_at=NOON)], forget=["r"])
    with pytest.raises(StaleWriterError):
        await journal.append(refused)
    assert (await journal.load(ENTITY)).snapshot == Snapshot(seq=1, version=3, data={"n": 1})
    assert list(await journal.due([PARTITION], NOON, 10)) == [DueReminder(entity=ENTITY, reminder=reminder)]


async def test_load_all__answers_in_order_known_or_not(journal: BatchJournal) -> None:
    await claim_all(journal)
    entities = [EntityId(f"user:{n}") for n in range(30)]
    for n, entity in enumerate(entities[:20]):
        append = an_append("a", "b", entity=entity)
        await journal.append(with_snapshot(append, n=n) if n % 2 else append)
        await journal.append(an_append("c", expected=2, entity=entity))
    asked = [*reversed(entities), entities[3]]
    loaded = await journal.load_all(asked)
    assert loaded == [await journal.load(entity) for entity in asked]
    assert [one.head is not None for one in loaded if isinstance(one, Loaded)] == [False] * 10 + [True] * 21
    assert keys_of(loaded[-1]) == [(3, "c")]
    assert await journal.load_all([]) == []


async def test_load_of_more_events_than_are_listed__is_complete(world: World) -> None:
    journal = world.journal
    await claim_all(journal)
    await journal.append_all([an_append(f"k{n}", expected=n) for n in range(300)])
    assert len((await journal.load(ENTITY)).events) == 300
    await journal.append(with_snapshot(an_append("k300", expected=300), n=1))
    await journal.append(an_append(*(f"k{n}" for n in range(301, 700)), expected=301))
    await journal.append(an_append("k700", expected=700))
    await world.restart()
    (loaded,) = await journal.load_all([ENTITY])
    assert keys_of(loaded) == [(n + 1, f"k{n}") for n in range(301, 701)]
    assert [event.seq for event in await journal.read(ENTITY, 699)] == [700, 701]
    assert [event.seq for event in await journal.read(ENTITY, 299, 3)] == [300, 301, 302]


async def test_read__is_bounded_and_begins_after_a_number(journal: Journal) -> None:
    await claim_all(journal)
    await journal.append(with_snapshot(an_append("a", "b", "c"), n=1))
    await journal.append(an_append("d", "e", expected=3))

    async def seqs(after: int, limit: int) -> list[int]:
        return [event.seq for event in await journal.read(ENTITY, after, limit)]

    assert await seqs(0, 2) == [1, 2]
    assert await seqs(2, 2) == [3, 4]
    assert await seqs(3, 1) == [4]
    assert await seqs(4, 100) == [5]
    assert await seqs(-1, 100) == [1, 2, 3, 4, 5]
    assert await seqs(5, 100) == await seqs(99, 100) == await seqs(0, 0) == []


async def test_compaction__drops_only_events_that_a_snapshot_let_go(world: World) -> None:
    journal = world.journal
    await claim_all(journal)
    await journal.append(with_snapshot(an_append("a", "b"), drop_history=True, n=2))
    await journal.append(an_append("c", expected=2))
    await journal.append(with_snapshot(an_append("d", expected=3), n=4))
    await journal.append(an_append("e", expected=4))
    await journal.append(with_snapshot(an_append("a", "b", entity=OTHER), n=2))
    before = await journal.load(ENTITY)

    assert await world.compact() == 2
    assert await world.compact() == 0
    for _ in range(2):
        assert await journal.load(ENTITY) == before
        assert [event.key for event in await journal.read(ENTITY, 0)] == ["c", "d", "e"]
        assert [event.key for event in await journal.read(ENTITY, 0, 1)] == ["c"]
        assert [event.key for event in await journal.read(ENTITY, 3)] == ["d", "e"]
        assert [event.key for event in await journal.read(OTHER, 0)] == ["a", "b"]
        await world.restart()
    assert await journal.append(an_append("f", expected=5)) == 6


async def test_reminder__is_due_from_its_time_on_until_it_is_forgotten(world: World) -> None:
    journal = world.journal
    await claim_all(journal)
    late = Reminder(name="late", due_at=NOON + timedelta(hours=1), data={"text": "ü"})
    early = Reminder(name="early", due_at=NOON + timedelta(microseconds=1))
    await journal.append(replace(an_append("a"), remind=[late, early]))
    await journal.append(replace(an_append("a", entity=OTHER), remind=[replace(early, due_at=NOON)]))
    everywhere = list(range(PARTITION_COUNT))

    async def due(seconds: float, limit: int = 10, partitions: Sequence[int] = everywhere) -> list[tuple[str, str]]:
        found = await journal.due(partitions, NOON + timedelta(seconds=seconds), limit)
        return [(one.entity, one.reminder.name) for one in found]

    assert await due(-1) == []
    assert await due(0) == [(OTHER, "early")]
    assert await due(1) == [(OTHER, "early"), (ENTITY, "early")]
    assert await due(3600, limit=2) == [(OTHER, "early"), (ENTITY, "early")]
    await world.restart()
    assert await due(3600, partitions=[PARTITION]) == [(ENTITY, "early"), (ENTITY, "late")]
    assert await due(3600, partitions=[]) == []
    assert (await journal.due([PARTITION], late.due_at, 10))[1].reminder == late
    await journal.append(replace(an_append(expected=1), forget=["early", "unknown"]))
    assert await due(3600) == [(OTHER, "early"), (ENTITY, "late")]


async def test_reminder_of_a_known_name__takes_its_place(world: World) -> None:
    journal = world.journal
    await claim_all(journal)
    first, second = Reminder(name="r", due_at=NOON, data={"n": 1}), Reminder(name="r", due_at=NOON, data={"n": 2})
    third = replace(second, due_at=NOON + timedelta(hours=1))
    await journal.append(replace(an_append("a"), remind=[first, second]))
    assert [one.reminder for one in await journal.due([PARTITION], NOON, 10)] == [second]
    await world.restart()
    await journal.append_all(
        [
            replace(an_append(expected=1), forget=["r"]),
            replace(an_append(expected=1), remind=[first]),
            replace(an_append(expected=1), forget=["r"], remind=[third]),
        ]
    )
    assert list(await journal.due([PARTITION], NOON, 10)) == []
    assert [one.reminder for one in await journal.due([PARTITION], third.due_at, 10)] == [third]


async def test_owner__is_the_one_that_the_last_append_named(world: World) -> None:
    await claim_all(world.journal)
    await world.journal.append(an_append("a"))
    await world.journal.append(replace(an_append("b", expected=1), owner=UserId("u2")))
    await world.restart()
    assert [head.owner for head in await world.journal.heads("project", UserId("u2"))] == ["u2"]
    assert list(await world.journal.heads("project", OWNER)) == []

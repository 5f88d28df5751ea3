"""One owner, one message at a time, durable before it answers."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from runtime.entity.entity import Entity
from runtime.entity.host import Host
from runtime.entity.journal import Append, EventRecord
from runtime.errors import ConflictError, StaleWriterError, StoreUnavailableError, UnavailableError
from runtime.ids import PARTITION_COUNT, EntityId, partition_of
from runtime.ledger.money import UCREDITS_PER_CREDIT, Tariff
from runtime.testing.memory_journal import MemoryJournal
from runtime.testing.memory_ledger import MemoryLedger

COUNTER = EntityId("counter:one")
OVER = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Add:
    key: str
    amount: int
    pause: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    pass


class Counter(Entity[int]):
    kind = "counter"
    read_only = (Read,)
    woken = 0
    gate: asyncio.Event

    def __init__(self, entity: EntityId) -> None:
        self.gate = asyncio.Event()
        self.busy = 0
        self.busy_most = 0

    def initial(self) -> int:
        return 0

    def fold(self, state: int, event: EventRecord) -> int:
        return state + int(event.data["amount"])

    def head(self, state: int) -> Mapping[str, Any]:
        return {"total": state}

    def is_open(self, state: int) -> bool:
        return state % 2 == 1

    def is_over(self, state: int) -> bool:
        return state >= OVER

    async def wake(self) -> None:
        type(self).woken += 1

    async def receive(self, message: Any) -> int:
        if isinstance(message, Read):
            return self.state
        self.busy += 1
        self.busy_most = max(self.busy_most, self.busy)
        if message.pause:
            await self.gate.wait()
        await self.activation.emit("added", message.key, {"amount": message.amount})
        await asyncio.sleep(0)
        self.busy -= 1
        return self.state


def journal_in_memory() -> MemoryJournal:
    return MemoryJournal(MemoryLedger(Tariff(), 100 * UCREDITS_PER_CREDIT))


class Watched:
    """A host whose counters can be looked at."""

    def __init__(self, journal: Any, incarnation: str = "first") -> None:
        self.counters: dict[EntityId, Counter] = {}
        self.host = Host(
            name="host",
            incarnation=incarnation,
            journal=journal,
            factories={"counter": self._make},
            partitions=range(PARTITION_COUNT),
        )

    def _make(self, entity: EntityId) -> Counter:
        self.counters[entity] = Counter(entity)
        return self.counters[entity]


async def test_message__is_on_disk_before_it_is_answered_and_a_repeat_changes_nothing() -> None:
    journal = journal_in_memory()
    host = Watched(journal).host
    assert await host.ask(COUNTER, Add(key="a", amount=2)) == 2
    assert [record.data["amount"] for record in await journal.read(COUNTER, 0)] == [2]
    assert await host.ask(COUNTER, Add(key="a", amount=2)) == 2


async def test_messages__run_one_at_a_time_and_readers_go_beside() -> None:
    watched = Watched(journal_in_memory())
    first = asyncio.create_task(watched.host.ask(COUNTER, Add(key="a", amount=2, pause=True)))
    rest = [asyncio.create_task(watched.host.ask(COUNTER, Add(key=str(n), amount=2))) for n in range(5)]
    assert await watched.host.ask(COUNTER, Read()) == 0
    watched.counters[COUNTER].gate.set()
    await asyncio.gather(first, *rest)
    assert watched.counters[COUNTER].busy_most == 1
    assert await watched.host.ask(COUNTER, Read()) == 12


async def test_failed_append__leaves_state_as_it_was() -> None:
    journal = journal_in_memory()
    host = Watched(journal).host
    await host.ask(COUNTER, Add(key="a", amount=2))
    append, journal.append = journal.append, _broken  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailableError):
        await host.ask(COUNTER, Add(key="b", amount=2))
    assert await host.ask(COUNTER, Read()) == 2
    journal.append = append  # type: ignore[method-assign]
    assert await host.ask(COUNTER, Add(key="b", amount=2)) == 4


async def test_entity_that_is_over__takes_no_event_but_repeats_are_answered() -> None:
    journal = journal_in_memory()
    host = Watched(journal).host
    assert await host.ask(COUNTER, Add(key="a", amount=OVER)) == OVER
    assert await host.ask(COUNTER, Add(key="a", amount=OVER)) == OVER
    with pytest.raises(ConflictError):
        await host.ask(COUNTER, Add(key="b", amount=2))
    assert len(await journal.read(COUNTER, 0)) == 1


async def test_lost_answer__to_an_append_that_was_written_is_not_a_lost_ownership() -> None:
    journal = journal_in_memory()
    real = journal.append

    async def written_twice(append: Append) -> int:
        await real(append)
        return await real(append)

    journal.append = written_twice  # type: ignore[method-assign]
    host = Watched(journal).host
    assert await host.ask(COUNTER, Add(key="a", amount=2)) == 2
    assert await host.ask(COUNTER, Add(key="b", amount=2)) == 4


async def test_second_incarnation__fences_the_first_off() -> None:
    journal = journal_in_memory()
    old, new = Watched(journal, "old").host, Watched(journal, "new").host
    await old.ask(COUNTER, Add(key="a", amount=2))
    assert await new.ask(COUNTER, Add(key="b", amount=2)) == 4
    with pytest.raises(StaleWriterError):
        await old.ask(COUNTER, Add(key="c", amount=2))
    assert [record.key for record in await journal.read(COUNTER, 0)] == ["a", "b"]


async def test_start__wakes_what_has_unfinished_work_and_nothing_else() -> None:
    journal = journal_in_memory()
    first = Watched(journal, "first")
    await first.host.ask(COUNTER, Add(key="a", amount=1))
    await first.host.ask(EntityId("counter:two"), Add(key="a", amount=2))
    second = Watched(journal, "second")
    await second.host.start()
    assert set(second.counters) == {COUNTER}


async def test_events__wait_for_the_next_one() -> None:
    host = Watched(journal_in_memory()).host
    waiting = asyncio.create_task(host.events(COUNTER, 0, 5.0))
    await asyncio.sleep(0)
    await host.ask(COUNTER, Add(key="a", amount=2))
    assert [record.seq for record in await waiting] == [1]
    assert await host.events(COUNTER, 1, 0.01) == ()


async def test_time_out__of_a_caller_does_not_tear_state_and_disk_apart() -> None:
    journal = journal_in_memory()
    watched = Watched(journal)
    with pytest.raises(UnavailableError):
        await watched.host.ask(COUNTER, Add(key="a", amount=2, pause=True), timeout_s=0.01)
    watched.counters[COUNTER].busy = 0
    assert await watched.host.ask(COUNTER, Add(key="b", amount=2)) == 2


async def test_head__is_written_with_the_event_it_tells_of() -> None:
    journal = journal_in_memory()
    await Watched(journal).host.ask(COUNTER, Add(key="a", amount=3))
    head = await journal.head(COUNTER)
    assert head is not None
    assert (head.data, head.last_seq, head.open) == ({"total": 3}, 1, True)


def test_partition__is_the_same_in_every_process() -> None:
    assert partition_of(EntityId("project:a")) == 589


async def _broken(append: Append) -> int:
    raise StoreUnavailableError("The disk is full.")

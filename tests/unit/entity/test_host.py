"""One owner, one message at a time, durable before it answers."""

import asyncio
from collections.abc import Sequence

import pytest

from runtime.entity.activation import RECENT_EVENTS, SNAPSHOT_EVERY
from runtime.entity.journal import NO_MOVES, Append, EventRecord, Moves, NewEvent
from runtime.errors import (
    BadInputError,
    ConflictError,
    MovedError,
    OverloadedError,
    StoreUnavailableError,
    UnavailableError,
)
from runtime.ids import EntityId, partition_of
from tests.unit.entity.counting import COUNTER, OTHER, OVER, Add, Read, journal_in_memory, settled, watched


async def test_message__is_on_disk_before_it_is_answered_and_a_repeat_changes_nothing() -> None:
    journal = journal_in_memory()
    host = (await watched(journal)).host
    assert await host.ask(COUNTER, Add(key="a")) == 2
    assert [record.data["amount"] for record in await journal.read(COUNTER, 0)] == [2]
    assert await host.ask(COUNTER, Add(key="a")) == 2


async def test_messages__run_one_at_a_time_and_readers_go_beside() -> None:
    alone = await watched(journal_in_memory())
    first = asyncio.create_task(alone.host.ask(COUNTER, Add(key="a", pause=True)))
    rest = [asyncio.create_task(alone.host.ask(COUNTER, Add(key=str(n)))) for n in range(5)]
    await settled()
    assert await alone.host.ask(COUNTER, Read()) == 0
    alone.counters[COUNTER].gate.set()
    await asyncio.gather(first, *rest)
    assert alone.counters[COUNTER].busy_most == 1
    assert await alone.host.ask(COUNTER, Read()) == 12


async def test_busy_entity__does_not_hold_up_its_neighbours() -> None:
    alone = await watched(journal_in_memory())
    alone.host.post(COUNTER, Add(key="a", pause=True), 30.0)
    assert await alone.host.ask(OTHER, Add(key="a")) == 2


async def test_failed_append__leaves_state_as_it_was() -> None:
    journal = journal_in_memory()
    host = (await watched(journal)).host
    await host.ask(COUNTER, Add(key="a"))
    append, journal.append = journal.append, _full  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailableError):
        await host.ask(COUNTER, Add(key="b"))
    assert await host.ask(COUNTER, Read()) == 2
    journal.append = append  # type: ignore[method-assign]
    assert await host.ask(COUNTER, Add(key="b")) == 4


async def test_entity_that_is_over__takes_no_event_but_repeats_are_answered() -> None:
    journal = journal_in_memory()
    host = (await watched(journal)).host
    assert await host.ask(COUNTER, Add(key="a", amount=OVER)) == OVER
    assert await host.ask(COUNTER, Add(key="a", amount=OVER)) == OVER
    with pytest.raises(ConflictError):
        await host.ask(COUNTER, Add(key="b"))
    assert len(await journal.read(COUNTER, 0)) == 1


async def test_lost_answer__to_an_append_that_was_written_is_not_a_lost_ownership() -> None:
    journal = journal_in_memory()
    real = journal.append

    async def written_twice(append: Append) -> int:
        await real(append)
        return await real(append)

    journal.append = written_twice  # type: ignore[method-assign]
    alone = await watched(journal)
    assert await alone.host.ask(COUNTER, Add(key="a")) == 2
    assert await alone.host.ask(COUNTER, Add(key="b")) == 4
    assert alone.lives == 1


async def test_append_of_unknown_outcome__is_found_out_by_the_next_one() -> None:
    journal = journal_in_memory()
    real = journal.append

    async def written_but_not_answered(append: Append) -> int:
        await real(append)
        raise UnavailableError("The ledger is restarting.")

    alone = await watched(journal)
    journal.append = written_but_not_answered  # type: ignore[method-assign]
    with pytest.raises(UnavailableError):
        await alone.host.ask(COUNTER, Add(key="a"))
    journal.append = real  # type: ignore[method-assign]
    assert await alone.host.ask(COUNTER, Add(key="b")) == 4
    assert await alone.host.ask(COUNTER, Add(key="a")) == 4
    assert [record.key for record in await journal.read(COUNTER, 0)] == ["a", "b"]
    assert alone.host.vitals().stale == 1
    assert partition_of(COUNTER) in alone.host.owned


async def test_second_incarnation__fences_the_first_off_which_then_says_that_it_moved() -> None:
    journal = journal_in_memory()
    old, new = await watched(journal, "old"), await watched(journal, "new")
    assert await new.host.ask(COUNTER, Add(key="b")) == 2
    with pytest.raises((MovedError, UnavailableError)):
        await old.host.ask(COUNTER, Add(key="c"), timeout_s=1.0)
    await settled()
    assert partition_of(COUNTER) not in old.host.owned
    with pytest.raises(MovedError):
        await old.host.ask(COUNTER, Read())
    assert [record.key for record in await journal.read(COUNTER, 0)] == ["b"]


async def test_old_copy_with_the_entity_in_memory__cannot_write_and_its_message_is_not_lost() -> None:
    journal = journal_in_memory()
    old = await watched(journal, "old")
    await old.host.ask(COUNTER, Add(key="a"))
    new = await watched(journal, "new")
    await new.host.ask(COUNTER, Add(key="b"))
    with pytest.raises(MovedError):
        await old.host.ask(COUNTER, Add(key="c"), timeout_s=1.0)
    assert await new.host.ask(COUNTER, Add(key="c")) == 6
    assert [record.key for record in await journal.read(COUNTER, 0)] == ["a", "b", "c"]


async def test_claim__wakes_what_has_unfinished_work_and_nothing_else() -> None:
    journal = journal_in_memory()
    first = await watched(journal, "first")
    await first.host.ask(COUNTER, Add(key="a", amount=1))
    await first.host.ask(OTHER, Add(key="a"))
    second = await watched(journal, "second")
    await settled()
    assert set(second.counters) == {COUNTER}
    assert second.counters[COUNTER].woken == 1


async def test_claim__of_partitions_that_somebody_took_meanwhile_gives_nothing() -> None:
    journal = journal_in_memory()
    await watched(journal, "first")
    late = await watched(journal, "second")
    stale = {partition: epoch - 1 for partition, epoch in late.host.owned.items()}
    third = (await watched(journal, "third")).host
    assert await late.host.acquire(dict.fromkeys(stale, 1)) == late.host.owned
    assert await third.acquire(stale) == third.owned
    assert set((await watched(journal, "fourth")).host.owned.values()) == {4}


async def test_partition_that_comes_back__is_read_again() -> None:
    journal = journal_in_memory()
    first = await watched(journal, "first")
    await first.host.ask(COUNTER, Add(key="a"))
    second = await watched(journal, "second")
    await second.host.ask(COUNTER, Add(key="b"))
    await first.host.acquire_all()
    assert await first.host.ask(COUNTER, Read()) == 4


async def test_release__finishes_the_running_turn_and_refuses_new_messages() -> None:
    journal = journal_in_memory()
    alone = await watched(journal)
    running = asyncio.create_task(alone.host.ask(COUNTER, Add(key="a", pause=True)))
    waiting = asyncio.create_task(alone.host.ask(COUNTER, Add(key="b")))
    await settled()
    leaving = asyncio.create_task(alone.host.release([partition_of(COUNTER)]))
    await settled()
    with pytest.raises(MovedError):
        await alone.host.ask(COUNTER, Add(key="c"))
    alone.counters[COUNTER].gate.set()
    await leaving
    assert await running == 2
    with pytest.raises(MovedError):
        await waiting
    assert [record.key for record in await journal.read(COUNTER, 0)] == ["a"]
    assert (await journal.load(COUNTER)).snapshot is not None


async def test_release__cuts_off_a_turn_that_does_not_end_and_its_message_moves() -> None:
    alone = await watched(journal_in_memory())
    stuck = asyncio.create_task(alone.host.ask(COUNTER, Add(key="a", pause=True)))
    await settled()
    await alone.host.release([partition_of(COUNTER)], drain_s=0.01)
    with pytest.raises(MovedError):
        await stuck


async def test_events__wait_for_the_next_one_beside_a_running_turn() -> None:
    alone = await watched(journal_in_memory())
    host = alone.host
    waiting = asyncio.create_task(host.events(COUNTER, 0, 5.0))
    await settled()
    await host.ask(COUNTER, Add(key="a"))
    assert [record.seq for record in await waiting] == [1]
    assert await host.events(COUNTER, 1, 0.01) == ()
    host.post(COUNTER, Add(key="b", pause=True), 30.0)
    assert [record.seq for record in await host.events(COUNTER, 0, 0.0)] == [1]


async def test_newest_events__are_told_without_asking_the_store_once_somebody_watches() -> None:
    journal = journal_in_memory()
    alone = await watched(journal)
    reads: list[int] = []
    real = journal.read

    async def counted(entity: EntityId, after_seq: int) -> Sequence[EventRecord]:
        reads.append(after_seq)
        return await real(entity, after_seq)

    journal.read = counted  # type: ignore[method-assign]
    await alone.host.ask(COUNTER, Add(key="before", amount=0))
    assert len(await alone.host.events(COUNTER, 0, 0.0)) == 1
    assert reads == [0]
    for number in range(RECENT_EVENTS):
        await alone.host.ask(COUNTER, Add(key=str(number), amount=0))
        assert [event.seq for event in await alone.host.events(COUNTER, number + 1, 0.0)] == [number + 2]
    everything = list(range(1, RECENT_EVENTS + 2))
    assert [event.seq for event in await alone.host.events(COUNTER, 1, 0.0)] == everything[1:]
    assert reads == [0]
    assert [event.seq for event in await alone.host.events(COUNTER, 0, 0.0)] == everything
    assert reads == [0, 0]
    await alone.host.ask(COUNTER, Add(key="last", amount=0))
    assert [event.seq for event in await alone.host.events(COUNTER, 1, 0.0)] == [*everything[1:], RECENT_EVENTS + 2]
    assert reads == [0, 0, 1]


async def test_turn_whose_caller_gave_up__is_finished() -> None:
    journal = journal_in_memory()
    alone = await watched(journal)
    with pytest.raises(UnavailableError):
        await alone.host.ask(COUNTER, Add(key="a", pause=True), timeout_s=0.01)
    alone.counters[COUNTER].gate.set()
    assert await alone.host.ask(COUNTER, Add(key="b")) == 4
    assert [record.key for record in await journal.read(COUNTER, 0)] == ["a", "b"]


async def test_message_whose_caller_gave_up_before_its_turn__is_never_run() -> None:
    journal = journal_in_memory()
    alone = await watched(journal)
    first = asyncio.create_task(alone.host.ask(COUNTER, Add(key="a", pause=True)))
    cancelled = asyncio.create_task(alone.host.ask(COUNTER, Add(key="b")))
    await settled()
    cancelled.cancel()
    with pytest.raises(UnavailableError):
        await alone.host.ask(COUNTER, Add(key="c"), timeout_s=0.01)
    alone.counters[COUNTER].gate.set()
    await first
    assert await alone.host.ask(COUNTER, Add(key="d")) == 4
    assert [record.key for record in await journal.read(COUNTER, 0)] == ["a", "d"]


async def test_message_that_waited_beyond_its_deadline__is_never_run() -> None:
    journal = journal_in_memory()
    alone = await watched(journal)
    alone.host.post(COUNTER, Add(key="a", pause=True), 30.0)
    late = alone.host.post(COUNTER, Add(key="b"), -1.0)
    await settled()
    alone.counters[COUNTER].gate.set()
    with pytest.raises(UnavailableError):
        await late
    assert [record.key for record in await journal.read(COUNTER, 0)] == ["a"]


async def test_mailbox__is_bounded_for_one_entity_and_for_all() -> None:
    alone = await watched(journal_in_memory(), mailbox_max=2, queue_max=3)
    alone.host.post(COUNTER, Add(key="a", pause=True), 30.0)
    alone.host.post(OTHER, Add(key="a", pause=True), 30.0)
    await settled()
    for key in "bc":
        alone.host.post(COUNTER, Add(key=key), 30.0)
    with pytest.raises(OverloadedError) as refused:
        alone.host.post(COUNTER, Add(key="d"), 30.0)
    assert refused.value.retry_after_s > 0
    alone.host.post(OTHER, Add(key="b"), 30.0)
    with pytest.raises(OverloadedError):
        alone.host.post(EntityId("counter:three"), Add(key="b"), 30.0)
    assert alone.host.vitals().queued == 3
    for counter in alone.counters.values():
        counter.gate.set()
    await settled()
    assert await alone.host.ask(COUNTER, Add(key="b")) == 6
    assert (alone.host.vitals().queued, alone.host.vitals().working) == (0, 0)


async def test_kind_that_does_not_live_here__is_refused() -> None:
    with pytest.raises(BadInputError):
        await (await watched(journal_in_memory())).host.ask(EntityId("teapot:one"), Read())


async def test_head__is_written_with_the_event_it_tells_of() -> None:
    journal = journal_in_memory()
    await (await watched(journal)).host.ask(COUNTER, Add(key="a", amount=3))
    head = await journal.head(COUNTER)
    assert head is not None
    assert (head.data, head.last_seq, head.open) == ({"total": 3}, 1, True)


async def test_snapshot__comes_every_so_often_and_remembers_state_and_keys() -> None:
    journal = journal_in_memory()
    alone = await watched(journal)
    for number in range(SNAPSHOT_EVERY + 3):
        await alone.host.ask(COUNTER, Add(key=str(number), amount=1))
    loaded = await journal.load(COUNTER)
    assert loaded.snapshot is not None
    assert (loaded.snapshot.seq, len(loaded.events)) == (SNAPSHOT_EVERY, 3)

    later = await watched(journal, "later")
    assert await later.host.ask(COUNTER, Add(key="7", amount=1)) == SNAPSHOT_EVERY + 3
    assert await later.host.ask(COUNTER, Add(key="new", amount=1)) == SNAPSHOT_EVERY + 4


async def test_message_that_is_repeated_after_many_others__is_still_known() -> None:
    journal = journal_in_memory()
    alone = await watched(journal)
    await alone.host.ask(COUNTER, Add(key="late", amount=1))
    for number in range(1_200):
        await alone.host.ask(COUNTER, Add(key=str(number), amount=0))
    assert await alone.host.ask(COUNTER, Add(key="late", amount=1)) == 1
    later = await watched(journal, "later")
    assert await later.host.ask(COUNTER, Add(key="late", amount=1)) == 1


def added(key: str, amount: int) -> NewEvent:
    return NewEvent(type="added", version=1, key=key, data={"amount": amount})


async def test_events_that_come_true_together__are_one_append_and_known_ones_are_left_out() -> None:
    journal = journal_in_memory()
    appends: list[list[str]] = []
    real = journal.append

    async def counted(append: Append) -> int:
        appends.append([event.key for event in append.events])
        return await real(append)

    journal.append = counted  # type: ignore[method-assign]
    alone = await watched(journal)
    await alone.host.ask(COUNTER, Add(key="a", amount=1))
    activation = alone.counters[COUNTER].activation
    asked_of: list[int] = []

    def moves(state: int) -> Moves:
        asked_of.append(state)
        return NO_MOVES

    await activation.emit_all((added("a", 1), added("b", 2), added("c", 4)), moves)
    await activation.emit_all((added("b", 2), added("c", 4)), moves)
    assert appends == [["a"], ["b", "c"]]
    assert asked_of == [1]
    assert (activation.state, activation.last_seq) == (7, 3)
    with pytest.raises(ConflictError):
        await activation.emit_all((added("d", OVER), added("e", 1)))
    assert (activation.state, len(await journal.read(COUNTER, 0))) == (7, 3)

    many = [added(f"m{number}", 1) for number in range(SNAPSHOT_EVERY)]
    await activation.emit_all(many)
    loaded = await journal.load(COUNTER)
    assert loaded.snapshot is not None
    assert (loaded.snapshot.seq, len(loaded.events)) == (SNAPSHOT_EVERY + 3, 0)
    later = await watched(journal, "later")
    assert await later.host.ask(COUNTER, Read()) == SNAPSHOT_EVERY + 7


async def test_snapshot_of_another_version__is_passed_over() -> None:
    journal = journal_in_memory()
    alone = await watched(journal)
    await alone.host.ask(COUNTER, Add(key="a"))
    await alone.host.release([partition_of(COUNTER)])
    later = await watched(journal, "later")
    later.host._factories = {"counter": _next_version}  # type: ignore[assignment]
    assert await later.host.ask(COUNTER, Read()) == 2


def test_partition__is_the_same_in_every_process() -> None:
    assert partition_of(EntityId("project:a")) == 589


async def _full(append: Append) -> int:
    raise StoreUnavailableError("The disk is full.")


def _next_version(entity: EntityId) -> object:
    from tests.unit.entity.counting import Counter

    counter = Counter(entity)
    counter.snapshot_version = 2  # type: ignore[misc]
    return counter

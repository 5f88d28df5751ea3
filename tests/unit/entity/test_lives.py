"""What goes wrong inside an entity, what becomes idle, and what must happen later."""

import asyncio

import pytest

from runtime.errors import ConflictError, EntityFailedError, QuarantinedError, UnavailableError
from runtime.ids import partition_of
from tests.unit.entity.counting import COUNTER, OTHER, Add, Arm, Read, journal_in_memory, settled, watched


async def test_turn_that_breaks__resets_the_entity_to_what_is_on_disk() -> None:
    journal = journal_in_memory()
    alone = await watched(journal)
    with pytest.raises(EntityFailedError):
        await alone.host.ask(COUNTER, Add(key="a", fail="after"))
    assert await alone.host.ask(COUNTER, Add(key="a")) == 2
    assert alone.lives == 2
    assert [record.key for record in await journal.read(COUNTER, 0)] == ["a"]


async def test_messages_behind_a_turn_that_breaks__are_answered_by_the_next_life() -> None:
    alone = await watched(journal_in_memory())
    breaks = asyncio.create_task(alone.host.ask(COUNTER, Add(key="a", fail="before", pause=True)))
    behind = asyncio.create_task(alone.host.ask(COUNTER, Add(key="b")))
    await settled()
    alone.counters[COUNTER].gate.set()
    with pytest.raises(EntityFailedError):
        await breaks
    assert await behind == 2


async def test_entity_that_breaks_again_and_again__is_set_aside_and_its_neighbours_are_not() -> None:
    alone = await watched(journal_in_memory())
    for key in "abc":
        with pytest.raises(EntityFailedError):
            await alone.host.ask(COUNTER, Add(key=key, fail="before"))
    await settled()
    with pytest.raises(QuarantinedError):
        await alone.host.ask(COUNTER, Add(key="d"))
    assert await alone.host.ask(OTHER, Add(key="d")) == 2
    (quarantined,) = alone.host.vitals().quarantined
    assert (quarantined.entity, quarantined.failures, quarantined.error) == (COUNTER, 3, "BrokenError: before")

    assert alone.host.pardon(COUNTER)
    assert not alone.host.pardon(COUNTER)
    assert await alone.host.ask(COUNTER, Add(key="d")) == 2


async def test_failures_with_an_answer_between__do_not_add_up() -> None:
    alone = await watched(journal_in_memory())
    for key in "abcdef":
        with pytest.raises(EntityFailedError):
            await alone.host.ask(COUNTER, Add(key=key, fail="before"))
        await alone.host.ask(COUNTER, Add(key=f"{key}-well", amount=1))
    assert not alone.host.vitals().quarantined


async def test_refusal__is_an_answer_and_no_failure() -> None:
    alone = await watched(journal_in_memory())
    await alone.host.ask(COUNTER, Add(key="a", amount=100))
    for key in "bcde":
        with pytest.raises(ConflictError):
            await alone.host.ask(COUNTER, Add(key=key))
    assert alone.lives == 1


async def test_entity_whose_journal_breaks_it__is_set_aside() -> None:
    journal = journal_in_memory()
    await (await watched(journal)).host.ask(COUNTER, Add(key="a"))
    later = await watched(journal, "later")
    later.broken = True
    with pytest.raises(QuarantinedError):
        await later.host.ask(COUNTER, Read())
    assert await later.host.ask(OTHER, Read()) == 0


async def test_store_that_is_away__is_not_the_entity_s_fault() -> None:
    journal = journal_in_memory()
    alone = await watched(journal)
    real = journal.load

    async def away(entity: object) -> None:
        raise UnavailableError("The ledger is restarting.")

    journal.load = away  # type: ignore[assignment, method-assign]
    for _ in range(5):
        with pytest.raises(UnavailableError, match="restarting"):
            await alone.host.ask(COUNTER, Read())
    journal.load = real  # type: ignore[method-assign]
    assert await alone.host.ask(COUNTER, Add(key="a")) == 2


async def test_task_that_breaks__resets_the_entity_which_is_woken_again() -> None:
    alone = await watched(journal_in_memory())
    await alone.host.ask(COUNTER, Add(key="a"))

    async def work() -> None:
        raise ZeroDivisionError

    alone.counters[COUNTER].activation.spawn(work(), "work")
    await settled()
    alone.host._wake()
    await settled()
    assert (alone.lives, alone.counters[COUNTER].woken) == (2, 1)
    assert await alone.host.ask(COUNTER, Read()) == 2


async def test_next_life__begins_when_nothing_of_the_last_one_runs() -> None:
    alone = await watched(journal_in_memory())
    await alone.host.ask(COUNTER, Add(key="a"))
    may_end = asyncio.Event()

    async def slow_to_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await may_end.wait()

    alone.counters[COUNTER].activation.spawn(slow_to_end(), "work")
    with pytest.raises(EntityFailedError):
        await alone.host.ask(COUNTER, Add(key="b", fail="before"))
    next_message = asyncio.create_task(alone.host.ask(COUNTER, Add(key="c")))
    await settled()
    assert alone.lives == 1
    may_end.set()
    assert await next_message == 4


async def test_idle_entity__is_passivated_and_is_the_same_when_it_comes_back() -> None:
    journal = journal_in_memory()
    alone = await watched(journal, idle_s=0.0)
    await alone.host.ask(COUNTER, Add(key="a"))
    await alone.host.sweep()
    vitals = alone.host.vitals()
    assert (vitals.residents, vitals.passivations) == (0, 1)
    loaded = await journal.load(COUNTER)
    assert loaded.snapshot is not None
    assert not loaded.events
    assert await alone.host.ask(COUNTER, Add(key="a")) == 2
    assert await alone.host.ask(COUNTER, Add(key="b")) == 4


async def test_entity_with_something_to_do__is_not_passivated() -> None:
    alone = await watched(journal_in_memory(), idle_s=0.0)
    unfinished = await alone.host.ask(COUNTER, Add(key="a", amount=1))
    await alone.host.sweep()
    assert (unfinished, alone.lives, alone.host.vitals().residents) == (1, 1, 1)
    await alone.host.ask(COUNTER, Add(key="b", amount=1))

    watching = asyncio.create_task(alone.host.events(COUNTER, 2, 5.0))
    await settled()
    await alone.host.sweep()
    assert alone.host.vitals().residents == 1
    await alone.host.ask(COUNTER, Add(key="c"))
    await watching

    working = alone.counters[COUNTER].activation.spawn(asyncio.sleep(5), "work")
    await alone.host.sweep()
    assert (alone.host.vitals().residents, alone.host.vitals().working) == (1, 1)
    working.cancel()
    await settled()
    turning = asyncio.create_task(alone.host.ask(COUNTER, Add(key="d", pause=True)))
    await settled()
    await alone.host.sweep()
    alone.counters[COUNTER].gate.set()
    assert await turning == 6
    await alone.host.sweep()
    assert alone.host.vitals().residents == 0


async def test_memory_bound__drops_the_longest_idle_first() -> None:
    alone = await watched(journal_in_memory(), memory_bytes=4_000)
    await alone.host.ask(COUNTER, Add(key="a"))
    await alone.host.ask(OTHER, Add(key="a"))
    await alone.host.ask(COUNTER, Read())
    await alone.host.sweep()
    assert alone.host.vitals().residents == 1
    await alone.host.ask(COUNTER, Read())
    assert alone.lives == 2


async def test_message_that_comes_while_its_entity_leaves__is_answered_by_the_next_life() -> None:
    journal = journal_in_memory()
    alone = await watched(journal, idle_s=0.0)
    await alone.host.ask(COUNTER, Add(key="a"))
    sweeping = asyncio.create_task(alone.host.sweep())
    await asyncio.sleep(0)
    assert await alone.host.ask(COUNTER, Add(key="b")) == 4
    await sweeping
    assert [record.key for record in await journal.read(COUNTER, 0)] == ["a", "b"]


async def test_reminder__is_delivered_once_and_forgotten() -> None:
    journal = journal_in_memory()
    alone = await watched(journal)
    await alone.host.ask(COUNTER, Arm(name="tea"))
    await alone.host._remind()
    await settled()
    await alone.host._remind()
    await settled()
    assert alone.counters[COUNTER].reminded == ["tea"]
    assert [record.type for record in await journal.read(COUNTER, 0)] == ["armed", "reminded"]


async def test_reminder_that_its_turn_arms_again__stays() -> None:
    journal = journal_in_memory()
    alone = await watched(journal)
    await alone.host.ask(COUNTER, Arm(name="tea", again=True))
    await alone.host._remind()
    await settled()
    assert len(await _armed(journal)) == 1


async def test_reminder__survives_its_host_and_an_outage_and_is_not_counted_twice() -> None:
    journal = journal_in_memory()
    first = await watched(journal, "first")
    await first.host.ask(COUNTER, Arm(name="tea"))
    first.counters[COUNTER].unavailable = UnavailableError("no tea")
    await first.host._remind()
    await settled()
    assert len(await _armed(journal)) == 1

    second = await watched(journal, "second")
    await second.host._remind()
    await settled()
    assert second.counters[COUNTER].reminded == ["tea"]
    assert not await _armed(journal)


async def _armed(journal: object) -> list[object]:
    from datetime import UTC, datetime, timedelta

    due = await journal.due([partition_of(COUNTER)], datetime.now(UTC) + timedelta(days=1), 10)  # type: ignore[attr-defined]
    return list(due)

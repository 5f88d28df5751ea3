"""The entities that benchmarks and chaos runs count on: they must be right themselves."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runtime.entity.host import Factory, Host
from runtime.entity.journal import EventRecord
from runtime.entity.reminders import Reminded
from runtime.errors import BadInputError, ConflictError, EntityFailedError, UnavailableError
from runtime.ids import PARTITION_COUNT, EntityId
from runtime.ledger.money import UCREDITS_PER_CREDIT, Tariff
from runtime.testing.memory_journal import MemoryJournal
from runtime.testing.memory_ledger import MemoryLedger
from runtime.testing.probes import (
    AccountView,
    Balance,
    CounterView,
    Credit,
    Fail,
    Hold,
    Increment,
    Open,
    Remind,
    Total,
    Transfer,
    account_entity,
    counter_entity,
    factories,
)

COUNTER = counter_entity("one")
ANNE, BERT = account_entity("anne"), account_entity("bert")


class Road:
    """Between accounts; closed, nothing passes."""

    def __init__(self) -> None:
        self.host: Host | None = None
        self.open = True
        self.refused = asyncio.Event()

    async def ask(self, entity: EntityId, message: Any, *, timeout_s: float = 30.0) -> Any:
        if not self.open or self.host is None:
            self.refused.set()
            raise UnavailableError("The road is closed.")
        return await self.host.ask(entity, message, timeout_s=timeout_s)

    async def events(self, entity: EntityId, after_seq: int, wait_s: float) -> Sequence[EventRecord]:
        raise NotImplementedError


@pytest.fixture
def journal() -> MemoryJournal:
    tariff = Tariff(credit_value_pusd=10**10, markup_numerator=3, markup_denominator=2)
    return MemoryJournal(MemoryLedger(tariff, 100 * UCREDITS_PER_CREDIT))


@pytest.fixture
def road(monkeypatch: pytest.MonkeyPatch) -> Road:
    monkeypatch.setattr("runtime.testing.probes.CREDIT_RETRY_S", 0.0)
    return Road()


async def start(journal: MemoryJournal, road: Road, incarnation: str = "1") -> Host:
    kinds: Mapping[str, Factory] = factories(road)
    road.host = Host(name="host", incarnation=incarnation, journal=journal, factories=kinds)
    await road.host.acquire_all()
    return road.host


async def event(host: Host, entity: EntityId, type: str) -> None:
    """Waits until there was one of this type."""
    seen = 0
    while records := await host.events(entity, seen, wait_s=5.0):
        if any(record.type == type for record in records):
            return
        seen = records[-1].seq
    pytest.fail(f"{entity} had no event {type}.")


async def test_counter__adds_each_key_once(journal: MemoryJournal, road: Road) -> None:
    host = await start(journal, road)

    answers = [await host.ask(COUNTER, Increment(key=key, amount=2)) for key in ("a", "b", "a")]

    assert answers == [2, 4, 4]
    assert await host.ask(COUNTER, Total()) == CounterView(total=4)


async def test_counter__is_the_same_from_its_snapshot_alone(journal: MemoryJournal, road: Road) -> None:
    host = await start(journal, road)
    for number in range(3):
        await host.ask(COUNTER, Increment(key=f"k{number}"))
    await host.release(range(PARTITION_COUNT))  # passivation saves
    assert not (await journal.load(COUNTER)).events

    again = await start(journal, road, incarnation="2")

    assert await again.ask(COUNTER, Total()) == CounterView(total=3)
    assert await again.ask(COUNTER, Increment(key="k1")) == 3


async def test_counter__holds_then_adds(journal: MemoryJournal, road: Road) -> None:
    host = await start(journal, road)

    assert await host.ask(COUNTER, Hold(key="a", seconds=0)) == 1


async def test_counter__that_fails_is_as_before(journal: MemoryJournal, road: Road) -> None:
    host = await start(journal, road)
    await host.ask(COUNTER, Increment(key="a"))

    with pytest.raises(EntityFailedError):
        await host.ask(COUNTER, Fail(key="b"))

    assert await host.ask(COUNTER, Total()) == CounterView(total=1)


async def test_counter__arms_a_reminder_and_counts_its_delivery_once(journal: MemoryJournal, road: Road) -> None:
    host = await start(journal, road)
    await host.ask(COUNTER, Remind(key="a", name="tea", after_s=5))
    (due,) = await journal.due(range(PARTITION_COUNT), datetime.now(UTC) + timedelta(seconds=6), 10)

    for _ in range(2):
        reminder = due.reminder
        await host.ask(COUNTER, Reminded(name=reminder.name, due_at=reminder.due_at, data=reminder.data))

    assert await host.ask(COUNTER, Total()) == CounterView(total=0, reminded=1)


async def test_account__moves_money_and_makes_none(journal: MemoryJournal, road: Road) -> None:
    host = await start(journal, road)
    await host.ask(ANNE, Open(key="o", amount=10))

    for _ in range(2):
        await host.ask(ANNE, Transfer(key="t", to=BERT, amount=4))

    await event(host, ANNE, "account.arrived")
    assert await host.ask(ANNE, Balance()) == AccountView(balance=6, in_flight=0)
    assert await host.ask(BERT, Balance()) == AccountView(balance=4, in_flight=0)


async def test_account__refuses_what_it_cannot_pay_or_make_sense_of(journal: MemoryJournal, road: Road) -> None:
    host = await start(journal, road)
    await host.ask(ANNE, Open(key="o", amount=10))

    with pytest.raises(ConflictError):
        await host.ask(ANNE, Transfer(key="a", to=BERT, amount=11))
    for amount, to in ((0, BERT), (1, ANNE)):
        with pytest.raises(BadInputError):
            await host.ask(ANNE, Transfer(key="b", to=to, amount=amount))

    assert await host.ask(ANNE, Balance()) == AccountView(balance=10, in_flight=0)


async def test_account__takes_a_credit_once(journal: MemoryJournal, road: Road) -> None:
    host = await start(journal, road)

    for _ in range(2):
        await host.ask(BERT, Credit(key="anne/t", amount=4))

    assert (await host.ask(BERT, Balance())).balance == 4


async def test_account__delivers_after_a_restart_what_was_in_flight(journal: MemoryJournal, road: Road) -> None:
    host = await start(journal, road)
    road.open = False
    await host.ask(ANNE, Open(key="o", amount=10))
    view = await host.ask(ANNE, Transfer(key="t", to=BERT, amount=4))
    assert (view.balance, view.in_flight, view.total) == (6, 4, 10)
    await road.refused.wait()
    await host.stop()

    road.open = True
    again = await start(journal, road, incarnation="2")

    await event(again, BERT, "account.credited")  # nobody asked anne: she was woken
    await event(again, ANNE, "account.arrived")
    assert await again.ask(ANNE, Balance()) == AccountView(balance=6, in_flight=0)
    assert await again.ask(BERT, Balance()) == AccountView(balance=4, in_flight=0)

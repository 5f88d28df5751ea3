"""A small entity that shows whatever a host does to it, and a host to put it in."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from runtime.entity.entity import Entity
from runtime.entity.host import Host, Limits
from runtime.entity.journal import EventRecord, Reminder
from runtime.entity.reminders import Reminded
from runtime.ids import EntityId
from runtime.ledger.money import UCREDITS_PER_CREDIT, Tariff
from runtime.testing.memory_journal import MemoryJournal
from runtime.testing.memory_ledger import MemoryLedger

COUNTER = EntityId("counter:one")
OTHER = EntityId("counter:two")
OVER = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Add:
    key: str
    amount: int = 2
    pause: bool = False
    fail: str = ""
    """Fails `before` or `after` the event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    name: str
    again: bool = False


class BrokenError(Exception):
    pass


class Counter(Entity[int]):
    kind = "counter"
    read_only = (Read,)

    def __init__(self, entity: EntityId, broken: bool = False) -> None:
        self.gate = asyncio.Event()
        self.begun = asyncio.Event()
        self.broken = broken
        self.busy = 0
        self.busy_most = 0
        self.woken = 0
        self.reminded: list[str] = []
        self.unavailable: Exception | None = None

    def initial(self) -> int:
        return 0

    def fold(self, state: int, event: EventRecord) -> int:
        if self.broken:
            raise BrokenError("fold")
        return state + int(event.data.get("amount", 0))

    def head(self, state: int) -> Mapping[str, Any]:
        return {"total": state}

    def freeze(self, state: int) -> Mapping[str, Any]:
        return {"total": state}

    def thaw(self, data: Mapping[str, Any]) -> int:
        return int(data["total"])

    def is_open(self, state: int) -> bool:
        return state % 2 == 1

    def is_over(self, state: int) -> bool:
        return state >= OVER

    async def wake(self) -> None:
        self.woken += 1

    async def receive(self, message: Any) -> int:
        match message:
            case Read():
                return self.state
            case Arm(name=name):
                due = datetime.now(UTC) - timedelta(seconds=1)
                reminder = Reminder(name=name, due_at=due, data={"again": message.again})
                await self.activation.emit("armed", f"arm/{name}", {}, remind=(reminder,))
                return self.state
            case Reminded():
                return await self._reminded(message)
        self.busy += 1
        self.busy_most = max(self.busy_most, self.busy)
        self.begun.set()
        if message.pause:
            await self.gate.wait()
        if message.fail == "before":
            raise BrokenError("before")
        await self.activation.emit("added", message.key, {"amount": message.amount})
        if message.fail == "after":
            raise BrokenError("after")
        await asyncio.sleep(0)
        self.busy -= 1
        return self.state

    async def _reminded(self, message: Reminded) -> int:
        self.reminded.append(message.name)
        if self.unavailable is not None:
            raise self.unavailable
        again = Reminder(name=message.name, due_at=datetime.now(UTC) + timedelta(hours=1))
        remind = (again,) if message.data.get("again") else ()
        await self.activation.emit("reminded", message.key, {}, remind=remind)
        return self.state


def journal_in_memory() -> MemoryJournal:
    return MemoryJournal(MemoryLedger(Tariff(), 100 * UCREDITS_PER_CREDIT))


class Watched:
    """A host whose counters can be looked at: the newest life of each."""

    def __init__(self, journal: Any, incarnation: str = "first", **limits: Any) -> None:
        self.counters: dict[EntityId, Counter] = {}
        self.lives = 0
        self.broken = False
        self.host = Host(
            name="host",
            incarnation=incarnation,
            journal=journal,
            factories={"counter": self._make},
            limits=Limits(**limits),
        )

    def _make(self, entity: EntityId) -> Counter:
        self.lives += 1
        self.counters[entity] = Counter(entity, self.broken)
        return self.counters[entity]


async def watched(journal: Any, incarnation: str = "first", **limits: Any) -> Watched:
    """Alone, with every partition."""
    alone = Watched(journal, incarnation, **limits)
    await alone.host.acquire_all()
    return alone


async def settled() -> None:
    """Lets everything run that can."""
    for _ in range(50):
        await asyncio.sleep(0)

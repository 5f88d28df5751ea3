"""The journal in memory, on the same port as the real one and under the same contract tests."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from runtime.entity.journal import (
    Append,
    Claim,
    DueReminder,
    EventRecord,
    Head,
    Loaded,
    Ownership,
    Reminder,
    Snapshot,
)
from runtime.errors import BadInputError, StaleWriterError
from runtime.ids import PARTITION_COUNT, EntityId, ProjectId, UserId, kind_of, name_of, partition_of
from runtime.testing.memory_ledger import MemoryLedger


class MemoryJournal:
    """Implements `runtime.entity.journal.Journal` in one process, for tests. Data goes through JSON, as on disk."""

    def __init__(self, ledger: MemoryLedger, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._ledger = ledger
        self._clock = clock
        self._ownerships: dict[int, Ownership] = {}
        self._events: dict[EntityId, list[EventRecord]] = defaultdict(list)
        self._heads: dict[EntityId, Head] = {}
        self._snapshots: dict[EntityId, Snapshot] = {}
        self._drops: dict[EntityId, int] = {}
        self._reminders: dict[tuple[EntityId, str], Reminder] = {}
        self.refused_stale = 0
        """Appends that the fence refused."""

    async def claim(self, claim: Claim) -> Mapping[int, int]:
        if not all(0 <= partition < PARTITION_COUNT for partition in claim.partitions):
            raise BadInputError("There is no such partition.")
        granted = {}
        for partition, seen in claim.partitions.items():
            wish = Ownership(partition=partition, epoch=seen + 1, host=claim.host, incarnation=claim.incarnation)
            if self._epoch(partition) == seen:
                self._ownerships[partition] = wish
            if self._ownerships.get(partition) == wish:
                granted[partition] = wish.epoch
        return granted

    async def ownerships(self) -> Sequence[Ownership]:
        return sorted(self._ownerships.values(), key=lambda ownership: ownership.partition)

    async def append(self, append: Append) -> int:
        entity, moves = append.entity, append.moves
        last_seq = append.expected_seq + len(append.events)
        if append.snapshot is not None and append.snapshot.seq != last_seq:
            raise BadInputError(f"The snapshot of {entity} is not of its last event.")
        epoch = self._epoch(partition_of(entity))
        known = self._heads.get(entity)
        if epoch == 0 or append.epoch != epoch or append.expected_seq != (known.last_seq if known else 0):
            self.refused_stale += 1
            raise StaleWriterError(f"{entity} was written by a newer owner.")
        self._ledger.check_runs(moves.begin, moves.settle, moves.abandon)
        self._ledger.check_task_tokens(moves.tokens)

        now = self._clock()
        head = _through_json(append.head)
        events = [
            EventRecord(
                entity=entity,
                seq=seq,
                epoch=epoch,
                type=event.type,
                version=event.version,
                key=event.key,
                at=now,
                data=_through_json(event.data),
            )
            for seq, event in enumerate(append.events, append.expected_seq + 1)
        ]
        reminders = [replace(reminder, data=_through_json(reminder.data)) for reminder in append.remind]
        if append.snapshot is not None:
            self._snapshots[entity] = replace(append.snapshot, data=_through_json(append.snapshot.data))
            if append.drop_history:
                self._drops[entity] = last_seq
        self._events[entity].extend(events)
        self._heads[entity] = Head(
            entity=entity, owner=append.owner, last_seq=last_seq, open=append.open, updated_at=now, data=head
        )
        for name in append.forget:
            self._reminders.pop((entity, name), None)
        for reminder in reminders:
            self._reminders[entity, reminder.name] = reminder
        if moves.ceiling_ucredits is not None:
            self._ledger.set_ceiling(ProjectId(name_of(entity)), moves.ceiling_ucredits)
        self._ledger.move_runs(moves.begin, moves.settle, moves.abandon)
        self._ledger.add_task_tokens(moves.tokens)
        return last_seq

    async def append_all(self, appends: Sequence[Append]) -> list[int | Exception]:
        outcomes: list[int | Exception] = []
        for append in appends:
            try:
                outcomes.append(await self.append(append))
            except Exception as error:
                outcomes.append(error)
        return outcomes

    async def load(self, entity: EntityId) -> Loaded:
        snapshot = self._snapshots.get(entity)
        after = snapshot.seq if snapshot is not None else 0
        events = [event for event in self._events[entity] if event.seq > after]
        return Loaded(head=self._heads.get(entity), snapshot=snapshot, events=events)

    async def load_all(self, entities: Sequence[EntityId]) -> list[Loaded | Exception]:
        return [await self.load(entity) for entity in entities]

    async def read(self, entity: EntityId, after_seq: int, limit: int = 10_000) -> Sequence[EventRecord]:
        return [event for event in self._events[entity] if event.seq > after_seq][: max(0, limit)]

    async def head(self, entity: EntityId) -> Head | None:
        return self._heads.get(entity)

    async def heads(self, kind: str, owner: UserId | None) -> Sequence[Head]:
        heads = [
            head
            for head in self._heads.values()
            if kind_of(head.entity) == kind and (owner is None or head.owner == owner)
        ]
        return sorted(heads, key=lambda head: head.updated_at, reverse=True)

    async def open_entities(self, kinds: Sequence[str]) -> Sequence[EntityId]:
        return sorted(head.entity for head in self._heads.values() if head.open and kind_of(head.entity) in kinds)

    async def due(self, partitions: Sequence[int], now: datetime, limit: int) -> Sequence[DueReminder]:
        wanted = set(partitions)
        due = [
            DueReminder(entity=entity, reminder=reminder)
            for (entity, _), reminder in self._reminders.items()
            if reminder.due_at <= now and partition_of(entity) in wanted
        ]
        return sorted(due, key=lambda one: (one.reminder.due_at, one.entity, one.reminder.name))[:limit]

    def compact(self) -> int:
        """Forgets the events that snapshots let go. How many there were."""
        before = sum(map(len, self._events.values()))
        for entity, seq in self._drops.items():
            self._events[entity] = [event for event in self._events[entity] if event.seq > seq]
        return before - sum(map(len, self._events.values()))

    def _epoch(self, partition: int) -> int:
        return self._ownerships[partition].epoch if partition in self._ownerships else 0


def _through_json(data: Mapping[str, Any]) -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(data))
    return copied

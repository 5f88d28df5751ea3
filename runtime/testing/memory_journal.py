"""The journal in memory, on the same port as the real one and under the same contract tests."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from runtime.entity.journal import Append, Claim, EventRecord, Head
from runtime.errors import BadInputError, StaleWriterError
from runtime.ids import PARTITION_COUNT, EntityId, ProjectId, UserId, kind_of, name_of, partition_of
from runtime.testing.memory_ledger import MemoryLedger


class MemoryJournal:
    """Implements `runtime.entity.journal.Journal` in one process, for tests. Data goes through JSON, as on disk."""

    def __init__(self, ledger: MemoryLedger, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._ledger = ledger
        self._clock = clock
        self._epochs: dict[int, tuple[int, str]] = {}
        self._events: dict[EntityId, list[EventRecord]] = defaultdict(list)
        self._heads: dict[EntityId, Head] = {}

    async def claim(self, claim: Claim) -> Mapping[int, int]:
        if not all(0 <= partition < PARTITION_COUNT for partition in claim.partitions):
            raise BadInputError("There is no such partition.")
        for partition in claim.partitions:
            epoch, incarnation = self._epochs.get(partition, (0, ""))
            if epoch == 0 or incarnation != claim.incarnation:
                self._epochs[partition] = (epoch + 1, claim.incarnation)
        return {partition: self._epochs[partition][0] for partition in claim.partitions}

    async def append(self, append: Append) -> int:
        entity, events = append.entity, self._events[append.entity]
        epoch, _ = self._epochs.get(partition_of(entity), (0, ""))
        keys = [event.key for event in events] + [event.key for event in append.events]
        if epoch == 0 or append.epoch != epoch or append.expected_seq != len(events) or len(set(keys)) < len(keys):
            raise StaleWriterError(f"{entity} was written by a newer owner.")
        moves = (append.begin_runs, append.settle_runs, append.abandon_runs)
        self._ledger.check_runs(*moves)

        now = self._clock()
        for event in append.events:
            record = EventRecord(
                entity=entity,
                seq=len(events) + 1,
                epoch=epoch,
                type=event.type,
                version=event.version,
                key=event.key,
                at=now,
                data=json.loads(json.dumps(event.data)),
            )
            events.append(record)
        self._heads[entity] = Head(
            entity=entity,
            owner=append.owner,
            last_seq=len(events),
            open=append.open,
            updated_at=now,
            data=json.loads(json.dumps(append.head)),
        )
        if append.ceiling_ucredits is not None:
            self._ledger.set_ceiling(ProjectId(name_of(entity)), append.ceiling_ucredits)
        self._ledger.move_runs(*moves)
        return len(events)

    async def read(self, entity: EntityId, after_seq: int) -> Sequence[EventRecord]:
        return self._events[entity][max(0, after_seq) :]

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

"""One append on its way into the journal: sealed by its caller, then checked and written by the one writer."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from runtime.entity.journal import Append, Claim, Moves, Reminder
from runtime.errors import BadInputError, StaleWriterError, TooLargeError
from runtime.ids import EntityId, ProjectId, UserId, kind_of, name_of, partition_of
from runtime.ledger import postings
from runtime.ledger.caps import check_not_erased
from runtime.ledger.tokens import check_task_token, insert_token, label_subject
from runtime.reports.facts import Fact, FactsOf
from runtime.store import tail
from runtime.store.seal import Seal
from runtime.store.transaction import Kind, Transaction, Wanted, first_as

PAYLOAD_BYTES_MAX = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedAppend:
    """An append whose texts are sealed already: that is most of the work, and needs no transaction."""

    append: Append
    partition: str
    payloads: Sequence[bytes]
    snapshot: bytes | None
    reminders: Sequence[bytes]
    head: bytes
    facts: Sequence[Fact]
    token_labels: Sequence[bytes]
    at: datetime

    def write(self, tx: Transaction) -> int:
        """The entity's new last sequence number. Raises StaleWriterError, and what the ledger refuses."""
        append = self.append
        known = _fenced(tx, append, self.partition)
        last_seq = append.expected_seq + len(append.events)
        first, end = self._write_entries(tx)
        where = known.tail if known is not None else ""
        if self.snapshot is not None:
            where = tail.restarted(end - 1)
        elif end > first:
            where = tail.extended(where, range(first, end))

        if known is None:
            _add_entity(tx, self, last_seq, first, where)
        else:
            _change_entity(tx, self, known, last_seq, where)
        self._write_reminders(tx)
        for fact in self.facts:
            tx.insert(fact.table, fact)
        _move(tx, append.entity, append.moves, self.at)
        for token, label in zip(append.moves.tokens, self.token_labels, strict=True):
            check_not_erased(tx, token.user)
            insert_token(tx, token, label, self.at)
        return last_seq

    def _write_entries(self, tx: Transaction) -> tuple[int, int]:
        """The positions that the events, and after them the snapshot, were given: first and behind the last."""
        append = self.append
        first = _next(tx, "entry")
        position, seq = first, append.expected_seq
        for event, payload in zip(append.events, self.payloads, strict=True):
            seq += 1
            tx.insert("entries", self._entry(position, seq, event.type, event.version, payload))
            position += 1
        if append.snapshot is not None and self.snapshot is not None:
            tx.insert("entries", self._entry(position, seq, None, append.snapshot.version, self.snapshot))
            position += 1
        if position > first:
            tx.keep(_NEXT, "entry", position)
        return first, position

    def _entry(self, position: int, seq: int, type_: str | None, version: int, payload: bytes) -> "_EntryRow":
        return _EntryRow(
            position=position,
            entity=self.append.entity,
            seq=seq,
            epoch=self.append.epoch,
            type=type_,
            version=version,
            drops=type_ is None and self.append.drop_history,
            payload=payload,
            made_at=self.at,
        )

    def _write_reminders(self, tx: Transaction) -> None:
        append = self.append
        for name in append.forget:
            row = _ReminderRow(entity=append.entity, name=name, partition=0, due_at=self.at, data=b"")
            tx.replace("reminders", f"{append.entity}\0{name}", row, remains=False)
        for reminder, data in zip(append.remind, self.reminders, strict=True):
            _arm(tx, append.entity, reminder, data)


def seal_append(append: Append, seal: Seal, at: datetime, facts_of: FactsOf) -> SealedAppend:
    """Raises TooLargeError, BadInputError for a snapshot of another place or a token that cannot be one, TypeError for
    data that is not JSON.
    """
    entity, last_seq = append.entity, append.expected_seq + len(append.events)
    for token in append.moves.tokens:
        check_task_token(token)
    snapshot = append.snapshot
    if snapshot is not None and snapshot.seq != last_seq:
        raise BadInputError(f"The snapshot of {entity} is of event {snapshot.seq}, but its last event is {last_seq}.")
    return SealedAppend(
        append=append,
        partition=str(partition_of(entity)),
        payloads=[
            _bounded(seal.close_json({"key": event.key, "data": event.data}, event_subject(entity, seq)))
            for seq, event in enumerate(append.events, append.expected_seq + 1)
        ],
        snapshot=(
            _bounded(seal.close_json(snapshot.data, snapshot_subject(entity, last_seq)))
            if snapshot is not None
            else None
        ),
        reminders=[
            _bounded(seal.close_json(reminder.data, reminder_subject(entity, reminder.name)))
            for reminder in append.remind
        ],
        head=_bounded(seal.close_json(append.head, head_subject(entity))),
        facts=facts_of(append, at),
        token_labels=[
            seal.close(token.label.encode(), label_subject(token.token_sha256)) for token in append.moves.tokens
        ],
        at=at,
    )


def arm(tx: Transaction, entity: EntityId, reminder: Reminder, seal: Seal) -> None:
    """A reminder that does not come from its entity."""
    _arm(tx, entity, reminder, seal.close_json(reminder.data, reminder_subject(entity, reminder.name)))


def wanted_by(appends: Sequence[SealedAppend]) -> list[Wanted]:
    """The records that `write` looks up."""
    entities = [sealed.append.entity for sealed in appends]
    return [(_PARTITIONS, {sealed.partition for sealed in appends}), (_ENTITIES, entities)]


def claim_partition(tx: Transaction, claim: Claim, number: int, expected: int) -> int | None:
    """The partition's new epoch; None when somebody else was first."""
    key = str(number)
    known = tx.get(_PARTITIONS, key)
    epoch = known.epoch if known is not None else 0
    is_repeated = (
        known is not None
        and (known.host, known.incarnation) == (claim.host, claim.incarnation)
        and epoch == expected + 1
    )
    if is_repeated:
        return epoch
    if epoch != expected:
        return None
    row = _PartitionRow(partition=key, epoch=epoch + 1, host=claim.host, incarnation=claim.incarnation)
    tx.keep(_PARTITIONS, key, row)
    if known is None:
        tx.insert("partitions", row)
    else:
        tx.update("partitions", key, row)
    return row.epoch


def wanted_by_claim(claim: Claim) -> list[Wanted]:
    return [(_PARTITIONS, {str(number) for number in claim.partitions})]


def event_subject(entity: str, seq: int) -> str:
    return f"event {entity} {seq}"


def snapshot_subject(entity: str, seq: int) -> str:
    return f"snapshot {entity} {seq}"


def head_subject(entity: str) -> str:
    return f"head {entity}"


def reminder_subject(entity: str, name: str) -> str:
    return f"reminder {entity} {name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _PartitionRow:
    partition: str
    epoch: int
    host: str
    incarnation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entity:
    """What the writer must know of an entity to add to it."""

    number: int
    last_seq: int
    owner: UserId
    open: bool
    tail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _EntityRow:
    entity: EntityId
    number: int
    kind: str
    owner: UserId
    last_seq: int
    open: bool
    head: bytes
    updated_at: datetime
    first_position: int
    tail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _EntityChange:
    number: int
    last_seq: int
    head: bytes
    updated_at: datetime
    tail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _StandingChange:
    """What seldom changes is written only then: every column of an update costs."""

    number: int
    owner: UserId
    open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _EntryRow:
    position: int
    entity: EntityId
    seq: int
    epoch: int
    type: str | None
    version: int
    drops: bool
    payload: bytes
    made_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class _ReminderRow:
    entity: EntityId
    name: str
    partition: int
    due_at: datetime
    data: bytes


_PARTITIONS = Kind(
    name="partition", query="select_partition", query_many="select_partitions", read=first_as(_PartitionRow)
)
_ENTITIES = Kind(name="entity", query="select_entity", query_many="select_entities", read=first_as(_Entity))
_NEXT: Kind[int] = Kind(name="next", query="select_next", read=lambda rows: rows[0][0])
"""The number that the next `entity` or `entry` gets."""


def _fenced(tx: Transaction, append: Append, partition: str) -> _Entity | None:
    """The entity as it is. Raises StaleWriterError unless the append is its owner's and follows its last event."""
    owner = tx.get(_PARTITIONS, partition)
    if owner is None or append.epoch != owner.epoch:
        epoch = owner.epoch if owner is not None else "none"
        raise _stale(append, f"the epoch of its partition is {epoch}, not {append.epoch}")
    known = tx.get(_ENTITIES, append.entity)
    last_seq = known.last_seq if known is not None else 0
    if append.expected_seq != last_seq:
        raise _stale(append, f"its last event is number {last_seq}, not {append.expected_seq}")
    return known


def _stale(append: Append, why: str) -> StaleWriterError:
    return StaleWriterError(f"{append.entity} was written by a newer owner: {why}.", "Load it again.")


def _add_entity(tx: Transaction, sealed: SealedAppend, last_seq: int, first_position: int, where: str) -> None:
    append = sealed.append
    number = _next(tx, "entity")
    tx.keep(_NEXT, "entity", number + 1)
    row = _Entity(number=number, last_seq=last_seq, owner=append.owner, open=append.open, tail=where)
    tx.keep(_ENTITIES, append.entity, row)
    tx.insert(
        "entities",
        _EntityRow(
            entity=append.entity,
            number=number,
            kind=kind_of(append.entity),
            owner=append.owner,
            last_seq=last_seq,
            open=append.open,
            head=sealed.head,
            updated_at=sealed.at,
            first_position=first_position,
            tail=where,
        ),
    )


def _change_entity(tx: Transaction, sealed: SealedAppend, known: _Entity, last_seq: int, where: str) -> None:
    append = sealed.append
    row = _Entity(number=known.number, last_seq=last_seq, owner=append.owner, open=append.open, tail=where)
    tx.keep(_ENTITIES, append.entity, row)
    tx.update(
        "entities",
        append.entity,
        _EntityChange(
            number=known.number,
            last_seq=last_seq,
            head=sealed.head,
            updated_at=sealed.at,
            tail=where,
        ),
    )
    if (append.owner, append.open) != (known.owner, known.open):
        standing = _StandingChange(number=known.number, owner=append.owner, open=append.open)
        tx.update("standings", append.entity, standing)


def _move(tx: Transaction, entity: EntityId, moves: Moves, now: datetime) -> None:
    if moves.ceiling_ucredits is not None:
        postings.set_ceiling(tx, ProjectId(name_of(entity)), moves.ceiling_ucredits)
    for begin in moves.begin:
        postings.begin_run(tx, begin, now)
    for run in moves.settle:
        postings.settle_run(tx, run, now)
    for run in moves.abandon:
        postings.abandon_run(tx, run, now)


def _arm(tx: Transaction, entity: EntityId, reminder: Reminder, data: bytes) -> None:
    row = _ReminderRow(
        entity=entity, name=reminder.name, partition=partition_of(entity), due_at=reminder.due_at, data=data
    )
    tx.replace("reminders", f"{entity}\0{reminder.name}", row, remains=True)


def _next(tx: Transaction, what: str) -> int:
    number: Any = tx.get(_NEXT, what)
    assert number is not None
    return int(number)


def _bounded(sealed: bytes) -> bytes:
    if len(sealed) > PAYLOAD_BYTES_MAX:
        raise TooLargeError(
            f"A journal entry of {len(sealed)} bytes is over the bound of {PAYLOAD_BYTES_MAX}.", "Store it as a file."
        )
    return sealed

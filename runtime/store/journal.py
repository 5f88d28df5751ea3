"""The journal on DuckDB: events, heads, partition epochs, and the money that moves with them."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb

from runtime.entity.journal import Append, Claim, EventRecord, Head, NewEvent
from runtime.errors import BadInputError, StaleWriterError, TooLargeError
from runtime.ids import PARTITION_COUNT, EntityId, ProjectId, UserId, kind_of, name_of, partition_of
from runtime.ledger import postings
from runtime.store.database import Database
from runtime.store.queries import sql
from runtime.store.seal import Seal
from runtime.store.transaction import DuplicateRowError, Kind, Transaction, first_as

PAYLOAD_BYTES_MAX = 16 << 20

_1970 = datetime(1970, 1, 1, tzinfo=UTC)


def utc_now() -> datetime:
    return datetime.now(UTC)


class StoreJournal:
    """Implements `runtime.entity.journal.Journal`. A refused append writes nothing, not even its money."""

    def __init__(self, database: Database, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def claim(self, claim: Claim) -> Mapping[int, int]:
        if not all(0 <= partition < PARTITION_COUNT for partition in claim.partitions):
            raise BadInputError(f"A partition is a number from 0 to {PARTITION_COUNT - 1}.")
        return await self._database.write(lambda tx: {number: _claim(tx, claim, number) for number in claim.partitions})

    async def append(self, append: Append) -> int:
        try:
            return await self._database.write(lambda tx: _append(tx, append, self._database.seal, self._clock()))
        except DuplicateRowError as error:
            if error.table != "events":
                raise
            keys = ", ".join(event.key for event in append.events)
            raise _stale(append.entity, f"one of the keys {keys} is already in its journal") from error

    async def read(self, entity: EntityId, after_seq: int) -> Sequence[EventRecord]:
        def act(connection: duckdb.DuckDBPyConnection) -> Sequence[EventRecord]:
            rows = connection.execute(sql("events_of_entity"), {"entity": entity, "after_seq": after_seq}).fetchall()
            return [_event(entity, row, self._database.seal) for row in rows]

        return await self._database.read(act)

    async def head(self, entity: EntityId) -> Head | None:
        heads = await self._heads("head_of_entity", {"entity": entity})
        return heads[0] if heads else None

    async def heads(self, kind: str, owner: UserId | None) -> Sequence[Head]:
        return await self._heads("heads_of_kind", {"kind": kind, "owner": owner})

    async def open_entities(self, kinds: Sequence[str]) -> Sequence[EntityId]:
        def act(connection: duckdb.DuckDBPyConnection) -> Sequence[EntityId]:
            return [EntityId(entity) for (entity,) in _rows(connection, "open_entities", {"kinds": list(kinds)})]

        return await self._database.read(act)

    async def _heads(self, query: str, values: Mapping[str, Any]) -> list[Head]:
        return await self._database.read(
            lambda connection: [_head(row, self._database.seal) for row in _rows(connection, query, values)]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Partition:
    partition: str
    epoch: int
    host: str
    incarnation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _EntityRow:
    entity: EntityId
    kind: str
    owner: UserId
    last_seq: int
    open: bool
    head: bytes
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class _EventRow:
    event_sha256: bytes
    entity: EntityId
    seq: int
    epoch: int
    type: str
    version: int
    payload: bytes
    made_at: datetime


_PARTITIONS = Kind(name="partition", query="select_partition", read=first_as(_Partition))
_LAST_SEQS: Kind[int] = Kind(name="last_seq", query="select_last_seq", read=lambda rows: rows[0][0] if rows else None)


def _claim(tx: Transaction, claim: Claim, number: int) -> int:
    key = str(number)
    known = tx.get(_PARTITIONS, key)
    if known is not None and known.incarnation == claim.incarnation:
        return known.epoch
    epoch = known.epoch + 1 if known is not None else 1
    row = _Partition(partition=key, epoch=epoch, host=claim.host, incarnation=claim.incarnation)
    tx.keep(_PARTITIONS, key, row)
    if known is None:
        tx.insert("partitions", row)
    else:
        tx.update("partitions", key, row)
    return epoch


def _append(tx: Transaction, append: Append, seal: Seal, now: datetime) -> int:
    entity = append.entity
    partition = tx.get(_PARTITIONS, str(partition_of(entity)))
    if partition is None or append.epoch != partition.epoch:
        epoch = partition.epoch if partition is not None else "none"
        raise _stale(entity, f"the epoch of its partition is {epoch}, not {append.epoch}")
    known = tx.get(_LAST_SEQS, entity)
    if append.expected_seq != (known or 0):
        raise _stale(entity, f"its last event is number {known or 0}, not {append.expected_seq}")

    for seq, event in enumerate(append.events, append.expected_seq + 1):
        tx.insert("events", _event_row(append, seq, event, seal, now))
    last_seq = append.expected_seq + len(append.events)
    row = _EntityRow(
        entity=entity,
        kind=kind_of(entity),
        owner=append.owner,
        last_seq=last_seq,
        open=append.open,
        head=_bounded(seal.close_json(append.head, f"head {entity}")),
        updated_at=now,
    )
    tx.keep(_LAST_SEQS, entity, last_seq)
    if known is None:
        tx.insert("entities", row)
    else:
        tx.update("entities", entity, row)

    if append.ceiling_ucredits is not None:
        postings.set_ceiling(tx, ProjectId(name_of(entity)), append.ceiling_ucredits)
    for begin in append.begin_runs:
        postings.begin_run(tx, begin, now)
    for run in append.settle_runs:
        postings.settle_run(tx, run, now)
    for run in append.abandon_runs:
        postings.abandon_run(tx, run, now)
    return last_seq


def _event_row(append: Append, seq: int, event: NewEvent, seal: Seal, now: datetime) -> _EventRow:
    return _EventRow(
        event_sha256=hashlib.sha256(f"{append.entity}\0{event.key}".encode()).digest(),
        entity=append.entity,
        seq=seq,
        epoch=append.epoch,
        type=event.type,
        version=event.version,
        payload=_bounded(seal.close_json({"key": event.key, "data": event.data}, f"event {append.entity} {seq}")),
        made_at=now,
    )


def _bounded(sealed: bytes) -> bytes:
    if len(sealed) > PAYLOAD_BYTES_MAX:
        raise TooLargeError(
            f"A journal entry of {len(sealed)} bytes is over the bound of {PAYLOAD_BYTES_MAX}.", "Store it as a file."
        )
    return sealed


def _stale(entity: EntityId, why: str) -> StaleWriterError:
    return StaleWriterError(f"{entity} was written by a newer owner: {why}.", "Load it again.")


def _rows(connection: duckdb.DuckDBPyConnection, query: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    return connection.execute(sql(query), dict(values)).fetchall()


def _event(entity: EntityId, row: tuple[Any, ...], seal: Seal) -> EventRecord:
    seq, epoch, type_, version, payload, made_at_us = row
    opened = seal.open_json(payload, f"event {entity} {seq}")
    return EventRecord(
        entity=entity,
        seq=seq,
        epoch=epoch,
        type=type_,
        version=version,
        key=opened["key"],
        at=_time(made_at_us),
        data=opened["data"],
    )


def _head(row: tuple[Any, ...], seal: Seal) -> Head:
    entity, owner, last_seq, is_open, head, updated_at_us = row
    return Head(
        entity=entity,
        owner=owner,
        last_seq=last_seq,
        open=is_open,
        updated_at=_time(updated_at_us),
        data=seal.open_json(head, f"head {entity}"),
    )


def _time(microseconds: int) -> datetime:
    return _1970 + timedelta(microseconds=microseconds)

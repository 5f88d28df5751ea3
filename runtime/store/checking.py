"""Checks that everything stored agrees: journal, reminders and blobs. The ledger's sums are checked in `queries.sql`.

It reads the journal in shares, each as it was at one moment, and rests between rows as long as it worked: writers and
other readers come first.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import duckdb

from runtime.errors import StoreUnavailableError
from runtime.ids import EntityId, kind_of, partition_of
from runtime.ledger.port import Mismatch
from runtime.store import tail
from runtime.store.appends import event_subject, head_subject, reminder_subject, snapshot_subject
from runtime.store.queries import fetch_all, rested_rows
from runtime.store.seal import Seal

ENTRIES_PER_SHARE = 250_000
MISMATCHES_MAX = 1_000
"""More say nothing new; the last one then says that there are more."""


class _Entry(NamedTuple):
    entity: EntityId
    position: int
    seq: int
    epoch: int
    type: str | None
    version: int
    drops: bool
    payload: bytes


class _Entity(NamedTuple):
    entity: EntityId
    kind: str
    last_seq: int
    head: bytes
    first_position: int
    tail: str


def check_journal(connection: duckdb.DuckDBPyConnection, seal: Seal) -> list[Mismatch]:
    """What is wrong with entities, events, snapshots and reminders. Reads and opens all of them."""
    mismatches: list[Mismatch] = []
    entries = fetch_all(connection, "entry_count")[0][0]
    shares = entries // ENTRIES_PER_SHARE + 1
    for share in range(shares):
        for mismatch in _check_share(connection, seal, {"shares": shares, "share": share}):
            mismatches.append(mismatch)
            if len(mismatches) >= MISMATCHES_MAX:
                return [*mismatches, Mismatch(subject="journal", text="there are more mismatches than are listed")]
    return mismatches + list(_check_reminders(connection, seal))


def _check_share(connection: duckdb.DuckDBPyConnection, seal: Seal, values: Mapping[str, int]) -> Iterator[Mismatch]:
    connection.execute("BEGIN")
    try:
        epochs = {number: epoch for number, epoch, *_ in rested_rows(connection, "ownerships", {})}
        entities = {row[0]: _Entity(*row) for row in rested_rows(connection, "entities_of_share", values)}
        seen = set()
        rows = (_Entry(*row) for row in rested_rows(connection, "entries_of_share", values))
        for name, entries in groupby(rows, key=lambda entry: entry.entity):
            seen.add(name)
            check = _EntityCheck(name, entities.get(name), epochs.get(partition_of(name)), seal)
            yield from check.run(entries)
        for name in sorted(entities.keys() - seen):
            yield from _EntityCheck(name, entities[name], epochs.get(partition_of(name)), seal).run(())
    finally:
        connection.execute("ROLLBACK")


@dataclass(slots=True)
class _EntityCheck:
    """One entity's entries, in the order of their positions, against its row and its partition."""

    name: EntityId
    row: _Entity | None
    epoch_max: int | None
    seal: Seal

    def run(self, entries: Iterable[_Entry]) -> Iterator[Mismatch]:
        if self.row is None:
            yield self._wrong("has entries in the journal, but no row in `entities`")
        elif self.row.kind != kind_of(self.name):
            yield self._wrong(f"is stored as of kind {self.row.kind}")
        first_seq, last_seq, last_epoch, dropped_seq = 0, 0, 0, 0
        listed = ""
        for entry in entries:
            what = f"event {entry.seq}" if entry.type is not None else f"the snapshot of event {entry.seq}"
            yield from self._check_payload(entry, what)
            if entry.epoch < last_epoch:
                yield self._wrong(f"{what} has epoch {entry.epoch} after one of epoch {last_epoch}")
            if self.epoch_max is None or entry.epoch > self.epoch_max:
                newest = self.epoch_max if self.epoch_max is not None else "none"
                yield self._wrong(f"{what} has epoch {entry.epoch}, but the newest of its partition is {newest}")
            last_epoch = max(last_epoch, entry.epoch)
            if entry.type is None:
                if self.row is not None and entry.seq > self.row.last_seq:
                    yield self._wrong(f"{what} is beyond its last event, which is {self.row.last_seq}")
                dropped_seq = max(dropped_seq, entry.seq if entry.drops else 0)
                listed = tail.restarted(entry.position)
                continue
            if last_seq and entry.seq == last_seq:
                yield self._wrong(f"event {entry.seq} is there twice")
            elif last_seq and entry.seq != last_seq + 1:
                yield self._wrong(f"event {entry.seq} follows event {last_seq}")
            first_seq = first_seq or entry.seq
            last_seq = entry.seq
            listed = tail.extended(listed, [entry.position])
        yield from self._check_ends(first_seq, last_seq, dropped_seq, listed)

    def _check_ends(self, first_seq: int, last_seq: int, dropped_seq: int, listed: str) -> Iterator[Mismatch]:
        if first_seq > dropped_seq + 1:
            yield self._wrong(f"its first event is {first_seq}, but only those up to {dropped_seq} may be missing")
        if self.row is None:
            return
        if max(last_seq, dropped_seq) != self.row.last_seq:
            yield self._wrong(f"its last event is {last_seq}, but its row says {self.row.last_seq}")
        elif listed != self.row.tail:
            yield self._wrong("its list of positions does not lead to its newest entries; reading it is slower")
        if not _opens(self.seal, self.row.head, head_subject(self.name)):
            yield self._wrong("its head does not open")

    def _check_payload(self, entry: _Entry, what: str) -> Iterator[Mismatch]:
        subject = event_subject if entry.type is not None else snapshot_subject
        if not _opens(self.seal, entry.payload, subject(self.name, entry.seq)):
            yield self._wrong(f"{what} does not open")

    def _wrong(self, text: str) -> Mismatch:
        return Mismatch(subject=self.name, text=text)


def _check_reminders(connection: duckdb.DuckDBPyConnection, seal: Seal) -> Iterator[Mismatch]:
    for entity, name, partition, data, is_known, count in rested_rows(connection, "reminders_with_entities", {}):
        if not is_known:
            yield Mismatch(subject=entity, text=f"has the reminder {name}, but no row in `entities`")
        if count > 1:
            yield Mismatch(subject=entity, text=f"has the reminder {name} {count} times")
        if partition != partition_of(entity):
            yield Mismatch(subject=entity, text=f"the reminder {name} stands under partition {partition}")
        if not _opens(seal, data, reminder_subject(entity, name)):
            yield Mismatch(subject=entity, text=f"the reminder {name} does not open")


def _opens(seal: Seal, sealed: bytes, subject: str) -> bool:
    try:
        seal.open_json(sealed, subject)
    except (StoreUnavailableError, ValueError):
        return False
    return True

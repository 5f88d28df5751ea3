"""Reading the journal back: heads, what an activation needs, and older events.

An entity's row says where its newest entries are. What is found there is believed only when it is that entity's and
complete up to its last number; else the journal is looked through by the entity's name, which is slower and always
right.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import duckdb

from runtime.entity.journal import DueReminder, EventRecord, Head, Loaded, Reminder, Snapshot
from runtime.errors import StoreUnavailableError
from runtime.ids import EntityId
from runtime.store import tail
from runtime.store.appends import event_subject, head_subject, reminder_subject, snapshot_subject
from runtime.store.queries import fetch_all
from runtime.store.seal import Seal

log = logging.getLogger(__name__)

_1970 = datetime(1970, 1, 1, tzinfo=UTC)


class Entry(NamedTuple):
    """A row of `entries`: an event, or a snapshot when `type` is None."""

    entity: EntityId
    position: int
    seq: int
    epoch: int
    type: str | None
    version: int
    payload: bytes
    made_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A row of `entities`: the head, still sealed, and where the rest is."""

    entity: EntityId
    head: tuple[Any, ...]
    last_seq: int
    first_position: int
    tail: tail.Tail

    @property
    def begin(self) -> int:
        """Where to begin to look for what an activation needs."""
        if self.tail.listed or self.tail.snapshot is None:
            return self.first_position
        return self.tail.snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    snapshot: Entry | None
    events: Sequence[Entry]


def load_many(
    connection: duckdb.DuckDBPyConnection, seal: Seal, entities: Sequence[EntityId]
) -> list[Loaded | Exception]:
    """One answer an entity, in order; StoreUnavailableError in place of one whose entries are damaged."""
    connection.execute("BEGIN")  # Heads and entries as they were at one moment; ends with the connection.
    places = {place.entity: place for place in _places(connection, entities)}
    found = _follow_tails(connection, places.values())
    for trusted in (True, False):
        lost = [places[entity] for entity in places.keys() - found.keys()]
        if lost:
            found.update(_look_through(connection, lost, trusted))
    return [_opened(seal, places.get(entity), found.get(entity)) for entity in entities]


def read_events(
    connection: duckdb.DuckDBPyConnection, seal: Seal, entity: EntityId, after_seq: int, limit: int
) -> Sequence[EventRecord]:
    """Raises StoreUnavailableError when the journal has a gap there."""
    connection.execute("BEGIN")
    places = _places(connection, [entity])
    if not places or after_seq >= places[0].last_seq or limit <= 0:
        return []
    entries = _newest_events(connection, places[0], max(0, after_seq), limit)
    return [event_of(entry, seal) for entry in entries]


def read_heads(
    connection: duckdb.DuckDBPyConnection, seal: Seal, query: str, values: Mapping[str, Any]
) -> Sequence[Head]:
    return [_head(row, seal) for row in fetch_all(connection, query, values)]


def read_due(
    connection: duckdb.DuckDBPyConnection, seal: Seal, partitions: Sequence[int], now: datetime, limit: int
) -> Sequence[DueReminder]:
    values = {"partitions": list(partitions), "now": now, "limit": limit}
    return [
        DueReminder(
            entity=entity,
            reminder=Reminder(
                name=name, due_at=_time(due_at_us), data=seal.open_json(data, reminder_subject(entity, name))
            ),
        )
        for entity, name, due_at_us, data in fetch_all(connection, "due_reminders", values)
    ]


def event_of(entry: Entry, seal: Seal) -> EventRecord:
    assert entry.type is not None
    opened = seal.open_json(entry.payload, event_subject(entry.entity, entry.seq))
    return EventRecord(
        entity=entry.entity,
        seq=entry.seq,
        epoch=entry.epoch,
        type=entry.type,
        version=entry.version,
        key=opened["key"],
        at=_time(entry.made_at_us),
        data=opened["data"],
    )


def _places(connection: duckdb.DuckDBPyConnection, entities: Sequence[EntityId]) -> list[_Place]:
    if len(entities) == 1:
        rows = fetch_all(connection, "place_of_entity", {"entity": entities[0]})
    else:
        rows = fetch_all(connection, "places_of_entities", {"entities": list(entities)})
    return [
        _Place(entity=row[0], head=row[:6], last_seq=row[2], first_position=row[6], tail=_parsed(row[0], row[7]))
        for row in rows
    ]


def _parsed(entity: EntityId, text: str) -> tail.Tail:
    try:
        return tail.parse(text)
    except ValueError:
        log.error("the tail of %s is no list of positions; its entries are looked for", entity)
        return tail.Tail(snapshot=None, events=(), listed=False)


def _follow_tails(connection: duckdb.DuckDBPyConnection, places: Iterable[_Place]) -> dict[EntityId, _Found]:
    """What stands where the tails say, for those entities where it is the right thing."""
    listed = [place for place in places if place.tail.listed]
    by_position: dict[int, Entry] = {}
    positions = [position for place in listed for position in place.tail.positions]
    if positions:
        by_position = {row[1]: Entry(*row) for row in fetch_all(connection, "entries_at", {"positions": positions})}
    found = {}
    for place in listed:
        snapshot = by_position.get(place.tail.snapshot) if place.tail.snapshot is not None else None
        events = [by_position[position] for position in place.tail.events if position in by_position]
        has_snapshot = (snapshot is None) == (place.tail.snapshot is None)
        if has_snapshot and _follows(place, snapshot, events):
            found[place.entity] = _Found(snapshot=snapshot, events=events)
        else:
            log.warning("the tail of %s leads to other entries; they are looked for by its name", place.entity)
    return found


def _follows(place: _Place, snapshot: Entry | None, events: Sequence[Entry]) -> bool:
    """Whether these are the entity's own, without a gap from the snapshot (or the beginning) to its last number."""
    first_seq = 1
    if snapshot is not None:
        if snapshot.entity != place.entity or snapshot.type is not None:
            return False
        first_seq = snapshot.seq + 1
    if len(events) != place.last_seq - first_seq + 1:
        return False
    return all(
        entry.entity == place.entity and entry.type is not None and entry.seq == seq
        for seq, entry in enumerate(events, first_seq)
    )


def _look_through(
    connection: duckdb.DuckDBPyConnection, places: Sequence[_Place], trusted: bool
) -> dict[EntityId, _Found]:
    """Finds entries by their entities' names. Leaves out entities whose entries have a gap.

    `trusted`: a tail too long to list still says where its snapshot is, and nothing before that is needed.
    """
    values = {
        "entities": [place.entity for place in places],
        "first_position": min(place.begin if trusted else place.first_position for place in places),
    }
    by_entity: dict[EntityId, list[Entry]] = defaultdict(list)
    for row in fetch_all(connection, "entries_of_entities", values):
        entry = Entry(*row)
        by_entity[entry.entity].append(entry)
    found = {}
    for place in places:
        entries = sorted(by_entity[place.entity], key=lambda entry: entry.position)
        snapshot = next((entry for entry in reversed(entries) if entry.type is None), None)
        after = snapshot.seq if snapshot is not None else 0
        events = [entry for entry in entries if entry.type is not None and entry.seq > after]
        if _follows(place, snapshot, events):
            found[place.entity] = _Found(snapshot=snapshot, events=events)
    return found


def _newest_events(connection: duckdb.DuckDBPyConnection, place: _Place, after_seq: int, limit: int) -> Sequence[Entry]:
    """At most `limit` events after `after_seq`, which is smaller than the last number."""
    count = place.last_seq - after_seq
    if count <= len(place.tail.events):
        positions = list(place.tail.events[len(place.tail.events) - count :][:limit])
        rows = fetch_all(connection, "entries_at", {"positions": positions})
        entries = sorted((Entry(*row) for row in rows), key=lambda entry: entry.position)
        if _are_run(place, entries, after_seq + 1, len(positions)):
            return entries
        log.warning("the tail of %s leads to other entries; they are looked for by its name", place.entity)
    values = {"entity": place.entity, "after_seq": after_seq, "first_position": place.first_position, "limit": limit}
    entries = [Entry(*row) for row in fetch_all(connection, "events_of_entity", values)]
    first_seq = entries[0].seq if entries else after_seq + 1
    if entries and not _are_run(place, entries, first_seq, min(limit, place.last_seq - first_seq + 1)):
        raise _damaged(place.entity)
    return entries


def _are_run(place: _Place, entries: Sequence[Entry], first_seq: int, count: int) -> bool:
    return len(entries) == count and all(
        entry.entity == place.entity and entry.type is not None and entry.seq == seq
        for seq, entry in enumerate(entries, first_seq)
    )


def _opened(seal: Seal, place: _Place | None, found: _Found | None) -> Loaded | Exception:
    if place is None:
        return Loaded(head=None, snapshot=None, events=[])
    if found is None:
        return _damaged(place.entity)
    try:
        return Loaded(
            head=_head(place.head, seal),
            snapshot=_snapshot(found.snapshot, seal) if found.snapshot is not None else None,
            events=[event_of(entry, seal) for entry in found.events],
        )
    except StoreUnavailableError as error:
        return error


def _damaged(entity: EntityId) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"The journal of {entity} has a gap.", "Run `masterbuilder doctor`, then restore a backup."
    )


def _snapshot(entry: Entry, seal: Seal) -> Snapshot:
    data = seal.open_json(entry.payload, snapshot_subject(entry.entity, entry.seq))
    return Snapshot(seq=entry.seq, version=entry.version, data=data)


def _head(row: tuple[Any, ...], seal: Seal) -> Head:
    entity, owner, last_seq, is_open, head, updated_at_us = row
    return Head(
        entity=entity,
        owner=owner,
        last_seq=last_seq,
        open=is_open,
        updated_at=_time(updated_at_us),
        data=seal.open_json(head, head_subject(entity)),
    )


def _time(microseconds: int) -> datetime:
    return _1970 + timedelta(microseconds=microseconds)

"""Journals to measure against: entities that were really written, and rows of others that nobody reads."""

import asyncio
from collections.abc import Sequence

from runtime.config import Secrets, Settings
from runtime.entity.host import Host, Limits
from runtime.ids import EntityId
from runtime.store.schema import DATABASE, connect
from runtime.store.store import Store
from runtime.testing.probes import Counter, Increment

WRITERS = 1_000


async def seed(settings: Settings, entities: Sequence[EntityId], events_each: int) -> None:
    """Writes counters as their host does, and lets go of the data folder again."""
    store = Store(settings, Secrets.load(settings.data_dir, {}))
    await store.open()
    host = Host(
        name="seed",
        incarnation="seed",
        journal=store.journal,
        factories={"counter": lambda entity: Counter()},
        limits=Limits.of(settings),
    )
    await host.acquire_all()
    writing = asyncio.Semaphore(WRITERS)

    async def write(entity: EntityId) -> None:
        async with writing:
            for number in range(events_each):
                await host.ask(entity, Increment(key=f"seed-{number}"))

    await asyncio.gather(*(write(entity) for entity in entities))
    await host.stop()
    await store.close()


def pad(settings: Settings, part: int, entries: int, entities: int) -> None:
    """Adds counters `known-...` and their events, in equal shares, as rows that nobody will read.

    They are as large and as incompressible as sealed ones, but made by SQL and not by the store, which must be closed.
    """
    each = max(1, entries // entities)
    with connect(settings.data_dir / DATABASE) as connection:
        (position,) = connection.execute("SELECT coalesce(max(position) + 1, 0) FROM entries").fetchall()[0]
        (number,) = connection.execute("SELECT coalesce(max(number) + 1, 0) FROM entities").fetchall()[0]
        values = {"part": part, "each": each, "entities": entities, "position": position, "number": number}
        connection.execute(_PAD_ENTRIES, {name: values[name] for name in ("part", "each", "entities", "position")})
        connection.execute(_PAD_ENTITIES, values)
        connection.execute("CHECKPOINT")


_PAD_ENTRIES = """
INSERT INTO entries
SELECT $position + i, 'counter:known-' || $part || '-' || i % $entities, i // $entities + 1, 1, 'counter.added', 1,
       false, unhex(sha256(i::VARCHAR) || md5(i::VARCHAR)) || unhex(sha256((-i)::VARCHAR)),
       TIMESTAMPTZ '2026-01-01 00:00:00+00'
FROM range($entities * $each) r(i)
"""

_PAD_ENTITIES = """
INSERT INTO entities
SELECT 'counter:known-' || $part || '-' || i, $number + i, 'counter', 'local-admin', $each, false,
       unhex(sha256(i::VARCHAR)), TIMESTAMPTZ '2026-01-01 00:00:00+00', $position + i,
       array_to_string(list_transform(range($each), lambda k: $position + k * $entities + i), ' ')
FROM range($entities) r(i)
"""

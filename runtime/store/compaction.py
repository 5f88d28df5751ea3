"""Makes the journal smaller: drops replaced snapshots, and events that their entity lets go with a snapshot.

It works piece by piece over ranges of positions, from old to new and each in a transaction, so that at any moment what
is left of an entity's events is a run up to its last one. Positions never change, so nothing else has to. The writer
goes on beside it: it only adds entries, and a bound that is out of date only lets go of less.
"""

import duckdb

from runtime.store.database import Database
from runtime.store.queries import fetch_all, sql

POSITIONS_PER_PIECE = 250_000
PIECES_PER_CHECKPOINT = 8


async def compact(database: Database) -> int:
    """How many events were dropped. Cut off, it may be begun again."""
    return await database.read_long(lambda connection: _compact(connection, database))


def _compact(connection: duckdb.DuckDBPyConnection, database: Database) -> int:
    connection.execute(sql("make_bounds"))
    first, end = fetch_all(connection, "position_range")[0]
    events, unfolded = 0, 0
    for number, start in enumerate(range(first, end, POSITIONS_PER_PIECE), 1):
        piece = {"from_position": start, "to_position": min(end, start + POSITIONS_PER_PIECE)}
        dropped = [fetch_all(connection, name, piece)[0][0] for name in ("drop_events", "drop_snapshots")]
        events += dropped[0]
        unfolded += sum(dropped)
        if unfolded and number % PIECES_PER_CHECKPOINT == 0:
            database.checkpoint()
            unfolded = 0
    if unfolded:
        database.checkpoint()
    return events

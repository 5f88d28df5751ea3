"""Carries out the erasure of projects whose period is over, round by round; cut off, the next round goes on.

A project says by an event that it is purged, and a snapshot that lets its events go says what may stay of it. The files
that those events name go first, then the events: so what is left to do is always still known. Files that another
journal names stay. Source: spec/builder.md §14.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

import duckdb

from runtime.files import remove_whole
from runtime.ids import BlobId, EntityId, ProjectId, UserId, project_entity, user_entity
from runtime.index.vector_file import VectorFile, vectors_file
from runtime.store.blobs import Blobs
from runtime.store.database import Database
from runtime.store.erasing import INDEX, blobs_of_entities, named_by_journals
from runtime.store.queries import sql

log = logging.getLogger(__name__)


class ProjectPurging:
    """Of one store. One round at a time."""

    def __init__(self, database: Database, blobs: Blobs, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._blobs = blobs
        self._clock = clock

    async def carry_on(self) -> int:
        """One round; how many projects it finished."""
        rows = await self._database.rows("projects_to_purge")
        for project, user in rows:
            await self._purge(ProjectId(project), UserId(user))
        if rows:
            with suppress(duckdb.Error):
                await asyncio.to_thread(self._database.checkpoint)  # The log held the old rows.
        return len(rows)

    async def _purge(self, project: ProjectId, user: UserId) -> None:
        entity, seal = project_entity(project), self._database.seal
        blobs = await self._database.read_long(lambda connection: blobs_of_entities(connection, seal, [entity]))
        if blobs:
            kept = await self._database.read_long(
                lambda connection: named_by_journals(connection, seal, blobs, leave_out=entity)
            )
            for blob in sorted(blobs - kept):
                await self._blobs.remove(BlobId(blob))
        index = self._database.data_dir / INDEX
        await asyncio.to_thread(remove_whole, index / f"{project}.index")
        await asyncio.to_thread(VectorFile(index / vectors_file(user), user, seal).forget, f"{project}.index")
        for each in (entity, user_entity(user)):
            await self._database.read_long(lambda connection, each=each: _drop(connection, each))  # type: ignore[misc]
        row = {"project": project, "user_id": user, "purged_at": self._clock(), "files": len(blobs)}
        await self._database.write(lambda tx: tx.execute("note_purged", **row))
        log.info("%s is purged; it named %d files", project, len(blobs))


def _drop(connection: duckdb.DuckDBPyConnection, entity: EntityId) -> Any:
    """The events that a snapshot of the entity let go, and the snapshots before it."""
    for name in ("drop_events_of_entity", "drop_snapshots_of_entity"):
        connection.execute(sql(name), {"entity": entity})

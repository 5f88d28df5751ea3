"""Carries out erasures, round by round: everything it must remember is in the database, so it may die at any moment.

A round ends what is still open of a person. When nothing is, one transaction erases the rows and lists the files that
their journal named; later rounds remove those which no other journal names. Source: spec/builder.md §14.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from runtime.entity.reminders import OWNER_LEFT
from runtime.errors import StoreUnavailableError
from runtime.files import remove_whole
from runtime.ids import BlobId, EntityId, UserId, kind_of, name_of
from runtime.index.vector_file import vectors_file
from runtime.ledger.person_book import PersonBook
from runtime.ledger.persons import PROJECT
from runtime.ledger.records import at_us
from runtime.store.appends import event_subject, snapshot_subject
from runtime.store.blobs import Blobs
from runtime.store.database import Database
from runtime.store.queries import fetch_all, rested_rows
from runtime.store.schema import BLOBS
from runtime.store.seal import Seal

log = logging.getLogger(__name__)

REST = timedelta(minutes=1)
"""Between the request and the erasure, so that what began before it has ended: messages, and tokens that doors know."""
PATIENCE = timedelta(hours=12)
"""After it nobody is waited for any more."""
LIBRARY = "library"
REPOSITORIES = "repositories"
INDEX = "index"
"""The folder of shards and of copies of repositories, in the data folder: see `_index` in `actors/entity_host.py`."""
ENTRIES_PER_SHARE = 250_000

_BLOB = re.compile(r"[0-9a-f]{64}")
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    pseudonym: UserId
    user: UserId | None
    """None once the rows are erased."""
    asked_at: datetime


class Erasing:
    """Of one store. One round at a time."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        persons: PersonBook,
        clock: Callable[[], datetime],
        rest: timedelta = REST,
    ) -> None:
        self.rest = rest
        self._database = database
        self._blobs = blobs
        self._persons = persons
        self._clock = clock

    async def carry_on(self) -> int:
        """One round; how many erasures it finished. What cannot be done now is for the next."""
        pending = [
            _Pending(pseudonym=pseudonym, user=user, asked_at=at_us(asked_us))
            for pseudonym, user, asked_us, _ in await self._database.rows("unfinished_erasures")
        ]
        for each in pending:
            if each.user is not None:
                await self._erase_rows(each, each.user)
        return await self._remove_files() if pending else 0

    async def _erase_rows(self, pending: _Pending, user: UserId) -> None:
        age = self._clock() - pending.asked_at
        forced = age >= PATIENCE
        is_ready = await self._persons.prepare_erasure(user, pending.pseudonym, forced=forced)
        if not is_ready or age < self.rest:
            return
        files = await self._database.read_long(lambda connection: _files_of(connection, self._database, user))
        there = [file for file in files if (self._database.data_dir / file).exists()]
        if await self._persons.erase(user, pending.pseudonym, there, forced=forced):
            log.info("%s is erased; %d files are left to remove", pending.pseudonym, len(there))
            with suppress(duckdb.Error):
                await asyncio.to_thread(self._database.checkpoint)  # The log held the old rows.

    async def _remove_files(self) -> int:
        """Of every erasure whose rows are erased. A file that another journal names is not theirs alone, and stays."""
        erased = [pseudonym for pseudonym, user, *_ in await self._database.rows("unfinished_erasures") if user is None]
        files = {
            name: [row[0] for row in await self._database.rows("erasure_files", {"pseudonym": name})] for name in erased
        }
        blobs = {file.rpartition("/")[2] for own in files.values() for file in own if file.startswith(f"{BLOBS}/")}
        named = set[str]()
        if blobs:
            seal = self._database.seal
            named = await self._database.read_long(lambda connection: named_by_journals(connection, seal, blobs))
        finished = 0
        for pseudonym, own in files.items():
            left = [file for file in own if not await self._remove(pseudonym, file, named)]
            if not left:
                await self._note_erased(pseudonym)
                finished += 1
        return finished

    async def _note_erased(self, pseudonym: str) -> None:
        await self._database.write(lambda tx: tx.execute("note_erased", pseudonym=pseudonym, at=self._clock()))

    async def _remove(self, pseudonym: str, file: str, named: set[str]) -> bool:
        folder, _, name = file.rpartition("/")
        if folder == INDEX:
            await asyncio.to_thread(remove_whole, self._database.data_dir / file)
        elif name not in named and not await self._blobs.remove(BlobId(name)):
            return False
        await self._database.write(lambda tx: tx.execute("drop_erasure_file", pseudonym=pseudonym, file=file))
        return True


def _files_of(connection: duckdb.DuckDBPyConnection, database: Database, user: UserId) -> Sequence[str]:
    """Everything on disk that the user's journals may name, by its path in the data folder."""
    rows = fetch_all(connection, "entities_of_owner", {"owner": user, "reminder": OWNER_LEFT})
    entities = [EntityId(entity) for entity, *_ in rows]
    blobs = blobs_of_entities(connection, database.seal, entities)
    shards = [f"{INDEX}/{name_of(entity)}.index" for entity in entities if kind_of(entity) == PROJECT]
    shards += [f"{INDEX}/library-{name_of(entity)}.index" for entity in entities if kind_of(entity) == LIBRARY]
    for entity in entities:
        if kind_of(entity) == REPOSITORIES:
            shards += _of_repositories(database.data_dir / INDEX, UserId(name_of(entity)))
    shards.append(f"{INDEX}/{vectors_file(user)}")
    return [*(f"{BLOBS}/{blob[:2]}/{blob}" for blob in sorted(blobs)), *shards]


def _of_repositories(folder: Path, user: UserId) -> Sequence[str]:
    """Index and copy of each, also of one deleted just now. Named by `runtime.repositories.entity.file_stem`."""
    name = re.compile(rf"(repository-{re.escape(user)}-{_UUID}\.(?:index|copy))(?:\.[0-9a-f]+\.tmp)?")
    found = {match[1] for file in folder.glob("repository-*") if (match := name.fullmatch(file.name))}
    return [f"{INDEX}/{file}" for file in sorted(found)]


def blobs_of_entities(connection: duckdb.DuckDBPyConnection, seal: Seal, entities: Iterable[EntityId]) -> set[str]:
    """Every blob that the journals of these entities may name."""
    blobs = set[str]()
    for entity in entities:
        for row in rested_rows(connection, "entries_of_entity", {"entity": entity}):
            blobs |= _blobs_in(_opened(seal, *row))
    return blobs


def named_by_journals(
    connection: duckdb.DuckDBPyConnection, seal: Seal, blobs: set[str], *, leave_out: EntityId | None = None
) -> set[str]:
    """Those of the blobs that some journal names, but for one that is left out. Reads and opens all of them."""
    count = fetch_all(connection, "entry_count")[0][0]
    shares = count // ENTRIES_PER_SHARE + 1
    named = set[str]()
    for share in range(shares):
        for entity, _, seq, _, type_, _, _, payload in rested_rows(
            connection, "entries_of_share", {"shares": shares, "share": share}
        ):
            if entity != leave_out:
                named |= _blobs_in(_opened(seal, entity, seq, type_, payload)) & blobs
    return named


def _opened(seal: Seal, entity: EntityId, seq: int, type_: str | None, payload: bytes) -> Any:
    subject = event_subject if type_ is not None else snapshot_subject
    try:
        return seal.open_json(payload, subject(entity, seq))
    except StoreUnavailableError as error:
        log.warning("%s", error)  # `doctor` tells of it; it names nothing that can be read.
        return None


def _blobs_in(data: Any) -> set[str]:
    """Every text in it that is a blob's id."""
    if isinstance(data, str):
        return {data} if _BLOB.fullmatch(data) else set()
    if isinstance(data, dict):
        data = list(data.values())
    return set[str]().union(*map(_blobs_in, data)) if isinstance(data, list) else set()

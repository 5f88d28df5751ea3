"""The journal on DuckDB: events, snapshots, heads, reminders, partition epochs, and the money that moves with them."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import duckdb

from runtime.entity.journal import Append, Claim, DueReminder, EventRecord, Head, Loaded, Ownership
from runtime.errors import BadInputError, StaleWriterError
from runtime.ids import PARTITION_COUNT, EntityId, UserId
from runtime.reports.facts import FactsOf, no_facts
from runtime.store import loads
from runtime.store.appends import SealedAppend, claim_partition, seal_append, wanted_by, wanted_by_claim
from runtime.store.database import Database
from runtime.store.queries import fetch_all
from runtime.store.transaction import Transaction
from runtime.store.writes import WEIGHT_OF_GROUP_MAX

log = logging.getLogger(__name__)

SEALED_ON_LOOP_MAX = 8
"""Larger batches are sealed in a thread, so that the loop goes on."""
LOADED_TOGETHER_MAX = 2_000
LINES_PER_SECOND_MAX = 5


def utc_now() -> datetime:
    return datetime.now(UTC)


class StoreJournal:
    """Implements `runtime.entity.journal.Journal`. A refused append writes nothing, not even its money."""

    def __init__(
        self, database: Database, clock: Callable[[], datetime] = utc_now, facts_of: FactsOf = no_facts
    ) -> None:
        self._database = database
        self._clock = clock
        self._facts_of = facts_of
        self._lines = _Lines()
        self.refused_stale = 0
        """Appends that the fence refused since it was made."""
        self._claims = 0
        self._made = secrets.token_hex(8)

    async def claim(self, claim: Claim) -> Mapping[int, int]:
        if not all(0 <= partition < PARTITION_COUNT for partition in claim.partitions):
            raise BadInputError(f"A partition is a number from 0 to {PARTITION_COUNT - 1}.")

        def act(tx: Transaction) -> dict[int, int]:
            epochs = {number: claim_partition(tx, claim, number, seen) for number, seen in claim.partitions.items()}
            return {number: epoch for number, epoch in epochs.items() if epoch is not None}

        try:
            (granted,) = await self._database.write_many([act], wanted_by_claim(claim))
        finally:
            self._claims += 1
        if isinstance(granted, Exception):
            raise granted
        return granted

    @property
    def ownerships_mark(self) -> str:
        """Another one after every claim: while it is the same, so are the ownerships that were read after it."""
        return f"{self._made}/{self._claims}"

    async def ownerships(self) -> Sequence[Ownership]:
        rows = await self._database.rows("ownerships")
        return [
            Ownership(partition=number, epoch=epoch, host=host, incarnation=incarnation)
            for number, epoch, host, incarnation in rows
        ]

    async def append(self, append: Append) -> int:
        (last_seq,) = await self.append_all([append])
        if isinstance(last_seq, Exception):
            raise last_seq
        return last_seq

    async def append_all(self, appends: Sequence[Append]) -> list[int | Exception]:
        """`append` for each, in order, each for itself: what `append` would return or raise. Their commits are shared.

        Raises StoreUnavailableError when too many wait: some or all were not written then.
        """
        parts = [appends[start : start + WEIGHT_OF_GROUP_MAX] for start in range(0, len(appends), WEIGHT_OF_GROUP_MAX)]
        outcomes = [outcome for part in await asyncio.gather(*map(self._append_part, parts)) for outcome in part]
        for outcome in outcomes:
            if isinstance(outcome, StaleWriterError):
                self.refused_stale += 1
                self._lines.warn("an append was refused by the fence: %s", outcome.message)
        return outcomes

    async def load(self, entity: EntityId) -> Loaded:
        """Raises StoreUnavailableError when its journal is damaged."""
        (loaded,) = await self.load_all([entity])
        if isinstance(loaded, Exception):
            raise loaded
        return loaded

    async def load_all(self, entities: Sequence[EntityId]) -> list[Loaded | Exception]:
        """`load` for each, in order: what it would return or raise. Their look-ups are shared."""
        loaded: list[Loaded | Exception] = []
        for start in range(0, len(entities), LOADED_TOGETHER_MAX):
            loaded += await self._load_part(entities[start : start + LOADED_TOGETHER_MAX])
        return loaded

    async def read(self, entity: EntityId, after_seq: int, limit: int = 10_000) -> Sequence[EventRecord]:
        seal = self._database.seal
        return await self._database.read(
            lambda connection: loads.read_events(connection, seal, entity, after_seq, limit)
        )

    async def head(self, entity: EntityId) -> Head | None:
        heads = await self._heads("head_of_entity", {"entity": entity})
        return heads[0] if heads else None

    async def heads(self, kind: str, owner: UserId | None) -> Sequence[Head]:
        return await self._heads("heads_of_kind", {"kind": kind, "owner": owner})

    async def open_entities(self, kinds: Sequence[str]) -> Sequence[EntityId]:
        def act(connection: duckdb.DuckDBPyConnection) -> Sequence[EntityId]:
            rows = fetch_all(connection, "open_entities", {"kinds": list(kinds)})
            return [EntityId(entity) for (entity,) in rows]

        return await self._database.read(act)

    async def due(self, partitions: Sequence[int], now: datetime, limit: int) -> Sequence[DueReminder]:
        seal = self._database.seal
        return await self._database.read(lambda connection: loads.read_due(connection, seal, partitions, now, limit))

    async def _append_part(self, appends: Sequence[Append]) -> list[int | Exception]:
        now = self._clock()
        if len(appends) <= SEALED_ON_LOOP_MAX:
            sealed = self._seal(appends, now)
        else:
            sealed = await asyncio.to_thread(self._seal, appends, now)
        ready = [one for one in sealed if isinstance(one, SealedAppend)]
        written = iter(await self._database.write_many([one.write for one in ready], wanted_by(ready)))
        return [next(written) if isinstance(one, SealedAppend) else one for one in sealed]

    def _seal(self, appends: Sequence[Append], now: datetime) -> list[SealedAppend | Exception]:
        sealed: list[SealedAppend | Exception] = []
        for append in appends:
            try:
                sealed.append(seal_append(append, self._database.seal, now, self._facts_of))
            except Exception as error:
                sealed.append(error)
        return sealed

    async def _load_part(self, entities: Sequence[EntityId]) -> list[Loaded | Exception]:
        return await self._database.read(lambda connection: loads.load_many(connection, self._database.seal, entities))

    async def _heads(self, query: str, values: Mapping[str, Any]) -> Sequence[Head]:
        return await self._database.read(
            lambda connection: loads.read_heads(connection, self._database.seal, query, values)
        )


class _Lines:
    """Keeps a storm out of the log: a few lines a second, and how many were left out."""

    def __init__(self) -> None:
        self._second = 0
        self._written = 0
        self._left_out = 0

    def warn(self, text: str, *args: object) -> None:
        second = int(time.monotonic())
        if second != self._second:
            if self._left_out:
                log.warning("%d more of these were not logged", self._left_out)
            self._second, self._written, self._left_out = second, 0, 0
        if self._written < LINES_PER_SECOND_MAX:
            self._written += 1
            log.warning(text, *args)
        else:
            self._left_out += 1

"""The store as its one owner holds it: a data folder's database, journal, ledger, reports and blobs."""

import asyncio
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from runtime.config import Secrets, Settings
from runtime.entity.vitals import StoreVitals
from runtime.ledger.books import Books
from runtime.ledger.money import UCREDITS_PER_CREDIT
from runtime.ledger.port import Mismatch
from runtime.payments.products import more_credits
from runtime.reports.facts import FactsOf, no_facts
from runtime.reports.reports import Reports
from runtime.store import backup, checking, compaction, schema
from runtime.store.blobs import Blobs
from runtime.store.database import Database, unavailable
from runtime.store.erasing import Erasing
from runtime.store.journal import StoreJournal, utc_now
from runtime.store.keeping import BackupReport, CompactReport
from runtime.store.purging import ProjectPurging


class Store:
    """Constructing touches nothing and cannot fail; `open` takes the data folder, `close` gives it back.

    While it is not open, everything answers StoreUnavailableError, and `open` may be tried again. Implements `Keeping`
    and the store's part of `Vitals`: of backups, checks, compactions and erasures one runs at a time, the others wait.
    """

    def __init__(
        self,
        settings: Settings,
        secrets: Secrets,
        clock: Callable[[], datetime] = utc_now,
        facts_of: FactsOf = no_facts,
    ) -> None:
        self._database = Database(settings.data_dir, secrets.data_encryption_key)
        self._blobs = Blobs(self._database)
        self._keeping = asyncio.Lock()
        self.journal = StoreJournal(self._database, clock, facts_of)
        self.books = Books(
            database=self._database,
            blobs=self._blobs,
            tariff=settings.tariff,
            initial_free_ucredits=settings.initial_free_ucredits,
            identity_salt=secrets.identity_salt,
            caps=settings.caps,
            referral_ucredits=settings.referral_bonus * UCREDITS_PER_CREDIT,
            more_credits=more_credits(settings.payments_enabled),
            payments_enabled=settings.payments_enabled,
            clock=clock,
            account_rules=settings.account_rules(secrets),
        )
        self.erasing = Erasing(self._database, self._blobs, self.books, clock)
        self.purging = ProjectPurging(self._database, self._blobs, clock)
        self.reports = Reports(
            database=self._database,
            tariff=settings.tariff,
            low_ucredits=settings.low_credit_threshold * UCREDITS_PER_CREDIT,
            clock=clock,
        )

    @property
    def cluster_id(self) -> str:
        """Names this data folder for ever; empty before the first `open`."""
        return self._database.cluster_id

    async def open(self) -> None:
        """Raises StoreUnavailableError: folder in use, not ours, wrong key, not writable, disk full."""
        await asyncio.to_thread(self._open)

    async def close(self) -> None:
        """Every answered write is on disk with or without it; the next `open` is faster after it."""
        await asyncio.to_thread(self._database.close)

    async def vitals(self) -> StoreVitals:
        database = self._database
        rows = await database.rows("journal_counts")
        entities, events = rows[0]
        return StoreVitals(
            pid=os.getpid(),
            entities=entities,
            events=events,
            queued=database.queued,
            groups=database.groups,
            writes=database.writes,
            refused_stale=self.journal.refused_stale,
            commit_p50_ms=round(database.commit_p50_s * 1e3, 3),
            checkpoint_max_ms=round(database.checkpoint_max_s * 1e3, 3),
            database_bytes=database.file_bytes,
            log_bytes=database.log_bytes,
        )

    async def check(self) -> Sequence[Mismatch]:
        """Everything that does not agree, in plain words: the ledger's sums, the journal, reminders and blobs."""
        async with self._keeping:
            seal = self._database.seal
            return [
                *await self.books.mismatches(),
                *await self._database.read_long(lambda connection: checking.check_journal(connection, seal)),
                *await asyncio.to_thread(self._blobs.check),
            ]

    async def backup(self, folder: Path, with_secrets: bool = False) -> BackupReport:
        """See `Keeping.backup`. Everything that was answered before is in it. `backup.restore` is the way back."""
        async with self._keeping:
            return await backup.backup(self._database, folder, with_secrets)

    async def compact(self) -> CompactReport:
        """See `Keeping.compact`. Writers and readers go on; cut off at any moment, nothing is lost."""
        async with self._keeping:
            before = self._database.file_bytes + self._database.log_bytes
            dropped = await compaction.compact(self._database)
            after = self._database.file_bytes + self._database.log_bytes
        return CompactReport(events_dropped=dropped, bytes_before=before, bytes_after=after)

    async def erase_due(self) -> int:
        """One round of every erasure, of a person's data or an old project's; how many it finished.

        Cut off, the next one goes on.
        """
        async with self._keeping:
            return await self.erasing.carry_on() + await self.purging.carry_on()

    def _open(self) -> None:
        self._database.open()
        try:
            self._blobs.clear_unfinished()
            schema.clear_unfinished(self._database.data_dir)
        except OSError as error:
            self._database.close()
            raise unavailable(error, self._database.data_dir) from error

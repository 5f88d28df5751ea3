"""The store as its one owner holds it: a data folder's database, journal, ledger and blobs."""

import asyncio
from collections.abc import Callable
from datetime import datetime

from runtime.config import Secrets, Settings
from runtime.ledger.books import Books
from runtime.store.blobs import Blobs
from runtime.store.database import Database, unavailable
from runtime.store.journal import StoreJournal, utc_now


class Store:
    """Constructing touches nothing and cannot fail; `open` takes the data folder, `close` gives it back.

    While it is not open, `journal` and `books` answer StoreUnavailableError, and `open` may be tried again.
    """

    def __init__(self, settings: Settings, secrets: Secrets, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = Database(settings.data_dir, secrets.data_encryption_key)
        self._blobs = Blobs(self._database)
        self.journal = StoreJournal(self._database, clock)
        self.books = Books(
            database=self._database,
            blobs=self._blobs,
            tariff=settings.tariff,
            initial_free_ucredits=settings.initial_free_ucredits,
            identity_salt=secrets.identity_salt,
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

    def _open(self) -> None:
        self._database.open()
        try:
            self._blobs.clear_unfinished()
        except OSError as error:
            self._database.close()
            raise unavailable(error, self._database.data_dir) from error

"""Keeps what is stored: through the service while it runs, and by the command itself while it does not."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from cluster.client import Client
from cluster.instance import Instance
from cluster.launch import running
from cluster.processes import owned
from cluster.wire import Backup, Checked, Compacted
from runtime.config import Secrets, Settings
from runtime.errors import BadInputError, ConflictError
from runtime.store.keeping import Keeping

_T = TypeVar("_T")


class Keeper:
    """One installation's, as `runtime.store.keeping.Keeping` says. Blocks as long as the work takes.

    Every method raises the service's errors while it runs. While it is down: ConflictError (nothing is stored yet),
    BadInputError (the secrets are missing), StoreUnavailableError (in use after all, not ours, wrong key, disk).
    """

    def __init__(self, settings: Settings, environment: Mapping[str, str], client: Client) -> None:
        self._settings = settings
        self._environment = environment
        self._client = client

    def service_runs(self) -> bool:
        """Looked at anew each time. What runs without its supervisor still owns the store, and counts."""
        instance = Instance(data_dir=self._settings.data_dir)
        return bool(self._environment.get("MASTERBUILDER_URL") or running(instance) or owned(instance))

    def check(self) -> Checked:
        if self.service_runs():
            return self._client.check()
        began_s = time.monotonic()
        mismatches = self._with_store(lambda keeping: keeping.check())
        return Checked(mismatches=mismatches, seconds=round(time.monotonic() - began_s, 3))

    def backup(self, folder: Path, with_secrets: bool) -> Backup:
        """`folder` is absolute; on the service's machine while it runs."""
        if self.service_runs():
            return self._client.backup(folder, with_secrets)
        return Backup(**asdict(self._with_store(lambda keeping: keeping.backup(folder, with_secrets))))

    def compact(self) -> Compacted:
        if self.service_runs():
            return self._client.compact()
        return Compacted(**asdict(self._with_store(lambda keeping: keeping.compact())))

    def open(self) -> None:
        """Opens the store and closes it again, which shows that it is whole and the secrets are its own."""
        asyncio.run(self._open_and_close())

    def has_store(self) -> bool:
        """Whether this data folder holds anything yet."""
        from runtime.store.schema import DATABASE

        return (self._settings.data_dir / DATABASE).exists()

    def _with_store(self, act: Callable[[Keeping], Awaitable[_T]]) -> _T:
        async def acting() -> _T:
            async with self._opened() as store:
                return await act(store)

        return asyncio.run(acting())

    async def _open_and_close(self) -> None:
        async with self._opened():
            pass

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Keeping]:
        """Opening replays the log and applies what a newer version adds, as `up` would."""
        from runtime.store.store import Store

        data_dir = self._settings.data_dir
        if not self.has_store():
            raise ConflictError(f"{data_dir} holds nothing yet.", "Start with `masterbuilder up`, or correct DATA_DIR.")
        if not (data_dir / "secrets.json").exists():
            # Secrets.load would make new ones, with which nothing here opens.
            raise BadInputError(
                f"{data_dir / 'secrets.json'} is missing, and without it nobody can read what is stored here.",
                "Put it back, from a backup with secrets if there is one.",
            )
        store = Store(self._settings, Secrets.load(data_dir, self._environment))
        await store.open()
        try:
            yield store
        finally:
            await store.close()

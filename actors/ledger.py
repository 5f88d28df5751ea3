"""The one writer of money and memory: the actor that owns the DuckDB file, and the handle everybody else holds."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from ray.actor import ActorHandle

from actors.handles import call, ensure
from runtime.config import Secrets, Settings
from runtime.entity.journal import Append, Claim, EventRecord, Head, Journal
from runtime.errors import StoreUnavailableError
from runtime.ids import BlobId, EntityId, ProjectId, UserId
from runtime.ledger.port import Balance, Hold, Identity, Ledger, Meter, Mismatch, NewToken, Receipt, SealedKey
from runtime.providers.calls import longest_call_s
from runtime.providers.catalogue import CATALOGUE
from runtime.store.store import Store

log = logging.getLogger(__name__)

NAME = "ledger"
SWEEP_EVERY_S = 30.0

P = ParamSpec("P")
T = TypeVar("T")


class LedgerActor:
    """Owns `<data_dir>/ledger.duckdb`, its lock, and the blobs beside it.

    Called by everybody. One runs, on the node with the disk. A restart loses nothing: what was answered was on disk.
    Calls in flight are repeated by their callers; ids make that safe. The constructor never raises, because an actor
    whose restarted constructor raises is gone for good: while the store cannot be opened, every call says why.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opening = asyncio.Lock()
        self._store: Store | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def perform(self, port: str, name: str, args: tuple[Any, ...]) -> Any:
        """One method of `Journal` or `Ledger`, by name: the handle below is the typed side of it."""
        store = self._store or await self._open()
        return await getattr(store.journal if port == "Journal" else store.books, name)(*args)

    async def _open(self) -> Store:
        async with self._opening:
            if self._store is None:
                try:
                    secrets = Secrets.load(self._settings.data_dir, os.environ)
                except OSError as error:
                    raise StoreUnavailableError(f"The data folder cannot be used: {error}.") from error
                store = Store(self._settings, secrets)
                await store.open()
                await store.books.set_prices(CATALOGUE.price_rows())
                self._store = store
                self._sweeper = asyncio.create_task(self._sweep(store))
            return self._store

    async def _sweep(self, store: Store) -> None:
        """Books calls whose caller died before it could say what they used."""
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            try:
                oldest = datetime.now(UTC) - timedelta(seconds=longest_call_s(self._settings))
                await store.books.expire_holds(oldest)
            except StoreUnavailableError as error:
                log.warning("holds were not swept: %s", error)


class LedgerHandle:
    """Implements `Journal` and `Ledger` from any process. Every message may be repeated, so restarts are waited out."""

    def __init__(self, actor: ActorHandle[Any]) -> None:
        self._actor = actor

    @classmethod
    def ensure(cls, settings: Settings) -> "LedgerHandle":
        return cls(ensure(NAME, LedgerActor, settings))

    async def claim(self, claim: Claim) -> Mapping[int, int]:
        return await self._ask(Journal.claim, claim)

    async def append(self, append: Append) -> int:
        return await self._ask(Journal.append, append)

    async def read(self, entity: EntityId, after_seq: int) -> Sequence[EventRecord]:
        return await self._ask(Journal.read, entity, after_seq)

    async def head(self, entity: EntityId) -> Head | None:
        return await self._ask(Journal.head, entity)

    async def heads(self, kind: str, owner: UserId | None) -> Sequence[Head]:
        return await self._ask(Journal.heads, kind, owner)

    async def open_entities(self, kinds: Sequence[str]) -> Sequence[EntityId]:
        return await self._ask(Journal.open_entities, kinds)

    async def open_wallet(self, user: UserId, is_admin: bool) -> Balance:
        return await self._ask(Ledger.open_wallet, user, is_admin)

    async def balance(self, user: UserId) -> Balance:
        return await self._ask(Ledger.balance, user)

    async def hold(self, hold: Hold) -> None:
        await self._ask(Ledger.hold, hold)

    async def meter(self, meter: Meter) -> None:
        await self._ask(Ledger.meter, meter)

    async def receipt(self, project: ProjectId) -> Receipt:
        return await self._ask(Ledger.receipt, project)

    async def add_token(self, token: NewToken) -> None:
        await self._ask(Ledger.add_token, token)

    async def revoke_token(self, token_sha256: str) -> None:
        await self._ask(Ledger.revoke_token, token_sha256)

    async def authenticate(self, token_sha256: str) -> Identity | None:
        return await self._ask(Ledger.authenticate, token_sha256)

    async def replace_keys(self, keys: Sequence[SealedKey]) -> None:
        await self._ask(Ledger.replace_keys, keys)

    async def keys(self, provider: str) -> Sequence[SealedKey]:
        return await self._ask(Ledger.keys, provider)

    async def put_blob(self, data: bytes) -> BlobId:
        return await self._ask(Ledger.put_blob, data)

    async def get_blob(self, blob: BlobId) -> bytes:
        return await self._ask(Ledger.get_blob, blob)

    async def mismatches(self) -> Sequence[Mismatch]:
        return await self._ask(Ledger.mismatches)

    async def _ask(self, method: Callable[Concatenate[Any, P], Awaitable[T]], *args: P.args, **_: P.kwargs) -> T:
        """Sends one method of a port, named by its own function, so that arguments and answer stay typed."""
        port, name = method.__qualname__.split(".")
        return cast("T", await call(lambda: self._actor.perform.remote(port, name, args), what="The ledger"))

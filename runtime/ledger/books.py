"""The ledger on the store: wallets, holds, receipts, tokens and sealed keys, written by one writer."""

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from runtime.errors import BadInputError, ConflictError
from runtime.ids import BlobId, CallId, ProjectId, UserId
from runtime.ledger import postings
from runtime.ledger.money import Tariff
from runtime.ledger.port import Balance, Hold, Identity, Meter, Mismatch, NewToken, Receipt, SealedKey
from runtime.ledger.receipt import receipt_of
from runtime.ledger.records import PriceRow, call_of
from runtime.store.blobs import Blobs
from runtime.store.database import Database
from runtime.store.journal import utc_now
from runtime.store.queries import sql
from runtime.store.transaction import DuplicateRowError, Kind, Transaction, first_as

_PRICES = Kind(name="price", query="select_price", read=first_as(PriceRow))


class Books:
    """Implements `runtime.ledger.port.Ledger`. The rules are in `postings`; here they meet the database."""

    def __init__(
        self,
        *,
        database: Database,
        blobs: Blobs,
        tariff: Tariff,
        initial_free_ucredits: int,
        identity_salt: bytes,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._tariff = tariff
        self._initial_free_ucredits = initial_free_ucredits
        self._identity_salt = identity_salt
        self._clock = clock

    async def open_wallet(self, user: UserId, is_admin: bool) -> Balance:
        identity = hmac.new(self._identity_salt, user.encode(), hashlib.sha256).hexdigest()
        grant = self._initial_free_ucredits
        return await self._database.write(
            lambda tx: postings.open_wallet(tx, user, is_admin, identity, grant, self._clock())
        )

    async def balance(self, user: UserId) -> Balance:
        free = await self._rows("select_account", {"key": postings.wallet(user)})
        held = await self._rows("select_account", {"key": postings.held(user)})
        held_ucredits = held[0][2] if held else 0
        return Balance(balance_ucredits=(free[0][2] if free else 0) + held_ucredits, held_ucredits=held_ucredits)

    async def hold(self, hold: Hold) -> None:
        try:
            await self._database.write(lambda tx: postings.hold(tx, hold, self._tariff, self._clock()))
        except DuplicateRowError:
            await self._database.write(lambda tx: postings.hold_again(tx, hold))

    async def meter(self, meter: Meter) -> None:
        await self._database.write(lambda tx: postings.meter(tx, meter, self._tariff, self._clock()))

    async def expire_holds(self, older_than: datetime) -> Sequence[CallId]:
        """Gives up calls without a run that are still held since before `older_than`: their process died.

        Their bound is booked as the platform's loss. Usage that arrives later still corrects it.
        """

        def act(tx: Transaction) -> list[CallId]:
            stale = [CallId(call) for (call,) in tx.committed("stale_calls_without_run", {"older_than": older_than})]
            return [call for call in stale if postings.expire_hold(tx, call, self._clock())]

        return await self._database.write(act)

    async def receipt(self, project: ProjectId) -> Receipt:
        rows = await self._rows("calls_of_project", {"project": project})
        return receipt_of(project, [call_of(row) for row in rows])

    async def add_token(self, token: NewToken) -> None:
        """Raises BadInputError for a task token without a run, or a hash that is none. Adding twice changes nothing."""
        if len(token.token_sha256) != 64 or not set(token.token_sha256) <= set("0123456789abcdef"):
            raise BadInputError("A token is known by its SHA-256: 64 hex digits.")
        if (token.kind == "task") != (token.run is not None):
            raise BadInputError("A task's token names its run; a user's token has none.")
        label = self._database.seal.close(token.label.encode(), f"token {token.token_sha256}")
        await self._database.write(
            lambda tx: tx.execute(
                "add_token",
                token_sha256=token.token_sha256,
                user_id=token.user,
                kind=token.kind,
                label=label,
                run=token.run,
                expires_at=token.expires_at,
                created_at=self._clock(),
            )
        )

    async def revoke_token(self, token_sha256: str) -> None:
        await self._database.write(
            lambda tx: tx.execute("revoke_token", token_sha256=token_sha256, revoked_at=self._clock())
        )

    async def authenticate(self, token_sha256: str) -> Identity | None:
        values = {"token_sha256": token_sha256, "at_time": self._clock()}
        for user, is_admin, kind, run in await self._rows("identity_of_token", values):
            return Identity(user=user, is_admin=is_admin and kind == "user", kind=kind, run=run)
        return None

    async def replace_keys(self, keys: Sequence[SealedKey]) -> None:
        def act(tx: Transaction) -> None:
            tx.execute("deactivate_keys")
            for key in keys:
                values = {"key_id": key.key_id, "provider": key.provider, "label": key.label, "sealed": key.sealed}
                tx.execute("add_key", **values, created_at=self._clock())
                tx.execute("activate_key", **values)

        await self._database.write(act)

    async def keys(self, provider: str) -> Sequence[SealedKey]:
        rows = await self._rows("keys_of_provider", {"provider": provider})
        return [SealedKey(key_id=row[0], provider=row[1], label=row[2], sealed=row[3]) for row in rows]

    async def set_prices(self, prices: Sequence[PriceRow]) -> None:
        """Makes these the prices in force. Older ones stay, inactive: calls refer to them.

        Raises ConflictError when a pricing id comes back with other figures; nothing changes then.
        """

        def act(tx: Transaction) -> None:
            for price in prices:
                known = tx.get(_PRICES, price.pricing_id)
                if known is not None and known != price:
                    raise ConflictError(f"{price.pricing_id} is another price already.", "Give it a new pricing id.")
                if known is None:
                    tx.insert("model_pricing", price)
                    tx.keep(_PRICES, price.pricing_id, price)
            tx.execute("activate_prices", pricing_ids=[price.pricing_id for price in prices])

        await self._database.write(act)

    async def put_blob(self, data: bytes) -> BlobId:
        return await self._blobs.put(data)

    async def get_blob(self, blob: BlobId) -> bytes:
        return await self._blobs.get(blob)

    async def mismatches(self) -> Sequence[Mismatch]:
        return [Mismatch(subject=subject, text=text) for subject, text in await self._rows("mismatches", {})]

    async def _rows(self, query: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        return await self._database.read(lambda connection: connection.execute(sql(query), dict(values)).fetchall())

"""Sealed provider keys on the store, what became of them, and when their seals were made anew."""

from collections.abc import Sequence
from typing import Any

from runtime.ledger.book import Book
from runtime.ledger.port import KeyRotation, KeyUse, SealedKey
from runtime.ledger.records import at_us
from runtime.store.transaction import Transaction


class KeyBook(Book):
    async def replace_keys(self, keys: Sequence[SealedKey]) -> None:
        def act(tx: Transaction) -> None:
            tx.execute("deactivate_keys")
            for key in keys:
                tx.execute("put_environment_key", **_key_values(key), created_at=self._clock())

        await self._database.write(act)

    async def keys(self, provider: str) -> Sequence[SealedKey]:
        return [_key(row) for row in await self._rows("keys_of_provider", {"provider": provider})]

    async def all_keys(self) -> Sequence[SealedKey]:
        return [_key(row) for row in await self._rows("all_keys", {})]

    async def add_key(self, key: SealedKey) -> None:
        await self._database.write(lambda tx: tx.execute("put_key", **_key_values(key), created_at=self._clock()))

    async def set_key_disabled(self, key_id: str, disabled: bool) -> bool:
        def act(tx: Transaction) -> bool:
            tx.execute("disable_key", key_id=key_id, disabled=disabled)
            return bool(tx.committed("select_key", {"key": key_id}))

        return await self._database.write(act)

    async def reseal_keys(self, keys: Sequence[SealedKey], old_master: str, new_master: str) -> None:
        def act(tx: Transaction) -> None:
            for key in keys:
                tx.execute("reseal_key", **_key_values(key))
            masters = {"old_master": old_master, "new_master": new_master}
            tx.execute("add_key_rotation", rotated_at=self._clock(), keys=len(keys), **masters)

        await self._database.write(act)

    async def key_rotations(self) -> Sequence[KeyRotation]:
        return [
            KeyRotation(rotated_at=at_us(rotated_us), keys=keys, old_master=old, new_master=new)
            for rotated_us, keys, old, new in await self._rows("key_rotations", {})
        ]

    async def key_uses(self) -> Sequence[KeyUse]:
        return [
            KeyUse(key_id=key_id, calls=calls, last_used_at=at_us(last_us))
            for key_id, calls, last_us in await self._rows("key_uses", {})
        ]


def _key(row: tuple[Any, ...]) -> SealedKey:
    *values, expires_us = row
    expires_at = at_us(expires_us) if expires_us is not None else None
    return SealedKey(**dict(zip(SealedKey.__dataclass_fields__, (*values, expires_at), strict=True)))


def _key_values(key: SealedKey) -> dict[str, Any]:
    return {name: getattr(key, name) for name in SealedKey.__dataclass_fields__}

"""What an operator does with provider keys: adds them, looks at them, switches them off, seals them anew."""

import asyncio
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from runtime.catalogue.endpoints import Endpoint
from runtime.errors import BadInputError
from runtime.keys.keys import key_id_of, reseal_key, seal_key
from runtime.keys.masters import MasterKeys, announce, fingerprint, settle
from runtime.keys.pool import KeyState
from runtime.ledger.port import KeyRotation, KeyUse, SealedKey

KeyCondition = Literal["usable", "cooling", "refused", "expired", "disabled", "withdrawn", "unreadable", "idle"]
"""`withdrawn`: it came from the environment and is no longer there. `unreadable`: no known master key opens it. `idle`:
its pool does not run, because nobody has asked for it yet."""

log = logging.getLogger(__name__)

SEALING_AGAIN_MAX = 5


class KeyStore(Protocol):
    """The part of the ledger that keeps sealed keys."""

    async def keys(self, provider: str) -> Sequence[SealedKey]:
        """Those that may be used."""

    async def all_keys(self) -> Sequence[SealedKey]: ...

    async def add_key(self, key: SealedKey) -> None: ...

    async def set_key_disabled(self, key_id: str, disabled: bool) -> bool: ...

    async def reseal_keys(self, keys: Sequence[SealedKey], old_master: str, new_master: str) -> None: ...

    async def key_rotations(self) -> Sequence[KeyRotation]: ...

    async def key_uses(self) -> Sequence[KeyUse]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFacts:
    """All that anybody is ever shown of a key."""

    key_id: str
    provider: str
    label: str
    state: KeyCondition
    limits: str
    cooling_s: float
    in_flight: int
    calls_last_minute: int
    tokens_last_minute: int
    calls: int
    last_used_at: datetime | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    keys: int
    unreadable: Sequence[str]
    """Keys that no known master key opens: they stay as they are."""
    old_master: str
    new_master: str
    is_from_environment: bool
    """The operator must start the service with the new one from now on."""


async def add_key(
    store: KeyStore,
    data_dir: Path,
    environment: Mapping[str, str],
    endpoint: Endpoint,
    label: str,
    limits: str,
    expires_at: datetime | None = None,
) -> str:
    """Its id. Adding the same key again replaces label, limits, expiry and address, and switches it on."""
    masters = await asyncio.to_thread(MasterKeys.load, data_dir, environment)
    await store.add_key(seal_key(endpoint, masters.newest, label, limits, expires_at))
    return key_id_of(endpoint.provider, endpoint.key)


async def rotate(store: KeyStore, data_dir: Path, environment: Mapping[str, str], new: bytes | None) -> Rotated:
    """Seals every key under another master key, a random one if none is given. At no moment is there a key that a
    process cannot open, old or new. Cut off, it is done by doing it again.

    Raises BadInputError where the master key comes from the environment and no new one is given.
    """
    masters = await asyncio.to_thread(MasterKeys.load, data_dir, environment)
    if masters.is_from_environment and new is None:
        raise BadInputError(
            "The master key comes from the environment, so the new one must be given.",
            "Run `openssl rand -base64 32`, and give it to `masterbuilder keys rotate --stdin`.",
        )
    new = new or os.urandom(32)
    if new in masters.all:
        raise BadInputError("This master key was in use before.", "Make a new one with `openssl rand -base64 32`.")
    await asyncio.to_thread(announce, data_dir, masters, new)
    old_master, new_master = fingerprint(masters.newest), fingerprint(new)
    done: dict[str, SealedKey] = {}
    unreadable: dict[str, SealedKey] = {}
    for _ in range(SEALING_AGAIN_MAX):
        # A key that is added meanwhile may still be sealed under the old one: until none is, we look again.
        changed = []
        for key in await store.all_keys():
            try:
                again = reseal_key(key, new, *masters.all)
            except BadInputError:
                unreadable[key.key_id] = key
                continue
            if again is not key:
                changed.append(again)
        if not changed and done:
            break
        await store.reseal_keys(changed, old_master, new_master)
        done |= {key.key_id: key for key in changed}
        if not changed:
            break
    if not masters.is_from_environment:
        await asyncio.to_thread(settle, data_dir, masters.started_with, new)
    if unreadable:
        log.warning("no known master key opens %s: import them again", ", ".join(sorted(unreadable)))
    return Rotated(
        keys=len(done),
        unreadable=sorted(unreadable),
        old_master=old_master,
        new_master=new_master,
        is_from_environment=masters.is_from_environment,
    )


def facts(
    keys: Sequence[SealedKey], uses: Sequence[KeyUse], states: Sequence[KeyState], running: Collection[str]
) -> list[KeyFacts]:
    """`running`: the providers whose pools answered; `states` are those of their keys."""
    used = {use.key_id: use for use in uses}
    live = {state.key_id: state for state in states}
    return [_facts(key, used.get(key.key_id), live.get(key.key_id), key.provider in running) for key in keys]


def _facts(key: SealedKey, use: KeyUse | None, state: KeyState | None, is_running: bool) -> KeyFacts:
    return KeyFacts(
        key_id=key.key_id,
        provider=key.provider,
        label=key.label,
        state=_state(key, state, is_running),
        limits=key.limits,
        cooling_s=round(state.cooling_s, 1) if state else 0.0,
        in_flight=state.in_flight if state else 0,
        calls_last_minute=state.calls_last_minute if state else 0,
        tokens_last_minute=state.tokens_last_minute if state else 0,
        calls=use.calls if use else 0,
        last_used_at=use.last_used_at if use else None,
        expires_at=key.expires_at,
    )


def _state(key: SealedKey, state: KeyState | None, is_running: bool) -> KeyCondition:
    if key.disabled:
        return "disabled"
    if not key.active:
        return "withdrawn"
    if state is None:
        return "unreadable" if is_running else "idle"
    if state.refused:
        return "refused"
    if state.expired:
        return "expired"
    return "cooling" if state.cooling_s > 0 else "usable"


class KeyOffice(Protocol):
    """What an operator does with keys. Implemented by `actors.key_pool.KeyPools`."""

    async def add(self, endpoint: Endpoint, label: str, limits: str, expires_at: datetime | None = None) -> str: ...

    async def set_disabled(self, key_id: str, disabled: bool) -> None: ...

    async def rotate(self, new_master: bytes | None) -> Rotated: ...

    async def listed(self) -> Sequence[KeyFacts]: ...

    async def rotations(self) -> Sequence[KeyRotation]: ...

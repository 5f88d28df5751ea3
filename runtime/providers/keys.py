"""Provider keys: sealed at rest, leased for one call, rested when limited, dropped when refused."""

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runtime.entity.vitals import KeyPoolVitals
from runtime.errors import BadInputError, ProviderError, UnavailableError
from runtime.ledger.port import SealedKey
from runtime.providers.catalogue import canonical_provider
from runtime.providers.endpoints import Endpoint, no_provider

NONCE_BYTES = 12
COOLDOWN_S_MIN = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderKey:
    """A key in the clear. Lives only in the key pool and in processes that call providers."""

    provider: str
    key_id: str
    base_url: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A key for one call."""

    provider: str
    key_id: str
    base_url: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyOutcome:
    """How the leased call went. `retry_after_s` is what the provider said with `rate_limited`, if anything."""

    kind: Literal["ok", "rate_limited", "key_refused", "failed"]
    retry_after_s: float | None = None


class KeyLeases(Protocol):
    """Implemented by `KeyRing` and by the handle of the actor that owns one."""

    async def lease(self, provider: str, wait_s: float) -> Lease:
        """A healthy key, waiting up to `wait_s` for one to cool down.

        Raises NoProviderError (no key), ProviderError (every key was refused), UnavailableError (all limited for
        longer than `wait_s`; says so at once, without waiting in vain).
        """

    async def report(self, lease: Lease, outcome: KeyOutcome) -> None:
        """Tells how the call went. Reporting twice, never, or for a key that is gone does no harm."""


@dataclass(slots=True, kw_only=True)
class _Slot:
    key: ProviderKey
    last_turn: int = 0
    cool_until_s: float = 0.0
    refused: bool = False


class KeyRing:
    """Keys of one or many providers: round robin over the healthy ones. A restart forgets cooldowns and refusals."""

    def __init__(
        self,
        keys: Iterable[ProviderKey],
        *,
        cooldown_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._slots = {key.key_id: _Slot(key=key) for key in keys}
        self._cooldown_s = cooldown_s
        self._clock = clock
        self._sleep = sleep
        self._turn = 0
        self._waiting = 0

    async def lease(self, provider: str, wait_s: float) -> Lease:
        provider = canonical_provider(provider)
        give_up_at = self._clock() + wait_s
        while True:
            slots = self._healthy(provider)
            soonest = min(slots, key=lambda slot: slot.cool_until_s)
            now = self._clock()
            if soonest.cool_until_s <= now:
                return self._take([slot for slot in slots if slot.cool_until_s <= now])
            if soonest.cool_until_s > give_up_at:
                raise UnavailableError(
                    f"Every key of {provider} is rate limited for another {soonest.cool_until_s - now:.0f} s, "
                    f"longer than the {wait_s:.0f} s a call may wait.",
                    "Try again later, add another key, or choose another provider's model.",
                )
            self._waiting += 1
            try:
                await self._sleep(soonest.cool_until_s - now)
            finally:
                self._waiting -= 1

    def vitals(self, provider: str) -> KeyPoolVitals:
        """Of one provider's keys; `waiting` counts the calls of all."""
        slots = [slot for slot in self._slots.values() if slot.key.provider == canonical_provider(provider)]
        now = self._clock()
        return KeyPoolVitals(
            provider=canonical_provider(provider),
            keys=len(slots),
            cooling=sum(slot.refused or slot.cool_until_s > now for slot in slots),
            waiting=self._waiting,
        )

    async def report(self, lease: Lease, outcome: KeyOutcome) -> None:
        slot = self._slots.get(lease.key_id)
        if slot is None:
            return
        if outcome.kind == "key_refused":
            slot.refused = True
        elif outcome.kind == "rate_limited":
            asked = self._cooldown_s if outcome.retry_after_s is None else outcome.retry_after_s
            slot.cool_until_s = max(slot.cool_until_s, self._clock() + max(asked, COOLDOWN_S_MIN))

    def _healthy(self, provider: str) -> list[_Slot]:
        slots = [slot for slot in self._slots.values() if slot.key.provider == provider]
        if not slots:
            raise no_provider(provider)
        healthy = [slot for slot in slots if not slot.refused]
        if not healthy:
            names = ", ".join(slot.key.key_id for slot in slots)
            raise ProviderError(
                f"{provider} refuses every key it was given ({names}).",
                f"Check the key in {provider}'s console, export the right one, and run `masterbuilder up`.",
            )
        return healthy

    def _take(self, free: list[_Slot]) -> Lease:
        slot = min(free, key=lambda slot: slot.last_turn)
        self._turn += 1
        slot.last_turn = self._turn
        key = slot.key
        return Lease(provider=key.provider, key_id=key.key_id, base_url=key.base_url, key=key.key)


def provider_key(endpoint: Endpoint) -> ProviderKey:
    return ProviderKey(
        provider=endpoint.provider,
        key_id=key_id_of(endpoint.provider, endpoint.key),
        base_url=endpoint.base_url,
        key=endpoint.key,
    )


def key_id_of(provider: str, key: str) -> str:
    """`openai-3f9a0c1d2e4b`: a fingerprint that names the key without telling it."""
    return f"{provider}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def seal_key(endpoint: Endpoint, encryption_key: bytes, label: str = "environment") -> SealedKey:
    """Key and address, in AES-256-GCM with a fresh nonce; bound to provider and fingerprint, so a sealed key cannot be
    passed off as another's. `encryption_key` is 32 bytes (API_KEY_ENCRYPTION_KEY)."""
    key_id = key_id_of(endpoint.provider, endpoint.key)
    nonce = os.urandom(NONCE_BYTES)
    plain = json.dumps({"key": endpoint.key, "base_url": endpoint.base_url}).encode()
    sealed = AESGCM(encryption_key).encrypt(nonce, plain, _bound_to(endpoint.provider, key_id))
    return SealedKey(key_id=key_id, provider=endpoint.provider, label=label, sealed=nonce + sealed)


def open_key(sealed: SealedKey, encryption_key: bytes) -> ProviderKey:
    """Raises BadInputError where the key was sealed with another encryption key, or was altered."""
    nonce, body = sealed.sealed[:NONCE_BYTES], sealed.sealed[NONCE_BYTES:]
    try:
        plain = json.loads(AESGCM(encryption_key).decrypt(nonce, body, _bound_to(sealed.provider, sealed.key_id)))
    except (InvalidTag, ValueError) as error:
        raise BadInputError(
            f"The stored key {sealed.key_id} cannot be opened with this API_KEY_ENCRYPTION_KEY.",
            "Start with the encryption key it was stored under, or export the provider's key again.",
        ) from error
    return ProviderKey(provider=sealed.provider, key_id=sealed.key_id, base_url=plain["base_url"], key=plain["key"])


def _bound_to(provider: str, key_id: str) -> bytes:
    return f"{provider}|{key_id}".encode()

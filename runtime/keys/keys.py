"""Provider keys: sealed at rest, leased for one call. `runtime.keys.pool` says which may be used when."""

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runtime.catalogue.endpoints import Endpoint
from runtime.errors import BadInputError
from runtime.ids import UserId
from runtime.keys.quotas import KeyQuotas, parse_quotas
from runtime.ledger.port import SealedKey

NONCE_BYTES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderKey:
    """A key in the clear. Lives only in the key pool and in processes that call providers."""

    provider: str
    key_id: str
    base_url: str
    key: str = field(repr=False)
    quotas: KeyQuotas = KeyQuotas()
    expires_at: datetime | None = None

    def lease(self, wish: "Wish", permit: int) -> "Lease":
        return Lease(
            provider=self.provider,
            model=wish.model,
            key_id=self.key_id,
            base_url=self.base_url,
            key=self.key,
            tokens_max=wish.tokens_max,
            permit=permit,
        )


Priority = Literal["interactive", "background"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Which call a key is wanted for. `tokens_max` is the most it can use, input and output together."""

    provider: str
    model: str
    user: UserId
    priority: Priority = "interactive"
    tokens_max: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A key for one call of one model. `permit` is for whoever leased it out, to know it by."""

    provider: str
    model: str
    key_id: str
    base_url: str
    key: str = field(repr=False)
    tokens_max: int = 0
    permit: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLimits:
    """What a provider's headers say of a key and model; None where they say nothing.

    `*_left` were left when the answer was sent, `*_reset_s` is when the count starts again, in seconds from then.
    """

    requests_per_minute: int | None = None
    requests_left: int | None = None
    requests_reset_s: float | None = None
    tokens_per_minute: int | None = None
    tokens_left: int | None = None
    tokens_reset_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyOutcome:
    """How the leased call went. `unused`: it never left us. `retry_after_s` is what the provider asked for.

    `tokens` is what it used, where that is known. `heard_s_ago` is how long before the report the provider gave its
    first sign (status line, first byte): by then the call had arrived, so a long call frees its place in the key's
    minute earlier. None: it may have arrived as late as now.
    """

    kind: Literal["ok", "rate_limited", "key_refused", "failed", "unused"]
    retry_after_s: float | None = None
    tokens: int | None = None
    limits: KeyLimits | None = None
    heard_s_ago: float | None = None


class KeyLeases(Protocol):
    """Implemented by whoever hands out keys to the calls of one process."""

    async def lease(self, wish: Wish, wait_s: float) -> Lease:
        """A healthy key that may be used at once, waiting up to `wait_s` for one.

        Raises NoProviderError (no key), ProviderError (every key was refused), UnavailableError (none can be free
        within `wait_s`; says so at once, without waiting in vain). Cancelled, it takes nothing.
        """

    def report(self, lease: Lease, outcome: KeyOutcome) -> None:
        """Tells how the call went, once it is over; never blocks and never fails.

        A lease that is never reported counts as used by its latest possible end.
        """


def provider_key(endpoint: Endpoint, limits: str = "") -> ProviderKey:
    """`limits` as in `runtime.keys.quotas.parse_quotas`. Raises BadInputError for other ones."""
    return ProviderKey(
        provider=endpoint.provider,
        key_id=key_id_of(endpoint.provider, endpoint.key),
        base_url=endpoint.base_url,
        key=endpoint.key,
        quotas=parse_quotas(limits),
    )


def key_id_of(provider: str, key: str) -> str:
    """`openai-3f9a0c1d2e4b`: a fingerprint that names the key without telling it."""
    return f"{provider}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def seal_key(
    endpoint: Endpoint,
    master: bytes,
    label: str = "environment",
    limits: str = "",
    expires_at: datetime | None = None,
) -> SealedKey:
    """Key and address, in AES-256-GCM with a fresh nonce; bound to provider and fingerprint, so a sealed key cannot be
    passed off as another's. `master` is 32 bytes (API_KEY_ENCRYPTION_KEY).

    Raises BadInputError for limits that cannot be read.
    """
    parse_quotas(limits)
    key_id = key_id_of(endpoint.provider, endpoint.key)
    plain = json.dumps({"key": endpoint.key, "base_url": endpoint.base_url}).encode()
    sealed = _sealed(plain, master, endpoint.provider, key_id)
    return SealedKey(
        key_id=key_id, provider=endpoint.provider, label=label, sealed=sealed, limits=limits, expires_at=expires_at
    )


def open_key(sealed: SealedKey, *masters: bytes) -> ProviderKey:
    """With the first master key that fits. Raises BadInputError where none does, or the sealed key was altered."""
    plain = json.loads(_opened(sealed, masters))
    return ProviderKey(
        provider=sealed.provider,
        key_id=sealed.key_id,
        base_url=plain["base_url"],
        key=plain["key"],
        quotas=parse_quotas(sealed.limits),
        expires_at=sealed.expires_at,
    )


def reseal_key(sealed: SealedKey, master: bytes, *old_masters: bytes) -> SealedKey:
    """The same under `master`; itself when it is so already. Raises like `open_key`."""
    try:
        _opened(sealed, [master])
    except BadInputError:
        plain = _opened(sealed, old_masters)
        return replace(sealed, sealed=_sealed(plain, master, sealed.provider, sealed.key_id))
    return sealed


def _sealed(plain: bytes, master: bytes, provider: str, key_id: str) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(master).encrypt(nonce, plain, _bound_to(provider, key_id))


def _opened(sealed: SealedKey, masters: Iterable[bytes]) -> bytes:
    nonce, body = sealed.sealed[:NONCE_BYTES], sealed.sealed[NONCE_BYTES:]
    for master in masters:
        with suppress(InvalidTag, ValueError):
            return AESGCM(master).decrypt(nonce, body, _bound_to(sealed.provider, sealed.key_id))
    raise BadInputError(
        f"The stored key {sealed.key_id} cannot be opened with this API_KEY_ENCRYPTION_KEY.",
        "Start with the encryption key it was stored under, or export the provider's key again.",
    )


def _bound_to(provider: str, key_id: str) -> bytes:
    return f"{provider}|{key_id}".encode()

"""Sealing: what is written to disk about people is unreadable and unalterable without the key."""

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runtime.errors import StoreUnavailableError

NONCE_BYTES = 12
MARK_BYTES = 16

_JSON = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_FROM_JSON = json.JSONDecoder()


class Seal:
    """AES-256-GCM with a random nonce before the ciphertext. Source: NIST SP 800-38D (2^32 seals a key at most).

    `subject` says what the bytes belong to: sealed bytes moved to another subject do not open.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._marking = hmac.digest(key, b"marks", "sha256")

    def mark(self, text: bytes) -> bytes:
        """16 bytes, always the same for a text, that tell nothing of it without the key."""
        return hashlib.blake2b(text, digest_size=MARK_BYTES, key=self._marking).digest()

    def close(self, plain: bytes, subject: str) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, subject.encode())

    def open(self, sealed: bytes, subject: str) -> bytes:
        """Raises StoreUnavailableError when the bytes were altered, moved, or sealed with another key."""
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], subject.encode())
        except (InvalidTag, ValueError) as error:
            raise StoreUnavailableError(
                f"What is stored for {subject} does not open with this key: it is damaged or belongs elsewhere.",
                "Restore a backup, or give back the data folder's own secrets.json.",
            ) from error

    def close_json(self, data: Mapping[str, Any], subject: str) -> bytes:
        return self.close(_JSON.encode(data).encode(), subject)

    def open_json(self, sealed: bytes, subject: str) -> dict[str, Any]:
        loaded: dict[str, Any] = _FROM_JSON.raw_decode(self.open(sealed, subject).decode())[0]
        return loaded

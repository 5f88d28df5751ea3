"""The keys that seal the provider keys, and their exchange while everything runs.

The master key is API_KEY_ENCRYPTION_KEY, or else the one in secrets.json. A rotation writes the new one beside them,
sealed under the old (`master_keys.json`), before anything is sealed with it: whoever starts with either can open what
either sealed. Afterwards the new one stands in secrets.json; or, where the old one came from the environment, the link
from old to new stays until the service is started with the new one.
"""

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runtime.config import Secrets, key_of
from runtime.errors import BadInputError
from runtime.files import sync, write_beside

VARIABLE = "API_KEY_ENCRYPTION_KEY"
LINK_FILE = "master_keys.json"
SECRETS_FILE = "secrets.json"
NEWEST, OLD = "api_key_encryption_key", "api_key_encryption_key_old"
NONCE_BYTES = 12
_PURPOSE = b"masterbuilder master key"


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterKeys:
    newest: bytes
    """Seals."""
    older: tuple[bytes, ...]
    """Open what was sealed before."""
    started_with: bytes
    is_from_environment: bool

    def __repr__(self) -> str:
        return f"MasterKeys({fingerprint(self.newest)})"

    @property
    def all(self) -> tuple[bytes, ...]:
        return (self.newest, *self.older)

    @classmethod
    def load(cls, data_dir: Path, environment: Mapping[str, str]) -> Self:
        """Blocks for files. Raises BadInputError for a master key that is none."""
        started_with = Secrets.load(data_dir, environment).api_key_encryption_key
        masters = [started_with]
        for link in _links(data_dir, started_with):
            masters.insert(0, _follow(link, masters[0]))
        if old := json.loads((data_dir / SECRETS_FILE).read_text()).get(OLD):
            masters.append(base64.b64decode(old))
        return cls(
            newest=masters[0],
            older=tuple(masters[1:]),
            started_with=started_with,
            is_from_environment=bool(environment.get(VARIABLE)),
        )


def fingerprint(master: bytes) -> str:
    """Tells master keys apart without telling them."""
    return hashlib.sha256(_PURPOSE + master).hexdigest()[:8]


def parse_master(text: str) -> bytes:
    """32 bytes in base64. Raises BadInputError."""
    master = key_of(text.strip())
    if master is None:
        raise BadInputError(
            "This is not a master key: it must be 32 random bytes in base64.",
            "Make one with `openssl rand -base64 32`.",
        )
    return master


def announce(data_dir: Path, masters: MasterKeys, new: bytes) -> None:
    """From now on, whoever knows the newest of `masters` knows `new`. Blocks for files."""
    nonce = os.urandom(NONCE_BYTES)
    sealed = nonce + AESGCM(masters.newest).encrypt(nonce, new, _PURPOSE)
    link = {
        "from": fingerprint(masters.newest),
        "to": fingerprint(new),
        "sealed": base64.b64encode(sealed).decode(),
    }
    _replace_private(data_dir / LINK_FILE, {"links": [*_links(data_dir, masters.started_with), link]})


def settle(data_dir: Path, old: bytes, new: bytes) -> None:
    """Makes `new` the one in secrets.json, and keeps `old` beside it for what may have been sealed meanwhile.

    Blocks for files.
    """
    path = data_dir / SECRETS_FILE
    kept = json.loads(path.read_text())
    kept |= {NEWEST: base64.b64encode(new).decode(), OLD: base64.b64encode(old).decode()}
    _replace_private(path, kept)
    (data_dir / LINK_FILE).unlink(missing_ok=True)


def _links(data_dir: Path, started_with: bytes) -> list[dict[str, str]]:
    """Those that lead on from the master key the service was started with, in order."""
    path = data_dir / LINK_FILE
    try:
        links: list[dict[str, str]] = json.loads(path.read_text())["links"]
        ends = [link["from"] for link in links] + [link["to"] for link in links[-1:]]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"{path} cannot be read.", "Restore it from a backup.") from error
    name = fingerprint(started_with)
    if name == ends[-1]:
        path.unlink(missing_ok=True)
        return []
    return links[ends.index(name) :] if name in ends else []


def _follow(link: dict[str, str], master: bytes) -> bytes:
    sealed = base64.b64decode(link["sealed"])
    try:
        return AESGCM(master).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _PURPOSE)
    except (InvalidTag, ValueError) as error:
        raise BadInputError(f"{LINK_FILE} was altered.", "Restore it from a backup.") from error


def _replace_private(path: Path, document: dict[str, Any]) -> None:
    """On disk when it returns."""
    os.replace(write_beside(path, json.dumps(document, indent=2)), path)
    sync(path.parent)

"""Bearer tokens: random, shown once, known to the ledger by their SHA-256 only."""

import hashlib
import secrets
from datetime import timedelta


def new_token() -> str:
    """For a person's tools."""
    return f"mb-{secrets.token_urlsafe(32)}"


def new_task_token() -> str:
    """Pays for one run of one task, and does nothing else."""
    return f"mbt-{secrets.token_urlsafe(32)}"


def token_hash(token: str) -> str:
    """What the ledger knows a token by: 64 hex digits."""
    return hashlib.sha256(token.encode()).hexdigest()


LINK_LIFE = timedelta(minutes=5)
"""How long a link that logs somebody in is good."""


def new_link_token() -> str:
    """Logs one person in, once, within minutes."""
    return f"mbl-{secrets.token_urlsafe(32)}"


def new_invite_code() -> str:
    """Source: spec/assistant.md §14: 16 random bytes, URL-safe."""
    return secrets.token_urlsafe(16)

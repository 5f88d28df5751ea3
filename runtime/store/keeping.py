"""How a store is kept: checked, backed up and made smaller while it works."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runtime.ledger.port import Mismatch


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupReport:
    """What a backup holds. It is whole and on disk when there is a report."""

    folder: Path
    cluster_id: str
    entities: int
    events: int
    blobs: int
    bytes: int
    """Size of everything in the folder."""
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactReport:
    events_dropped: int
    """Events that a snapshot stands for and nobody reads."""
    bytes_before: int
    """Size of database and log together."""
    bytes_after: int


class Keeping(Protocol):
    """Implemented by the store, and by the handle of the actor that owns it. Each may run beside any other work."""

    async def check(self) -> Sequence[Mismatch]:
        """Everything in journal, ledger and blobs that does not agree; empty when all is right. Changes nothing."""

    async def backup(self, folder: Path, with_secrets: bool) -> BackupReport:
        """Writes one moment of the store into `folder` on the store's own disk: absolute, and new or empty.

        `with_secrets` adds the secrets file, without which nobody can read the rest: keep such a backup as safe as
        the data folder itself.
        Raises BadInputError (the folder is not absolute, or not usable), ConflictError (it is not empty),
        StoreUnavailableError (the disk fails or is full); what was begun is removed then.
        """

    async def compact(self) -> CompactReport:
        """Drops events that snapshots stand for; their space is used again. Repeating it changes nothing more."""

"""The lock that makes one process the owner of a data folder."""

import fcntl
import os
from pathlib import Path

from runtime.errors import StoreUnavailableError


class OwnerLock:
    """`flock` on a file of its own. DuckDB's fcntl lock falls as soon as its owner opens the file again by path;
    this one falls only when its owner closes it or dies.
    """

    def __init__(self, path: Path) -> None:
        """Takes the lock or raises StoreUnavailableError at once."""
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(self._descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._descriptor)
            raise StoreUnavailableError(
                f"{path.parent} is in use: process {owner} owns its ledger.",
                "Stop that process (`masterbuilder down`), or use another DATA_DIR.",
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def is_held(self) -> bool:
        """False when somebody removed the file: whoever comes next makes another, and locks that."""
        try:
            return is_at(self._path, os.fstat(self._descriptor))
        except OSError:
            return False

    def release(self) -> None:
        os.close(self._descriptor)


def is_at(path: Path, file: os.stat_result) -> bool:
    """Whether the path still names this very file."""
    try:
        return os.path.samestat(os.stat(path), file)
    except OSError:  # Whatever hides it, nothing can be promised about it.
        return False

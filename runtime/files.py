"""Small private files that are there whole or not at all, also after the power failed."""

import glob
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path


def write_beside(path: Path, text: str) -> Path:
    """A new file next to `path`, mode 0600 and on disk, to be put in its place. Raises OSError."""
    beside = path.with_suffix(f".{secrets.token_hex(8)}.tmp")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return beside


def remove(path: Path) -> None:
    """Removes a file for good, if it is there. Raises OSError."""
    path.unlink(missing_ok=True)
    if path.parent.exists():
        sync(path.parent)


def remove_whole(path: Path) -> None:
    """With what killed writers of it left beside it. Raises OSError."""
    remove_unfinished(path)
    remove(journal_of(path))
    remove(path)


def journal_of(path: Path) -> Path:
    """What SQLite has beside a file while it writes, and a process that is killed leaves there."""
    return path.with_name(f"{path.name}-journal")


def remove_unfinished(path: Path, older_than_s: float = 0.0) -> None:
    """What writers of `path` that were killed left beside it. Raises OSError."""
    for beside in path.parent.glob(f"{glob.escape(path.name)}.*.tmp"):
        with suppress(FileNotFoundError):
            if time.time() - beside.stat().st_mtime >= older_than_s:
                beside.unlink()


def sync(path: Path) -> None:
    """Forces a file's bytes, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

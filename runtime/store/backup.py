"""Backups: one moment of the store in a folder of its own, and the way back.

    <folder>/manifest.json     what the backup is, and the SHA-256 of every file, its own as well
    <folder>/ledger.duckdb     a copy by the database itself, made in one transaction while writes go on
    <folder>/blobs/ab/...      the sealed files as they were at that moment
    <folder>/secrets.json      only when asked for: without it nobody can read the rest

The live database's file is never opened here: its lock would fall. A backup, and a restored data folder, appear whole
or not at all.
"""

import errno
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runtime.errors import BadInputError, ConflictError
from runtime.files import sync
from runtime.store.database import Database, unavailable
from runtime.store.keeping import BackupReport
from runtime.store.lock import OwnerLock
from runtime.store.queries import fetch_all, sql
from runtime.store.schema import BLOBS, COPIES, DATABASE, RESTORING, SECRETS, quoted

MANIFEST = "manifest.json"
_NO_SHA256 = "0" * 64

_FILE = re.compile(rf"{re.escape(DATABASE)}|{re.escape(SECRETS)}|{BLOBS}/[0-9a-f]{{2}}/[0-9a-f]{{64}}")


class BackedUpFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sha256: str
    bytes: int


class Manifest(BaseModel):
    """What `manifest.json` says."""

    model_config = ConfigDict(extra="forbid")

    format: int = Field(ge=1, le=2)
    sha256: str = ""
    """Of the manifest's own text, with zeros in this place. Format 1 has none."""
    cluster_id: str
    made_at: datetime
    entities: int
    events: int
    files: Mapping[str, BackedUpFile]
    """By path within the backup, with slashes."""

    @property
    def blobs(self) -> int:
        return sum(name.startswith(f"{BLOBS}/") for name in self.files)


async def backup(database: Database, folder: Path, with_secrets: bool) -> BackupReport:
    """See `Keeping.backup`. One at a time."""
    return await database.read_long(lambda connection: _back_up(connection, database, folder, with_secrets))


def restore(backup: Path, data_dir: Path) -> BackupReport:
    """Fills a data folder from a backup, after every file of it was found to be what its manifest says. Blocks.

    Cut off, it may be run again; until it has finished the folder cannot be opened. A `secrets.json` that the folder
    has already is kept. Raises BadInputError (not a whole backup), ConflictError (the folder holds data, or other
    secrets), StoreUnavailableError (the folder is in use, or its disk fails).
    """
    begun = time.monotonic()
    manifest = _verified(backup)
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = OwnerLock(data_dir / "ledger.lock")
        try:
            _fill(data_dir, backup, manifest)
        finally:
            lock.release()
    except OSError as error:
        raise unavailable(error, data_dir) from error
    return _report(manifest, data_dir, begun)


def _back_up(
    connection: duckdb.DuckDBPyConnection, database: Database, folder: Path, with_secrets: bool
) -> BackupReport:
    begun = time.monotonic()
    _check_target(folder)
    unfinished = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.unfinished")
    copies = database.data_dir / COPIES
    try:
        shutil.rmtree(copies, ignore_errors=True)
        copies.mkdir(mode=0o700)
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished.mkdir(mode=0o700)
        made_at = datetime.now(UTC)
        blobs, entities, events = _copy_database(connection, database, copies / DATABASE)
        _take(copies / DATABASE, unfinished / DATABASE, os.rename)
        for blob in blobs:
            _take(database.data_dir / blob, unfinished / blob, os.link)
        if with_secrets:
            _copy(database.data_dir / SECRETS, unfinished / SECRETS)
        manifest = Manifest(
            format=2,
            sha256=_NO_SHA256,
            cluster_id=database.cluster_id,
            made_at=made_at,
            entities=entities,
            events=events,
            files={path.relative_to(unfinished).as_posix(): _described(path) for path in _files(unfinished)},
        )
        text = manifest.model_dump_json(indent=1)
        (unfinished / MANIFEST).write_text(text.replace(_NO_SHA256, _sha256(text.encode()), 1))
        for made in (unfinished / DATABASE, unfinished / MANIFEST):
            made.chmod(0o600)  # The folder may be copied to where others can look into it.
        _sync_all(unfinished)
        unfinished.rename(folder)
        sync(folder.parent)
    except (OSError, duckdb.Error) as error:
        raise unavailable(error, folder.parent) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.rmtree(copies, ignore_errors=True)
    return _report(manifest, folder, begun)


def _check_target(folder: Path) -> None:
    if not folder.is_absolute():
        raise BadInputError(f"{folder} is not an absolute path.", "Name the folder from the root of the disk.")
    if folder.exists() and not folder.is_dir():
        raise BadInputError(f"{folder} is not a folder.", "Name a new or empty folder.")
    if folder.exists() and any(folder.iterdir()):
        raise ConflictError(f"{folder} is not empty.", "Name a new or empty folder.")


def _copy_database(
    connection: duckdb.DuckDBPyConnection, database: Database, target: Path
) -> tuple[Sequence[Path], int, int]:
    """Blobs, and the counts of entities and events, as they are in the copy. The copy is a file without a log."""
    connection.execute(sql("attach_copy").replace("$path", quoted(str(target))))
    try:
        connection.execute("BEGIN")
        entities, events = fetch_all(connection, "journal_counts")[0]  # From here on it is one moment.
        # A blob is there before the event that names it, so everything that the copy can name is in this list.
        blobs = [path.relative_to(database.data_dir) for path in _files(database.data_dir / BLOBS)]
        connection.execute(sql("copy_database"))
        connection.execute("COMMIT")
        connection.execute(sql("fold_copy"))
    except BaseException:
        with suppress(duckdb.Error):
            connection.execute("ROLLBACK")
        raise
    finally:
        with suppress(duckdb.Error):
            connection.execute(sql("detach_copy"))
    if target.with_name(f"{DATABASE}.wal").exists():
        raise OSError(errno.EIO, "the copy was not closed")
    return [blob for blob in blobs if _FILE.fullmatch(blob.as_posix())], entities, events


def _verified(backup: Path) -> Manifest:
    """The manifest, if every file is there as it says, and no other."""
    try:
        text = (backup / MANIFEST).read_bytes()
        manifest = Manifest.model_validate_json(text)
        there = {path.relative_to(backup).as_posix(): path for path in _files(backup)}
        del there[MANIFEST]
        wrong = [] if _is_as_written(text, manifest) else [MANIFEST]
        wrong += manifest.files.keys() ^ there.keys()
        wrong += [name for name in manifest.files if not _FILE.fullmatch(name)]
        wrong = wrong or [name for name, path in there.items() if _described(path) != manifest.files[name]]
    except (OSError, ValidationError) as error:
        raise BadInputError(
            f"{backup} is not a whole backup: {MANIFEST} cannot be read.", "Name the folder that `backup` filled."
        ) from error
    if wrong or DATABASE not in manifest.files:
        what = ", ".join(sorted(wrong)[:3]) or DATABASE
        raise BadInputError(
            f"{backup} is not a whole backup: {what} is missing, damaged, or does not belong to it.",
            "Use another backup.",
        )
    return manifest


def _is_as_written(text: bytes, manifest: Manifest) -> bool:
    if manifest.format == 1:
        return not manifest.sha256
    return manifest.sha256 == _sha256(text.replace(manifest.sha256.encode(), _NO_SHA256.encode(), 1))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _fill(data_dir: Path, backup: Path, manifest: Manifest) -> None:
    staged = data_dir / RESTORING
    was_cut_off = staged.exists()
    holds_data = (data_dir / DATABASE).exists() or (data_dir / f"{DATABASE}.wal").exists()
    if holds_data or (not was_cut_off and _files(data_dir / BLOBS)):
        raise ConflictError(f"{data_dir} holds data already.", "Restore into a new or empty DATA_DIR.")
    own_secrets, given = data_dir / SECRETS, manifest.files.get(SECRETS)
    if given is not None and own_secrets.exists() and _described(own_secrets) != given:
        raise ConflictError(
            f"{own_secrets} is not the one in the backup.", "Move it away, or restore into a new DATA_DIR."
        )
    shutil.rmtree(staged, ignore_errors=True)
    shutil.rmtree(data_dir / BLOBS, ignore_errors=True)  # Empty, or what a restore that was cut off put there.
    staged.mkdir(mode=0o700)
    for name in manifest.files:
        _copy(backup / name, staged / name)
    _sync_all(staged)
    sync(data_dir)
    for name in (SECRETS, BLOBS, DATABASE):  # The database comes last: without it the folder cannot be opened.
        if (staged / name).exists():
            (staged / name).rename(data_dir / name)
            sync(data_dir)
    staged.rmdir()
    sync(data_dir)


def _report(manifest: Manifest, folder: Path, begun: float) -> BackupReport:
    return BackupReport(
        folder=folder,
        cluster_id=manifest.cluster_id,
        entities=manifest.entities,
        events=manifest.events,
        blobs=manifest.blobs,
        bytes=sum(file.bytes for file in manifest.files.values()),
        seconds=round(time.monotonic() - begun, 3),
    )


def _take(source: Path, target: Path, cheaply: Any) -> None:
    """By `cheaply` (a rename, a link), or by copying where the disk cannot do that."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        cheaply(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        _copy(source, target)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as to, source.open("rb") as from_:
        shutil.copyfileobj(from_, to, 1 << 20)


def _described(path: Path) -> BackedUpFile:
    with path.open("rb") as file:
        return BackedUpFile(sha256=hashlib.file_digest(file, "sha256").hexdigest(), bytes=path.stat().st_size)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sync_all(folder: Path) -> None:
    """Every file's bytes, and every folder's names."""
    paths: Iterable[Path] = folder.rglob("*")
    for path in [*paths, folder]:
        sync(path)

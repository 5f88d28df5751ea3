"""Files on the ledger's disk: packages, bundles, index files. Named by their content, sealed, written once."""

import asyncio
import hashlib
import os
import re
import secrets
import threading
import time
from pathlib import Path

from runtime.errors import NotFoundError, StoreUnavailableError, TooLargeError
from runtime.files import sync
from runtime.ids import BlobId
from runtime.ledger.port import Mismatch
from runtime.store.database import Database, unavailable
from runtime.store.schema import BLOBS

BLOB_BYTES_MAX = 512 << 20
NAMED_WITHIN_S = 3_600.0
"""So long after it was stored a blob is named by an event, or never."""

_ID = re.compile(r"[0-9a-f]{64}")


class Blobs:
    """`<data_dir>/blobs/ab/<sha256 of the plain bytes>`. The same bytes are one file, however often they come."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._folder = database.data_dir / BLOBS
        self._seal = database.seal
        self._looking = threading.Lock()
        self._stored_again: dict[BlobId, float] = {}
        """Those that were stored when they were there already, and when, by the monotonic clock."""
        self._made: set[Path] = set()
        """Folders whose own names this process has put on disk."""

    async def put(self, data: bytes) -> BlobId:
        """On disk when it returns, name and all. Raises TooLargeError, StoreUnavailableError."""
        self._database.check_open()
        if len(data) > BLOB_BYTES_MAX:
            raise TooLargeError(f"A file of {len(data)} bytes is over the bound of {BLOB_BYTES_MAX}.")
        return await asyncio.to_thread(self._put, data)

    async def get(self, blob: BlobId) -> bytes:
        """Raises NotFoundError, and StoreUnavailableError when the file was damaged."""
        return await asyncio.to_thread(self._get, blob)

    async def remove(self, blob: BlobId) -> bool:
        """False, and it stays, where somebody stored the same bytes lately: they may not have named them yet."""
        return await asyncio.to_thread(self._remove, blob)

    def clear_unfinished(self) -> None:
        """Removes what a crash left half written. Only while nobody writes: at open."""
        for left_over in self._folder.glob("*.tmp"):
            left_over.unlink()

    def check(self) -> list[Mismatch]:
        """Files that are not what their names say. Blocks; reads and opens all of them, with rests in between."""
        mismatches = []
        for path in sorted(self._folder.glob("*/*")):
            begun = time.perf_counter()
            if (wrong := self._wrong_with(path)) is not None:
                mismatches.append(Mismatch(subject=f"{BLOBS}/{path.parent.name}/{path.name}", text=wrong))
            time.sleep(time.perf_counter() - begun)
        return mismatches

    def _wrong_with(self, path: Path) -> str | None:
        if not _ID.fullmatch(path.name) or path.parent.name != path.name[:2]:
            return "is no file of ours: its name or place is wrong"
        try:
            self._get(BlobId(path.name))
        except (NotFoundError, StoreUnavailableError) as error:
            return f"cannot be used: {error.message}"
        return None

    def _put(self, data: bytes) -> BlobId:
        blob = BlobId(hashlib.sha256(data).hexdigest())
        path = self._path(blob)
        try:
            if not self._is_stored(blob):
                self._write(path, self._seal.close(data, f"blob {blob}"))
            sync(path.parent)
        except OSError as error:
            raise unavailable(error, self._folder.parent) from error
        return blob

    def _is_stored(self, blob: BlobId) -> bool:
        with self._looking:
            if not self._path(blob).exists():
                return False
            self._stored_again[blob] = time.monotonic()
            return True

    def _remove(self, blob: BlobId) -> bool:
        path = self._path(blob)
        with self._looking:
            since_s = time.monotonic() - NAMED_WITHIN_S
            self._stored_again = {name: at_s for name, at_s in self._stored_again.items() if at_s > since_s}
            if blob in self._stored_again:
                return False
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise unavailable(error, self._folder.parent) from error
        if path.parent.exists():
            sync(path.parent)
        return True

    def _write(self, path: Path, sealed: bytes) -> None:
        self._make(path.parent)
        unfinished = self._folder / f"{secrets.token_hex(8)}.tmp"
        try:
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(sealed)
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(path)
        finally:
            unfinished.unlink(missing_ok=True)

    def _make(self, folder: Path) -> None:
        """With its name on disk: once for as long as this lives, for whoever made it may have ended before that."""
        try:
            folder.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            if folder in self._made:
                return
        sync(self._folder)
        sync(self._folder.parent)
        self._made.add(folder)

    def _get(self, blob: BlobId) -> bytes:
        path = self._path(blob)
        try:
            sealed = path.read_bytes()
        except FileNotFoundError as error:
            raise NotFoundError(f"There is no file {blob}.") from error
        except OSError as error:
            raise unavailable(error, self._folder.parent) from error
        data = self._seal.open(sealed, f"blob {blob}")
        if hashlib.sha256(data).hexdigest() != blob:
            raise StoreUnavailableError(f"The file {blob} is damaged.", "Restore a backup.")
        return data

    def _path(self, blob: BlobId) -> Path:
        """Only ever inside the folder: an id is 64 hex digits or it is nothing."""
        if not _ID.fullmatch(blob):
            raise NotFoundError("A file's id is 64 hex digits.")
        return self._folder / blob[:2] / blob

"""What a key pool did in the last minute, in a file, so that a pool that was killed knows how full its windows are.

Every change is in the file before anybody hears of it. A `write` survives the end of the process, not of the machine;
but when the machine comes back, the minute is over or nearly so, and limited keys rest for what is left of it.
"""

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from runtime.errors import StoreUnavailableError, WorkLostError
from runtime.keys.pool import Note, Pool
from runtime.keys.window import WINDOW_S

BYTES_MAX = 1 << 20
"""A longer file is written anew, with the pool as it is."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

log = logging.getLogger(__name__)


class PoolLog:
    """One file, one pool. A line holds what happened together; one that cannot be read was never acknowledged.

    The clock of the notes is `clock`, which all processes of one machine share between two boots of it.
    """

    def __init__(
        self, path: Path, *, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._clock = clock
        self._wall = wall
        self._lock = -1
        self._file = -1
        self._size_bytes = 0
        self._pending: list[Note] = []
        self._is_torn = False

    def note(self, note: Note) -> None:
        self._pending.append(note)

    def open(self, pool: Pool) -> None:
        """Makes the pool, whose keys are set, what it was. Blocks for a moment.

        Raises WorkLostError while another process has the file, StoreUnavailableError where it cannot be used.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take_lock()
            self._recover(pool)
            self._begin(pool)
        except OSError as error:
            self.close()
            raise StoreUnavailableError(f"{self._path} cannot be used: {error}.") from error
        except BaseException:
            self.close()
            raise

    def flush(self) -> None:
        """Raises StoreUnavailableError where the disk takes nothing; it is all tried again the next time."""
        if not self._pending:
            return
        line = json.dumps(self._pending, separators=(",", ":")).encode() + b"\n"
        if self._is_torn:
            line = b"\n" + line
        try:
            written = os.write(self._file, line)
        except OSError as error:
            raise StoreUnavailableError(f"{self._path} cannot be written: {error}.") from error
        self._size_bytes += written
        self._is_torn = written < len(line)
        if self._is_torn:
            raise StoreUnavailableError(f"{self._path} cannot be written: the disk is full.")
        self._pending.clear()

    def shorten(self, pool: Pool) -> None:
        """Writes a long file anew; one that cannot be is left as it is."""
        if self._size_bytes <= BYTES_MAX or self._pending:
            return
        try:
            self._begin(pool)
        except OSError as error:
            self._size_bytes = 0
            log.warning("%s stays long: %s", self._path, error)

    def close(self) -> None:
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1

    def _take_lock(self) -> None:
        self._lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkLostError("The key pool before this one still runs.", "Try again in a few seconds.") from None

    def _recover(self, pool: Pool) -> None:
        try:
            first, *lines = self._path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        now = self._clock()
        if first != _boot():
            since_written_s = max(0.0, self._wall() - self._path.stat().st_mtime)
            pool.rest(now + max(WINDOW_S - since_written_s, WINDOW_S - now, 0.0))
            return
        for line in lines:
            with suppress(ValueError, TypeError, KeyError):
                pool.replay(json.loads(line) if line else ())

    def _begin(self, pool: Pool) -> None:
        beside = self._path.with_suffix(".new")
        data = _boot() + b"\n" + json.dumps(pool.notes(), separators=(",", ":")).encode() + b"\n"
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
        os.replace(beside, self._path)
        if self._file >= 0:
            os.close(self._file)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        self._size_bytes = 0
        self._pending.clear()


def _boot() -> bytes:
    """Names this run of the machine. Where the system has no name for it, none is the same as another."""
    try:
        return BOOT_ID.read_bytes().strip()
    except OSError:
        return os.urandom(8).hex().encode()

"""The file of one owner's vectors: SQLite, each row sealed. It only saves work and money: lost, it is begun anew."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from runtime.errors import StoreUnavailableError
from runtime.files import journal_of
from runtime.store.seal import Seal

BYTES_MAX = 256 << 20
"""Of one owner: 170,000 vectors of MiniLM, or 40,000 of 1,536 numbers."""
FREED_SHARE = 10
"""A tenth goes at a time, so that it seldom has to."""
_DAY_S = 86_400
_AT_ONCE = 500
_LOCKED_S_MAX = 10.0
_SCHEMA = """
    CREATE TABLE IF NOT EXISTS vectors (
        mark BLOB PRIMARY KEY, shard TEXT NOT NULL, used_day INTEGER NOT NULL, sealed BLOB NOT NULL
    );
    CREATE INDEX IF NOT EXISTS vectors_by_shard ON vectors (shard);
    CREATE INDEX IF NOT EXISTS vectors_by_use ON vectors (used_day);
"""


class VectorFile:
    """Keyed by the embedder's name and the SHA-256 of the text, both behind a keyed hash. Blocks on the disk.

    All raise StoreUnavailableError where the disk cannot be used; a damaged file is removed. What `keep` returned from
    is on disk. Opened for each message and closed again: what was removed with its owner is never written to.
    """

    def __init__(
        self,
        path: Path,
        owner: str,
        seal: Seal,
        *,
        bytes_max: int = BYTES_MAX,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._owner = owner
        self._seal = seal
        self._bytes_max = bytes_max
        self._clock = clock

    def find(self, embedder: str, hashes: Sequence[bytes], shard: str) -> Mapping[bytes, bytes]:
        """Of those that are kept, the vector; they are the shard's from now on."""
        if not self._path.exists():
            return {}
        marks = {self._mark(embedder, it): it for it in hashes}
        found: dict[bytes, bytes] = {}
        today = self._today()
        with self._opened() as connection:
            touched = []
            for some in _shares(list(marks)):
                places = ",".join("?" * len(some))
                query = f"SELECT mark, shard, used_day, sealed FROM vectors WHERE mark IN ({places})"
                for mark, owned_by, used_day, sealed in connection.execute(query, some):
                    try:
                        found[marks[mark]] = self._seal.open(sealed, self._subject(mark))
                    except StoreUnavailableError:
                        continue  # Altered, or sealed with another key: as if it were not there.
                    if (owned_by, used_day) != (shard, today):
                        touched.append((shard, today, mark))
            connection.executemany("UPDATE vectors SET shard = ?, used_day = ? WHERE mark = ?", touched)
        return found

    def keep(self, embedder: str, vectors: Mapping[bytes, bytes], shard: str) -> None:
        """By their texts' hashes. The longest unused go when the file becomes too large."""
        today = self._today()
        rows = [
            (mark := self._mark(embedder, it), shard, today, self._seal.close(vector, self._subject(mark)))
            for it, vector in vectors.items()
        ]
        with self._opened() as connection:
            connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", rows)
            self._make_room(connection)

    def forget(self, shard: str) -> None:
        """All that this shard was the last to use."""
        if self._path.exists():
            with self._opened() as connection:
                connection.execute("DELETE FROM vectors WHERE shard = ?", (shard,))

    def _make_room(self, connection: sqlite3.Connection) -> None:
        while _size_bytes(connection) > self._bytes_max:
            (count,) = connection.execute("SELECT count(*) FROM vectors").fetchone()
            oldest = "SELECT rowid FROM vectors ORDER BY used_day, rowid LIMIT ?"
            connection.execute(f"DELETE FROM vectors WHERE rowid IN ({oldest})", (count // FREED_SHARE + 1,))

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """One transaction, on disk at its end."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            with closing(sqlite3.connect(self._path, timeout=_LOCKED_S_MAX, isolation_level=None)) as connection:
                connection.executescript(f"PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; {_SCHEMA}")
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise self._unusable(error) from error
        except sqlite3.DatabaseError as error:
            if type(error) is not sqlite3.DatabaseError:
                raise  # A fault of ours; what SQLite says of a damaged file has no class of its own.
            for path in (self._path, journal_of(self._path)):
                path.unlink(missing_ok=True)
            raise self._unusable(error) from error
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"The kept vectors in {self._path} cannot be used: {error}.", "Free disk space there, or make it writable."
        )

    def _mark(self, embedder: str, text_sha256: bytes) -> bytes:
        return self._seal.mark(b"\0".join((self._owner.encode(), embedder.encode(), text_sha256)))

    def _subject(self, mark: bytes) -> str:
        return f"vector/{self._owner}/{mark.hex()}"

    def _today(self) -> int:
        return int(self._clock() // _DAY_S)


def vectors_file(owner: str) -> str:
    """Its name in the folder of indexes."""
    return f"vectors-{owner}.sqlite"


def _size_bytes(connection: sqlite3.Connection) -> int:
    def pragma(name: str) -> int:
        return int(connection.execute(f"PRAGMA {name}").fetchone()[0])

    return (pragma("page_count") - pragma("freelist_count")) * pragma("page_size")


def _shares(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), _AT_ONCE):
        yield values[start : start + _AT_ONCE]

"""Folding the log into the database file so that it opens again whatever moment the process or the power dies at.

What a checkpoint writes is in force once the file's header names it, with one exception: DuckDB keeps descriptions of
its tables 64 to a block, each block with one checksum, and writes such a block again in its place when it needs one of
its free parts. The parts that the header in force names are the same before and after. But a process that is killed in
the middle of that write leaves a block whose checksum is wrong, and a file that does not open.

So these blocks are put aside before a checkpoint, with the headers. Where they are still there at the next opening and
the headers are the same, the checkpoint did not come to its end, and they are put back. Source: DuckDB's
`MetadataManager::Flush`.
"""

import errno
import hashlib
import logging
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from runtime.files import remove, sync

log = logging.getLogger(__name__)

HEADERS_BYTES = 3 * 4096
"""The file's own, which names this very database, and the two that take turns in saying what is in force."""
_BLOCK = struct.Struct("<qq")
"""Where it stands in the file, and how many bytes it has."""


def aside_of(database: Path) -> Path:
    return database.with_name(f"{database.name}.aside")


@contextmanager
def may_be_cut_off(connection: duckdb.DuckDBPyConnection, database: Path, descriptor: int) -> Iterator[None]:
    """Around every checkpoint; one that raises counts as cut off. Raises OSError, duckdb.Error.

    `descriptor` reads and writes the database file. It is the caller's, and stays open as long as the database: closing
    any would take away the lock that DuckDB has on the file.
    """
    _put_aside(connection, database, descriptor)
    yield
    remove(aside_of(database))


def _put_aside(connection: duckdb.DuckDBPyConnection, database: Path, descriptor: int) -> None:
    headers = os.pread(descriptor, HEADERS_BYTES, 0)
    aside = aside_of(database)
    if _data_aside(aside)[:HEADERS_BYTES] == headers:
        return  # Of a checkpoint that failed: since then the blocks may be broken.
    (block_bytes,) = connection.execute("SELECT block_size FROM pragma_database_size()").fetchone() or (0,)
    parts = [headers]
    for (block,) in connection.execute("SELECT block_id FROM pragma_metadata_info()").fetchall():
        at = HEADERS_BYTES + block * block_bytes
        content = os.pread(descriptor, block_bytes, at)
        parts += [_BLOCK.pack(at, len(content)), content]
    data = b"".join(parts)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(hashlib.sha256(data).digest() + data)
        file.flush()
        os.fsync(file.fileno())
    sync(aside.parent)


def put_back(database: Path, descriptor: int) -> None:
    """Before the database is opened, by its owner. Raises OSError; may then be called again."""
    aside = aside_of(database)
    if not aside.exists():
        return
    data = _data_aside(aside)
    if data and os.pread(descriptor, HEADERS_BYTES, 0) == data[:HEADERS_BYTES]:
        at = HEADERS_BYTES
        while at < len(data):
            place, length = _BLOCK.unpack_from(data, at)
            at += _BLOCK.size
            if os.pwrite(descriptor, data[at : at + length], place) != length:
                raise OSError(errno.EIO, f"{database.name} was not written")
            at += length
        os.fsync(descriptor)
        log.warning("a checkpoint of %s was cut off; what it wrote was taken back", database.name)
    remove(aside)


def _data_aside(aside: Path) -> bytes:
    """Empty where there is none, or it was cut off itself: then its checkpoint never began."""
    whole = aside.read_bytes() if aside.exists() else b""
    digest, data = whole[:32], whole[32:]
    return data if len(data) >= HEADERS_BYTES and hashlib.sha256(data).digest() == digest else b""

"""The one DuckDB file, owned by one process, written by one thread in groups.

A commit costs an fsync whatever its size, so the writer takes all writes that wait, runs them in one transaction,
commits once, and only then answers each. A write that a rule refuses leaves no trace and disturbs nobody; when the
database itself refuses a group, the group is split until only the guilty write fails.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from runtime.errors import StoreUnavailableError
from runtime.store import schema
from runtime.store.lock import OwnerLock
from runtime.store.seal import Seal
from runtime.store.transaction import DuplicateRowError, Memory, Transaction

T = TypeVar("T")

WRITES_PER_GROUP_MAX = 1_000
WRITES_WAITING_MAX = 20_000
READERS = 2

_DISK_ERRORS = (
    duckdb.IOException,
    duckdb.FatalException,
    duckdb.InternalException,
    duckdb.OutOfMemoryException,
    duckdb.ConnectionException,
)


@dataclass(frozen=True, slots=True)
class _Write:
    act: Callable[[Transaction], Any]
    done: Future[Any]


class Database:
    """Owns `<data_dir>/ledger.duckdb` between `open` and `close`; constructing it touches nothing.

    A second owner of the folder, in this process or another, gets StoreUnavailableError from `open`.
    """

    def __init__(self, data_dir: Path, data_key: bytes) -> None:
        self.data_dir = data_dir
        self.seal = Seal(data_key)
        self.cluster_id = ""
        self._lock: OwnerLock | None = None
        self._root: duckdb.DuckDBPyConnection | None = None
        self._waiting: deque[_Write] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._writer: threading.Thread | None = None
        self._readers: ThreadPoolExecutor | None = None

    def open(self) -> None:
        """Blocks while it makes or recovers the database; call it off the event loop.

        Raises StoreUnavailableError: owned elsewhere, not a data folder of ours, wrong key, or a disk that fails. May
        then be called again.
        """
        assert self._lock is None, "open() twice"
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = OwnerLock(self.data_dir / "ledger.lock")
            if not (self.data_dir / schema.DATABASE).exists():
                schema.create(self.data_dir, self.seal)
            self._connect()
        except (OSError, duckdb.Error) as error:
            self._let_go()
            raise unavailable(error, self.data_dir) from error
        except StoreUnavailableError:
            self._let_go()
            raise
        self._closing = False
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._writer = threading.Thread(target=self._write_groups, name="store-writer", daemon=True)
        self._writer.start()

    def close(self) -> None:
        """Finishes the writes that wait, folds the log into the file, and lets go. Blocks. May be repeated."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._writer is not None:
            self._writer.join()
        if self._readers is not None:
            self._readers.shutdown()
        self._writer = self._readers = None
        self._let_go()

    def check_open(self) -> None:
        """Raises StoreUnavailableError unless this process owns the folder now."""
        if self._writer is None or self._closing:
            raise StoreUnavailableError("The ledger is not open.", "Try again in a moment.")

    async def write(self, act: Callable[[Transaction], T]) -> T:
        """What `act` returns, once its changes are on disk.

        `act` runs in the writer's thread, maybe more than once, and must change nothing but its transaction. What
        it raises is raised here and nothing of it is written. Raises StoreUnavailableError when the disk fails or too
        many wait, DuplicateRowError when it inserts a row that exists.
        """
        write = _Write(act, Future())
        with self._wake:
            self.check_open()
            if len(self._waiting) >= WRITES_WAITING_MAX:
                raise StoreUnavailableError("The ledger has more to write than it can.", "Try again in a moment.")
            self._waiting.append(write)
            self._wake.notify()
        result: T = await asyncio.wrap_future(write.done)
        return result

    async def read(self, act: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """What `act` returns, run in a reader's thread; it sees every write that was answered before."""
        self.check_open()
        if self._root is None:
            await self.write(lambda tx: None)  # A failed disk closed the database; the writer opens it again.
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, act)

    def _read(self, act: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        try:
            if self._root is None:
                raise duckdb.ConnectionException("being reopened")
            with self._root.cursor() as cursor:
                return act(cursor)
        except _DISK_ERRORS as error:
            raise unavailable(error, self.data_dir) from error

    def _connect(self) -> None:
        root = schema.connect(self.data_dir / schema.DATABASE)
        try:
            self.cluster_id = schema.check(root, self.data_dir, self.seal)
            schema.migrate(root)
            self._connection = root.cursor()
        except BaseException:
            root.close()
            raise
        self._memory = Memory(self._connection)
        self._root = root

    def _let_go(self) -> None:
        self._disconnect()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _disconnect(self) -> None:
        """Closes as well as it can: what was committed is on disk already."""
        root, self._root = self._root, None
        if root is None:
            return
        with suppress(duckdb.Error):
            root.execute("CHECKPOINT")
        for connection in (self._connection, root):
            with suppress(duckdb.Error):
                connection.close()

    def _write_groups(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                count = min(len(self._waiting), WRITES_PER_GROUP_MAX)
                group = [self._waiting.popleft() for _ in range(count)]
            group = [write for write in group if write.done.set_running_or_notify_cancel()]
            try:
                self._run(group)
            except Exception as error:
                _fail(group, error)

    def _run(self, group: list[_Write]) -> None:
        """Answers every write of the group; a group that the database refuses is run again in halves."""
        if not group:
            return
        if self._root is None:
            try:
                self._connect()
            except (OSError, duckdb.Error) as error:
                _fail(group, unavailable(error, self.data_dir))
                return
            except StoreUnavailableError as error:
                _fail(group, error)
                return
        try:
            answers = self._commit(group)
        except _DISK_ERRORS as error:
            self._disconnect()
            _fail(group, unavailable(error, self.data_dir))
        except (duckdb.Error, DuplicateRowError) as error:
            if len(group) == 1:
                _fail(group, error)
                return
            half = len(group) // 2
            self._run(group[:half])
            self._run(group[half:])
        else:
            for write, (answer, refusal) in zip(group, answers, strict=True):
                if refusal is None:
                    write.done.set_result(answer)
                else:
                    write.done.set_exception(refusal)

    def _commit(self, group: list[_Write]) -> list[tuple[Any, Exception | None]]:
        """Runs the group in one transaction. An answer for each: what it returned, or what it raised.

        A refusal counts only once the group is on disk: what it was refused for may be a change of the same group.
        """
        answers: list[tuple[Any, Exception | None]] = []
        together = Transaction(self._memory)
        for write in group:
            own = Transaction(together)
            try:
                answers.append((write.act(own), None))
                together.absorb(own)
            except (duckdb.Error, DuplicateRowError):
                raise
            except Exception as error:
                answers.append((None, error))
        if not together.is_empty():
            self._connection.execute("BEGIN")
            try:
                together.flush(self._connection)
                self._end_group()
            except BaseException:
                with suppress(duckdb.Error):
                    self._connection.execute("ROLLBACK")
                raise
            self._memory.absorb(together.records)
        return answers

    def _end_group(self) -> None:
        """Commits. What fails here is the disk, whatever DuckDB calls it: with one writer nothing conflicts."""
        try:
            self._connection.execute("COMMIT")
        except duckdb.Error as error:
            raise duckdb.IOException(str(error)) from error


def unavailable(error: Exception, data_dir: Path) -> StoreUnavailableError:
    """What a failing disk or database means to people."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    full = any(sign in str(error) for sign in ("No space left", "ENOSPC", "File too large", "quota exceeded"))
    if full or getattr(error, "errno", None) in (27, 28, 122):
        return StoreUnavailableError(f"The disk of {data_dir} is full ({text}).", "Free some space; work then goes on.")
    return StoreUnavailableError(
        f"The ledger in {data_dir} cannot be used ({text}).", "Check that the folder is writable and its disk healthy."
    )


def _fail(group: list[_Write], error: Exception) -> None:
    for write in group:
        if not write.done.done():
            write.done.set_exception(error)

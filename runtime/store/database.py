"""The one DuckDB file, owned by one process, written by one thread in groups.

A commit costs an fsync whatever its size, so the writer takes all writes that wait, runs them in one transaction,
commits once, and only then answers each. A write that a rule refuses leaves no trace and disturbs nobody; when the
database itself refuses a group, the group is split until only the guilty write fails.

Whoever removes the lock or puts another file in the database's place does not make two owners of it, and nothing is
acknowledged that a restart would not find: each commit looks whether folder and file are still the same.

Commits only ever add to the log. A thread of its own folds the log into the file when it has grown, while writes and
reads go on; so a commit never waits for that, and a restart has a bounded log to replay.
"""

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any, TypeVar

import duckdb

from runtime.errors import StoreUnavailableError
from runtime.store import folding, schema
from runtime.store.lock import OwnerLock, is_at
from runtime.store.queries import fetch_all
from runtime.store.seal import Seal
from runtime.store.transaction import DuplicateRowError, Memory, Transaction, Wanted
from runtime.store.writes import WEIGHT_OF_GROUP_MAX, Batch, WriteQueue

log = logging.getLogger(__name__)

T = TypeVar("T")

READERS = 2
LONG_READERS = 2
LONG_READER_NICENESS = 10
LOG_BYTES_MAX = 8 << 20
"""The log is folded into the file when it is larger."""
LOG_LOOK_EVERY_S = 0.2
CHECKPOINT_TRIES = 200
CHECKPOINT_TRY_EVERY_S = 0.01
CHECKPOINT_RETRY_S = 5.0

_DISK_ERRORS = (
    duckdb.IOException,
    duckdb.FatalException,
    duckdb.InternalException,
    duckdb.OutOfMemoryException,
    duckdb.ConnectionException,
)

_Place = tuple[Batch, int]
"""A write: which of a batch's acts, and where its answer goes."""


class Database:
    """Owns `<data_dir>/ledger.duckdb` between `open` and `close`; constructing it touches nothing.

    A second owner of the folder, in this process or another, gets StoreUnavailableError from `open`.
    """

    def __init__(self, data_dir: Path, data_key: bytes) -> None:
        self.data_dir = data_dir
        self.seal = Seal(data_key)
        self.cluster_id = ""
        self.group_max = WEIGHT_OF_GROUP_MAX
        """Writes that share a commit at most, by weight."""
        self.groups = 0
        """Groups committed since it was made; the same for `writes`, which counts what they held."""
        self.writes = 0
        self.checkpoint_max_s = 0.0
        self._commits_s: deque[float] = deque(maxlen=1_000)
        self._lock: OwnerLock | None = None
        self._file: os.stat_result | None = None
        """The database that was opened: nothing else is taken for it until `close`."""
        self._raw = -1
        """Reads and writes its bytes, from `open` to `close`."""
        self._root: duckdb.DuckDBPyConnection | None = None
        self._queue: WriteQueue | None = None
        self._writer: threading.Thread | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._long_readers: ThreadPoolExecutor | None = None
        self._checkpointer: threading.Thread | None = None
        self._closing = threading.Event()
        self._folding = threading.Lock()

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
        self._closing.clear()
        self._queue = WriteQueue()
        self._readers = ThreadPoolExecutor(READERS, "store-reader")
        self._long_readers = ThreadPoolExecutor(LONG_READERS, "store-long-reader", initializer=_yield_to_others)
        self._writer = threading.Thread(target=self._write_groups, args=[self._queue], name="store-writer", daemon=True)
        self._checkpointer = threading.Thread(target=self._fold_log, name="store-checkpointer", daemon=True)
        self._writer.start()
        self._checkpointer.start()

    def close(self) -> None:
        """Finishes the writes that wait, folds the log into the file, and lets go. Blocks. May be repeated."""
        self._closing.set()
        if self._queue is not None:
            self._queue.close()
        for thread in (self._writer, self._checkpointer):
            if thread is not None:
                thread.join()
        for readers in (self._readers, self._long_readers):
            if readers is not None:
                readers.shutdown()
        self._queue = self._writer = self._checkpointer = self._readers = self._long_readers = None
        self._let_go()

    def check_open(self) -> None:
        """Raises StoreUnavailableError unless this process owns the folder now."""
        if self._queue is None or self._closing.is_set():
            raise StoreUnavailableError("The ledger is not open.", "Try again in a moment.")

    async def write(self, act: Callable[[Transaction], T], weight: int = 1) -> T:
        """What `act` returns, once its changes are on disk. `weight` is for an act that does the work of so many.

        `act` runs in the writer's thread, maybe more than once, and must change nothing but its transaction. What
        it raises is raised here and nothing of it is written. Raises StoreUnavailableError when the disk fails or too
        many wait, DuplicateRowError when it inserts a row that exists.
        """
        (answer,) = await self.write_many([act], weight=weight)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def write_many(
        self, acts: Sequence[Callable[[Transaction], T]], wanted: Sequence[Wanted] = (), weight: int = 0
    ) -> list[T | Exception]:
        """What each act returned or raised, once all that succeeded are on disk: `write`, for many at the cost of one.

        They run in order, in one group, and one that fails disturbs no other. `wanted` are records that they are going
        to look up. Raises StoreUnavailableError, with nothing written, when too many wait.
        """
        self.check_open()
        assert self._queue is not None
        batch = Batch(acts, wanted, weight)
        self._queue.put(batch)
        return await batch.done

    async def read(self, act: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """What `act` returns, run in a reader's thread; it sees every write that was answered before."""
        await self._be_connected()
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, act)

    async def rows(self, query: str, values: Mapping[str, Any] = MappingProxyType({})) -> list[tuple[Any, ...]]:
        """All that a statement finds: `read`, for one."""
        return await self.read(lambda connection: fetch_all(connection, query, values))

    async def read_long(self, act: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """`read` for long work: it keeps no other reader waiting, and runs when nobody else wants the processor."""
        await self._be_connected()
        return await asyncio.get_running_loop().run_in_executor(self._long_readers, self._read, act)

    def checkpoint(self) -> None:
        """Folds the log into the file and frees what was deleted. Blocks; others go on. Raises duckdb.Error."""
        with self._folding:
            if self._root is None:
                return
            self._check_owned()
            path = self.data_dir / schema.DATABASE
            with self._root.cursor() as cursor, folding.may_be_cut_off(cursor, path, self._raw):
                for left in reversed(range(CHECKPOINT_TRIES)):
                    begun = time.perf_counter()
                    try:
                        cursor.execute("CHECKPOINT")
                        break
                    except duckdb.TransactionException:  # It begins only at a moment when nobody writes.
                        if not left:
                            raise
                        time.sleep(CHECKPOINT_TRY_EVERY_S)
                self.checkpoint_max_s = max(self.checkpoint_max_s, time.perf_counter() - begun)

    @property
    def queued(self) -> int:
        """Writes that wait for a group."""
        return self._queue.waiting if self._queue is not None else 0

    @property
    def commit_p50_s(self) -> float:
        """Of the last thousand groups, from taking the writes to being on disk; 0 before the first."""
        return median(self._commits_s.copy()) if self._commits_s else 0.0

    @property
    def file_bytes(self) -> int:
        return _size(self.data_dir / schema.DATABASE)

    @property
    def log_bytes(self) -> int:
        return _size(self.data_dir / f"{schema.DATABASE}.wal")

    async def _be_connected(self) -> None:
        self.check_open()
        if self._root is None:
            await self.write(lambda tx: None)  # A failed disk closed the database; the writer opens it again.

    def _read(self, act: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        try:
            root = self._root
            if root is None:
                raise duckdb.ConnectionException("being reopened")
            with root.cursor() as cursor:
                return act(cursor)
        except _DISK_ERRORS as error:
            raise unavailable(error, self.data_dir) from error

    def _connect(self) -> None:
        path = self.data_dir / schema.DATABASE
        if self._lock is not None and not self._lock.is_held():
            removed, self._lock = self._lock, OwnerLock(self.data_dir / "ledger.lock")
            removed.release()
        if self._file is not None and not is_at(path, self._file):
            raise OSError(f"{schema.DATABASE} was replaced while it was in use; put it back, or start again")
        self._file = os.stat(path)
        if self._raw < 0:
            self._raw = os.open(path, os.O_RDWR)
        folding.put_back(path, self._raw)
        root = schema.connect(path)
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
        if self._raw >= 0:
            os.close(self._raw)
            self._raw = -1
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        self._file = None

    def _disconnect(self) -> None:
        """Closes as well as it can: what was committed is on disk already."""
        with self._folding:
            root, self._root = self._root, None
        if root is None:
            return
        path = self.data_dir / schema.DATABASE
        with suppress(duckdb.Error, OSError):
            if self._is_owned():  # What is no longer ours is not touched: its log may be another's.
                with folding.may_be_cut_off(root, path, self._raw):
                    root.execute("CHECKPOINT")
        for connection in (self._connection, root):
            with suppress(duckdb.Error):
                connection.close()

    def _fold_log(self) -> None:
        pause_s = LOG_LOOK_EVERY_S
        while not self._closing.wait(pause_s):
            pause_s = LOG_LOOK_EVERY_S
            if self.log_bytes <= LOG_BYTES_MAX:
                continue
            try:
                self.checkpoint()
            except (OSError, duckdb.Error) as error:
                log.warning("the log was not folded into %s: %s", schema.DATABASE, first_line(error))
                pause_s = CHECKPOINT_RETRY_S

    def _write_groups(self, queue: WriteQueue) -> None:
        while batches := queue.take(self.group_max):
            begun = time.perf_counter()
            live = [batch for batch in batches if not batch.done.cancelled()]
            group = [(batch, index) for batch in live for index in range(len(batch.acts))]
            try:
                self._run(group)
            except Exception as error:  # A bug: nobody may take it for success, and the thread must go on.
                log.exception("a group of writes failed")
                _answer(group, [unavailable(error, self.data_dir)] * len(group))
                self._disconnect()
            finally:
                self._commits_s.append(time.perf_counter() - begun)
                self.groups += 1
                self.writes += len(group)
                Batch.deliver(live)

    def _run(self, group: list[_Place]) -> None:
        """Answers every write of the group; one that the database refuses is run again in halves.

        Before that, one in which something is repeated is run again with an eye to the disk: after a restart everybody
        repeats what was not answered.
        """
        if not group:
            return
        try:
            if self._root is not None and not self._is_owned():
                self._disconnect()
            if self._root is None:
                self._connect()
        except (OSError, duckdb.Error) as error:
            _answer(group, [unavailable(error, self.data_dir)] * len(group))
            return
        except StoreUnavailableError as error:
            _answer(group, [error] * len(group))
            return
        try:
            try:
                answers = self._commit(group)
            except DuplicateRowError:
                if len(group) == 1:
                    raise
                answers = self._commit(group, peeks_on_disk=True)
        except _DISK_ERRORS as error:
            self._disconnect()
            _answer(group, [unavailable(error, self.data_dir)] * len(group))
        except Exception as error:
            if len(group) == 1:
                _answer(group, [error])
                return
            half = len(group) // 2
            self._run(group[:half])
            self._run(group[half:])
        else:
            _answer(group, answers)

    def _commit(self, group: list[_Place], *, peeks_on_disk: bool = False) -> list[Any]:
        """Runs the group in one transaction. An answer for each: what it returned, or what it raised.

        A refusal counts only once the group is on disk: what it was refused for may be a change of the same group.
        """
        batches = {id(batch): batch for batch, _ in group}
        self._memory.fetch(wanted for batch in batches.values() for wanted in batch.wanted)
        tx = Transaction(self._memory, peeks_on_disk=peeks_on_disk)
        answers: list[Any] = []
        for batch, index in group:
            try:
                answers.append(batch.acts[index](tx))
                tx.settle()
            except (duckdb.Error, DuplicateRowError):
                raise
            except Exception as refusal:
                tx.undo()
                answers.append(refusal)
        if not tx.is_empty():
            self._connection.execute("BEGIN")
            try:
                tx.flush(self._connection)
                self._end_group()
            except BaseException:
                with suppress(duckdb.Error):
                    self._connection.execute("ROLLBACK")
                raise
            self._memory.absorb(tx.records)
            if tx.forgets_all:
                self._memory.forget_all()
        return answers

    def _end_group(self) -> None:
        """Commits. What fails here is the disk, whatever DuckDB calls it: with one writer nothing conflicts."""
        try:
            self._connection.execute("COMMIT")
        except duckdb.Error as error:
            raise duckdb.IOException(str(error)) from error
        self._check_owned()

    def _check_owned(self) -> None:
        """Raises duckdb.IOException; what was committed to a file that is no longer there is not acknowledged."""
        if not self._is_owned():
            raise duckdb.IOException(f"{schema.DATABASE} or its lock was replaced or removed")

    def _is_owned(self) -> bool:
        held = self._lock is not None and self._lock.is_held()
        return held and self._file is not None and is_at(self.data_dir / schema.DATABASE, self._file)


def unavailable(error: Exception, data_dir: Path) -> StoreUnavailableError:
    """What a failing disk or database means to people."""
    text = first_line(error)
    full = any(sign in str(error) for sign in ("No space left", "ENOSPC", "File too large", "quota exceeded"))
    if full or getattr(error, "errno", None) in (27, 28, 122):
        return StoreUnavailableError(f"The disk of {data_dir} is full ({text}).", "Free some space; work then goes on.")
    return StoreUnavailableError(
        f"The ledger in {data_dir} cannot be used ({text}).", "Check that the folder is writable and its disk healthy."
    )


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _answer(group: list[_Place], answers: list[Any]) -> None:
    for (batch, index), answer in zip(group, answers, strict=True):
        batch.answers[index] = answer


def _yield_to_others() -> None:
    """Linux knows a niceness for each thread."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LONG_READER_NICENESS)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0

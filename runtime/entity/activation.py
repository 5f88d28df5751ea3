"""One entity in memory: its journal, its lock, its tasks, and those who watch it."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Generic

from runtime.entity.entity import Entity, State
from runtime.entity.journal import Append, EventRecord, Journal, Moves, NewEvent
from runtime.errors import ConflictError, StaleWriterError
from runtime.ids import EntityId, UserId

log = logging.getLogger(__name__)


class Activation(Generic[State]):
    """Owns the one way to change an entity: `emit`. It appends under the epoch, then takes the new state.

    `on_lost` is called when the store says that somebody newer owns the entity: this copy must go, and nothing it
    holds may be believed any more.
    """

    def __init__(
        self,
        *,
        entity: EntityId,
        owner: UserId,
        epoch: int,
        journal: Journal,
        behaviour: Entity[State],
        on_lost: Callable[[], None],
    ) -> None:
        self.entity = entity
        self.owner = owner
        self.epoch = epoch
        self.records: list[EventRecord] = []
        self.state = behaviour.initial()
        self._behaviour = behaviour
        self._journal = journal
        self._on_lost = on_lost
        self._keys: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._append = asyncio.Lock()
        self._changed = asyncio.Condition()
        behaviour.activation = self

    @property
    def last_seq(self) -> int:
        return len(self.records)

    def replay(self, records: Sequence[EventRecord]) -> None:
        for record in records:
            self._take(record, self._behaviour.fold(self.state, record))

    def has(self, key: str) -> bool:
        """True when an event of this key is in the journal."""
        return key in self._keys

    async def emit(
        self,
        type: str,
        key: str,
        data: Mapping[str, Any] | None = None,
        moves: Callable[[State], Moves] = lambda state: Moves(),
    ) -> None:
        """Appends one event and the money that moves with it, once: a key that is there already changes nothing.

        `moves` is asked under the lock, about the state that the event really follows.
        Returns when it is on disk and in the state. Raises ConflictError when the entity is over, StaleWriterError
        when a newer owner wrote meanwhile (this activation is then over), StoreUnavailableError when the store did
        not answer (nothing changed here). A cancelled caller does not stop the append: state and disk stay one.
        """
        await asyncio.shield(asyncio.ensure_future(self._emit(type, key, dict(data or {}), moves)))

    async def _emit(self, type: str, key: str, data: Mapping[str, Any], moves: Callable[[State], Moves]) -> None:
        async with self._append:
            if key in self._keys:
                return
            if self._behaviour.is_over(self.state):
                raise ConflictError(f"{self.entity} is over: nothing happens to it any more.")
            record = EventRecord(
                entity=self.entity,
                seq=self.last_seq + 1,
                epoch=self.epoch,
                type=type,
                version=1,
                key=key,
                at=datetime.now(UTC),
                data=data,
            )
            state = self._behaviour.fold(self.state, record)
            money = moves(self.state)
            await self._write(
                Append(
                    entity=self.entity,
                    owner=self.owner,
                    epoch=self.epoch,
                    expected_seq=self.last_seq,
                    events=(NewEvent(type=type, version=1, key=key, data=record.data),),
                    open=self._behaviour.is_open(state),
                    head=self._behaviour.head(state),
                    begin_runs=money.begin,
                    settle_runs=money.settle,
                    abandon_runs=money.abandon,
                    ceiling_ucredits=money.ceiling_ucredits,
                )
            )
            self._take(record, state)
        async with self._changed:
            self._changed.notify_all()

    async def changed(self, reached: Callable[[], bool]) -> None:
        """Waits until `reached()`, asked again after every event."""
        async with self._changed:
            await self._changed.wait_for(reached)

    async def events(self, after_seq: int, wait_s: float) -> Sequence[EventRecord]:
        """Events numbered above `after_seq`, waiting up to `wait_s` for the first."""
        if self.last_seq <= after_seq and wait_s > 0:
            try:
                await asyncio.wait_for(self.changed(lambda: self.last_seq > after_seq), wait_s)
            except TimeoutError:
                return ()
        return tuple(self.records[after_seq:])

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        """Runs work beside the messages. It ends with the activation; what it had not finished is done again."""
        task = asyncio.create_task(work, name=f"{self.entity} {name}")
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    async def stop(self) -> None:
        """Cancels the tasks and waits for them."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(self, append: Append) -> None:
        try:
            await self._journal.append(append)
        except StaleWriterError:
            if not await self._is_ours(append):
                self._on_lost()
                raise

    async def _is_ours(self, append: Append) -> bool:
        """True when the refused append had in fact been written: only the answer to an earlier try was lost."""
        written = await self._journal.read(self.entity, append.expected_seq)
        return [(record.key, record.epoch) for record in written] == [
            (event.key, append.epoch) for event in append.events
        ]

    def _take(self, record: EventRecord, state: State) -> None:
        self.records.append(record)
        self._keys.add(record.key)
        self.state = state

    def _forget(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task of %s failed", task.get_name(), exc_info=error)

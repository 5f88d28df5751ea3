"""One entity in memory: its state, its tasks, those who watch it, and the one way to change it."""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, Protocol

from runtime.entity.entity import Entity, State
from runtime.entity.journal import (
    NO_MOVES,
    Append,
    EventRecord,
    Journal,
    Loaded,
    Moves,
    NewEvent,
    Reminder,
    Snapshot,
)
from runtime.entity.keys import Keys
from runtime.errors import ConflictError, StaleWriterError
from runtime.ids import EntityId, UserId

SNAPSHOT_EVERY = 50
"""Events after which the next append brings a snapshot along."""
KEYS_PER_EVENT = 16
"""A snapshot has all keys, so with very many of them it comes less often: that bounds what it costs an event."""
RECENT_EVENTS = 32
"""Whoever watches is told of these without asking the store: he comes back for the next while others happen."""
EVENT_BYTES = 2_000
"""About what one of them holds."""
BASE_BYTES = 2_000
"""About what an activation with a small state holds; `make bench NAME=runtime` measures it."""


class Life(Protocol):
    """Whoever keeps the activation."""

    def lost(self) -> None:
        """Somebody newer owns the entity: this copy must go, and nothing it holds may be believed any more."""

    def fail(self, error: BaseException) -> None:
        """A task of the entity failed."""

    def working(self, more: int) -> None:
        """So many more tasks run (or fewer, below zero)."""


class Activation(Generic[State]):
    """Owns the one way to change an entity: `emit`. It appends under the epoch, then takes the new state.

    Its `life` hears when the store says that this is not where the entity stands.
    """

    __slots__ = (
        "_appending",
        "_behaviour",
        "_journal",
        "_keys",
        "_life",
        "_recent",
        "_state_bytes",
        "_tail",
        "_tasks",
        "_watchers",
        "entity",
        "epoch",
        "last_seq",
        "owner",
        "reminded",
        "state",
    )

    def __init__(
        self,
        *,
        entity: EntityId,
        epoch: int,
        journal: Journal,
        behaviour: Entity[State],
        life: Life,
    ) -> None:
        self.entity = entity
        self.owner = UserId("")
        self.epoch = epoch
        self.last_seq = 0
        self.state = behaviour.initial()
        self.reminded: set[str] | None = None
        """Names of reminders that were armed or forgotten while somebody looks."""
        self._behaviour = behaviour
        self._journal = journal
        self._life = life
        self._keys = Keys()
        self._tail = 0
        self._state_bytes = 0
        self._appending = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] | None = None
        self._watchers: set[asyncio.Future[Sequence[EventRecord]]] | None = None
        self._recent: deque[EventRecord] | None = None
        """The newest events, of an entity that somebody watches."""
        behaviour.activation = self

    def restore(self, loaded: Loaded, owner: UserId | None) -> None:
        """Takes the state from the journal. `owner` is who an entity without a journal will belong to."""
        self.owner = loaded.head.owner if loaded.head else owner or UserId("")
        snapshot = loaded.snapshot
        if snapshot is not None:
            self.state = self._behaviour.thaw(snapshot.data["state"])
            self._keys = Keys(snapshot.data["keys"])
            self._state_bytes = snapshot.data["bytes"]
            self.last_seq = snapshot.seq
        for record in loaded.events:
            self.state = self._behaviour.fold(self.state, record)
            self._took(record)

    def has(self, key: str) -> bool:
        """True when an event of this key is in the journal. Old keys are forgotten with a snapshot: see `Keys`."""
        return key in self._keys

    async def emit(
        self,
        type: str,
        key: str,
        data: Mapping[str, Any] | None = None,
        moves: Callable[[State], Moves] = lambda state: NO_MOVES,
        *,
        version: int = 1,
        remind: Sequence[Reminder] = (),
        forget: Sequence[str] = (),
    ) -> None:
        """Appends one event and what must be true with it, once: a key that is there already changes nothing.

        `moves` is the money that moves along; it is asked under the lock, about the state that the event really
        follows. `remind` arms durable timers, `forget` disarms them by name.
        Returns when it is on disk and in the state. Raises ConflictError when the entity is over, StaleWriterError
        when a newer owner wrote meanwhile (this activation is then over), StoreUnavailableError when the store did
        not answer (nothing changed here). A cancelled caller does not stop the append: state and disk stay one.
        """
        event = NewEvent(type=type, version=version, key=key, data=dict(data or {}))
        await asyncio.shield(asyncio.ensure_future(self._emit((event,), moves, remind, forget)))

    async def emit_all(
        self, events: Sequence[NewEvent], moves: Callable[[State], Moves] = lambda state: NO_MOVES
    ) -> None:
        """As `emit`, for events that come true together, in their order; those whose key is there are left out.

        The money moves unless all are left out.
        """
        await asyncio.shield(asyncio.ensure_future(self._emit(events, moves, (), ())))

    async def forget(self, reminder: str) -> None:
        """Disarms a durable timer; nothing else changes."""
        await asyncio.shield(asyncio.ensure_future(self._touch(forget=(reminder,))))

    async def save(self) -> None:
        """Brings the snapshot up to the last event, so that the next activation reads nothing else."""
        if self._tail:
            await asyncio.shield(asyncio.ensure_future(self._touch(save=True)))

    async def changed(self, reached: Callable[[], bool]) -> None:
        """Waits until `reached()`, asked again after every event."""
        while not reached():
            await self._next_events()

    async def events(self, after_seq: int, wait_s: float) -> Sequence[EventRecord]:
        """Events numbered above `after_seq`, waiting up to `wait_s` for the first.

        None that the state does not have yet: whoever sees a question may answer it.
        """
        if self._recent is None:
            self._recent = deque(maxlen=RECENT_EVENTS)
        if self.last_seq > after_seq:
            recent = [event for event in self._recent if event.seq > after_seq]
            if recent and recent[0].seq == after_seq + 1:
                return recent
            events = await self._journal.read(self.entity, after_seq)
            return [event for event in events if event.seq <= self.last_seq]
        try:
            async with asyncio.timeout(wait_s):
                return await self._next_events()
        except TimeoutError:
            return ()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        """Runs work beside the messages. It ends with the activation; what it had not finished is done again.

        Work that fails resets the entity, whose `wake` starts it again.
        """
        task = asyncio.create_task(work, name=f"{self.entity} {name}")
        if self._tasks is None:
            self._tasks = set()
        self._tasks.add(task)
        self._life.working(1)
        task.add_done_callback(self._ended)
        return task

    async def stop(self) -> None:
        """Cancels the tasks and waits for them."""
        tasks = [task for task in self._tasks or () if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def is_needed(self) -> bool:
        """True while it may not be passivated: unfinished work, running tasks, or somebody who watches."""
        return bool(self._tasks or self._watchers) or self._behaviour.is_open(self.state)

    @property
    def weight_bytes(self) -> int:
        """An estimate of the memory it holds."""
        recent_bytes = EVENT_BYTES * len(self._recent or ())
        return BASE_BYTES + 8 * len(self._keys) + 3 * self._state_bytes + recent_bytes

    async def _emit(
        self,
        asked: Sequence[NewEvent],
        moves: Callable[[State], Moves],
        remind: Sequence[Reminder],
        forget: Sequence[str],
    ) -> None:
        async with self._appending:
            events = [event for event in asked if event.key not in self._keys]
            if not events:
                return
            state = self.state
            records: list[EventRecord] = []
            for event in events:
                if self._behaviour.is_over(state) and event.type not in self._behaviour.after_end:
                    raise ConflictError(f"{self.entity} is over: nothing happens to it any more.")
                records.append(self._record(event, self.last_seq + 1 + len(records)))
                state = self._behaviour.fold(state, records[-1])
            is_due = self._tail + len(records) >= max(SNAPSHOT_EVERY, len(self._keys) // KEYS_PER_EVENT)
            snapshot = self._snapshot(state, records) if is_due else None
            await self._append(state, events, snapshot, moves(self.state), remind, forget)
            self.state = state
            for record in records:
                self._took(record)
            if snapshot is not None:
                self._tail = 0
        self._tell(records)

    def _record(self, event: NewEvent, seq: int) -> EventRecord:
        return EventRecord(
            entity=self.entity,
            seq=seq,
            epoch=self.epoch,
            type=event.type,
            version=event.version,
            key=event.key,
            at=datetime.now(UTC),
            data=event.data,
        )

    async def _touch(self, *, save: bool = False, forget: Sequence[str] = ()) -> None:
        """An append without events."""
        async with self._appending:
            snapshot = self._snapshot(self.state, ()) if save else None
            if snapshot is None and not forget:
                return
            await self._append(self.state, (), snapshot, forget=forget)
            if snapshot is not None:
                self._tail = 0

    async def _append(
        self,
        state: State,
        events: Sequence[NewEvent],
        snapshot: Snapshot | None,
        moves: Moves = NO_MOVES,
        remind: Sequence[Reminder] = (),
        forget: Sequence[str] = (),
    ) -> None:
        append = Append(
            entity=self.entity,
            owner=self.owner,
            epoch=self.epoch,
            expected_seq=self.last_seq,
            events=events,
            open=self._behaviour.is_open(state),
            head=self._behaviour.head(state),
            snapshot=snapshot,
            drop_history=snapshot is not None and self._behaviour.lets_go(state),
            remind=remind,
            forget=forget,
            moves=moves,
        )
        try:
            await self._journal.append(append)
        except StaleWriterError:
            if not await self._is_ours(append):
                self._life.lost()
                raise
        if self.reminded is not None:
            self.reminded.update([reminder.name for reminder in remind], forget)

    async def _is_ours(self, append: Append) -> bool:
        """True when the refused append had in fact been written: only the answer to an earlier try was lost."""
        if not append.events:
            return False
        written = await self._journal.read(self.entity, append.expected_seq)
        return [(record.key, record.epoch) for record in written] == [
            (event.key, append.epoch) for event in append.events
        ]

    def _snapshot(self, state: State, records: Sequence[EventRecord]) -> Snapshot | None:
        frozen = self._behaviour.freeze(state)
        if frozen is None:
            return None
        keys = Keys(self._keys.frozen())
        for record in records:
            keys.add(record.key, record.at.timestamp())
        self._state_bytes = len(json.dumps(frozen))
        data = {"state": frozen, "keys": keys.frozen(), "bytes": self._state_bytes}
        return Snapshot(seq=self.last_seq + len(records), version=self._behaviour.snapshot_version, data=data)

    def _took(self, record: EventRecord) -> None:
        self.last_seq = record.seq
        self._keys.add(record.key, record.at.timestamp())
        self._tail += 1
        if self._recent is not None:
            self._recent.append(record)

    def _next_events(self) -> "asyncio.Future[Sequence[EventRecord]]":
        if self._watchers is None:
            self._watchers = set()
        watcher: asyncio.Future[Sequence[EventRecord]] = asyncio.get_running_loop().create_future()
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)
        return watcher

    def _tell(self, records: Sequence[EventRecord]) -> None:
        for watcher in list(self._watchers or ()):
            if not watcher.done():
                watcher.set_result(records)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if self._tasks is not None:
            self._tasks.discard(task)
        self._life.working(-1)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._life.fail(error)

"""The journal: what an entity remembers, and the fence that lets only one owner write it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Protocol

from runtime.ids import EntityId, ProjectId, RunId, UserId
from runtime.ledger.port import NewToken


class Packed:
    """A record that crosses processes in great numbers: pickled by its fields alone, in half the time."""

    __slots__: ClassVar[tuple[str, ...]] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpacked, (type(self), [getattr(self, name) for name in self.__slots__])


def _unpacked(record: type[Any], values: Sequence[Any]) -> Any:
    made = object.__new__(record)
    for name, value in zip(record.__slots__, values, strict=True):
        object.__setattr__(made, name, value)
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent(Packed):
    """A fact to be appended. `key` is unique within the entity: a second append of the same key is refused.

    `data` is JSON-able and holds no secret; it is sealed at rest.
    """

    type: str
    version: int = 1
    key: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord(Packed):
    """An event as it stands in the journal: `seq` counts from 1 without gaps, `at` is UTC with zone."""

    entity: EntityId
    seq: int
    epoch: int
    type: str
    version: int
    key: str
    at: datetime
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head(Packed):
    """What anybody may ask about an entity without waking it. One row an entity, written with its events."""

    entity: EntityId
    owner: UserId
    last_seq: int
    open: bool
    """True while the entity has unfinished work: its owner wakes it unasked after a restart."""
    updated_at: datetime
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot(Packed):
    """The state as it was after event `seq`, so that activation need not read what came before.

    `data` is JSON-able and sealed at rest. `version` is the entity's own: one that it does not know is ignored and
    the events are read instead, for as long as they are kept.
    """

    seq: int
    version: int
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reminder:
    """A durable timer of an entity, one a name. A later one of the same name takes its place."""

    name: str
    due_at: datetime
    """UTC with zone. It is delivered at that time or later, at least once."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able; sealed at rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DueReminder:
    entity: EntityId
    reminder: Reminder


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginRun:
    """Opens a run, so that calls may be held under it until it is settled or abandoned."""

    run: RunId
    user: UserId
    project: ProjectId
    task: str
    """What the receipt shows: a task id such as `T-003`, or a step's name such as `plan.stack`."""
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves(Packed):
    """The money that moves with an append, in its transaction."""

    begin: Sequence[BeginRun] = ()
    tokens: Sequence[NewToken] = ()
    """Of tasks, each for a run of this project: one that begins with this append is good from then on."""
    settle: Sequence[RunId] = ()
    """Steps that finished: every metered call of theirs is charged now."""
    abandon: Sequence[RunId] = ()
    """Runs cut off by a crash or a cancel: their calls are the platform's loss, their holds are released."""
    ceiling_ucredits: int | None = None
    """Sets the project's ceiling: the most that may ever be held and charged for it."""


NO_MOVES = Moves()


@dataclass(frozen=True, slots=True, kw_only=True)
class Append(Packed):
    """Events and everything that must be true together with them, in one transaction.

    The store refuses it (StaleWriterError) unless `epoch` is the partition's newest and `expected_seq` the entity's
    last sequence number. That alone makes every event happen once: whether a key is known is the owner's to say.
    `events` may be empty when only the head, the snapshot or a reminder changes.
    """

    entity: EntityId
    owner: UserId
    epoch: int
    expected_seq: int
    events: Sequence[NewEvent]
    open: bool
    head: Mapping[str, Any]
    snapshot: Snapshot | None = None
    """Takes the place of the one before. Its `seq` is the number of this append's last event."""
    drop_history: bool = False
    """With a snapshot: the events up to it may be compacted away, because nobody reads them."""
    remind: Sequence[Reminder] = ()
    forget: Sequence[str] = ()
    """Names of reminders that are done; unknown names change nothing."""
    moves: Moves = NO_MOVES


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded(Packed):
    """All that an activation needs: the newest snapshot, and every event after it, in order."""

    head: Head | None
    """None: there is no such entity yet."""
    snapshot: Snapshot | None
    events: Sequence[EventRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Takes partitions for one incarnation of a host, each only if its epoch is still the expected one (0: never
    owned). Repeating a claim that was granted changes nothing and grants it again.
    """

    host: str
    incarnation: str
    partitions: Mapping[int, int]
    """Partition -> the epoch that the claimer saw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """Who may write a partition: the holder of its newest epoch."""

    partition: int
    epoch: int
    host: str
    incarnation: str


class Journal(Protocol):
    """Implemented by the store, by its fake, and by the handle of the actor that owns the store."""

    async def claim(self, claim: Claim) -> Mapping[int, int]:
        """Partition -> its new epoch, for those that were granted; every earlier owner's appends are refused from now
        on. A partition whose epoch was not the expected one is left out: somebody else was first.
        """

    async def ownerships(self) -> Sequence[Ownership]:
        """Every partition that was ever claimed, by number."""

    async def append(self, append: Append) -> int:
        """The entity's new last sequence number, once everything is on disk.

        Raises StaleWriterError; nothing was written then.
        """

    async def load(self, entity: EntityId) -> Loaded: ...

    async def read(self, entity: EntityId, after_seq: int, limit: int = 10_000) -> Sequence[EventRecord]:
        """At most `limit` kept events with a larger number, in order. Empty for an unknown entity."""

    async def head(self, entity: EntityId) -> Head | None: ...

    async def heads(self, kind: str, owner: UserId | None) -> Sequence[Head]:
        """Heads of a kind (of one owner, or of all), newest first."""

    async def open_entities(self, kinds: Sequence[str]) -> Sequence[EntityId]:
        """Entities of these kinds with unfinished work, for their hosts to wake."""

    async def due(self, partitions: Sequence[int], now: datetime, limit: int) -> Sequence[DueReminder]:
        """Reminders of these partitions whose time has come, the oldest first. They stay until they are forgotten."""

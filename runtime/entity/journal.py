"""The journal: what an entity remembers, and the fence that lets only one owner write it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from runtime.ids import EntityId, ProjectId, RunId, UserId


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """A fact to be appended. `key` is unique within the entity: a second append of the same key is refused.

    `data` is JSON-able and holds no secret; it is sealed at rest.
    """

    type: str
    version: int
    key: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
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
class Head:
    """What anybody may ask about an entity without waking it. One row an entity, written with its events."""

    entity: EntityId
    owner: UserId
    last_seq: int
    open: bool
    """True while the entity has unfinished work: its owner wakes it unasked after a restart."""
    updated_at: datetime
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """Events, the head they lead to, and the money that moves with them, in one transaction.

    The store refuses it (StaleWriterError) unless `epoch` is the partition's newest and `expected_seq` the entity's
    last sequence number. `events` may be empty when only the head changes.
    """

    entity: EntityId
    owner: UserId
    epoch: int
    expected_seq: int
    events: Sequence[NewEvent]
    open: bool
    head: Mapping[str, Any]
    begin_runs: Sequence["BeginRun"] = ()
    settle_runs: Sequence[RunId] = ()
    """Steps that finished: every metered call of theirs is charged now."""
    abandon_runs: Sequence[RunId] = ()
    """Runs cut off by a crash or a cancel: their calls are the platform's loss, their holds are released."""
    ceiling_ucredits: int | None = None
    """Sets the project's ceiling: the most that may ever be held and charged for it."""


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
class Claim:
    """Takes partitions for one incarnation of a host. Claiming again with the same incarnation changes nothing."""

    host: str
    incarnation: str
    partitions: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """The money that moves with an event: see `Append`."""

    begin: Sequence[BeginRun] = ()
    settle: Sequence[RunId] = ()
    abandon: Sequence[RunId] = ()
    ceiling_ucredits: int | None = None


class Journal(Protocol):
    """Implemented by the store, by its fake, and by the handle of the actor that owns the store."""

    async def claim(self, claim: Claim) -> Mapping[int, int]:
        """Partition -> the new epoch. Every earlier owner's appends are refused from now on."""

    async def append(self, append: Append) -> int:
        """The entity's new last sequence number, once everything is on disk.

        Raises StaleWriterError; nothing was written then.
        """

    async def read(self, entity: EntityId, after_seq: int) -> Sequence[EventRecord]:
        """Events with a larger number, in order. Empty for an unknown entity."""

    async def head(self, entity: EntityId) -> Head | None: ...

    async def heads(self, kind: str, owner: UserId | None) -> Sequence[Head]:
        """Heads of a kind (of one owner, or of all), newest first."""

    async def open_entities(self, kinds: Sequence[str]) -> Sequence[EntityId]:
        """Entities of these kinds with unfinished work, for a starting host to wake."""

"""What can be asked about the running parts at any time: plain facts, for `masterbuilder status` and the benchmarks."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from runtime.ids import EntityId


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """An entity that failed again and again. It answers QuarantinedError; its neighbours are unharmed."""

    entity: EntityId
    error: str
    """The last failure: its type and first line."""
    failures: int
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class HostVitals:
    name: str
    incarnation: str
    pid: int
    node: str
    kinds: Sequence[str]
    partitions: int
    residents: int
    """Entities in memory."""
    working: int
    """Residents with a running turn or task: these are never passivated."""
    queued: int
    """Messages that wait in mailboxes."""
    memory_bytes: int
    """Resident memory of the process."""
    turns: int
    """Messages answered since the process started; the same for the counts below."""
    activations: int
    passivations: int
    failures: int
    """Turns that ended with an error of ours; the entity was reset from its journal."""
    stale: int
    """Appends that were refused because somebody newer owns the entity."""
    quarantined: Sequence[Quarantined]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreVitals:
    pid: int
    entities: int
    events: int
    queued: int
    """Writes that wait for a group."""
    groups: int
    """Groups committed since the process started; the same for the counts below."""
    writes: int
    refused_stale: int
    """Appends refused by the fence: an old epoch or a wrong sequence number."""
    commit_p50_ms: float
    """Median duration of the last thousand groups, from taking the writes to being on disk."""
    checkpoint_max_ms: float
    database_bytes: int
    log_bytes: int
    """The write-ahead log that a restart would replay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingBuild:
    """A build that waits for its turn with the implementers."""

    project: str
    work: str
    """`edit` or `check`; each has a line of its own."""
    place: int
    """In the line, from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolVitals:
    """The implementers and their queue."""

    workers: int
    busy: int
    """Workers that edit."""
    queued: int
    """Edits and checks that wait."""
    checking: int = 0
    """Checks that run, beside the edits."""
    waiting: Sequence[WaitingBuild] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPoolVitals:
    provider: str
    keys: int
    cooling: int
    """Keys that may not be used now."""
    waiting: int
    """Calls that wait for a key."""
    refused: Sequence[str] = ()
    """Keys that the provider refuses, by their ids: out of use until somebody mends them."""
    used_percent: int | None = None
    """Of what all keys together may do in a minute, for the model that is nearest to it; None without a limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemVitals:
    """One screen. A part that did not answer is missing from the lists and named in `silent`."""

    hosts: Sequence[HostVitals]
    map_version: int
    moving: int
    """Partitions without a live owner at the moment."""
    store: StoreVitals | None
    implementers: PoolVitals | None
    key_pools: Sequence[KeyPoolVitals]
    silent: Sequence[str]

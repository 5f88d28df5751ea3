"""The service's answers, as its HTTP doors write them. Unknown fields are kept, so `--json` shows everything."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from runtime.entity.vitals import HostVitals, KeyPoolVitals, PoolVitals, StoreVitals
from runtime.ledger.port import Mismatch

FINISHED = frozenset({"completed", "failed", "cancelled", "purged"})


class Answer(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Health(Answer):
    status: str
    ledger: str = ""
    provider: str = ""
    version: str = ""


class Me(Answer):
    user: str
    email: str = ""
    purge_after_days: int = 30
    balance_credits: str
    held_credits: str
    balance_ucredits: int
    held_ucredits: int


class TaskLine(Answer):
    id: str
    title: str
    phase: str
    state: str
    attempts: int
    reason: str = ""


class Doing(Answer):
    """What one worker does now. `retry_in_s`: until what is waited for is tried again."""

    task: str
    attempt: int = 1
    what: str
    for_s: int = 0
    retry_in_s: int | None = None


class Package(Answer):
    sha256: str
    size_bytes: int
    file_count: int
    partial: bool = False


class Hit(Answer):
    path: str
    start_line: int
    end_line: int
    symbol: str
    kind: str
    language: str
    score: float
    why: dict[str, float]
    text: str


class Hits(Answer):
    commit: str
    hits: Sequence[Hit]
    by_words_because: str | None = None
    """Why the index has no vectors yet that its embedder would give."""


class Place(Answer):
    path: str
    start_line: int
    end_line: int
    symbol: str
    kind: str


class Related(Answer):
    commit: str
    definitions: Sequence[Place]
    callers: Sequence[Place]
    callees: Sequence[Place]


class DownloadLink(Answer):
    """Good for whoever has it, until `expires_at`."""

    url: str
    expires_at: str
    sha256: str
    size_bytes: int


class KnownGap(Answer):
    task: str
    reason: str
    refunded: bool = True


class Project(Answer):
    """Amounts in credits are texts with two decimals; None before there is a quote."""

    id: str
    title: str
    status: str
    question: str | None = None
    scope: str | None = None
    quote_credits: str | None = None
    ceiling_credits: str | None = None
    spent_credits: str
    spent_ucredits: int
    spent_usd: str
    spent_pusd: int
    tasks: list[TaskLine] = []
    tasks_done: int = 0
    tasks_total: int = 0
    phase: int = 0
    phases: list[str] = []
    asks: str | None = None
    possible: list[str] = []
    gaps: list[str] = []
    activity: list[Doing] = []
    failure_reason: str | None = None
    package: Package | None = None
    known_gaps: list[KnownGap] = []
    created_at: str = ""
    updated_at: str = ""
    completed_at: str | None = None
    last_seq: int = 0

    @property
    def finished(self) -> bool:
        return self.status in FINISHED

    @property
    def paused(self) -> bool:
        return self.status.startswith("paused") or self.status == "awaiting_approval"

    @property
    def asks_for_confirmation(self) -> bool:
        return self.status == "confirming_scope"

    @property
    def moves_on(self) -> bool:
        """It was answered a moment ago, and its status does not say so yet."""
        return self.status in ("confirming_scope", "awaiting_approval") and self.asks is None


class Projects(Answer):
    projects: list[Project]


class Judged(Answer):
    project: str
    score: int
    text: str = ""


class ReceiptRow(Answer):
    call: str
    model: str
    state: str
    input_tokens: int
    output_tokens: int
    cost_pusd: int
    credits_ucredits: int
    outcome: str
    provider: str

    @property
    def model_id(self) -> str:
        return f"{self.provider}/{self.model}"


class Receipt(Answer):
    project: str
    charged: list[ReceiptRow]
    losses: list[ReceiptRow]
    pending: list[ReceiptRow]
    total_cost_pusd: int
    total_credits: str
    total_ucredits: int
    refunded_ucredits: int


class Event(Answer):
    """One line of a project's log. `seq` grows by at least one from event to event."""

    seq: int
    type: str
    at: str = ""
    data: dict[str, Any] = {}


class ProjectCounts(Answer):
    """Of all users."""

    total: int
    unfinished: int


class AdminStatus(Answer):
    """`runtime.entity.vitals.SystemVitals` and the projects' counts; None for those that did not answer."""

    hosts: Sequence[HostVitals]
    map_version: int
    moving: int
    store: StoreVitals | None
    implementers: PoolVitals | None
    key_pools: Sequence[KeyPoolVitals]
    silent: Sequence[str]
    projects: ProjectCounts | None


class Checked(Answer):
    """What the integrity check found; without mismatches everything that is stored agrees."""

    mismatches: Sequence[Mismatch]
    seconds: float


class Backup(Answer):
    folder: Path
    cluster_id: str
    entities: int
    events: int
    blobs: int
    bytes: int
    seconds: float


class Compacted(Answer):
    events_dropped: int
    bytes_before: int
    bytes_after: int


class Pardoned(Answer):
    entity: str
    pardoned: bool


class ErrorBody(Answer):
    code: str = "error"
    message: str = ""
    charged: str = "Nothing was charged."
    next: str = ""
    request_id: str = ""

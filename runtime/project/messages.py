"""What may be said to a project, and what it says about itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

from runtime.ids import BlobId, ProjectId, UserId

IndexedStatus = Literal["not_indexed", "indexing", "indexed", "error"]
"""Source: spec/builder.md §3.2, `codebase_index_status`."""


class Status(StrEnum):
    """Source: spec/builder.md §3.2, DESIGN §11."""

    GATHERING_REQUIREMENTS = "gathering_requirements"
    CLARIFYING = "clarifying"
    CONFIRMING_SCOPE = "confirming_scope"
    PLANNING = "planning"
    IMPLEMENTING = "implementing"
    VERIFYING = "verifying"
    README_GENERATION = "readme_generation"
    PACKAGING = "packaging"
    DELIVERING = "delivering"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PURGED = "purged"
    PAUSED = "paused"
    PAUSED_NO_CREDITS = "paused_no_credits"
    PAUSED_QUOTE = "paused_quote"
    AWAITING_APPROVAL = "awaiting_approval"

    @property
    def terminal(self) -> bool:
        return self in (Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.PURGED)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenProject:
    """To the user's session. `key` makes a retry safe: the same key is the same project.

    `answers` maps topics (`runtime.project.schemas.TOPICS`) to texts. `confirmed` is a yes given in advance to any
    quote whose ceiling is at most `max_ucredits`.
    """

    key: str
    brief: str
    answers: Mapping[str, str]
    max_ucredits: int | None
    confirmed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Describe:
    """To a project: answers a ProjectView. Read-only; answered at once beside running work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """To a project that asked a question."""

    key: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirm:
    """To a project that showed its scope and quote: yes, or no with what to change (asks again)."""

    key: str
    accept: bool
    change: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Stops the project. What was charged stays charged, open holds are released."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """To a paused project: go on, with a new ceiling if one is given."""

    key: str
    ceiling_ucredits: int | None = None


ProjectMessage = Describe | Answer | Confirm | Cancel | Resume


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageView:
    blob: BlobId
    sha256: str
    size_bytes: int
    file_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """One item of the plan. `state`: `open`, `running`, `done`, `failed`, `struck`."""

    id: str
    title: str
    phase: str
    state: str
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectView:
    """A project as its owner sees it. Amounts in microcredits and picodollars."""

    id: ProjectId
    owner: UserId
    title: str
    status: Status
    question: str | None
    """What the project waits to be told; None when it waits for nothing."""
    scope: str | None
    """The scope summary, once there is one."""
    quote_ucredits: int | None
    ceiling_ucredits: int | None
    spent_ucredits: int
    spent_pusd: int
    tasks: Sequence[TaskView]
    failure_reason: str | None
    package: PackageView | None
    created_at: datetime
    updated_at: datetime
    last_seq: int
    completed_at: datetime | None = None
    """From then on its package is there; a project that ended otherwise has none."""
    bundle: BlobId | None = None
    """The git bundle of what is built so far; None before there is a commit."""
    current_todo_markdown: str | None = None
    """`TODO.md` as it is in the repository, byte for byte; None before its first commit."""
    known_gaps: Mapping[str, str] = field(default_factory=dict)
    """Item id -> why it could not be made to pass: it is not in the package, and its cost was given back."""
    index_status: IndexedStatus = "not_indexed"

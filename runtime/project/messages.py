"""What may be said to a project, and what it says about itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

from runtime.ids import BlobId, ProjectId, RunId, UserId

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


Gate = Literal["plan", "phase", "delivery"]
"""Where an owner may ask to be waited for: after the plan, after each phase, before the delivery."""
AFTER_GATE: Mapping[str, Status] = {
    "plan": Status.PLANNING,
    "phase": Status.VERIFYING,
    "delivery": Status.DELIVERING,
}
"""What an approved project does until its next step begins."""
AFTER_REFUSAL: Mapping[str, Status] = {
    "plan": Status.PLANNING,
    "phase": Status.IMPLEMENTING,
    "delivery": Status.PLANNING,
}


def gate_of(name: str) -> str:
    """`phase/2/1` is the second phase's first time at the gate `phase`."""
    return name.partition("/")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenProject:
    """To the user's session. `key` makes a retry safe: the same key is the same project.

    `answers` maps topics (`runtime.project.schemas.TOPICS`) to texts. `confirmed` is a yes given in advance to any
    quote whose ceiling is at most `max_ucredits`; it opens none of the `gates`.
    """

    key: str
    brief: str
    answers: Mapping[str, str]
    max_ucredits: int | None
    confirmed: bool
    gates: Sequence[Gate] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Describe:
    """To a project: answers a ProjectView. Read-only; answered at once beside running work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """To a project that asked a question."""

    key: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Back:
    """To a project that asked a question: asks the one before it again, whose answer no longer counts."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirm:
    """To a project that showed its scope and quote: yes, or no with what to change (asks again)."""

    key: str
    accept: bool
    change: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """To a project at work: begin no further step. What is under way ends, and is kept and paid once."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """To a paused project: go on, with a new ceiling if one is given."""

    key: str
    ceiling_ucredits: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Stops the project for ever. What was charged stays charged, open holds are released, what exists is packed."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A wish for something else: before the yes a change of the scope, later new tasks with a quote of their own."""

    key: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A task whose attempts failed begins again, with a fresh count."""

    key: str
    task: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """Strikes an open task; its requirements become known gaps. `with_dependents` strikes those that need it too.

    What was charged for it stays charged; an attempt that is under way is broken off and not charged.
    """

    key: str
    task: str
    reason: str
    with_dependents: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Approve:
    """Yes to what the project shows: its scope, a gate, or the quote of a change.

    `about` names it as `ProjectView.asks` does, so that a yes to one thing is never taken for another; empty for
    whatever is asked now.
    """

    key: str
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """No to what the project shows. At a gate `text` says what is to be different; a change is dropped with it."""

    key: str
    text: str = ""
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewind:
    """Goes on from where a phase began. The commits made since stay in the repository's history under a branch."""

    key: str
    phase: int
    """Counted from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeAfter:
    """To a project: its files and texts are erased so many days after its end."""

    key: str
    days: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetProject:
    """From a project that is purged to its owner's session: what was said in the order is forgotten."""

    key: str
    project: ProjectId


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPurgePeriod:
    """To a user's session: all projects, those to come too, are erased so many days after their end."""

    key: str
    days: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerWaits:
    """From whoever works for a run: what it waits for, or, with an empty `what`, that it waits no more.

    Nothing of it is kept: it is told with what is done at this moment.
    """

    run: RunId
    what: str
    retry_in_s: float | None = None


Steering = Pause | Resume | Cancel | Change | Retry | Skip | Approve | Reject | Rewind
ProjectMessage = Describe | Answer | Back | Confirm | Steering


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """What one worker of a project does now. `task` is an item's id, or what the architect is asked for."""

    task: str
    attempt: int
    what: str
    """`editing and checking`, `merging`, `asking the architect`, `waiting: <for what>`, as a free implementer or a
    free key of openai."""
    since: datetime
    retry_at: datetime | None = None
    """When what is waited for is tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeView:
    """A change that was asked for. `stage`: `asked`, `proposed`, `accepted`, `rejected`, `failed`, `planned`."""

    number: int
    text: str
    stage: str
    title: str = ""
    summary: str = ""
    tasks: Sequence[str] = ()
    requirements: Sequence[str] = ()
    quote_ucredits: int = 0
    """What it adds to the project's quote."""
    rise_ucredits: int = 0
    """What it adds to the project's ceiling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageView:
    blob: BlobId
    sha256: str
    size_bytes: int
    file_count: int
    partial: bool = False
    """What was merged when the project was stopped, and its receipt: unfinished work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """One item of the plan. `state`: `open`, `running`, `done`, `failed`, `struck`."""

    id: str
    title: str
    phase: str
    state: str
    attempts: int
    reason: str = ""
    """Why it was struck."""


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
    commit: str = ""
    """The newest commit in it."""
    current_todo_markdown: str | None = None
    """`TODO.md` as it is in the repository, byte for byte; None before its first commit."""
    known_gaps: Mapping[str, str] = field(default_factory=dict)
    """Item id -> why it could not be made to pass: it is not in the package, and its cost was given back."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Item id -> that its owner skipped it, and why: it is not in the package; what it cost stays charged."""
    index_status: IndexedStatus = "not_indexed"
    """From then on its package is there; of a project that was stopped what existed is packed."""
    phase: int = 0
    """The phase at work, counted from 1; 0 before the first."""
    phases: Sequence[str] = ()
    asks: str | None = None
    """What `Approve` and `Reject` speak about now: `scope/1`, `plan/1`, `phase/2/1`, `delivery/1`, `change/1`."""
    changes: Sequence[ChangeView] = ()
    gaps: Sequence[str] = ()
    """Requirements that will not be met, because their tasks were struck."""
    activity: Sequence[Doing] = ()
    """What is done at this moment; empty while nothing is, and where the project sleeps."""
    possible: Sequence[str] = ()
    """What may be asked of it now, by the names of the messages: `pause`, `change`, `cancel`, ..."""
    ended_at: datetime | None = None
    purge_at: datetime | None = None
    """When its files and texts are erased."""
    topic: str = ""
    """Of the open question; empty where it asks nothing about the brief."""
    asked: int = 0
    """How many questions were asked so far, the open one among them."""
    topics_left: int = 0
    """Topics that neither an answer nor an assumption covers yet."""
    language: str = ""
    """Of the person, as BCP 47 names it; empty while it is not known."""
    run_commands: Sequence[str] = ()
    """What installs and starts the product; empty before there is a plan."""
    requirements: int = 0
    """Of the plan; 0 before it. Those in `gaps` are among them."""
    screenshots: Mapping[str, BlobId] = field(default_factory=dict)
    """Path in the package -> PNG: what a browser showed of the finished product."""


def is_scope(asks: str | None) -> bool:
    """Whether what is asked (`ProjectView.asks`) is the yes to a scope and its quote."""
    return asks is not None and asks.startswith("scope/")

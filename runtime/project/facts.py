"""Which of a project's events are counted in reports, and what of them."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from runtime.entity.journal import Append, NewEvent
from runtime.ids import ProjectId, UserId, kind_of, name_of
from runtime.project.messages import AFTER_GATE, AFTER_REFUSAL, Status, gate_of
from runtime.reports.facts import CommitFact, Fact, StatusFact, TaskFact, VerificationFact

KIND = "project"
COMMITS = ("repository.committed", "task.merged", "verify.finished", "plan.changed", "project.rewound")


def project_facts(append: Append, at: datetime) -> Sequence[Fact]:
    """Is a `FactsOf`. Appends of what is no project have none."""
    if not append.events or kind_of(append.entity) != KIND:
        return ()
    project = ProjectId(name_of(append.entity))
    return [
        fact
        for seq, event in enumerate(append.events, append.expected_seq + 1)
        for fact in _of_event(project, append.owner, seq, event, at)
    ]


def _of_event(project: ProjectId, owner: UserId, seq: int, event: NewEvent, at: datetime) -> Iterator[Fact]:
    data = event.data
    status = _status(event)
    if status is not None:
        yield StatusFact(project=project, user_id=owner, seq=seq, status=status.value, made_at=at)
    match event.type:
        case "task.started":
            yield TaskFact(project=project, task=data["task"], attempt=data["attempt"], step="started", made_at=at)
        case "task.rejected":
            yield TaskFact(project=project, task=data["task"], attempt=data["attempt"], step="rejected", made_at=at)
        case "task.merged":
            yield TaskFact(project=project, task=data["task"], attempt=data["attempt"], step="merged", made_at=at)
        case "verify.finished":
            yield VerificationFact(
                project=project,
                phase=data["phase_number"],
                cycle=data["round"],
                verdict=data["verdict"],
                items_checked=data["items"],
                findings=len(data.get("findings", ())),
                duration_ms=data.get("duration_ms", 0),
                made_at=at,
            )
    if event.type in COMMITS:
        yield CommitFact(project=project, commit_id=data["commit"], made_at=at)


def _status(event: NewEvent) -> Status | None:
    """What `State.after` makes of it."""
    match event.type:
        case "project.opened":
            return Status.GATHERING_REQUIREMENTS
        case "project.question" | "project.change":
            return Status.CLARIFYING
        case "project.quoted":
            return Status.CONFIRMING_SCOPE
        case "gate.opened":
            return Status.AWAITING_APPROVAL
        case "gate.approved":
            return AFTER_GATE[gate_of(event.data["gate"])]
        case "gate.rejected":
            return AFTER_REFUSAL[gate_of(event.data["gate"])]
        case "project.rewind":
            return Status.IMPLEMENTING
        case "project.purged":
            return Status.PURGED
        case "project.status" | "project.finished":
            return Status(event.data["status"])
        case _:
            return None

"""Plain rows for reports. They hold ids, numbers and times, and never a word that a user or a model wrote."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Literal, Protocol

from runtime.entity.journal import Append
from runtime.ids import ProjectId, UserId


class Fact(Protocol):
    """A row of `table`, written once, with the event that it comes from."""

    table: ClassVar[str]


FactsOf = Callable[[Append, datetime], Sequence[Fact]]
"""What an append at that time adds. Pure: it may be asked before the append is known to be accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusFact:
    """That a project came into a status."""

    table: ClassVar[str] = "project_statuses"
    project: ProjectId
    user_id: UserId
    seq: int
    status: str
    made_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationFact:
    """A verdict on a phase, or, where `phase` is 0, on the whole. `cycle` counts the phase's verdicts from 1."""

    table: ClassVar[str] = "verification_cycles"
    project: ProjectId
    phase: int
    cycle: int
    verdict: Literal["pass", "fail"]
    items_checked: int
    findings: int
    duration_ms: int
    """From the question to the verdict that counts, a second question included."""
    made_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFact:
    """That an attempt at a task began or ended."""

    table: ClassVar[str] = "task_steps"
    project: ProjectId
    task: str
    attempt: int
    step: Literal["started", "merged", "rejected"]
    made_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitFact:
    """A commit on a project's main branch."""

    table: ClassVar[str] = "project_commits"
    project: ProjectId
    commit_id: str
    made_at: datetime


def no_facts(append: Append, at: datetime) -> Sequence[Fact]:
    return ()

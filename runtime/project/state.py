"""What a project knows, as a pure fold of its events."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from runtime.entity.journal import EventRecord
from runtime.entity.steps import StepLog
from runtime.ids import BlobId, ProjectId, UserId, name_of
from runtime.ledger.money import credits_text
from runtime.project.messages import IndexedStatus, PackageView, ProjectView, Status, TaskView
from runtime.project.schemas import StackReply, TodoEdit, TodoReply
from runtime.project.todo import Todo

VERDICT_CHARACTERS_MAX = 1_000
EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at one item. `outcome`: None while it runs, else `merged` or `rejected`."""

    number: int
    outcome: str | None = None
    reason: str = ""
    cause: str = "checks"
    """Of a rejection: `checks`, or what made it go back on a newer base: `conflict`, `merged tree`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything a restart needs. Mappings are never changed in place."""

    id: ProjectId = ProjectId("")
    owner: UserId = UserId("")
    brief: str = ""
    answers: Mapping[str, str] = field(default_factory=dict)
    assumptions: Mapping[str, str] = field(default_factory=dict)
    """What is assumed about a topic, instead of an answer or beside it."""
    language: str = ""
    """Of the person, as BCP 47 names it; empty while it is not known."""
    max_ucredits: int | None = None
    confirmed_in_advance: bool = False

    status: Status = Status.GATHERING_REQUIREMENTS
    resume_to: Status | None = None
    """Where a paused project goes on."""
    pause_text: str = ""
    asked: int = 0
    question: Mapping[str, str] | None = None
    scope: str | None = None
    scope_round: int = 0
    change: str = ""
    quote_ucredits: int | None = None
    ceiling_ucredits: int | None = None
    confirmed: bool = False

    refusals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Step of the planning -> why its replies were sent back."""
    title: str = ""
    todo: Todo | None = None
    stack: StackReply | None = None
    attempts: Mapping[str, tuple[Attempt, ...]] = field(default_factory=dict)
    commits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Item id -> its commits on main, oldest first."""
    bundle: BlobId | None = None
    """The git bundle of main after the last commit. The working copy is a cache of it."""
    commit: str = ""
    index_status: IndexedStatus = "not_indexed"
    verdicts: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """Phase number (0: the final review) -> its verdicts so far."""
    forgiven: Mapping[int, int] = field(default_factory=dict)
    """Phase number -> how many of its first verdicts count no more, because what they found became a known gap."""
    failing: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    """Phase number -> the items that its newest verdict failed, and why."""
    verdict_text: str = ""
    """What the newest verdict that failed objected to, or was objected to."""
    gaps: Mapping[str, str] = field(default_factory=dict)
    """Item id -> why it could not be made to pass."""

    evidence: Mapping[str, str] = field(default_factory=dict)
    """Test file -> what its last run on the finished tree showed."""
    proved: Mapping[str, Any] = field(default_factory=dict)
    """What the last proof of the finished tree showed: `commands`, `started`, `screenshots`."""

    steps: StepLog = field(default_factory=StepLog)

    package: PackageView | None = None
    failure_reason: str | None = None
    spent_ucredits: int = 0
    created_at: datetime = EPOCH
    updated_at: datetime = EPOCH
    completed_at: datetime | None = None
    last_seq: int = 0

    def after(self, event: EventRecord) -> "State":
        """The state after one event; what it does not know it only counts. Nothing changes a project that is over."""
        if self.status.terminal:
            return self
        seen = replace(self, updated_at=event.at, last_seq=event.seq, steps=self.steps.after(event))
        data = event.data
        if "spent_ucredits" in data:
            seen = replace(seen, spent_ucredits=data["spent_ucredits"])
        match event.type:
            case "project.opened":
                return replace(
                    seen,
                    id=ProjectId(name_of(event.entity)),
                    owner=UserId(data["owner"]),
                    brief=data["brief"],
                    answers=data["answers"],
                    max_ucredits=data["max_ucredits"],
                    confirmed_in_advance=data["confirmed"],
                    title=_first_line(data["brief"]),
                    created_at=event.at,
                )
            case "project.status" | "project.finished":
                return seen._with_status(Status(data["status"]), data)
            case "project.question":
                return replace(seen, question=data, asked=self.asked + 1, status=Status.CLARIFYING)
            case "project.answer":
                topic = data["topic"]
                return replace(seen, question=None, answers={**self.answers, topic: data["text"]})
            case "project.covered":
                return replace(
                    seen,
                    answers={**self.answers, **data["answered"]},
                    assumptions={**_without(self.assumptions, data["answered"]), **data["assumptions"]},
                    language=data["language"] or self.language,
                )
            case "project.quoted":
                return replace(
                    seen,
                    status=Status.CONFIRMING_SCOPE,
                    scope=data["summary"],
                    scope_round=self.scope_round + 1,
                    change="",
                    quote_ucredits=data["quote_ucredits"],
                    ceiling_ucredits=data["ceiling_ucredits"],
                )
            case "project.change":
                return replace(seen, change=data["text"], status=Status.CLARIFYING)
            case "project.confirmed":
                return replace(seen, confirmed=True, ceiling_ucredits=data["ceiling_ucredits"])
            case "project.ceiling":
                return replace(seen, ceiling_ucredits=data["ceiling_ucredits"])
            case "plan.refused":
                reasons = (*self.refusals.get(data["step"], ()), data["reason"])
                return replace(seen, refusals={**self.refusals, data["step"]: reasons})
            case "plan.ready":
                plan = TodoReply.model_validate(data["plan"])
                return replace(
                    seen,
                    title=data["title"],
                    stack=StackReply.model_validate(data["stack"]),
                    todo=Todo.unchecked(plan),
                )
            case "project.index":
                return replace(seen, index_status=data["index_status"])
            case "repository.committed":
                return replace(seen, commit=data["commit"], bundle=BlobId(data["bundle"]))
            case "task.started":
                tries = (*self.attempts.get(data["task"], ()), Attempt(number=data["attempt"]))
                return replace(seen, attempts={**self.attempts, data["task"]: tries})
            case "task.rejected":
                cause = data.get("cause", "checks")
                return seen._with_outcome(data["task"], data["attempt"], "rejected", data["reason"], cause)
            case "task.merged":
                assert self.todo is not None, "a task was merged before there was a plan"
                merged = seen._with_outcome(data["task"], data["attempt"], "merged", "")
                return replace(
                    merged,
                    todo=self.todo.ticked(data["task"]),
                    commit=data["commit"],
                    bundle=BlobId(data["bundle"]),
                    commits={**self.commits, data["task"]: (*self.commits.get(data["task"], ()), data["commit"])},
                )
            case "verify.finished":
                assert self.todo is not None, "there was a verdict before there was a plan"
                edits = [TodoEdit.model_validate(edit) for edit in data["edits"]]
                number = data["phase_number"]
                failing = {each["id"]: each["reason"] for each in data.get("judged", ()) if each["verdict"] == "fail"}
                return replace(
                    seen,
                    verdicts={**self.verdicts, number: (*self.verdicts.get(number, ()), data["verdict"])},
                    failing={**self.failing, number: failing},
                    verdict_text=_objected(data),
                    todo=self.todo.edited(edits, data["edits_phase"]),
                    commit=data["commit"],
                    bundle=BlobId(data["bundle"]),
                )
            case "plan.gap":
                assert self.todo is not None, "there was a gap before there was a plan"
                forgiven = {number: len(verdicts) for number, verdicts in self.verdicts.items()}
                return replace(
                    seen,
                    todo=self.todo.struck(data["items"]),
                    gaps={**self.gaps, **data["items"]},
                    forgiven=forgiven,
                    commit=data["commit"],
                    bundle=BlobId(data["bundle"]),
                )
            case "qa.proved":
                return replace(seen, evidence=data["evidence"], proved=data)
            case "package.ready":
                return replace(
                    seen,
                    package=PackageView(
                        blob=BlobId(data["blob"]),
                        sha256=data["sha256"],
                        size_bytes=data["size_bytes"],
                        file_count=data["file_count"],
                    ),
                )
            case _:
                return seen

    def view(self, spent_ucredits: int, spent_pusd: int) -> ProjectView:
        return ProjectView(
            id=self.id,
            owner=self.owner,
            title=self.title,
            status=self.status,
            question=self.waits_for(),
            scope=self.scope,
            quote_ucredits=self.quote_ucredits,
            ceiling_ucredits=self.ceiling_ucredits,
            spent_ucredits=spent_ucredits,
            spent_pusd=spent_pusd,
            tasks=self._task_views(),
            failure_reason=self.failure_reason,
            package=self.package,
            bundle=self.bundle,
            created_at=self.created_at,
            updated_at=self.updated_at,
            completed_at=self.completed_at,
            last_seq=self.last_seq,
            current_todo_markdown=self.todo_markdown,
            known_gaps=self.gaps,
            index_status=self.index_status,
        )

    @property
    def todo_markdown(self) -> str | None:
        """The text of `TODO.md` at the project's newest commit."""
        return self.todo.render(self.title) if self.todo and self.bundle else None

    def waits_for(self) -> str | None:
        """What the owner is asked for now."""
        if self.status is Status.CLARIFYING and self.question is not None:
            return self.question["text"]
        if self.status is Status.CONFIRMING_SCOPE and not self.confirmed:
            quote, ceiling = credits_text(self.quote_ucredits or 0), credits_text(self.ceiling_ucredits or 0)
            above = self.max_ucredits is not None and (self.ceiling_ucredits or 0) > self.max_ucredits
            limit = f" That is above your limit of {credits_text(self.max_ucredits or 0)}." if above else ""
            return f"About {quote} credits, never more than {ceiling}.{limit} Go ahead?"
        if self.status in (Status.PAUSED, Status.PAUSED_NO_CREDITS, Status.PAUSED_QUOTE):
            return self.pause_text
        return None

    @property
    def plan(self) -> Todo:
        """Only after planning."""
        assert self.todo is not None, "there is no plan yet"
        return self.todo

    @property
    def paused(self) -> bool:
        return self.status in (Status.PAUSED, Status.PAUSED_NO_CREDITS, Status.PAUSED_QUOTE)

    def _with_status(self, status: Status, data: Mapping[str, Any]) -> "State":
        if status in (Status.PAUSED, Status.PAUSED_NO_CREDITS, Status.PAUSED_QUOTE):
            return replace(self, status=status, resume_to=self.resume_to or self.status, pause_text=data["text"])
        changed = replace(self, status=status, resume_to=None, pause_text="")
        if status is Status.FAILED:
            changed = replace(changed, failure_reason=data["reason"])
        if status is Status.COMPLETED:
            changed = replace(changed, completed_at=self.updated_at)
        return replace(changed, steps=replace(changed.steps, open={})) if status.terminal else changed

    def _with_outcome(self, task: str, number: int, outcome: str, reason: str, cause: str = "checks") -> "State":
        tries = tuple(
            replace(attempt, outcome=outcome, reason=reason, cause=cause) if attempt.number == number else attempt
            for attempt in self.attempts.get(task, ())
        )
        return replace(self, attempts={**self.attempts, task: tries})

    def _task_views(self) -> tuple[TaskView, ...]:
        if self.todo is None:
            return ()
        return tuple(
            TaskView(
                id=item.id,
                title=item.title,
                phase=self.todo.phases[item.phase - 1],
                state="struck" if item.struck is not None else self._task_state(item.id, self.todo.is_done(item)),
                attempts=len(self.attempts.get(item.id, ())),
            )
            for item in self.todo.items
        )

    def _task_state(self, id: str, done: bool) -> str:
        if done:
            return "done"
        tries = self.attempts.get(id, ())
        if tries and tries[-1].outcome is None and not self.status.terminal:
            return "running"
        return "failed" if tries and self.status is Status.FAILED else "open"


def _first_line(brief: str) -> str:
    return next((line.lstrip("# ").strip()[:200] for line in brief.splitlines() if line.strip()), "Untitled")


def _objected(verdict: Mapping[str, Any]) -> str:
    told = [finding["text"] for finding in verdict["findings"]] or list(verdict.get("objections", ()))
    return "; ".join(told)[:VERDICT_CHARACTERS_MAX]


def _without(texts: Mapping[str, str], topics: Collection[str]) -> Mapping[str, str]:
    return {topic: text for topic, text in texts.items() if topic not in topics}

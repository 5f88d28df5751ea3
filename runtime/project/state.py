"""What a project knows, as a pure fold of its events."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from runtime.entity.journal import EventRecord
from runtime.entity.steps import StepLog
from runtime.ids import BlobId, ProjectId, RunId, UserId, name_of
from runtime.ledger.money import credits_text
from runtime.project.messages import (
    AFTER_GATE,
    AFTER_REFUSAL,
    ChangeView,
    Gate,
    IndexedStatus,
    PackageView,
    ProjectView,
    Status,
    TaskView,
    gate_of,
)
from runtime.project.schemas import TOPICS, PlanChangeReply, Requirement, StackReply, TodoEdit, TodoReply
from runtime.project.todo import Todo

VERDICT_CHARACTERS_MAX = 1_000
FINAL_REVIEW = 0
"""The phase number under which the final review's verdicts are counted."""
OF_THE_WHOLE = ("docs/deployment", "docs/api/final", "docs/readme")
"""Steps whose results speak of the finished whole."""
SKIPPED = "skipped by the owner"
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
class Wish:
    """A change that the owner asked for after the plan."""

    number: int
    text: str
    phase: int | None = None
    """The phase whose gate it came from: it is mended there, for the price agreed. None: it has a price of its own."""
    stage: str = "asked"
    reply: PlanChangeReply | None = None
    quote_ucredits: int = 0
    rise_ucredits: int = 0

    @property
    def open(self) -> bool:
        return self.stage in ("asked", "proposed", "accepted")

    def view(self) -> ChangeView:
        reply = self.reply
        return ChangeView(
            number=self.number,
            text=self.text,
            stage=self.stage,
            title=reply.title if reply else "",
            summary=reply.summary if reply else "",
            tasks=[f"{edit.op} {edit.id} {edit.title}" for edit in reply.todo_edits] if reply else (),
            requirements=[f"{each.id} {each.text}" for each in reply.requirements] if reply else (),
            quote_ucredits=self.quote_ucredits,
            rise_ucredits=self.rise_ucredits,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """How main stood when a phase's first task was merged: where a rewind goes back to."""

    commit: str
    done: frozenset[str]
    commits: Mapping[str, tuple[str, ...]]


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
    gates: tuple[Gate, ...] = ()
    """Where the owner wants to be asked."""

    status: Status = Status.GATHERING_REQUIREMENTS
    resume_to: Status | None = None
    """Where a paused project goes on."""
    pause_text: str = ""
    paused_by_owner: bool = False
    asked: int = 0
    question: Mapping[str, str] | None = None
    answered: tuple[Mapping[str, str], ...] = ()
    """Questions that were answered, oldest first: the way back."""
    scope: str | None = None
    scope_round: int = 0
    change: str = ""
    quote_ucredits: int | None = None
    ceiling_ucredits: int | None = None
    confirmed: bool = False
    gate: str | None = None
    """The gate that is open now: `plan/1`, `phase/2/1` (the phase and its round), `delivery/1`."""
    gate_text: str = ""
    approved: frozenset[str] = frozenset()
    """Gates that were passed."""
    wishes: tuple[Wish, ...] = ()
    rewind_to: int | None = None
    """The phase that a rewind was asked to, until it is carried out."""
    rewound: int = 0
    stopping: bool = False
    """A cancel is being carried out."""

    refusals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Step of the planning -> why its replies were sent back."""
    title: str = ""
    todo: Todo | None = None
    plan_round: int = 0
    """How often the owner turned the plan down."""
    plan_wish: str = ""
    """Why, the last time."""
    documented: bool = False
    """The present plan is committed."""
    amended: Mapping[str, Requirement] = field(default_factory=dict)
    """Requirements that a change added or replaced."""
    bases: Mapping[int, Base] = field(default_factory=dict)
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
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Item id -> that its owner skipped it, and why."""

    evidence: Mapping[str, str] = field(default_factory=dict)
    """Test file -> what its last run on the finished tree showed."""
    proved: Mapping[str, Any] = field(default_factory=dict)
    """What the last proof of the finished tree showed: `commands`, `started`, `screenshots`."""

    steps: StepLog = field(default_factory=StepLog)

    package: PackageView | None = None
    packages: int = 0
    """How many were made."""
    failure_reason: str | None = None
    spent_ucredits: int = 0
    created_at: datetime = EPOCH
    updated_at: datetime = EPOCH
    completed_at: datetime | None = None
    ended_at: datetime | None = None
    purge_days: int | None = None
    """Days from its end to its erasure; None: as the installation says."""
    purge_at: datetime | None = None
    last_seq: int = 0

    def after(self, event: EventRecord) -> "State":
        """The state after one event; what it does not know it only counts. Of a project that is over only its end."""
        if self.status.terminal:
            return self._after_end(event)
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
                    gates=tuple(data.get("gates", ())),
                    purge_days=data.get("purge_days"),
                    title=_first_line(data["brief"]),
                    created_at=event.at,
                )
            case "project.status" | "project.finished":
                return seen._with_status(Status(data["status"]), data)
            case "project.question":
                return replace(seen, question=data, asked=self.asked + 1)._entering(Status.CLARIFYING)
            case "project.answer":
                topic = data["topic"]
                answered = (*self.answered, self.question) if self.question else self.answered
                return replace(seen, question=None, answered=answered, answers={**self.answers, topic: data["text"]})
            case "project.back":
                before = self.answered[-1]
                kept = _without(self.answers, (before["topic"],))
                return replace(seen, question=before, answered=self.answered[:-1], answers=kept)
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
                    scope=data["summary"],
                    scope_round=self.scope_round + 1,
                    change="" if data.get("change", self.change) == self.change else self.change,
                    quote_ucredits=data["quote_ucredits"],
                    ceiling_ucredits=data["ceiling_ucredits"],
                )._entering(Status.CONFIRMING_SCOPE)
            case "project.change":
                change = f"{self.change}\n{data['text']}" if self.change else data["text"]
                return replace(seen, change=change)._entering(Status.CLARIFYING)
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
                return replace(seen, commit=data["commit"], bundle=BlobId(data["bundle"]), documented=True)
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
                    bases=self._bases_before(data["task"]),
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
                        partial=data.get("partial", False),
                    ),
                    packages=self.packages + 1,
                )
            case "gate.opened":
                opened = replace(seen, gate=data["gate"], gate_text=data["text"])
                return opened._entering(Status.AWAITING_APPROVAL)
            case "gate.approved":
                approved = replace(seen, gate=None, gate_text="", approved=self.approved | {data["gate"]})
                return approved._entering(AFTER_GATE[gate_of(data["gate"])])
            case "gate.rejected":
                refused = replace(seen, gate=None, gate_text="")._turned_down(data["gate"], data["text"])
                return refused._entering(AFTER_REFUSAL[gate_of(data["gate"])])
            case "change.asked":
                return replace(seen, wishes=(*self.wishes, Wish(number=data["number"], text=data["text"])))
            case "change.proposed":
                mends_a_phase = self.wishes[data["number"] - 1].phase is not None
                return seen._with_wish(
                    data["number"],
                    stage="accepted" if mends_a_phase else "proposed",
                    reply=PlanChangeReply.model_validate(data["change"]),
                    quote_ucredits=data["quote_ucredits"],
                    rise_ucredits=data["rise_ucredits"],
                )
            case "change.accepted":
                agreed = seen._with_wish(data["number"], stage="accepted")
                ceiling, quote = data["ceiling_ucredits"], data["quote_ucredits"]
                return replace(agreed, ceiling_ucredits=ceiling, quote_ucredits=quote)
            case "change.rejected":
                return seen._with_wish(data["number"], stage="rejected")
            case "change.failed":
                return seen._with_failed_wish(data["number"])
            case "plan.changed":
                return seen._with_wish(data["number"], stage="planned")._with_change(data)
            case "task.retried":
                return seen._with_fresh_count(data["task"])
            case "task.skipped":
                return seen._without_skipped(data["tasks"], data["reason"])
            case "project.rewind":
                asked = replace(seen, rewind_to=data["phase"], gate=None, gate_text="")
                asked = replace(asked, status=Status.IMPLEMENTING, resume_to=None, pause_text="", paused_by_owner=False)
                return replace(asked, steps=replace(asked.steps, open={}))
            case "project.rewound":
                return seen._rewound_to(data)
            case "project.stopping":
                return replace(seen, stopping=True, steps=replace(seen.steps, open={}))
            case "project.purge_period":
                return replace(seen, purge_days=data["days"])
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
            commit=self.commit,
            created_at=self.created_at,
            updated_at=self.updated_at,
            completed_at=self.completed_at,
            last_seq=self.last_seq,
            current_todo_markdown=self.todo_markdown,
            known_gaps=self.gaps,
            skipped=self.skipped,
            index_status=self.index_status,
            phase=self.phase,
            phases=self.todo.phases if self.todo else (),
            asks=self.asks,
            changes=tuple(wish.view() for wish in self.wishes),
            gaps=self.todo.unmet() if self.todo else (),
            ended_at=self.ended_at,
            purge_at=self.purge_at,
            topic=self.question["topic"] if self.question else "",
            asked=self.asked,
            topics_left=sum(topic not in self.answers and topic not in self.assumptions for topic in TOPICS),
            language=self.language,
            run_commands=self._run_commands(),
            requirements=len({each for item in self.todo.items for each in item.requirements}) if self.todo else 0,
            screenshots={path: BlobId(blob) for path, blob in self.proved.get("screenshots", {}).items()},
        )

    def _run_commands(self) -> Sequence[str]:
        commands = self.stack.commands if self.stack else None
        return [command for command in (commands.install, commands.run) if command] if commands else ()

    @property
    def todo_markdown(self) -> str | None:
        """The text of `TODO.md` at the project's newest commit."""
        return self.todo.render(self.title) if self.todo and self.bundle else None

    @property
    def phase(self) -> int:
        """The first phase with something to do, counted from 1; the last one when there is nothing; 0 before a plan."""
        if self.todo is None:
            return 0
        todo = self.todo
        numbers = range(1, len(todo.phases) + 1)
        return next((number for number in numbers if not todo.is_closed(number)), len(todo.phases))

    def with_amended(self, requirements: Sequence[Requirement]) -> list[Requirement]:
        """The plan's requirements after all changes: replaced ones in their place, new ones behind."""
        known = {each.id for each in requirements}
        current = [self.amended.get(each.id, each) for each in requirements]
        return [*current, *(each for id, each in self.amended.items() if id not in known)]

    @property
    def proposed(self) -> Wish | None:
        """The change that waits for a yes."""
        return next((wish for wish in self.wishes if wish.stage == "proposed"), None)

    @property
    def asks(self) -> str | None:
        """What a yes or no is asked for: first the gate that stops the work, then a change that does not."""
        if self.status.terminal:
            return None
        if self.gate is not None:
            return self.gate
        if self.proposed is not None:
            return f"change/{self.proposed.number}"
        awaited = Status.CONFIRMING_SCOPE in (self.status, self.resume_to)
        return f"scope/{self.scope_round}" if awaited and not self.confirmed and not self.change else None

    def waits_for(self) -> str | None:
        """What the owner is asked for now."""
        if self.status is Status.CLARIFYING and self.question is not None:
            return self.question["text"]
        if self.status is Status.CONFIRMING_SCOPE and not self.confirmed:
            quote, ceiling = credits_text(self.quote_ucredits or 0), credits_text(self.ceiling_ucredits or 0)
            above = self.max_ucredits is not None and (self.ceiling_ucredits or 0) > self.max_ucredits
            limit = f" That is above your limit of {credits_text(self.max_ucredits or 0)}." if above else ""
            return f"About {quote} credits, never more than {ceiling}.{limit} Go ahead?"
        if self.paused:
            return self.pause_text
        if self.status.terminal:
            return None
        if self.gate is not None:
            return self.gate_text
        return _proposal(self.proposed, self.ceiling_ucredits or 0) if self.proposed else None

    @property
    def plan(self) -> Todo:
        """Only after planning."""
        assert self.todo is not None, "there is no plan yet"
        return self.todo

    @property
    def chosen_stack(self) -> StackReply:
        """Only after planning."""
        assert self.stack is not None, "there is no stack yet"
        return self.stack

    def runs_for(self, tasks: Collection[str]) -> Mapping[str, RunId]:
        """The open runs of these items' attempts, by step."""
        return {
            step: run
            for step, run in self.steps.open.items()
            if (edited := edited_item(step)) is not None and edited[0] in tasks
        }

    @property
    def paused(self) -> bool:
        return self.status in (Status.PAUSED, Status.PAUSED_NO_CREDITS, Status.PAUSED_QUOTE)

    def _with_status(self, status: Status, data: Mapping[str, Any]) -> "State":
        if status in (Status.PAUSED, Status.PAUSED_NO_CREDITS, Status.PAUSED_QUOTE):
            return replace(
                self,
                status=status,
                resume_to=self.resume_to or self.status,
                pause_text=data["text"],
                paused_by_owner=data.get("by_owner", False),
            )
        if data.get("of_flow") and self.paused:
            return replace(self, resume_to=status)
        changed = replace(self, status=status, resume_to=None, pause_text="", paused_by_owner=False)
        if status is Status.FAILED:
            changed = replace(changed, failure_reason=data["reason"])
        if status is Status.COMPLETED:
            changed = replace(changed, completed_at=self.updated_at)
        if not status.terminal:
            return changed
        purge_at = datetime.fromisoformat(data["purge_at"]) if "purge_at" in data else None
        ended = replace(changed, ended_at=self.updated_at, purge_at=purge_at, stopping=False)
        return replace(ended, steps=replace(changed.steps, open={}))

    def _entering(self, status: Status) -> "State":
        """In this status, or, while paused, as soon as it is resumed."""
        return replace(self, resume_to=status) if self.paused else replace(self, status=status)

    def _after_end(self, event: EventRecord) -> "State":
        match event.type:
            case "project.purge_due":
                due = datetime.fromisoformat(event.data["purge_at"])
                return replace(self, purge_at=due, purge_days=event.data["days"], last_seq=event.seq)
            case "project.purged":
                return State(
                    id=self.id,
                    owner=self.owner,
                    title="(erased)",
                    status=Status.PURGED,
                    spent_ucredits=self.spent_ucredits,
                    created_at=self.created_at,
                    completed_at=self.completed_at,
                    ended_at=self.ended_at,
                    updated_at=event.at,
                    last_seq=event.seq,
                )
            case "project.notice":
                return replace(self, last_seq=event.seq)
            case _:
                return self

    def _without_skipped(self, tasks: Sequence[str], reason: str) -> "State":
        """What is under way for them is broken off."""
        why = SKIPPED if reason == SKIPPED else f"{SKIPPED}: {reason}"
        cut_off = self.runs_for(tasks)
        still_open = {step: run for step, run in self.steps.open.items() if step not in cut_off}
        return replace(
            self,
            todo=self.plan.struck(dict.fromkeys(tasks, reason)),
            skipped={**self.skipped, **dict.fromkeys(tasks, why)},
            steps=replace(self.steps, open=still_open),
        )

    def _bases_before(self, task: str) -> Mapping[int, Base]:
        """With the base of the task's phase, if it is the first that is merged there."""
        phase = self.plan.item(task).phase
        if phase in self.bases:
            return self.bases
        done = frozenset(item.id for item in self.plan.items if item.done)
        return {**self.bases, phase: Base(commit=self.commit, done=done, commits=self.commits)}

    def _turned_down(self, gate: str, text: str) -> "State":
        """At the plan's gate it is planned again; at a phase's its findings are mended; else it is a change."""
        kind, _, rest = gate.partition("/")
        if kind == "plan":
            return replace(
                self,
                scope=f"{self.scope or ''}\n\nThe owner turned a plan down: {text}",
                todo=None,
                plan_round=self.plan_round + 1,
                plan_wish=text,
                documented=False,
                skipped={},
                refusals={},
                steps=self.steps.without("plan/", "docs/api"),
            )
        phase = int(rest.partition("/")[0]) if kind == "phase" else None
        wish = Wish(number=len(self.wishes) + 1, text=text, phase=phase)
        return replace(self, wishes=(*self.wishes, wish))

    def _with_wish(self, number: int, **changes: Any) -> "State":
        wishes = tuple(replace(wish, **changes) if wish.number == number else wish for wish in self.wishes)
        return replace(self, wishes=wishes)

    def _with_failed_wish(self, number: int) -> "State":
        """A price that was agreed to for it is not owed."""
        failed, wish = self._with_wish(number, stage="failed"), self.wishes[number - 1]
        if wish.stage != "accepted":
            return failed
        quote, ceiling = (self.quote_ucredits or 0), (self.ceiling_ucredits or 0)
        return replace(
            failed, quote_ucredits=quote - wish.quote_ucredits, ceiling_ucredits=ceiling - wish.rise_ucredits
        )

    def _with_change(self, data: Mapping[str, Any]) -> "State":
        edits = [TodoEdit.model_validate(edit) for edit in data["edits"]]
        todo = self.plan.with_phase(data["phase"]) if data["is_new_phase"] else self.plan
        amended = {each["id"]: Requirement.model_validate(each) for each in data["requirements"]}
        changed = replace(
            self,
            todo=todo.edited(edits, data["phase_number"]),
            amended={**self.amended, **amended},
            commit=data["commit"],
            bundle=BlobId(data["bundle"]),
        )
        return changed._unfinished(FINAL_REVIEW)

    def _unfinished(self, *phases: int) -> "State":
        """What was concluded about these phases, and all that was made of the finished whole, is made again."""
        verdicts = {
            phase: tuple("outdated" for _ in given) if phase in phases else given
            for phase, given in self.verdicts.items()
        }
        return replace(self, verdicts=verdicts, evidence={}, package=None, steps=self.steps.without(*OF_THE_WHOLE))

    def _with_fresh_count(self, task: str) -> "State":
        tries = tuple(
            replace(attempt, outcome="forgiven") if attempt.outcome == "rejected" else attempt
            for attempt in self.attempts.get(task, ())
        )
        return replace(self, attempts={**self.attempts, task: tries})

    def _rewound_to(self, data: Mapping[str, Any]) -> "State":
        first = data["phase"]
        base = self.bases[first]
        back = replace(
            self,
            todo=self.plan.reset(base.done),
            commits=base.commits,
            bases={phase: each for phase, each in self.bases.items() if phase < first},
            commit=data["commit"],
            bundle=BlobId(data["bundle"]),
            rewind_to=None,
            rewound=self.rewound + 1,
            approved=frozenset(gate for gate in self.approved if gate.startswith("plan/")),
        )
        return back._unfinished(FINAL_REVIEW, *(phase for phase in self.verdicts if phase >= first))

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
                reason=item.struck or "",
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


def edit_step(item: str, attempt: int) -> str:
    """The name of the step that is one attempt at an item."""
    return f"code/{item}/{attempt}"


def edited_item(step: str) -> tuple[str, int] | None:
    """Which item a step is an attempt at, and the attempt's number, if it is one."""
    kind, *rest = step.split("/")
    return (rest[0], int(rest[1])) if kind == "code" else None


def _first_line(brief: str) -> str:
    return next((line.lstrip("# ").strip()[:200] for line in brief.splitlines() if line.strip()), "Untitled")


def _objected(verdict: Mapping[str, Any]) -> str:
    told = [finding["text"] for finding in verdict.get("findings", ())] or list(verdict.get("objections", ()))
    told = told or [f"{edit['op']} {edit['id']}: {edit['detail']}" for edit in verdict.get("edits", ())]
    return "; ".join(told)[:VERDICT_CHARACTERS_MAX]


def _without(texts: Mapping[str, str], topics: Collection[str]) -> Mapping[str, str]:
    return {topic: text for topic, text in texts.items() if topic not in topics}


def _proposal(wish: Wish, ceiling_ucredits: int) -> str:
    added, ceiling = credits_text(wish.quote_ucredits), credits_text(ceiling_ucredits + wish.rise_ucredits)
    tasks = len(wish.reply.todo_edits) if wish.reply else 0
    summary = wish.reply.summary if wish.reply else wish.text
    return (
        f"Change {wish.number}: {summary} {tasks} tasks, about {added} credits more; work then stops at {ceiling}. "
        "Approve or reject it; the work goes on meanwhile."
    )

"""Watching a build from the terminal: lines for what happened, a bar for how far it is.

Events come in order and each once, whatever happens to the connection or the service: after a break the view goes on
from the last number it saw.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cluster.client import Client
from cluster.wire import Event, Project
from runtime.errors import UnavailableError
from runtime.ledger.money import credits_text

_BOLD = re.compile(r"\*\*(.+?)\*\*")
_TELLING = re.compile(r"(FAIL|ERROR|FAILED|E) *[: ]|[\w.]*(Error|Exception)\b")
_MODULE = re.compile(r" \([\w.]+\)$")
_SUMMARY_CHARACTERS = 110
_FINDINGS_SHOWN = 5
_RECONNECT_S = (0.5, 1.0, 2.0, 3.0)

_MAY_ASK = ("project.question", "project.quoted", "project.status", "gate.opened", "change.proposed")

Ending = Literal["finished", "question", "confirmation", "approval", "paused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """Why following ended, and the last event seen: go on from there."""

    ending: Ending
    project: Project
    seq: int


@dataclass(slots=True, kw_only=True)
class Story:
    """Turns events into lines of rich markup, and remembers what the next line needs to know. No I/O."""

    done: int = 0
    total: int = 0
    spent_ucredits: int = 0
    status: str = ""
    _phase_of: dict[str, str] = field(default_factory=dict)
    _title_of: dict[str, str] = field(default_factory=dict)
    _phase: str = ""

    def lines(self, event: Event) -> list[str]:
        """What to print for an event; an event type that it does not know has no line."""
        tell: Callable[[dict[str, Any]], Iterator[str]] | None = {
            "project.status": self._status,
            "project.question": self._question,
            "project.answer": self._answer,
            "project.quoted": self._quoted,
            "project.confirmed": self._confirmed,
            "plan.refused": self._refused,
            "plan.ready": self._plan,
            "plan.gap": self._gap,
            "task.started": self._started,
            "task.checked": self._checked,
            "task.merged": self._merged,
            "verify.finished": self._verified,
            "qa.finished": self._qa,
            "package.ready": self._package,
            "project.notice": self._notice,
            "project.finished": self._finished,
            "progress": self._progress,
            "gate.opened": self._notice,
            "change.asked": self._change_asked,
            "change.proposed": self._change_proposed,
            "change.failed": self._change_failed,
            "plan.changed": self._plan_changed,
            "task.retried": self._retried,
            "task.skipped": self._skipped,
            "project.rewound": self._rewound,
        }.get(event.type)
        spent = event.data.get("spent_ucredits")
        if isinstance(spent, int):
            self.spent_ucredits = max(spent, self.spent_ucredits)
        return list(tell(event.data)) if tell else []

    def _status(self, data: dict[str, Any]) -> Iterator[str]:
        self.status = str(data.get("status", ""))
        text = str(data.get("text") or "")
        is_heading = any(phase and text.endswith(phase) for phase in self._phase_of.values())
        if text and not is_heading:
            colour = "yellow" if self.status.startswith("paused") else "dim"
            yield f"[{colour}]· {escape(text)}[/]"

    def _question(self, data: dict[str, Any]) -> Iterator[str]:
        yield f"[bold magenta]? {escape(str(data.get('text', '')))}[/]"

    def _answer(self, data: dict[str, Any]) -> Iterator[str]:
        yield f"  [dim]you: {escape(_short(data.get('text')))}[/]"

    def _quoted(self, data: dict[str, Any]) -> Iterator[str]:
        yield "[bold]Scope[/]"
        for line in str(data.get("summary", "")).splitlines():
            yield ("  " + _BOLD.sub(r"[bold]\1[/]", escape(line))).rstrip()
        quote, ceiling = data.get("quote_ucredits"), data.get("ceiling_ucredits")
        if isinstance(quote, int) and isinstance(ceiling, int):
            yield f"[bold]Quote[/] {credits_text(quote)} credits; work stops at {credits_text(ceiling)}"

    def _confirmed(self, data: dict[str, Any]) -> Iterator[str]:
        yield "[green]✓[/] scope and quote agreed"

    def _refused(self, data: dict[str, Any]) -> Iterator[str]:
        yield f"[yellow]· sent back, not charged: {escape(_short(data.get('reason')))}[/]"

    def _gap(self, data: dict[str, Any]) -> Iterator[str]:
        for task, reason in dict(data.get("items") or {}).items():
            name = f"{task} {self._title_of.get(task, '')}".strip()
            yield f"  [yellow]⚠ known gap, given back: {escape(name)}: {escape(_short(reason))}[/]"

    def _plan(self, data: dict[str, Any]) -> Iterator[str]:
        tasks = data.get("tasks") or []
        self._remember(tasks)
        phases = len(dict.fromkeys(task.get("phase") for task in tasks))
        yield (
            f"[bold]Plan[/] {escape(str(data.get('title', '')))}: {data.get('requirements', 0)} requirements, "
            f"{len(tasks)} tasks in {phases} phases"
        )

    def _started(self, data: dict[str, Any]) -> Iterator[str]:
        task = str(data.get("task", ""))
        phase = self._phase_of.get(task, "")
        if phase and phase != self._phase:
            self._phase = phase
            yield f"[bold cyan]{escape(phase)}[/]"
        yield f"  [dim]▸ {escape(self._name(data))}{_attempt(data)}[/]"

    def _checked(self, data: dict[str, Any]) -> Iterator[str]:
        if not data.get("passed"):
            yield f"  [red]✗ {escape(self._name(data))}{_attempt(data)}: {escape(_why(data.get('summary')))}[/]"
        if discarded := data.get("discarded"):
            yield f"      [yellow]left out, for the task does not own it:[/] {escape(_short(', '.join(discarded)))}"

    def _merged(self, data: dict[str, Any]) -> Iterator[str]:
        self.done, self.total = int(data.get("done", self.done)), int(data.get("total", self.total))
        commit = escape(str(data.get("commit", ""))[:8])
        yield (
            f"  [green]✓[/] {escape(self._name(data))}{_attempt(data)} [dim]{commit} · {self.done}/{self.total} · "
            f"{credits_text(self.spent_ucredits)} credits[/]"
        )

    def _verified(self, data: dict[str, Any]) -> Iterator[str]:
        passed = data.get("verdict") == "pass"
        mark, word = ("[green]✓[/]", "passed") if passed else ("[red]✗[/]", "[red]not yet[/]")
        where = f"{data.get('phase', '')}, round {data.get('round', 1)}"
        yield f"  {mark} [bold]verification[/] ({escape(where)}): {word}"
        findings = data.get("findings") or []
        for finding in findings[:_FINDINGS_SHOWN]:
            line = finding.get("line") or 0
            place = f"{finding.get('file', '')}:{line}" if line else str(finding.get("file", ""))
            yield (
                f"      [yellow]{escape(str(finding.get('severity', '')))}[/] {escape(place)} "
                f"{escape(_short(finding.get('text')))}"
            )
        if len(findings) > _FINDINGS_SHOWN:
            yield f"      [dim]and {len(findings) - _FINDINGS_SHOWN} more[/]"
        added = data.get("added") or []
        self._remember(added)
        for task in added:
            yield f"      [yellow]+[/] new task {escape(str(task.get('id')))} {escape(str(task.get('title')))}"
        for task in data.get("reopened") or []:
            yield f"      [yellow]↺[/] reopened {escape(self._name({'task': task}))}"

    def _qa(self, data: dict[str, Any]) -> Iterator[str]:
        mark = "[green]✓[/]" if data.get("passed") else "[red]✗[/]"
        yield f"{mark} [bold]final QA[/]: {escape(_short(data.get('summary')))}"

    def _package(self, data: dict[str, Any]) -> Iterator[str]:
        size = int(data.get("size_bytes", 0)) / 1024
        yield f"[green]✓[/] [bold]package[/]: {data.get('file_count', 0)} files, {size:.0f} kB"

    def _notice(self, data: dict[str, Any]) -> Iterator[str]:
        yield f"[yellow]! {escape(str(data.get('text', '')))}[/]"

    def _progress(self, data: dict[str, Any]) -> Iterator[str]:
        """What is done while nothing happens: one line for each worker, and one for the money."""
        for doing in data.get("activity") or []:
            retry = doing.get("retry_in_s")
            again = "" if retry is None else f", retry in {retry} s"
            words = (
                f"{doing.get('task')}{_attempt(doing)}: {_short(doing.get('what'))} for {doing.get('for_s')} s{again}"
            )
            yield f"  [dim]· {escape(words)}[/]"
        quote = data.get("quote_credits")
        of_quote = f" of {quote} quoted" if quote else ""
        words = f"{str(data.get('status', '')).replace('_', ' ')} · {data.get('spent_credits')} credits{of_quote}"
        yield f"  [dim]· {escape(words)}[/]"

    def _change_asked(self, data: dict[str, Any]) -> Iterator[str]:
        yield f"[magenta]Δ change {data.get('number')}[/] {escape(_short(data.get('text')))}"

    def _change_proposed(self, data: dict[str, Any]) -> Iterator[str]:
        change = data.get("change") or {}
        yield f"[bold magenta]Δ change {data.get('number')}[/] {escape(str(change.get('summary', '')))}"
        for each in change.get("requirements") or []:
            yield f"      [yellow]{escape(str(each.get('id')))}[/] {escape(_short(each.get('text')))}"
        for edit in change.get("todo_edits") or []:
            what = f"{edit.get('op')} {edit.get('id')} {edit.get('title')}: {edit.get('reason')}"
            yield f"      [yellow]+[/] {escape(_short(what))}"
        quote, ceiling = data.get("quote_ucredits"), data.get("ceiling_ucredits")
        if isinstance(quote, int) and isinstance(ceiling, int) and quote:
            yield f"[bold]Quote[/] {credits_text(quote)} credits more; work then stops at {credits_text(ceiling)}"

    def _change_failed(self, data: dict[str, Any]) -> Iterator[str]:
        yield f"[red]Δ change {data.get('number')} is not made:[/] {escape(_short(data.get('reason')))}"

    def _plan_changed(self, data: dict[str, Any]) -> Iterator[str]:
        added = data.get("added") or []
        self._remember(added)
        yield f"[bold magenta]Δ[/] change {data.get('number')} is in the plan: {escape(str(data.get('phase')))}"
        for task in added:
            yield f"      [yellow]+[/] new task {escape(str(task.get('id')))} {escape(str(task.get('title')))}"
        for task in data.get("reopened") or []:
            yield f"      [yellow]↺[/] reopened {escape(self._name({'task': task}))}"

    def _retried(self, data: dict[str, Any]) -> Iterator[str]:
        yield f"  [yellow]↺ {escape(self._name(data))} is tried again[/]"

    def _skipped(self, data: dict[str, Any]) -> Iterator[str]:
        for task in data.get("tasks") or []:
            yield f"  [yellow]- {escape(self._name({'task': task}))} is struck: {escape(_short(data.get('reason')))}[/]"
        if gaps := data.get("gaps"):
            yield f"      [yellow]known gaps:[/] {escape(', '.join(gaps))}"

    def _rewound(self, data: dict[str, Any]) -> Iterator[str]:
        self.done, self.total = int(data.get("done", self.done)), int(data.get("total", self.total))
        yield (
            f"[yellow]↺ back to phase {data.get('phase')}[/]; what there was is kept on branch "
            f"{escape(str(data.get('branch')))}"
        )

    def _finished(self, data: dict[str, Any]) -> Iterator[str]:
        self.status = str(data.get("status", ""))
        spent = credits_text(self.spent_ucredits)
        if self.status == "completed":
            yield f"[bold green]✓ completed[/] for {spent} credits"
        else:
            reason = " ".join(str(data.get("reason") or "").split())
            yield f"[bold red]✗ {escape(self.status)}[/] after {spent} credits{': ' if reason else ''}{escape(reason)}"

    def _remember(self, tasks: list[dict[str, Any]]) -> None:
        for task in tasks:
            self._phase_of[str(task.get("id"))] = str(task.get("phase") or "")
            self._title_of[str(task.get("id"))] = str(task.get("title") or "")
        self.total = len(self._title_of)

    def _name(self, data: dict[str, Any]) -> str:
        task = str(data.get("task", ""))
        title = str(data.get("title") or self._title_of.get(task, ""))
        return f"{task} {title}".strip()


class View:
    """Where a story is told: with a progress bar at the bottom on a terminal, as plain lines anywhere else."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("[bold]{task.fields[status]}"),
            BarColumn(bar_width=28),
            TextColumn("{task.completed:.0f}/{task.total:.0f} tasks · {task.fields[spent]} credits"),
            TimeElapsedColumn(),
            console=console,
        )
        self._row: TaskID = self._bar.add_task("", total=0, status="starting", spent="0.00")

    def showing(self) -> "Live | nullcontext[None]":
        if not self._console.is_terminal or self._console.record:
            return nullcontext()
        return Live(self._bar, console=self._console, refresh_per_second=4, transient=True)

    def tell(self, story: Story, event: Event) -> None:
        wraps = self._console.is_terminal or self._console.record
        for line in story.lines(event):
            self._console.print(line, highlight=False, soft_wrap=not wraps)
        self._bar.update(
            self._row,
            completed=story.done,
            total=story.total,
            status=story.status.replace("_", " ") or "starting",
            spent=credits_text(story.spent_ucredits),
        )

    def leave_bar(self) -> None:
        """Prints the bar as it stands, to stay."""
        self._console.print(self._bar)

    def say(self, text: str) -> None:
        self._console.print(f"[yellow]! {escape(text)}[/]", highlight=False)


def follow(
    client: Client,
    project: str,
    view: View,
    story: Story,
    after: int = 0,
    agreed_ucredits: int | None = 0,
    patience_s: float = 600.0,
) -> Followed:
    """Tells events until the project has finished, or waits for its owner.

    A quote whose ceiling is at most `agreed_ucredits` (None: any) was agreed to in advance and is not waited for.
    While the service is away it is tried again for `patience_s`; raises UnavailableError then. The build itself
    goes on without a watcher.
    """
    seq = after
    lost_since: float | None = None
    tries = 0
    with view.showing():
        while True:
            try:
                for event in client.events(project, seq, with_progress=True):
                    lost_since, tries = None, 0
                    seq = event.seq
                    view.tell(story, event)
                    if event.type in _MAY_ASK:
                        now = client.project(project)
                        if (ending := _ending(event, now, agreed_ucredits)) is not None:
                            return Followed(ending=ending, project=now, seq=seq)
                return Followed(ending="finished", project=client.project(project), seq=seq)
            except UnavailableError:
                if lost_since is None:
                    lost_since = time.monotonic()
                if time.monotonic() - lost_since > patience_s:
                    raise
                tries += 1
                if tries == len(_RECONNECT_S):
                    view.say("The service does not answer; waiting for it. The build goes on as soon as it is back.")
                time.sleep(_RECONNECT_S[min(tries, len(_RECONNECT_S)) - 1])


def _ending(event: Event, now: Project, agreed_ucredits: int | None) -> Ending | None:
    """Whether the project still waits for what this event asked: a replayed log holds many old questions."""
    if event.type == "project.question" and now.question and now.question == event.data.get("text"):
        return "question"
    if event.type == "project.quoted" and now.asks_for_confirmation:
        ceiling = event.data.get("ceiling_ucredits", 0)
        return "confirmation" if agreed_ucredits is not None and ceiling > agreed_ucredits else None
    if event.type == "gate.opened" and now.asks == event.data.get("gate"):
        return "approval"
    if event.type == "change.proposed" and now.asks == f"change/{event.data.get('number')}":
        return "approval"
    if event.type == "project.status" and now.paused and now.status == event.data.get("status"):
        return "approval" if now.status == "awaiting_approval" else "paused"
    return None


def _attempt(data: dict[str, Any]) -> str:
    attempt = data.get("attempt", 1)
    return f" (attempt {attempt})" if attempt != 1 else ""


def _why(summary: object) -> str:
    """The lines of a check's output that tell what failed, else its last line."""
    lines = [line.strip() for line in str(summary or "").splitlines() if line.strip()]
    telling = [_MODULE.sub("", line) for line in lines if _TELLING.match(line)] or lines[-1:]
    return _short(" · ".join(telling[:2]))


def _short(text: object) -> str:
    line = " ".join(str(text or "").split())
    return line if len(line) <= _SUMMARY_CHARACTERS else f"{line[: _SUMMARY_CHARACTERS - 1]}…"

"""How far a build is, in one message that is edited."""

from datetime import UTC, datetime

from runtime.language.texts import Texts
from runtime.project.messages import Doing, ProjectView, Status
from runtime.telegram.buttons import press
from runtime.telegram.calls import Button
from runtime.telegram.formatting import escape

BAR = 10
WORKERS_SHOWN = 8
TITLE_CHARACTERS = 60
_WAITS, _KEY, _SILENT = "waiting: ", "a free key of ", ", which does not answer"
"""What a worker's own words begin or end with."""


def progress_text(view: ProjectView, say: Texts, verified: str = "") -> str:
    """HTML. `verified` is what the newest verification said."""
    done, total = tasks_done(view)
    lines = [f"{_sign(view)} <b>{escape(view.title)}</b>", status_name(view.status, say)]
    if view.phase:
        phase = say("Phase {n} of {all}: {title}", n=view.phase, all=len(view.phases), title=escape(phase_title(view)))
        lines.append(phase)
    if total:
        filled = BAR * done // total
        lines.append(f"{'▰' * filled}{'▱' * (BAR - filled)} " + say("{done} of {total} tasks", done=done, total=total))
    lines += [f"• {doing_text(each, view, say)}" for each in view.activity[:WORKERS_SHOWN]]
    if verified:
        lines.append(verified)
    lines.append(spent_text(view, say))
    return "\n".join(lines)


def progress_rows(view: ProjectView, say: Texts) -> list[list[Button]]:
    names = {
        "pause": say("⏸ Pause"),
        "resume": say("▶️ Resume"),
        "change": say("✏️ Change"),
        "cancel": say("✖️ Cancel"),
    }
    return [[(text, press(name, view.id)) for name, text in names.items() if name in view.possible]]


def tasks_done(view: ProjectView) -> tuple[int, int]:
    """How many of how many; what was struck is neither."""
    wanted = [task for task in view.tasks if task.state != "struck"]
    return sum(task.state == "done" for task in wanted), len(wanted)


def phase_title(view: ProjectView) -> str:
    return view.phases[view.phase - 1] if view.phase else ""


def spent_text(view: ProjectView, say: Texts) -> str:
    spent = say.credits(view.spent_ucredits)
    if view.quote_ucredits is None:
        return say("💳 {spent} credits so far", spent=spent)
    return say("💳 {spent} of {quote} credits quoted", spent=spent, quote=say.credits(view.quote_ucredits))


def doing_text(doing: Doing, view: ProjectView, say: Texts) -> str:
    """What one worker does, for how long, and when what it waits for is tried again."""
    now = datetime.now(UTC)
    title = next((task.title for task in view.tasks if task.id == doing.task), "")
    name = f"<b>{escape(doing.task)}</b>"
    if title:
        name += f" {escape(title[:TITLE_CHARACTERS])}"
    attempt = " " + say("(attempt {n})", n=doing.attempt) if doing.attempt > 1 else ""
    seconds = max(0, int((now - doing.since).total_seconds()))
    text = f"{name}{attempt}: {escape(_what(doing.what, say))}, " + say("{n} s", n=seconds)
    if doing.retry_at is not None:
        text += ", " + say("retry in {n} s", n=max(0, int((doing.retry_at - now).total_seconds())))
    return text


def status_name(status: Status, say: Texts) -> str:
    return {
        Status.GATHERING_REQUIREMENTS: say("Reading your idea"),
        Status.CLARIFYING: say("Asking questions"),
        Status.CONFIRMING_SCOPE: say("Waiting for your yes"),
        Status.PLANNING: say("Planning"),
        Status.IMPLEMENTING: say("Building"),
        Status.VERIFYING: say("Verifying"),
        Status.README_GENERATION: say("Writing the documents"),
        Status.PACKAGING: say("Packing"),
        Status.DELIVERING: say("Delivering"),
        Status.COMPLETED: say("Finished"),
        Status.FAILED: say("Failed"),
        Status.CANCELLED: say("Cancelled"),
        Status.PURGED: say("Erased"),
        Status.PAUSED: say("Paused"),
        Status.PAUSED_NO_CREDITS: say("Paused: not enough credits"),
        Status.PAUSED_QUOTE: say("Paused: the limit of the quote is reached"),
        Status.AWAITING_APPROVAL: say("Waiting for your approval"),
    }[status]


def _what(what: str, say: Texts) -> str:
    """A worker's own words, where there is a translation of them."""
    known = {
        "editing and checking": say("editing and checking"),
        "merging": say("merging"),
        "asking the architect": say("asking the architect"),
    }
    if what.startswith(_WAITS):
        return _waits_for(what.removeprefix(_WAITS), say)
    return known.get(what, what)


def _waits_for(what: str, say: Texts) -> str:
    known = {
        "a free implementer": say("waiting for a free implementer"),
        "the project is paused": say("waiting: the project is paused"),
        "what it builds on is being merged": say("waiting: what it builds on is being merged"),
        "the calls of other tasks hold what is left": say("waiting for credits that other tasks hold"),
    }
    if what.startswith(_KEY):
        return say("waiting for a free key of {provider}", provider=what.removeprefix(_KEY))
    if what.endswith(_SILENT):
        return say("waiting for {provider}, which does not answer", provider=what.removesuffix(_SILENT))
    return known.get(what) or say("waiting: {what}", what=what)


def _sign(view: ProjectView) -> str:
    if view.status is Status.COMPLETED:
        return "✅"
    if view.status.terminal:
        return "⏹"
    return "⏸" if view.status.value.startswith("paused") else "🔨"

"""What an owner asks of a build on the phone: how it stands, to pause, change or stop it, and what it cost."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from runtime.errors import BadInputError, ConflictError
from runtime.ids import ProjectId, name_of
from runtime.language.texts import Texts
from runtime.ledger.receipt import receipt_text
from runtime.project.delivery import goes_by_link
from runtime.project.messages import Cancel, Change, Pause, ProjectView, Resume, Retry, Skip, Status, is_scope
from runtime.reports.port import Feedback
from runtime.telegram.buttons import Press, press
from runtime.telegram.calls import Attached, Button, Call
from runtime.telegram.delivering import is_score, package_calls
from runtime.telegram.following import progress_mark
from runtime.telegram.formatting import escape
from runtime.telegram.progress import progress_rows, progress_text, status_name
from runtime.telegram.project_texts import raised
from runtime.telegram.receipts import receipt_told
from runtime.telegram.talk import Talk

HISTORY_SHOWN = 10
TITLE_CHARACTERS = 60


async def status(talk: Talk, rest: str) -> None:
    """Source: spec/builder.md §4: title, status, items, last verification, credits used, estimate, balance."""
    say, view = talk.say, await talk.active()
    balance = await talk.desk.ledger.balance(talk.user)
    left = say("👛 {balance} credits are left.", balance=say.credits(balance.balance_ucredits))
    if view is None:
        talk.tell(say("You have no project at work. /new begins one.") + f"\n{left}")
        return
    asks = f"\n\n❓ {escape(view.question)}" if view.question else ""
    talk.tell(f"{progress_text(view, say)}\n{left}{asks}", status_rows(view, say), mark=progress_mark(view.id))
    talk.follow(view, from_now=True)


def status_rows(view: ProjectView, say: Texts) -> list[list[Button]]:
    rows = progress_rows(view, say)
    if view.asks and not is_scope(view.asks):
        rows.append([(say("✅ Approve"), press("yes", view.id, view.asks))])
    failed = [task.id for task in view.tasks if task.state == "failed"][:3]
    if "retry" in view.possible and failed:
        rows.append([(say("🔁 Retry {task}", task=task), press("retry", view.id, task)) for task in failed])
        rows.append([(say("⏭ Skip {task}", task=task), press("skiptask", view.id, task)) for task in failed])
    return rows


async def pause(talk: Talk, rest: str) -> None:
    say = talk.say
    view = await _mine(talk)
    await _carry_out(talk, view.id, Pause(key=talk.key("pause")))
    talk.tell(say("⏸ Paused: what is under way ends, and nothing new begins. /resume goes on."))


async def resume(talk: Talk, rest: str) -> None:
    say = talk.say
    view = await _mine(talk)
    await _carry_out(talk, view.id, Resume(key=talk.key("resume")))
    talk.tell(say("▶️ It goes on."))


async def cancel(talk: Talk, rest: str) -> None:
    """Asks for a confirmation that says what was charged."""
    await _ask_cancel(talk, await _mine(talk))


async def change_command(talk: Talk, rest: str) -> None:
    view = await _mine(talk)
    if rest:
        await change(talk, view, rest)
    else:
        _ask_change(talk, view.id)


async def history(talk: Talk, rest: str) -> None:
    """The caller's own projects alone. Source: spec/builder.md §4."""
    say = talk.say
    heads = (await talk.desk.journal.heads("project", talk.user))[:HISTORY_SHOWN]
    if not heads:
        talk.tell(say("You have no projects yet. /new begins one."))
        return
    lines, buttons = [say("📚 <b>Your projects</b>")], list[Button]()
    for number, head in enumerate(heads, 1):
        project = ProjectId(name_of(head.entity))
        spent = await talk.desk.ledger.spent(project)
        stands, title = Status(head.data["status"]), escape(str(head.data.get("title", ""))[:TITLE_CHARACTERS])
        cost = say("{cost} credits", cost=say.credits(spent.net_ucredits))
        lines.append(f"{number}. <b>{title}</b>\n{say.date(head.updated_at)}, {status_name(stands, say)}, {cost}")
        if stands.terminal and stands is not Status.PURGED:
            buttons.append((f"📦 {number}", press("fetch", project)))
    talk.tell("\n".join(lines), [buttons[n : n + 5] for n in range(0, len(buttons), 5)])


async def feedback(talk: Talk, rest: str) -> None:
    """`/feedback 5 It does what I wanted`."""
    say = talk.say
    score, _, text = rest.partition(" ")
    if not is_score(score):
        talk.tell(say("Rate it from 1 to 5: <code>/feedback 5 It does what I wanted</code>"))
        return
    view = await talk.newest()
    if view is None or view.status is not Status.COMPLETED:
        raise ConflictError(say("There is nothing to judge yet."), say("/feedback works when a project is finished."))
    await talk.desk.reports.rate(Feedback(project=view.id, user=talk.user, score=int(score), text=text.strip()))
    talk.tell(say("🙏 Thank you: {score} of 5.", score=score))


async def change(talk: Talk, view: ProjectView, text: str) -> None:
    say = talk.say
    await _carry_out(talk, view.id, Change(key=talk.key("change"), text=text))
    if view.scope is None or is_scope(view.asks):
        talk.busy()
    talk.tell(say("✏️ Understood. I think it over and tell you what it costs."), quiet=True)


async def _mine(talk: Talk) -> ProjectView:
    """Raises ConflictError where nothing is at work."""
    say = talk.say
    view = await talk.active()
    if view is None:
        raise ConflictError(say("You have no project at work."), say("/new begins one."))
    return view


async def _carry_out(talk: Talk, project: ProjectId, message: Change | Pause | Resume | Retry | Skip) -> None:
    """What is not possible now is refused with what is: after it was asked, for what is asked again may be done."""
    try:
        view = await talk.ask(project, message)
    except ConflictError as refusal:
        view = await talk.owned(project)
        if type(message).__name__.lower() in view.possible:
            raise
        raise _not_now(view, talk.say) from refusal
    talk.follow(view, from_now=True)


def _not_now(view: ProjectView, say: Texts) -> ConflictError:
    now = [f"/{name}" for name in ("pause", "resume", "change", "cancel") if name in view.possible]
    if not now:
        return ConflictError(say("It is over, so nothing can be changed."), say("/new begins another one."))
    refused = say("That is not possible now: {status}.", status=status_name(view.status, say))
    if view.question or view.asks:
        return ConflictError(
            refused, say("It waits for your answer, which /status shows. Or: {commands}", commands=" ".join(now))
        )
    return ConflictError(refused, say("Possible now: {commands}", commands=" ".join(now)))


async def _ask_cancel(talk: Talk, view: ProjectView) -> None:
    say = talk.say
    talk.tell(
        say(
            "✖️ Stop <b>{title}</b> for ever? {spent} credits were charged and stay charged; nothing more is spent. "
            "What is built so far is sent to you.",
            title=escape(view.title),
            spent=say.credits(view.spent_ucredits),
        ),
        [[(say("✖️ Stop it"), press("stop", view.id)), (say("No, go on"), press("goon", view.id))]],
    )


def _ask_change(talk: Talk, project: ProjectId) -> None:
    say = talk.say
    talk.expect("change", project)
    talk.tell(say("✏️ What should be different? Write it in your own words; you see its price before it is made."))


async def pause_pressed(talk: Talk, pressed: Press) -> None:
    say = talk.say
    await _carry_out(talk, pressed.project, Pause(key=talk.key("pause")))
    talk.toast(say("Paused."))


async def resume_pressed(talk: Talk, pressed: Press) -> None:
    """With a ceiling only while that one is offered: an old button, or one that somebody made up, raises nothing."""
    say, view, ceiling = talk.say, await talk.owned(pressed.project), None
    if pressed.about:
        ceiling = raised(view.ceiling_ucredits or 0)
        if view.status is not Status.PAUSED_QUOTE or pressed.about != str(ceiling):
            talk.toast(say("This was answered already."))
            talk.settle()
            return
    await _carry_out(talk, pressed.project, Resume(key=talk.key("resume"), ceiling_ucredits=ceiling))
    talk.settle()
    talk.toast(say("It goes on."))


async def change_pressed(talk: Talk, pressed: Press) -> None:
    say = talk.say
    view = await talk.owned(pressed.project)
    if "change" not in view.possible:
        raise ConflictError(say("It is over, so nothing can be changed."), say("/new begins another one."))
    _ask_change(talk, view.id)


async def cancel_pressed(talk: Talk, pressed: Press) -> None:
    say = talk.say
    view = await talk.owned(pressed.project)
    if view.status.terminal:
        talk.toast(say("It is over already."))
        return
    await _ask_cancel(talk, view)


async def stop(talk: Talk, pressed: Press) -> None:
    say = talk.say
    view = await talk.owned(pressed.project)
    if not view.status.terminal:
        talk.follow(view, from_now=True)
        await talk.ask(pressed.project, Cancel(key=talk.key("cancel")))
    talk.settle()
    talk.toast(say("Stopped."))


async def go_on(talk: Talk, pressed: Press) -> None:
    say = talk.say
    if pressed.project:
        await talk.owned(pressed.project)
    talk.settle()
    talk.toast(say("Nothing was changed."))


async def retry(talk: Talk, pressed: Press) -> None:
    say = talk.say
    await _carry_out(talk, pressed.project, Retry(key=talk.key("retry"), task=pressed.about))
    talk.toast(say("{task} is tried again.", task=pressed.about))


async def skip_task(talk: Talk, pressed: Press) -> None:
    say = talk.say
    message = Skip(key=talk.key("skip"), task=pressed.about, reason="", with_dependents=True)
    await _carry_out(talk, pressed.project, message)
    talk.toast(say("{task} is left out.", task=pressed.about))


async def receipt(talk: Talk, pressed: Press) -> None:
    view = await talk.owned(pressed.project)
    charged = await talk.desk.ledger.receipt(view.id)
    blob = await talk.desk.ledger.put_blob(receipt_text(charged).encode())
    talk.tell(receipt_told(view.title, charged, talk.say))
    file = Attached(field="document", name="receipt.txt", blob=blob, is_for_this=True)
    talk.calls.append(Call(method="sendDocument", data=talk.where.data, file=file))


async def rate(talk: Talk, pressed: Press) -> None:
    say = talk.say
    view = await talk.owned(pressed.project)
    if view.status is not Status.COMPLETED or not is_score(pressed.about):
        raise BadInputError(say("There is nothing to judge yet."))
    await talk.desk.reports.rate(Feedback(project=view.id, user=talk.user, score=int(pressed.about)))
    talk.expect("feedback", view.id, pressed.about)
    talk.toast(say("Thank you: {score} of 5.", score=pressed.about))
    text = say("🙏 Thank you. What made it {score} of 5? Write it, or leave it.", score=pressed.about)
    talk.tell(text, quiet=True)


async def fetch(talk: Talk, pressed: Press) -> None:
    """The package again. Source: spec/builder.md §13."""
    say = talk.say
    view = await talk.owned(pressed.project)
    if view.package is None:
        raise ConflictError(say("Nothing was packed of this project."))
    calls: Sequence[Call] = package_calls(view, view.package, talk.say, talk.where, talk.desk.link)
    talk.calls += calls
    talk.toast(say("On its way.") if not goes_by_link(view.package.size_bytes) else "")


PRESSED: Mapping[str, Callable[[Talk, Press], Awaitable[None]]] = {
    "pause": pause_pressed,
    "resume": resume_pressed,
    "change": change_pressed,
    "cancel": cancel_pressed,
    "stop": stop,
    "goon": go_on,
    "retry": retry,
    "skiptask": skip_task,
    "receipt": receipt,
    "rate": rate,
    "fetch": fetch,
}

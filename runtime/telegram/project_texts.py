"""What a project asks its owner, with a button for every answer."""

from collections.abc import Sequence

from runtime.language.texts import Texts
from runtime.ledger.money import UCREDITS_PER_CREDIT
from runtime.ledger.port import Balance
from runtime.project.messages import ProjectView, Status
from runtime.telegram.buttons import press
from runtime.telegram.calls import Button, Said
from runtime.telegram.formatting import UNITS_MAX, Message, escape, messages, utf16_units

RAISED_BY = 3, 2
"""A reached ceiling is raised to so much of itself, where its owner says yes to that."""


def question_said(view: ProjectView, say: Texts) -> Said:
    """One question of the interview, and how far that is."""
    about = max(view.asked, view.asked - 1 + view.topics_left)
    head = say("❓ <b>Question {n} of about {all}</b>", n=view.asked, all=about)
    rows: list[list[Button]] = [
        [
            (say("⏭ Skip"), press("skip", view.id, str(view.asked))),
            (say("🤝 You decide"), press("decide", view.id, str(view.asked))),
        ],
        [(say("✖️ Cancel"), press("cancel", view.id))],
    ]
    if "back" in view.possible:
        rows[1].insert(0, (say("◀️ Back"), press("back", view.id, str(view.asked))))
    return Said(html=f"{head}\n\n{escape(view.question or '')}", rows=rows)


def scope_said(view: ProjectView, say: Texts, balance: Balance) -> Sequence[Said]:
    """What will be built and what it costs; the last message has the buttons."""
    head = say("📋 **This is what I will build**")
    *before, last = messages(f"{head}\n\n{view.scope}")
    price = say(
        "💳 About {quote} credits, and never more than {ceiling}: work stops there and asks you. You have {free}.",
        quote=say.credits(view.quote_ucredits or 0),
        ceiling=say.credits(view.ceiling_ucredits or 0),
        free=say.credits(balance.free_ucredits),
    )
    about = view.asks or ""
    rows = [
        [(say("✅ Build it"), press("yes", view.id, about))],
        [(say("✏️ Change"), press("no", view.id, about)), (say("✖️ Cancel"), press("cancel", view.id))],
    ]
    said = [_said(each) for each in before]
    if utf16_units(last.html) + utf16_units(price) < UNITS_MAX - 2:
        return [*said, Said(html=f"{last.html}\n\n{price}", plain=f"{last.plain}\n\n{price}", rows=rows)]
    return [*said, _said(last), Said(html=price, rows=rows)]


def asks_text(view: ProjectView, say: Texts) -> Said:
    """A gate, or a change that has its price now: yes or no."""
    about = view.asks or ""
    change = next((each for each in view.changes if about == f"change/{each.number}"), None)
    if change is None:
        rows = [
            [(say("✅ Approve"), press("yes", view.id, about))],
            [(say("✏️ Say what to change"), press("no", view.id, about))],
        ]
        return Said(html=f"⏸ {escape(view.question or '')}", rows=rows)
    lines = [
        say("✏️ <b>Your change</b>: {title}", title=escape(change.title or change.text[:200])),
        escape(change.summary),
        *(f"• {escape(each)}" for each in [*change.requirements, *change.tasks][:20]),
        say(
            "💳 {quote} credits more; work then stops at {ceiling}.",
            quote=say.credits(change.quote_ucredits),
            ceiling=say.credits((view.ceiling_ucredits or 0) + change.rise_ucredits),
        ),
    ]
    rows = [[(say("✅ Yes"), press("yes", view.id, about)), (say("✖️ No"), press("no", view.id, about))]]
    return Said(html="\n".join(filter(None, lines)), rows=rows)


def paused_said(view: ProjectView, say: Texts) -> Said:
    """Why it stands, and what makes it go on."""
    resume: Button = (say("▶️ Resume"), press("resume", view.id))
    cancel: Button = (say("✖️ Cancel"), press("cancel", view.id))
    why = escape(view.question or "")
    if view.status is Status.PAUSED_NO_CREDITS:
        html = say("⏸ <b>{title}</b> waits for credits. {why}", title=escape(view.title), why=why)
        return Said(html=html, rows=[[(say("💳 Credits"), press("credits"))], [resume, cancel]])
    if view.status is Status.PAUSED_QUOTE:
        higher = raised(view.ceiling_ucredits or 0)
        more: Button = (
            say("▶️ Go on up to {limit} credits", limit=say.credits(higher)),
            press("resume", view.id, str(higher)),
        )
        html = say("⏸ <b>{title}</b> reached the limit you agreed to. {why}", title=escape(view.title), why=why)
        return Said(html=html, rows=[[more], [cancel]])
    html = say("⏸ <b>{title}</b> is paused. {why}", title=escape(view.title), why=why)
    return Said(html=html, rows=[[resume, cancel]])


def raised(ceiling_ucredits: int) -> int:
    """In whole credits, so that a button says what it does."""
    times, by = RAISED_BY
    return -(-ceiling_ucredits * times // (by * UCREDITS_PER_CREDIT)) * UCREDITS_PER_CREDIT


def _said(message: Message) -> Said:
    return Said(html=message.html, plain=message.plain)

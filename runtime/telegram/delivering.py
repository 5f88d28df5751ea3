"""The end of a project: what was made, what it cost, and the package itself."""

import re
from collections.abc import Callable, Sequence

from runtime.language.texts import Texts
from runtime.ledger.port import Balance, Spent
from runtime.project.delivery import file_stem, goes_by_link
from runtime.project.messages import PackageView, ProjectView, Status
from runtime.project.package import ROOT
from runtime.telegram.buttons import press
from runtime.telegram.calls import Attached, Button, Call, Said, Where
from runtime.telegram.formatting import escape

GAPS_SHOWN = 10
SCORES = ("1", "2", "3", "4", "5")
RUN_LINES = 3
NEWLINE = "\n"

Link = Callable[[ProjectView], str]


def delivery(view: ProjectView, spent: Spent, balance: Balance, say: Texts, where: Where, link: Link) -> Sequence[Call]:
    """Of a project that is complete: the summary, the ZIP (or a link above Telegram's limit), and the pictures.

    Source: spec/builder.md §13.
    """
    assert view.package is not None, "a complete project has a package"
    said = Said(html=_summary(view, spent, balance, say, link), rows=_rows(view, say))
    calls = [said.call(where)]
    if not goes_by_link(view.package.size_bytes):
        calls += package_calls(view, view.package, say, where, link)
    for path, blob in view.screenshots.items():
        name = path.rpartition("/")[2]
        caption = say("This is how it looks in a browser.")
        calls.append(
            Call(
                method="sendPhoto",
                data=where.data | {"caption": caption, "disable_notification": True},
                file=Attached(field="photo", name=name, blob=blob),
            )
        )
    return calls


def ended(view: ProjectView, spent: Spent, balance: Balance, say: Texts, where: Where, link: Link) -> Sequence[Call]:
    """Of a project that failed or was cancelled: why, what it cost, and what exists."""
    title = escape(view.title)
    if view.status is Status.CANCELLED:
        lines = [say("⏹ <b>{title}</b> is cancelled. Nothing more is spent.", title=title)]
    else:
        why = escape(view.failure_reason or "")
        lines = [say("⏹ <b>{title}</b> could not be finished.", title=title), why]
    lines.append(_money(view, spent, balance, say))
    package = view.package
    if package is not None:
        lines.append(say("What was built until then comes with this, unfinished."))
        if goes_by_link(package.size_bytes):
            lines.append(_link(view, say, link))
    rows: list[list[Button]] = [[(say("🧾 Receipt"), press("receipt", view.id)), (say("🆕 New"), press("new"))]]
    calls = [Said(html="\n".join(filter(None, lines)), rows=rows).call(where)]
    if package is not None and not goes_by_link(package.size_bytes):
        calls += package_calls(view, package, say, where, link)
    return calls


def package_calls(view: ProjectView, package: PackageView, say: Texts, where: Where, link: Link) -> list[Call]:
    """The ZIP as a document, or, above Telegram's limit, a link to it."""
    if goes_by_link(package.size_bytes):
        return [Said(html=_link(view, say, link)).call(where)]
    mark = "-unfinished" if package.partial else ""
    file = Attached(field="document", name=f"{file_stem(view.title)}{mark}.zip", blob=package.blob)
    return [Call(method="sendDocument", data=where.data | {"caption": f"SHA-256 {package.sha256}"}, file=file)]


def _summary(view: ProjectView, spent: Spent, balance: Balance, say: Texts, link: Link) -> str:
    package = view.package
    assert package is not None, "a complete project has a package"
    proven = view.requirements - len(view.gaps)
    files = say.count("{n} file", "{n} files", package.file_count)
    lines = [
        say("🎉 <b>{title}</b> is finished.", title=escape(view.title)),
        say("✅ {n} of {all} requirements proven", n=proven, all=view.requirements),
        *_gaps(view, say),
        _money(view, spent, balance, say),
        f"📦 {files}, {say.size(package.size_bytes)}",
        f"SHA-256 <code>{package.sha256}</code>",
    ]
    if goes_by_link(package.size_bytes):
        lines.append(_link(view, say, link))
    stem = file_stem(view.title)
    lines += [
        "",
        say("<b>To run it</b>"),
        f"<pre>{escape(NEWLINE.join([f'unzip {stem}.zip && cd {ROOT}', *view.run_commands][:RUN_LINES]))}</pre>",
        "",
        say("How happy are you with it? Press a number, or write /feedback."),
    ]
    return "\n".join(lines)


def _rows(view: ProjectView, say: Texts) -> list[list[Button]]:
    return [
        [(f"{score}⭐", press("rate", view.id, score)) for score in SCORES],
        [(say("🧾 Receipt"), press("receipt", view.id)), (say("✏️ Change"), press("again", view.id))],
    ]


def _gaps(view: ProjectView, say: Texts) -> list[str]:
    missing = {**view.known_gaps, **view.skipped}
    if not missing:
        return []
    shown = [f"• {escape(task)}: {escape(why[:200])}" for task, why in list(missing.items())[:GAPS_SHOWN]]
    return [say("⚠️ Not in it:"), *shown]


def _money(view: ProjectView, spent: Spent, balance: Balance, say: Texts) -> str:
    cost = say.credits(spent.net_ucredits)
    if view.quote_ucredits is not None:
        quote = say.credits(view.quote_ucredits)
        text = say("💳 It cost {cost} credits; the quote was {quote}.", cost=cost, quote=quote)
    else:
        text = say("💳 It cost {cost} credits.", cost=cost)
    if spent.refunded_ucredits:
        text += " " + say("{amount} credits were given back.", amount=say.credits(spent.refunded_ucredits))
    return text + " " + say("{balance} are left.", balance=say.credits(balance.balance_ucredits))


def _link(view: ProjectView, say: Texts, link: Link) -> str:
    url = escape(link(view))
    return say('⬇️ It is too large for Telegram: <a href="{url}">download it</a>. The link expires.', url=url)


def is_score(text: str) -> bool:
    return re.fullmatch("[1-5]", text) is not None

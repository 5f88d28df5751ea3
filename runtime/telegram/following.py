"""What a project's owner hears of it in a chat: what needs an answer at once, the rest in one edited message."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from runtime.entity.journal import EventRecord
from runtime.entity.port import Entities
from runtime.errors import ExpiredError, MasterbuilderError
from runtime.ids import BlobId, ProjectId, UserId, project_entity
from runtime.language.texts import Texts
from runtime.ledger.port import Ledger
from runtime.project.messages import Describe, ProjectView, Status, is_scope
from runtime.telegram.buttons import press
from runtime.telegram.calls import BotApi, Button, Call, Said, Where, keyboard
from runtime.telegram.delivering import delivery, ended
from runtime.telegram.formatting import escape, fitted
from runtime.telegram.progress import progress_rows, progress_text
from runtime.telegram.project_texts import asks_text, paused_said, question_said, scope_said
from runtime.telegram.state import Followed

LOOK_EVERY_S = 5.0
"""How long nothing may happen before the progress is looked at again."""
SHOW_EVERY_S = 3.0
"""Between two edits of the progress, whatever happens."""
REFRESH_EVERY_S = 15.0
"""Where nothing happened but time, and in a group, whose limit is a minute's."""
VERIFIED_SHOWN = 4
FOLLOW_AGAIN_S = 2.0
PURGE_SOON = "purge_soon/"
"""Before a project's id: the name of the reminder that it will be erased."""
WARNED_BEFORE = timedelta(days=3)
"""Source: spec/builder.md §14."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    seq: int
    calls: Sequence[Call]
    over: bool
    purge_at: datetime | None = None


class Telling:
    """What telling needs: the project itself, the money, the files, and the words of its owner's language."""

    def __init__(
        self,
        entities: Entities,
        ledger: Ledger,
        speak: Callable[[UserId], Awaitable[Texts]],
        link: Callable[[ProjectView], str],
        blob: Callable[[BlobId], Awaitable[bytes]],
    ) -> None:
        self.entities = entities
        self.ledger = ledger
        self.speak = speak
        self.link = link
        """Where a package too large to be sent can be downloaded; it expires."""
        self.blob = blob

    def story(self, chat: int, project: ProjectId) -> "Story":
        return Story(self, chat, project)

    def warned_at(self, purge_at: datetime) -> datetime:
        return purge_at - WARNED_BEFORE

    async def purge_warning(self, chat: int, project: ProjectId, followed: Followed) -> Sequence[Call]:
        """Nothing where it is erased already, or was put off."""
        try:
            view: ProjectView = await self.entities.ask(project_entity(project), Describe())
        except ExpiredError:
            return ()
        if view.purge_at is None or view.status is Status.PURGED:
            return ()
        say = await self.speak(followed.owner)
        text = say(
            "🗑 <b>{title}</b> will be erased on {day}: its files, its package and its texts. Fetch what you want to "
            "keep; /privacy changes the period.",
            title=escape(view.title), day=say.date(view.purge_at),
        )  # fmt: skip
        return [Said(html=text).call(Where(chat, followed.thread))]


class Story:
    """One project as one chat hears it. It remembers only what may be forgotten: a restart tells on from `seq`."""

    def __init__(self, telling: Telling, chat: int, project: ProjectId) -> None:
        self._telling = telling
        self._chat = chat
        self._project = project
        self._view: ProjectView | None = None
        self._say: Texts | None = None
        self._verified: list[str] = []
        """What was verified since the progress was last shown, and the one before."""
        self._shown = ""
        self._shown_at = 0.0

    async def next(self, followed: Followed, seq: int, marks: Mapping[str, int], *, wait_s: float) -> Told:
        """What is to be said of the events above `seq`, once there are some or the wait is over.

        Raises NotFoundError where there is no such project, UnavailableError.
        """
        entities, entity = self._telling.entities, project_entity(self._project)
        records = await entities.events(entity, seq, wait_s)
        view: ProjectView = await entities.ask(entity, Describe())
        say = await self._telling.speak(followed.owner)
        self._view, self._say = view, say
        where = Where(self._chat, followed.thread)
        calls: list[Call] = []
        over = view.status.terminal and not records
        purge_at = None
        for record in records:
            seq = record.seq
            if record.type == "project.finished":
                over, purge_at = True, view.purge_at
                calls += await self._ended(view, say, where)
                break
            calls += [said.call(where) for said in await self._said(record, view, say, marks)]
        return Told(seq=seq, calls=calls, over=over, purge_at=purge_at)

    async def notices(self, followed: Followed) -> Sequence[tuple[datetime, Call]]:
        """What no door has told its owner yet, oldest first: that few credits are left. Raises UnavailableError."""
        ledger, owner = self._telling.ledger, followed.owner
        notices = await ledger.untold_notices(owner)
        if not notices:
            return ()
        say, balance = await self._telling.speak(owner), await ledger.balance(owner)
        low = say("🔔 Few credits are left: {balance}.", balance=say.credits(balance.balance_ucredits))
        rows: list[list[Button]] = [[(say("💳 Credits"), press("credits"))]]
        where = Where(self._chat, followed.thread)
        texts = (low if each.kind == "low_balance" else f"🔔 {escape(each.text)}" for each in notices)
        return [(each.at, Said(html=text, rows=rows).call(where)) for each, text in zip(notices, texts, strict=True)]

    async def show_progress(self, api: BotApi, marks: Mapping[str, int], *, at_once: bool = False) -> None:
        """Edits the message, if there is one and something is new, as `next` saw the project last.

        What does not arrive is made good by the next.
        """
        view, say, message = self._view, self._say, marks.get(progress_mark(self._project))
        if view is None or say is None or message is None:
            return
        said = self._progress(view, say)
        elapsed_s = time.monotonic() - self._shown_at
        may_hurry = self._chat > 0 and self._changed(said.html)
        pause_s = SHOW_EVERY_S if may_hurry else REFRESH_EVERY_S
        if said.html == self._shown or (elapsed_s < pause_s and not at_once):
            return
        data: dict[str, Any] = {
            "chat_id": self._chat,
            "message_id": message,
            "text": fitted(said.html),
            "parse_mode": "HTML",
        }
        try:
            await api.call("editMessageText", data | {"reply_markup": keyboard(said.rows)}, may_drop=not at_once)
        except MasterbuilderError:
            return
        self._shown, self._shown_at = said.html, time.monotonic()
        self._verified = self._verified[-1:]

    def _changed(self, html: str) -> bool:
        """Whether more than seconds passed."""
        return _without_digits(html) != _without_digits(self._shown)

    def _progress(self, view: ProjectView, say: Texts) -> Said:
        html = progress_text(view, say, "\n".join(self._verified[-VERIFIED_SHOWN:]))
        return Said(html=html, rows=progress_rows(view, say), mark=progress_mark(self._project), quiet=True)

    async def _said(
        self, record: EventRecord, view: ProjectView, say: Texts, marks: Mapping[str, int]
    ) -> Sequence[Said]:
        """What is over by now is not told: its owner has answered it, here or at another door."""
        data = record.data
        match record.type:
            case "project.question" | "project.back" if view.topic:
                is_open = record.type == "project.back" or view.question == data.get("text")
                return [question_said(view, say)] if is_open else ()
            case "project.quoted" if is_scope(view.asks):
                balance = await self._telling.ledger.balance(view.owner)
                return scope_said(view, say, balance)
            case "project.confirmed" if progress_mark(self._project) not in marks:
                return [self._progress(view, say)]
            case "gate.opened" if view.asks == data.get("gate"):
                return [asks_text(view, say)]
            case "change.proposed" if view.asks == f"change/{data.get('number')}":
                return [asks_text(view, say)]
            case "change.failed":
                text = say("The change could not be made: {reason}", reason=escape(str(data.get("reason", ""))))
                return [Said(html=text)]
            case "project.status" if view.status.value == data.get("status") and view.status.value.startswith("paused"):
                return [paused_said(view, say)]
            case "project.notice":
                return [Said(html=escape(str(data.get("text", ""))))]
            case "plan.gap":
                given_up = [f"• {escape(task)}: {escape(why)}" for task, why in dict(data.get("items", {})).items()]
                text = say(
                    "⚠️ This could not be made to pass. It will not be in the package, and its cost is given back:"
                )
                return [Said(html="\n".join([text, *given_up]))]
            case "verify.finished":
                passed = data.get("verdict") == "pass"
                where = escape(str(data.get("phase", "")))
                self._verified.append(
                    say("☑️ Verified: {what}", what=where)
                    if passed
                    else say("🔁 Verified, not yet right: {what}", what=where)
                )
                return ()
            case _:
                return ()

    async def _ended(self, view: ProjectView, say: Texts, where: Where) -> Sequence[Call]:
        ledger = self._telling.ledger
        spent, balance = await ledger.spent(view.id), await ledger.balance(view.owner)
        if view.status is Status.COMPLETED:
            return delivery(view, spent, balance, say, where, self._telling.link)
        return ended(view, spent, balance, say, where, self._telling.link)


def progress_mark(project: ProjectId) -> str:
    return f"progress/{project}"


def _without_digits(text: str) -> str:
    return "".join(each for each in text if not each.isdigit())

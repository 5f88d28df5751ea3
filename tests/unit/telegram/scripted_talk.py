"""A short talk with the bot, by a script: the same updates and projects in any language, and all that is said to them.

What comes from a person or a model has no Latin letters here, so every Latin word is one of ours.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from runtime.accounts.port import TelegramIdentity
from runtime.config import Settings
from runtime.entity.journal import Head
from runtime.ids import BlobId, EntityId, ProjectId, UserId, project_entity
from runtime.language.texts import Texts, texts
from runtime.ledger.money import UCREDITS_PER_CREDIT
from runtime.ledger.port import Balance, Spent
from runtime.project.messages import ChangeView, Doing, PackageView, ProjectView, Status, TaskView
from runtime.session.messages import Admit, ChangeSettings, Conversation, DescribeSession, SessionView
from runtime.telegram.calls import Call, Said, Where
from runtime.telegram.commands import descriptions
from runtime.telegram.delivering import delivery, ended
from runtime.telegram.dialogue import Dialogue
from runtime.telegram.progress import progress_rows, progress_text
from runtime.telegram.project_texts import asks_text, paused_said, question_said, scope_said
from runtime.telegram.state import ChatState, Expected
from runtime.telegram.steering import status_rows
from runtime.telegram.talk import Desk
from runtime.telegram.updates import parse_update
from runtime.testing.memory_journal import MemoryJournal
from runtime.testing.memory_ledger import MemoryLedger

PROJECT = ProjectId("11111111-2222-4333-8444-555555555555")
NOW = datetime(2026, 11, 29, 21, tzinfo=UTC)
WHERE = Where(7)
MONEY = Balance(balance_ucredits=1_067_500_000, held_ucredits=5_000_000)
SPENT = Spent(total_cost_pusd=1, total_ucredits=12_500_000, refunded_ucredits=1_500_000)
DOINGS = (
    "editing and checking",
    "merging",
    "asking the architect",
    "waiting: a free implementer",
    "waiting: the project is paused",
    "waiting: the calls of other tasks hold what is left",
    "waiting: a free key of 漢字",
    "waiting: 漢字, which does not answer",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Something that a person sees. `field` is where it stands: `text`, `caption`, `toast`, `button`, ..."""

    step: str
    field: str
    text: str
    is_html: bool = False


async def talk_in(language: str) -> Sequence[Line]:
    """As many lines in any language, in one order."""
    say = texts(language)
    lines = [
        Line(step=f"/{name} in the menu", field="description", text=text) for name, text in descriptions(say).items()
    ]
    for step, call in _told_of_projects(say):
        lines += _lines(step, call)
    lines += await _answered(language)
    return lines


def project(status: Status = Status.IMPLEMENTING, **changes: Any) -> ProjectView:
    tasks = [
        TaskView(id=f"T-{n:03}", title="漢字", phase="1", state=state, attempts=2)
        for n, state in enumerate(["done", "failed", "open", "running"], 1)
    ]
    view = ProjectView(
        id=PROJECT,
        owner=UserId("ann"),
        title="漢字 <&>",
        status=status,
        question=None,
        scope="漢字",
        quote_ucredits=30_000_000,
        ceiling_ucredits=45_000_000,
        spent_ucredits=12_500_000,
        spent_pusd=1,
        tasks=tasks,
        failure_reason="漢字" if status is Status.FAILED else None,
        package=None,
        created_at=NOW,
        updated_at=NOW,
        last_seq=9,
        phase=1,
        phases=["漢字"],
        requirements=10,
        possible=("pause", "resume", "change", "cancel", "retry", "skip", "back"),
        run_commands=["./漢"],
    )
    return replace(view, **changes)


def _told_of_projects(say: Texts) -> Iterator[tuple[str, Call]]:
    """What is told without being asked, from the first question to the end."""
    now = datetime.now(UTC)
    doings = tuple(
        Doing(task="T-004", attempt=n, what=what, since=now, retry_at=now + timedelta(seconds=60))
        for n, what in enumerate(DOINGS, 1)
    )
    for status in Status:
        for view in (project(status, activity=doings), project(status, quote_ucredits=None, tasks=())):
            html = progress_text(view, say)
            rows = progress_rows(view, say) if status.terminal else status_rows(view, say)
            yield f"progress {status}", Said(html=html, rows=rows).call(WHERE)
    asked = project(Status.CLARIFYING, topic="users", question="漢字?", asked=2, topics_left=5)
    yield "question", question_said(asked, say).call(WHERE)
    scope = project(Status.CONFIRMING_SCOPE, asks="scope")
    for said in scope_said(scope, say, MONEY):
        yield "scope", said.call(WHERE)
    change = ChangeView(number=1, text="漢字", stage="proposed", quote_ucredits=3_000_000, rise_ucredits=4_000_000)
    yield "gate", asks_text(project(asks="plan/1", question="漢字"), say).call(WHERE)
    yield "change", asks_text(project(asks="change/1", changes=[change]), say).call(WHERE)
    for status in (Status.PAUSED, Status.PAUSED_NO_CREDITS, Status.PAUSED_QUOTE):
        yield f"pause {status}", paused_said(project(status, question="漢字"), say).call(WHERE)
    small = PackageView(blob=BlobId("b" * 64), sha256="1" * 64, size_bytes=20_000, file_count=22)
    for package in (small, replace(small, size_bytes=10**9, file_count=1)):
        screens = {"screenshots/1.png": BlobId("c" * 64)}
        gaps = {"known_gaps": {"T-002": "漢字"}, "package": package, "screenshots": screens}
        for status in (Status.COMPLETED, Status.FAILED, Status.CANCELLED):
            tell = delivery if status is Status.COMPLETED else ended
            for quote in (30_000_000, None):
                view = project(status, quote_ucredits=quote, **gaps)
                for call in tell(view, SPENT, MONEY, say, WHERE, lambda _: "https://127.0.0.1/?1&2"):
                    yield f"end {status}", call


STEPS: Sequence[tuple[str, Expected | None]] = (
    ("/start", None),
    ("/help", None),
    ("漢字", None),
    ("漢字" * 20, None),
    ("/new", None),
    ("/history", None),
    ("/status", None),
    ("/pause", None),
    ("/feedback", None),
    ("/feedback 5", None),
    ("/credits", None),
    ("/buy", None),
    ("/buy credits_100", None),
    ("/buy full_access_monthly", None),
    ("/subscribe", None),
    ("/paysupport", None),
    ("/language", None),
    ("/privacy", None),
    ("/email", None),
    ("/email 1@2.pl", None),
    ("/unlock", None),
    ("/invite", None),
    ("/bootstrap", None),
    ("/login", None),
    ("/keys", None),
    ("/漢", None),
    ("/zzz", None),
    ("press purge::30", None),
    ("press forget", None),
    ("press export", None),
    ("press goon", None),
    ("press zzz", None),
    ("press offer::no", None),
)  # fmt: skip
WITH_PROJECT: Sequence[tuple[str, Expected | None]] = (
    ("/start", None),
    ("/status", None),
    ("漢字", None),
    ("漢字", Expected(what="change", project=PROJECT)),
    ("漢字", Expected(what="reject", project=PROJECT, about="scope")),
    ("/change", None),
    ("/pause", None),
    ("/resume", None),
    ("/cancel", None),
    ("/new", None),
    ("/history", None),
    *(
        (f"press {verb}:{PROJECT.replace('-', '')}{about}", None)
        for verb, about in [
            ("pause", ""), ("resume", ""), ("change", ""), ("cancel", ""), ("stop", ""), ("retry", ":T-002"),
            ("skiptask", ":T-002"), ("fetch", ""), ("again", ""), ("yes", ":scope"), ("no", ":scope"), ("no", ":x"),
            ("skip", ":1"), ("rate", ":5"),
        ]
    ),
)  # fmt: skip


async def _answered(language: str) -> Sequence[Line]:
    """What is answered to each update."""
    lines: list[Line] = []
    number = 0
    for view, steps in ((None, STEPS), (project(asks="scope", question="漢字?"), WITH_PROJECT)):
        desk, user = await _desk(language, view)
        for written, expected in (*steps, (f"/language {language}", None)):
            number += 1
            state = ChatState(expects={user: expected} if expected else {})
            reply = await Dialogue(desk).answer(state, parse_update(_update(number, written)), user)
            step = written if written.startswith(("/", "press")) else "a text"
            for call in (*reply.urgent, *reply.calls):
                lines += _lines(step.replace(f"/language {language}", "/language CODE"), call)
    return lines


def _update(number: int, written: str) -> Mapping[str, Any]:
    ann = {"id": 7, "first_name": "漢字"}
    message = {"message_id": number, "chat": {"id": 7, "type": "private"}, "from": ann, "date": 1}
    if written.startswith("press "):
        pressed = {"id": str(number), "from": ann, "message": message, "data": written.removeprefix("press ")}
        return {"update_id": number, "callback_query": pressed}
    return {"update_id": number, "message": {**message, "text": written}}


def _lines(step: str, call: Call) -> Iterator[Line]:
    data, is_html = call.data, call.data.get("parse_mode") == "HTML"
    toast = call.method == "answerCallbackQuery"
    if data.get("text"):
        yield Line(step=step, field="toast" if toast else "text", text=data["text"], is_html=is_html)
    for field in ("caption", "title", "description"):
        if field in data:
            yield Line(step=step, field=field, text=data[field])
    for row in data.get("reply_markup", {}).get("inline_keyboard", ()):
        for button in row:
            yield Line(step=step, field="button", text=button["text"])


async def _desk(language: str, view: ProjectView | None) -> tuple[Desk, UserId]:
    settings = Settings(payments_enabled=True)
    ledger = MemoryLedger(settings.tariff, 100 * UCREDITS_PER_CREDIT)
    account = await ledger.register(TelegramIdentity(telegram_id=7, first_name="漢字", language_code=language))
    desk = Desk(
        settings=settings,
        ledger=ledger,
        journal=_Journal(ledger, account.user, view),
        entities=_Entities(account.user, view),  # type: ignore[arg-type]
        reports=None,  # type: ignore[arg-type]
        keys=None,  # type: ignore[arg-type]
        api=None,  # type: ignore[arg-type]
        link=lambda _: "https://127.0.0.1/1",
        small_quote=lambda: 8 * UCREDITS_PER_CREDIT,
        bot=_bot,
    )
    return desk, account.user


async def _bot() -> tuple[int, str]:
    return 1, "bot"


class _Entities:
    """A session that knows its language, and one project that does as it is told."""

    def __init__(self, user: UserId, view: ProjectView | None) -> None:
        self._user = user
        self._view = view
        self._language = ""

    async def ask(self, entity: EntityId, message: Any, *, timeout_s: float = 30.0) -> Any:
        match message:
            case Admit():
                return None
            case ChangeSettings():
                self._language = message.language or ""
            case DescribeSession():
                pass
            case _:
                return self._view
        return SessionView(
            user=self._user,
            language=self._language,
            default_mode="auto",
            provider="",
            conversation=Conversation.INITIALIZING,
            project=None,
            purge_days=None,
        )


class _Journal(MemoryJournal):
    """With the head of that project, which nobody wrote."""

    def __init__(self, ledger: MemoryLedger, user: UserId, view: ProjectView | None) -> None:
        super().__init__(ledger)
        self._written = [] if view is None else [_head(user, view)]

    async def head(self, entity: EntityId) -> Head | None:
        return next((head for head in self._written if head.entity == entity), None)

    async def heads(self, kind: str, owner: UserId | None) -> Sequence[Head]:
        return self._written


def _head(user: UserId, view: ProjectView) -> Head:
    data = {"status": view.status.value, "title": view.title}
    return Head(entity=project_entity(view.id), owner=user, last_seq=9, open=True, updated_at=NOW, data=data)

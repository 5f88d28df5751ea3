"""One update as those see it who answer it: who speaks, where, in which language, and what is answered."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from runtime.accounts.port import Account
from runtime.config import Settings
from runtime.entity.journal import Journal
from runtime.entity.port import Entities
from runtime.ids import ProjectId, UserId, name_of, project_entity, user_entity
from runtime.keys.office import KeyOffice
from runtime.language.languages import choose
from runtime.language.texts import Texts, texts
from runtime.ledger.port import Ledger
from runtime.project.messages import Describe, ProjectView, Status
from runtime.project.owned import owned_project
from runtime.reports.port import Reporting
from runtime.session.messages import DescribeSession, SessionView
from runtime.telegram.buttons import NO_PROJECT
from runtime.telegram.calls import DRAFT, TYPING, BotApi, Button, Call, Said, Where, keyboard, typing
from runtime.telegram.reply import Reply
from runtime.telegram.state import ChatState, Expected, Followed
from runtime.telegram.updates import Update


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What answers are made of."""

    settings: Settings
    ledger: Ledger
    journal: Journal
    entities: Entities
    reports: Reporting
    keys: KeyOffice
    api: BotApi
    link: Callable[[ProjectView], str]
    small_quote: Callable[[], int]
    """What a small project is quoted at, in microcredits: it tells what credits buy. 0 where nobody knows."""
    bot: Callable[[], Awaitable[tuple[int, str]]]
    """The bot's own id and username."""

    async def session(self, user: UserId) -> SessionView:
        view: SessionView = await self.entities.ask(user_entity(user), DescribeSession())
        return view

    async def speak(self, user: UserId) -> Texts:
        """In the language that the user chose, else in the one of their Telegram, else in the installation's."""
        return await self.speak_to(user, await self.ledger.account(user))

    async def speak_to(self, user: UserId, account: Account | None) -> Texts:
        """For whoever has looked the account up already."""
        session, spoken = await self.session(user), account.language_code if account else ""
        return texts(choose(session.language, spoken, default=self.settings.default_language))


@dataclass(slots=True, kw_only=True)
class Talk:
    """Collects what is answered; nothing leaves before all of it is on disk."""

    desk: Desk
    state: ChatState
    update: Update
    account: Account
    say: Texts
    where: Where
    in_private: bool
    is_forum: bool = False
    calls: list[Call] = field(default_factory=list)
    urgent: list[Call] = field(default_factory=list)
    expects: dict[UserId, Expected | None] = field(default_factory=dict)
    follows: dict[ProjectId, Followed | None] = field(default_factory=dict)

    @property
    def user(self) -> UserId:
        return self.account.user

    @property
    def is_admin(self) -> bool:
        return self.account.role == "ADMIN"

    @property
    def expected(self) -> Expected | None:
        return self.state.expects.get(self.user)

    def key(self, name: str) -> str:
        """Of a message that this update leads to: the same again, when the update is answered again."""
        return f"tg/{self.where.chat}/{self.update.update_id}/{name}"

    def tell(
        self, html: str, rows: Sequence[Sequence[Button]] = (), *, plain: str = "", mark: str = "", quiet: bool = False
    ) -> None:
        self.send(Said(html=html, rows=rows, plain=plain, mark=mark, quiet=quiet))

    def send(self, *said: Said) -> None:
        self.calls += [each.call(self.where) for each in said]

    def expect(self, what: str, project: ProjectId = NO_PROJECT, about: str = "") -> None:
        self.expects[self.user] = Expected(what=what, project=project, about=about)

    def expect_nothing(self) -> None:
        if self.expected is not None:
            self.expects[self.user] = None

    def follow(self, view: ProjectView, *, from_now: bool = False, thread: int | None = None) -> None:
        """Its events are told here (in a topic of its own, or in this one): all of them, or those that come."""
        if view.id not in self.state.follows:
            seq = view.last_seq if from_now else 0
            where = self.where.thread if thread is None else thread
            self.follows[view.id] = Followed(owner=self.user, seq=seq, thread=where)

    def toast(self, text: str = "", *, alert: bool = False) -> None:
        """What somebody sees who pressed a button; Telegram waits for it. One for each press."""
        pressed = self.update.callback_query
        if pressed is not None and not any(call.method == "answerCallbackQuery" for call in self.urgent):
            shown = {"text": text[:200], "show_alert": alert} if text else {}
            data = {"callback_query_id": pressed.id, **shown}
            self.urgent.append(Call(method="answerCallbackQuery", data=data))

    def settle(self, rows: Sequence[Sequence[Button]] = ()) -> None:
        """Takes the buttons from the message that was pressed, or gives it others: it is answered."""
        pressed = self.update.callback_query
        if pressed is not None and pressed.message is not None:
            data = {"chat_id": self.where.chat, "message_id": pressed.message.message_id}
            self.calls.append(Call(method="editMessageReplyMarkup", data=data | {"reply_markup": keyboard(rows)}))

    def busy(self) -> None:
        """That something is being thought about."""
        say = self.say
        if self.in_private:
            draft = {"draft_id": self.update.update_id or 1, "text": say("💭 Thinking about it…")}
            self.urgent.append(Call(method=DRAFT, data=self.where.data | draft))
        else:
            self.urgent.append(Call(method=TYPING, data=typing(self.where.data)))

    def reply(self) -> Reply:
        return Reply(calls=self.calls, urgent=self.urgent, expects=self.expects, follows=self.follows)

    async def owned(self, project: ProjectId) -> ProjectView:
        """Raises NotFoundError for what is not there and for what is another's alike."""
        return await owned_project(self.desk.journal, self.desk.entities, self.user, project)

    async def active(self) -> ProjectView | None:
        """The project that this person means here: the topic's own, else the newest that is not over."""
        views = await self.projects()
        here = [view for view in views if self._thread_of(view.id) == self.where.thread]
        return next(iter(here or views), None)

    async def projects(self) -> Sequence[ProjectView]:
        """Those that are not over, the newest first."""
        heads = await self.desk.journal.heads("project", self.user)
        running = [head.entity for head in heads if not Status(head.data["status"]).terminal]
        return [await self.desk.entities.ask(entity, Describe()) for entity in running]

    async def newest(self) -> ProjectView | None:
        """The newest project, over or not; none that was erased."""
        for head in await self.desk.journal.heads("project", self.user):
            if Status(head.data["status"]) is not Status.PURGED:
                return await self.owned(ProjectId(name_of(head.entity)))
        return None

    def _thread_of(self, project: ProjectId) -> int | None:
        followed = self.state.follows.get(project)
        return followed.thread if followed else None

    async def ask(self, project: ProjectId, message: object) -> ProjectView:
        """A message to a project of this person. Raises NotFoundError where it is not theirs, and what it raises."""
        await self.owned(project)
        view: ProjectView = await self.desk.entities.ask(project_entity(project), message)
        return view

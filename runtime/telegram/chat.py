"""One chat of Telegram: what comes is on disk before it is acknowledged, and what is to be said before it is sent."""

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import chain, islice, repeat
from typing import Any

from runtime.entity.entity import Entity
from runtime.entity.journal import EventRecord, Reminder
from runtime.entity.reminders import OWNER_LEFT, Reminded
from runtime.errors import BadInputError, MasterbuilderError, NotFoundError, StaleWriterError, UnavailableError
from runtime.frames import frames
from runtime.ids import BlobId, EntityId, ProjectId, UserId, name_of
from runtime.telegram.calls import DRAFT, TYPING, BlockedError, BotApi, Call, TelegramRefusedError, Upload, typing
from runtime.telegram.dialogue import Dialogue
from runtime.telegram.following import FOLLOW_AGAIN_S, LOOK_EVERY_S, PURGE_SOON, Story, Telling
from runtime.telegram.formatting import UNITS_MAX, unmarked
from runtime.telegram.reply import Reply
from runtime.telegram.state import AT_ONCE, ChatState, Followed
from runtime.telegram.updates import Message, Place, Update, parse_update

SIGNS = (DRAFT, TYPING)
TRIES_MAX = 8
TEXT_MAX = UNITS_MAX // 2
"""Characters of an announcement: so many fit into a message whatever they are."""
PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Before another try, of an update or of a call; the last one for all that follow."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receive:
    """An update, from whichever door. `owner` is who sent it; of a group's entity, who was the first."""

    owner: UserId
    update_id: int
    update: Mapping[str, Any]
    waits_s: float = 0.0
    """One that Telegram numbered before it may still come, of this chat too: it waits so long. 0: none is missing.
    A checkout never waits, because Telegram gives it ten seconds in all."""
    whole_to: int = 0
    """Up to this number none of this chat's is missing, so those that wait wait no longer. 0: nobody knows."""

    @property
    def key(self) -> str:
        return f"update/{self.update_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Announce:
    """Something that the owner of a private chat is to know, said once for its key."""

    owner: UserId
    key: str
    text: str


class Chat(Entity[ChatState]):
    """Answers updates one after the other, sends what was said in its order, and follows projects beside it.

    An update is done when its answer is in the outbox, in one append; a call leaves the outbox when Telegram took it.
    So nothing is lost, and what was under way comes once more only where nobody knows whether Telegram took it.
    """

    kind = "chat"
    keeps_history = False

    def __init__(self, entity: EntityId, api: BotApi, dialogue: Dialogue, telling: Telling) -> None:
        self._chat = int(name_of(entity))
        self._api = api
        self._dialogue = dialogue
        self._telling = telling
        self._running: dict[str, asyncio.Task[None]] = {}
        self._came = asyncio.Event()
        """An update: one that waits for a lower number looks again."""

    def initial(self) -> ChatState:
        return ChatState()

    def fold(self, state: ChatState, event: EventRecord) -> ChatState:
        return state.after(event)

    def head(self, state: ChatState) -> Mapping[str, Any]:
        return {"inbox": len(state.inbox), "outbox": len(state.outbox), "blocked": state.blocked}

    def freeze(self, state: ChatState) -> Mapping[str, Any]:
        return state.frozen()

    def thaw(self, data: Mapping[str, Any]) -> ChatState:
        return ChatState.thawed(data)

    def is_open(self, state: ChatState) -> bool:
        return state.open

    async def wake(self) -> None:
        if self.state.inbox:
            self._run("inbox", self._work_off())
        if self.state.blocked:
            return
        if self.state.outbox:
            self._run("outbox", self._send_all())
        for project in self.state.follows:
            self._run(f"follow {project}", self._follow(project))

    async def receive(self, message: Any) -> bool:
        """Whether it is news. Raises BadInputError for what no chat understands."""
        match message:
            case Receive():
                return await self._receive(message)
            case Announce() if message.key not in self.state.announced:
                data = {"chat_id": self._chat, "text": message.text[:TEXT_MAX]}
                calls = [Call(method="sendMessage", data=data)]
                await self.activation.emit("chat.announced", message.key, {"key": message.key, **self._put_out(calls)})
            case Announce():
                return False
            case Reminded(name=name) if name == OWNER_LEFT:
                await self._leave(message)
            case Reminded(name=name) if name.startswith(PURGE_SOON):
                await self._warn(message)
            case _:
                raise BadInputError(f"A chat does not understand {type(message).__name__}.")
        await self.wake()
        return True

    async def _receive(self, message: Receive) -> bool:
        if self.state.has(message.update_id):
            return False
        update = parse_update(message.update)
        if update.my_chat_member is not None:
            status = update.my_chat_member.new_chat_member.status
            blocked = status in ("kicked", "left")
            if blocked != self.state.blocked:
                await self.activation.emit("chat.blocked" if blocked else "chat.unblocked", message.key)
        else:
            if self.state.blocked:
                await self.activation.emit("chat.unblocked", f"{message.key}/unblocked")
            received = {"update_id": message.update_id, "update": message.update, "user": message.owner}
            due_s = time.time() + message.waits_s if message.waits_s > 0 else 0.0
            if update.pre_checkout_query is not None:
                due_s = AT_ONCE
            await self.activation.emit(
                "chat.received", message.key, received | {"due_s": due_s, "whole_to": message.whole_to}
            )
        self._came.set()
        await self.wake()
        return True

    def _put_out(self, calls: Sequence[Call]) -> Mapping[str, Any]:
        """Calls for the outbox, as an event tells of them."""
        first = {} if self.state.numbered else {"first": int(time.time() * 1000)}
        return {"calls": [call.frozen() for call in calls], **first}

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Unless it runs already."""
        running = self._running.get(name)
        if running is not None and not running.done():
            work.close()
            return
        self._running[name] = self.activation.spawn(work, name)

    async def _work_off(self) -> None:
        while self.state.inbox:
            number, received = self.state.next_received
            if (wait_s := self.state.early_s(number, time.time())) > 0:
                self._came.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._came.wait()
                continue
            reply = await self._answered(number, received)
            await self._hurry(reply.urgent)
            await self.activation.emit(
                "chat.handled",
                f"handled/{number}",
                {
                    "update_id": number,
                    **self._put_out(reply.calls),
                    "expects": {
                        user: None if expected is None else asdict(expected) for user, expected in reply.expects.items()
                    },
                    "follows": {
                        project: None if followed is None else asdict(followed)
                        for project, followed in reply.follows.items()
                    },
                },
            )
            await self.wake()

    async def _answered(self, number: int, received: Mapping[str, Any]) -> Reply:
        """Tried again while something of ours is away; every update gets an answer in the end.

        What was paid is never given up: Telegram tells of it once.
        """
        user = UserId(received["user"])
        try:
            update = parse_update(received["update"])
        except BadInputError as error:
            log.error(
                "update %d of chat %d is in the journal and cannot be read: %s", number, self._chat, error.message
            )
            return await self._dialogue.apologise(unread(number, self._chat), user)
        for pause_s in _pauses(None if update.is_payment else TRIES_MAX):
            try:
                return await self._dialogue.answer(self.state, update, user)
            except StaleWriterError:
                raise
            except UnavailableError as error:
                log.info("update %d of chat %d waits: %s", number, self._chat, error)
                await asyncio.sleep(pause_s)
            except Exception as error:
                # An update that always fails would set the whole chat aside.
                fault = f"{type(error).__name__} at {' < '.join(reversed(frames(error)))}"
                log.error("update %d of chat %d met an error of ours: %s", number, self._chat, fault)
                break
        return await self._dialogue.apologise(update, user)

    async def _hurry(self, calls: Sequence[Call]) -> None:
        """What Telegram waits for at this moment. A crash repeats it, because the update is not done yet."""
        for call in calls:
            if call.method in SIGNS:
                self._run("sign", self._sign(call))
                continue
            try:
                await self._api.call(call.method, call.data)
            except MasterbuilderError as error:
                log.info("%s in chat %d was not taken: %s", call.method, self._chat, error.message)

    async def _sign(self, call: Call) -> None:
        """That something is under way: nobody waits for it, and nothing is missing where it does not come."""
        try:
            await self._api.call(call.method, call.data, may_drop=True)
        except TelegramRefusedError:
            if call.method == DRAFT:
                await self._sign(Call(method=TYPING, data=typing(call.data)))
        except MasterbuilderError as error:
            log.info("%s in chat %d was not taken: %s", call.method, self._chat, error.message)

    async def _send_all(self) -> None:
        tries = 0
        while self.state.outbox and not self.state.blocked:
            n, call = next(iter(self.state.outbox.items()))
            await asyncio.sleep(self.state.waits_s(time.time()))
            try:
                sent = await self._send(call, f"{self._chat}/{n}")
            except BlockedError:
                await self.activation.emit("chat.blocked", f"blocked/{n}")
                return
            except TelegramRefusedError as error:
                log.warning("%s in chat %d was refused: %s", call.method, self._chat, error.message)
                await self.activation.emit("chat.dropped", f"dropped/{n}", {"n": n, "why": error.message})
                await self._remove(call)
            except UnavailableError as error:
                log.info("%s in chat %d waits: %s", call.method, self._chat, error)
                await asyncio.sleep(PAUSES_S[min(tries, len(PAUSES_S) - 1)])
                tries += 1
                continue
            else:
                message = sent.get("message_id", 0) if isinstance(sent, Mapping) else 0
                known = {"n": n, "message": message, "mark": call.mark if message else ""}
                await self.activation.emit("chat.sent", f"sent/{n}", known | {"in_group": self._chat < 0})
                await self._remove(call)
            tries = 0

    async def _remove(self, call: Call) -> None:
        """A file that nothing else needs. One that a crash leaves goes with its owner."""
        named = {each.file.blob for each in self.state.outbox.values() if each.file is not None}
        if call.file is not None and call.file.is_for_this and call.file.blob not in named:
            try:
                await self._telling.ledger.remove_blob(call.file.blob)
            except UnavailableError as error:
                log.info("a file that was sent in chat %d stays: %s", self._chat, error)

    async def _send(self, call: Call, key: str) -> Any:
        """Without its markup where Telegram refuses that: no answer is ever lost to markup."""
        upload = await self._upload(call)
        try:
            return await self._api.call(call.method, call.data, upload, key=key)
        except TelegramRefusedError as error:
            if error.is_no_news:
                return None
            if not error.is_about_markup or "parse_mode" not in call.data:
                raise
        field = "caption" if "caption" in call.data else "text"
        plain = call.plain or unmarked(call.data[field])
        data = {name: value for name, value in call.data.items() if name != "parse_mode"} | {field: plain}
        return await self._api.call(call.method, data, upload, key=f"{key}/plain")

    async def _upload(self, call: Call) -> Upload | None:
        if call.file is None:
            return None
        try:
            content = await self._telling.blob(BlobId(call.file.blob))
        except NotFoundError as error:
            raise TelegramRefusedError(f"the file is gone: {error.message}") from None
        return Upload(field=call.file.field, name=call.file.name, content=content)

    async def _follow(self, project: ProjectId) -> None:
        """Tells what happens in a project until it is over, or until nobody wants to hear of it here."""
        story = self._telling.story(self._chat, project)
        seq = self.state.follows[project].seq
        while (followed := self.state.follows.get(project)) is not None and not self.state.blocked:
            try:
                told = await story.next(followed, max(seq, followed.seq), self.state.marks, wait_s=LOOK_EVERY_S)
                seq = told.seq
                if told.calls or told.over:
                    await self._tell(project, followed, told.calls, seq, over=told.over, purge_at=told.purge_at)
                await story.show_progress(self._api, self.state.marks, at_once=told.over)
                await self._notify(story, followed)
            except UnavailableError as error:
                log.info("chat %d waits for project %s: %s", self._chat, project, error)
                await asyncio.sleep(FOLLOW_AGAIN_S)
            except NotFoundError:
                await self._tell(project, followed, (), seq, over=True)

    async def _tell(
        self,
        project: ProjectId,
        followed: Followed,
        calls: Sequence[Call],
        seq: int,
        *,
        over: bool = False,
        purge_at: datetime | None = None,
    ) -> None:
        moved = asdict(followed) | {"seq": seq}
        name = f"{PURGE_SOON}{project}"
        soon = self._telling.warned_at(purge_at) if purge_at else None
        data = {"owner": followed.owner, "thread": followed.thread}
        await self.activation.emit(
            "chat.told",
            f"told/{project}/{seq}{'/over' if over else ''}",
            {**self._put_out(calls), "follows": {project: None if over else moved}},
            remind=[Reminder(name=name, due_at=soon, data=data)] if soon and soon > datetime.now(UTC) else (),
        )
        await self.wake()

    async def _notify(self, story: Story, followed: Followed) -> None:
        """What the ledger has to say to the owner. It hears that it was told when that is in the outbox."""
        for at, call in await story.notices(followed):
            told = {**self._put_out([call]), "follows": {}}
            await self.activation.emit("chat.told", f"notice/{followed.owner}/{at.isoformat()}", told)
            await self._telling.ledger.mark_told(followed.owner, at)
            await self.wake()

    async def _warn(self, message: Reminded) -> None:
        """That a project will soon be erased."""
        project = ProjectId(message.name.removeprefix(PURGE_SOON))
        followed = Followed(owner=UserId(message.data["owner"]), thread=message.data["thread"])
        calls = await self._telling.purge_warning(self._chat, project, followed)
        told = {**self._put_out(calls), "follows": {}}
        await self.activation.emit("chat.told", message.key, told)

    async def _leave(self, message: Reminded) -> None:
        """Its owner asked to be erased: nothing is left to do, and what was said leaves the journal."""
        await self.activation.emit("chat.left", message.key)
        await self.activation.save()


def chat_entity(chat: int) -> EntityId:
    return EntityId(f"chat:{chat}")


def unread(number: int, chat: int) -> Update:
    """In the place of an update that another version wrote: it has an answer's address, and says nothing."""
    place = Place(id=chat, type="private" if chat > 0 else "group")
    return Update(update_id=number, message=Message(message_id=0, chat=place))


def _pauses(tries: int | None) -> Iterable[float]:
    """None: without an end."""
    return islice(chain(PAUSES_S, repeat(PAUSES_S[-1])), tries)

"""The people, their chats, and what stands in them."""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

from cluster.simulator.telegram.changes import Changes
from cluster.simulator.telegram.refusal import TelegramRefusal, bad_request
from cluster.simulator.telegram.seen import Kind, SeenButton, SeenFile, SeenInvoice, SeenMessage

ChatType = Literal["private", "group", "supergroup"]
TOPIC_COLOR = 0x6FB9F0
_FILES: tuple[Kind, ...] = ("document", "photo", "voice", "sticker")
_SERVICES = {
    "forum_topic_created": "Topic created", "forum_topic_edited": "Topic renamed", "forum_topic_closed": "Topic closed",
    "pinned_message": "Message pinned", "refunded_payment": "Payment refunded",
}  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Account:
    id: int
    first_name: str
    last_name: str = ""
    username: str = ""
    language_code: str = ""
    is_bot: bool = False

    @property
    def name(self) -> str:
        return f"{self.first_name} {self.last_name}".strip()

    def wire(self) -> dict[str, Any]:
        told = {"last_name": self.last_name, "username": self.username, "language_code": self.language_code}
        given = {name: value for name, value in told.items() if value}
        return {"id": self.id, "is_bot": self.is_bot, "first_name": self.first_name, **given}


@dataclass(slots=True, kw_only=True)
class Topic:
    id: int
    name: str
    color: int = TOPIC_COLOR
    closed: bool = False

    def wire(self) -> dict[str, Any]:
        return {"message_thread_id": self.id, "name": self.name, "icon_color": self.color}


@dataclass(slots=True, kw_only=True)
class Message:
    """`content` has the fields of the wire: `text` and `entities`, `document` and `caption`, ..."""

    id: int
    chat: "Chat"
    sender: Account
    date_s: int
    content: dict[str, Any]
    markup: dict[str, Any] | None = None
    thread_id: int | None = None
    reply_to: int | None = None
    edit_date_s: int | None = None
    deleted: bool = False
    reactions: tuple[str, ...] = ()
    created: int = 0
    revision: int = 0

    def wire(self, *, with_reply: bool = True) -> dict[str, Any]:
        wire: dict[str, Any] = {
            "message_id": self.id,
            "from": self.sender.wire(),
            "chat": self.chat.wire(),
            "date": self.date_s,
            **self.content,
        }
        if self.edit_date_s is not None:
            wire["edit_date"] = self.edit_date_s
        if self.thread_id is not None:
            wire |= {"message_thread_id": self.thread_id, "is_topic_message": True}
        if self.markup is not None and "inline_keyboard" in self.markup:
            wire["reply_markup"] = self.markup
        answered = self.chat.messages.get(self.reply_to or 0)
        if with_reply and answered is not None:
            wire["reply_to_message"] = answered.wire(with_reply=False)
        return wire

    def seen(self) -> SeenMessage:
        kind, content = self._kind(), self.content
        text = content.get("text") or content.get("caption") or ""
        if kind == "service":
            text = next((said for name, said in _SERVICES.items() if name in content), "Service message")
        elif kind == "payment":
            text = f"Paid {content['successful_payment']['total_amount']} {content['successful_payment']['currency']}"
        elif kind == "location":
            text = f"{content['location']['latitude']}, {content['location']['longitude']}"
        markup = self.markup or {}
        return SeenMessage(
            id=self.id,
            chat_id=self.chat.id,
            thread_id=self.thread_id,
            sender=self.sender.name,
            from_bot=self.sender.is_bot,
            kind=kind,
            text=text,
            entities=tuple(content.get("entities") or content.get("caption_entities") or ()),
            rows=tuple(tuple(_seen_button(button) for button in row) for row in markup.get("inline_keyboard", ())),
            keyboard=tuple(
                tuple(key if isinstance(key, str) else key["text"] for key in row) for row in markup.get("keyboard", ())
            ),
            file=_seen_file(kind, content) if kind in _FILES else None,
            invoice=_seen_invoice(content) if kind == "invoice" else None,
            reply_to=self.reply_to,
            edited=self.edit_date_s is not None,
            deleted=self.deleted,
            pinned=self.chat.pinned == self.id,
            reactions=self.reactions,
            created=self.created,
            revision=self.revision,
        )

    def _kind(self) -> Kind:
        if "successful_payment" in self.content:
            return "payment"
        kinds: tuple[Kind, ...] = ("text", *_FILES, "location", "invoice")
        return next((kind for kind in kinds if kind in self.content), "service")


@dataclass(slots=True, kw_only=True)
class Chat:
    """`shut_out`: the person blocked the bot, or the group removed it."""

    id: int
    type: ChatType
    title: str = ""
    person: Account | None = None
    is_forum: bool = False
    shut_out: bool = False
    started: bool = False
    """A bot cannot write to a person who never wrote to it."""
    members: list[int] = field(default_factory=list)
    topics: dict[int, Topic] = field(default_factory=dict)
    messages: dict[int, Message] = field(default_factory=dict)
    drafts: dict[int, str] = field(default_factory=dict)
    actions: list[str] = field(default_factory=list)
    pinned: int | None = None
    _ids: Iterator[int] = field(default_factory=lambda: count(1))

    def next_id(self) -> int:
        return next(self._ids)

    def wire(self) -> dict[str, Any]:
        forum = {"is_forum": True} if self.is_forum else {}
        if self.person is None:
            return {"id": self.id, "type": self.type, "title": self.title, **forum}
        told = {name: value for name, value in self.person.wire().items() if name in _OF_A_PRIVATE_CHAT}
        return {"id": self.id, "type": self.type, **told, **forum}

    def message(self, id: int, missing: str) -> Message:
        """Raises TelegramRefusal with `missing` where it is not there, or no more."""
        message = self.messages.get(id)
        if message is None or message.deleted:
            raise bad_request(missing)
        return message

    def topic(self, id: int) -> Topic:
        """Raises TelegramRefusal."""
        if id not in self.topics:
            raise bad_request("message thread not found")
        return self.topics[id]


class World:
    """All there is but the bot's own settings. `now_s` is the date that messages bear."""

    def __init__(self, bot: Account) -> None:
        self.bot = bot
        self.accounts: dict[int, Account] = {bot.id: bot}
        self.chats: dict[int, Chat] = {}
        self.changes = Changes()
        self._person_ids = count(1_000_001)
        self._group_ids = count(2_000_001)

    def add_person(
        self,
        *,
        first_name: str,
        last_name: str = "",
        username: str = "",
        language_code: str = "",
        is_forum: bool = False,
        id: int | None = None,
    ) -> Account:
        """With the private chat. Raises TelegramRefusal where the id is taken."""
        account = Account(
            id=next(self._person_ids) if id is None else id,
            first_name=first_name,
            last_name=last_name,
            username=username,
            language_code=language_code,
        )
        if account.id in self.accounts:
            raise bad_request("there is a person with this id")
        self.accounts[account.id] = account
        self.chats[account.id] = Chat(id=account.id, type="private", person=account, is_forum=is_forum)
        return account

    def add_group(
        self, *, title: str, type: ChatType, is_forum: bool, members: list[int], id: int | None = None
    ) -> Chat:
        """Raises TelegramRefusal for members that do not exist, or an id that is taken or not negative."""
        for member in members:
            self.account(member)
        number = next(self._group_ids)
        default = -1_000_000_000_000 - number if type == "supergroup" else -number
        chat = Chat(
            id=default if id is None else id,
            type=type,
            title=title,
            is_forum=is_forum,
            members=[*members],
            started=True,
        )
        if chat.id >= 0 or chat.id in self.chats:
            raise bad_request("a group's id is negative, and no other chat's")
        self.chats[chat.id] = chat
        return chat

    def account(self, id: int) -> Account:
        if id not in self.accounts:
            raise bad_request("user not found")
        return self.accounts[id]

    def chat(self, id: Any) -> Chat:
        """By id or, for a person, by `@name`. Raises TelegramRefusal."""
        if id in (None, ""):
            raise bad_request("chat_id is empty")
        if re.fullmatch(r"-?\d+", str(id), re.ASCII):
            chat = self.chats.get(int(str(id)))
        else:
            found = (chat for chat in self.chats.values() if chat.person and f"@{chat.person.username}" == id)
            chat = next(found, None)
        if chat is None:
            raise bad_request("chat not found")
        return chat

    def writable(self, id: Any) -> Chat:
        """A chat that the bot may write to now. Raises TelegramRefusal."""
        chat = self.chat(id)
        if chat.shut_out:
            if chat.type == "private":
                raise TelegramRefusal(403, "bot was blocked by the user")
            raise TelegramRefusal(403, f"bot was kicked from the {chat.type} chat")
        if not chat.started:
            raise TelegramRefusal(403, "bot can't initiate conversation with a user")
        return chat

    def post(
        self,
        chat: Chat,
        sender: Account,
        content: Mapping[str, Any],
        *,
        markup: dict[str, Any] | None = None,
        thread_id: int | None = None,
        reply_to: int | None = None,
    ) -> Message:
        number = self.changes.tell()
        message = Message(
            id=chat.next_id(),
            chat=chat,
            sender=sender,
            date_s=int(time.time()),
            content=dict(content),
            markup=markup,
            thread_id=thread_id,
            reply_to=reply_to,
            created=number,
            revision=number,
        )
        chat.messages[message.id] = message
        return message

    def changed(self, message: Message, *, edited: bool = False) -> None:
        message.revision = self.changes.tell()
        if edited:
            message.edit_date_s = int(time.time())


_OF_A_PRIVATE_CHAT = ("first_name", "last_name", "username")


def _seen_button(button: Mapping[str, Any]) -> SeenButton:
    return SeenButton(
        text=button["text"],
        data=button.get("callback_data"),
        url=button.get("url"),
        pays=bool(button.get("pay")),
    )


def _seen_file(kind: Kind, content: Mapping[str, Any]) -> SeenFile:
    file = content["photo"][-1] if kind == "photo" else content[kind]
    return SeenFile(
        id=file["file_id"],
        name=file.get("file_name", kind),
        mime_type=file.get("mime_type", ""),
        size_bytes=file["file_size"],
    )


def _seen_invoice(content: Mapping[str, Any]) -> SeenInvoice:
    told = content["invoice"]
    return SeenInvoice(
        title=told["title"],
        description=told["description"],
        currency=told["currency"],
        total_amount=told["total_amount"],
    )

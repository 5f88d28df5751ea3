"""What people do in their chats, and which updates the bot gets for it."""

import re
import time
from collections.abc import Mapping
from typing import Any

from cluster.simulator.telegram.callbacks import Callbacks
from cluster.simulator.telegram.chats import Account, Chat, Message, World
from cluster.simulator.telegram.entities import found_entities, pieces
from cluster.simulator.telegram.files import Files
from cluster.simulator.telegram.keyboard import buttons_of
from cluster.simulator.telegram.payments import Payments
from cluster.simulator.telegram.refusal import bad_request
from cluster.simulator.telegram.seen import Paid
from cluster.simulator.telegram.sending import TEXT_UNITS_MAX, photo_size
from cluster.simulator.telegram.updates import Updates

_FOLDERS = {"document": "documents", "photo": "photos", "voice": "voice", "sticker": "stickers"}


class People:
    """`privacy`: in groups the bot gets commands, what names it and answers to it, and nothing else.

    Source: https://core.telegram.org/bots/features#privacy-mode
    """

    def __init__(
        self, world: World, updates: Updates, files: Files, callbacks: Callbacks, payments: Payments, *, privacy: bool
    ) -> None:
        self._world = world
        self._updates = updates
        self._files = files
        self._callbacks = callbacks
        self._payments = payments
        self._privacy = privacy

    def say(
        self, chat: Chat, person: Account, text: str, *, thread_id: int | None = None, reply_to: int | None = None
    ) -> Message:
        """The last message, where the text is so long that it becomes several."""
        parts = pieces(text, TEXT_UNITS_MAX)
        if not text.strip():
            raise bad_request("a person cannot send an empty text")
        for part in parts:
            entities = found_entities(part)
            content = {"text": part, **({"entities": list(entities)} if entities else {})}
            message = self._send(chat, person, content, thread_id=thread_id, reply_to=reply_to)
        return message

    def send_file(
        self,
        chat: Chat,
        person: Account,
        kind: str,
        content: bytes,
        *,
        name: str = "",
        mime_type: str = "",
        caption: str = "",
        size_bytes: int | None = None,
        thread_id: int | None = None,
    ) -> Message:
        """A document, photo, voice or sticker. A document without `name` has none on the wire either."""
        if kind not in _FOLDERS:
            raise bad_request(f"kind is one of: {', '.join(_FOLDERS)}, location")
        file = self._files.keep(
            content, folder=_FOLDERS[kind], name=name, mime_type=mime_type, size_bytes=size_bytes
        )  # fmt: skip
        told: dict[str, Any] = {
            "file_id": file.id,
            "file_unique_id": file.unique_id,
            "file_size": file.size_bytes,
            **({"file_name": name} if name else {}),
            **({"mime_type": mime_type} if mime_type else {}),
        }
        about: dict[str, Any] = {"caption": caption} if caption else {}
        if caption and (entities := found_entities(caption)):
            about |= {"caption_entities": list(entities)}
        match kind:
            case "photo":
                return self._send(chat, person, {"photo": [photo_size(file)], **about}, thread_id=thread_id)
            case "voice":
                told = {**told, "duration": 1}
            case "sticker":
                told |= {"type": "regular", "width": 512, "height": 512, "is_animated": False, "is_video": False}
                about = {}
        return self._send(chat, person, {kind: told, **about}, thread_id=thread_id)

    def send_location(self, chat: Chat, person: Account, latitude: float, longitude: float) -> Message:
        return self._send(chat, person, {"location": {"latitude": latitude, "longitude": longitude}})

    def edit(self, chat: Chat, person: Account, message_id: int, text: str) -> Message:
        message = chat.message(message_id, "message to edit not found")
        if message.sender is not person or "text" not in message.content:
            raise bad_request("message can't be edited")
        entities = found_entities(text)
        message.content = {"text": text, **({"entities": list(entities)} if entities else {})}
        self._world.changed(message, edited=True)
        self._updates.add("edited_message", message.wire(), chat.id)
        return message

    def press(
        self, chat: Chat, person: Account, *, message_id: int | None, text: str | None, data: str | None
    ) -> tuple[Message, str]:
        """The message with the button, and the query's id; empty where the button was one of the keyboard, whose text
        is sent. Without `message_id` the newest message that has such a button. Raises TelegramRefusal where there is
        none, or it is no button that tells the bot something."""
        if chat.shut_out:
            raise bad_request("the bot is not in this chat")
        candidates = [chat.message(message_id, "message not found")] if message_id else [*chat.messages.values()][::-1]
        for message in candidates:
            if message.deleted or not message.sender.is_bot:
                continue
            for button in buttons_of(message.markup):
                if text in (None, button["text"]) and data in (None, button.get("callback_data")):
                    if "callback_data" not in button:
                        raise bad_request("this button is not told to the bot")
                    return message, self._callbacks.press(person, message, button["callback_data"])
            if text is not None and text in _keys_of(message):
                self.say(chat, person, text)
                return message, ""
        raise bad_request("there is no such button")

    async def pay(
        self, chat: Chat, person: Account, *, message_id: int | None, link: str = "", amount: int | None = None
    ) -> Paid:
        if chat.shut_out:
            raise bad_request("the bot is not in this chat")
        if message_id is None and not link:
            invoices = [message.id for message in chat.messages.values() if "invoice" in message.content]
            message_id = invoices[-1] if invoices else None
        return await self._payments.pay(chat, person, self._payments.invoice(chat, message_id, link), amount)

    def shut_out(self, chat: Chat, person: Account, shut_out: bool) -> None:
        """The person blocks the bot, or a group removes it; or the other way round."""
        if chat.shut_out == shut_out:
            return
        chat.shut_out = shut_out
        bot = self._world.bot.wire()
        inside: dict[str, Any] = {"status": "member", "user": bot}
        outside: dict[str, Any] = {"status": "kicked", "user": bot, "until_date": 0}
        change = {
            "chat": chat.wire(),
            "from": person.wire(),
            "date": int(time.time()),
            "old_chat_member": inside if shut_out else outside,
            "new_chat_member": outside if shut_out else inside,
        }
        self._updates.add("my_chat_member", change, chat.id)

    def react(self, chat: Chat, person: Account, message_id: int, emoji: str) -> None:
        message = chat.message(message_id, "message not found")
        told = {
            "chat": chat.wire(),
            "message_id": message.id,
            "user": person.wire(),
            "date": int(time.time()),
            "old_reaction": [],
            "new_reaction": [{"type": "emoji", "emoji": emoji}] if emoji else [],
        }
        self._updates.add("message_reaction", told, chat.id)

    def _send(
        self,
        chat: Chat,
        person: Account,
        content: Mapping[str, Any],
        *,
        thread_id: int | None = None,
        reply_to: int | None = None,
    ) -> Message:
        if person.id not in ([chat.id] if chat.type == "private" else chat.members):
            raise bad_request("the person is not in this chat")
        if thread_id is not None and chat.topic(thread_id).closed:
            raise bad_request("TOPIC_CLOSED")
        if reply_to is not None:
            chat.message(reply_to, "message to be replied not found")
        if chat.type == "private":
            if chat.shut_out:
                self.shut_out(chat, person, shut_out=False)
            chat.started = True
        message = self._world.post(chat, person, content, thread_id=thread_id, reply_to=reply_to)
        if not chat.shut_out and self._reaches_bot(message):
            self._updates.add("message", message.wire(), chat.id)
        return message

    def _reaches_bot(self, message: Message) -> bool:
        if message.chat.type == "private" or not self._privacy:
            return True
        answered = message.chat.messages.get(message.reply_to or 0)
        if answered is not None and answered.sender is self._world.bot:
            return True
        text = message.content.get("text") or message.content.get("caption") or ""
        name = re.escape(self._world.bot.username)
        return bool(re.search(rf"@{name}\b|^/\w+(?!@|\w)|\s/\w+(?!@|\w)", text, re.ASCII))


def _keys_of(message: Message) -> list[str]:
    rows = (message.markup or {}).get("keyboard", ())
    return [key if isinstance(key, str) else key["text"] for row in rows for key in row]

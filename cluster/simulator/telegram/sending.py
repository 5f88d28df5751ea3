"""What the bot sends, edits and takes back."""

from collections.abc import Mapping, Sequence
from typing import Any

from cluster.simulator.telegram.chats import Chat, Message, World
from cluster.simulator.telegram.entities import Marked, found_entities, trimmed, utf16_length
from cluster.simulator.telegram.files import DOWNLOAD_BYTES_MAX, Files, StoredFile, image_size
from cluster.simulator.telegram.keyboard import check_markup
from cluster.simulator.telegram.markup import parse
from cluster.simulator.telegram.parameters import Parameters
from cluster.simulator.telegram.refusal import NOT_MODIFIED, TelegramRefusal, bad_request

TEXT_UNITS_MAX = 4096
CAPTION_UNITS_MAX = 1024
PHOTO_BYTES_MAX = 10 << 20
PHOTO_SIDES_MAX = 10_000
_PLACE = ("offset", "length")
_ACTIONS = frozenset({
    "typing", "upload_photo", "record_video", "upload_video", "record_voice", "upload_voice", "upload_document",
    "choose_sticker", "find_location", "record_video_note", "upload_video_note",
})  # fmt: skip


class Sending:
    def __init__(self, world: World, files: Files) -> None:
        self._world = world
        self._files = files

    def send_message(self, asked: Parameters) -> dict[str, Any]:
        text = _text(asked)
        return self.post(asked, _text_content(text)).wire()

    def send_message_draft(self, asked: Parameters) -> bool:
        """An empty text shows that the bot thinks; nothing of it stays."""
        if not asked.integer("draft_id"):
            raise bad_request("RANDOM_ID_INVALID")
        text = trimmed(_marked(asked, "text", "entities"))
        if text.length > TEXT_UNITS_MAX:
            raise bad_request("message is too long")
        chat = self._world.writable(asked.values.get("chat_id"))
        if chat.type != "private":
            raise bad_request("PEER_ID_INVALID")
        chat.drafts[asked.integer("draft_id")] = text.text
        self._world.changes.tell()
        return True

    def send_document(self, asked: Parameters) -> dict[str, Any]:
        caption = _caption(asked)
        self._world.writable(asked.values.get("chat_id"))
        file = self._file(asked, "document", "documents")
        document = {
            "file_id": file.id,
            "file_unique_id": file.unique_id,
            "file_name": file.name,
            "mime_type": file.mime_type,
            "file_size": file.size_bytes,
        }
        return self.post(asked, {"document": document, **caption}).wire()

    def send_photo(self, asked: Parameters) -> dict[str, Any]:
        caption = _caption(asked)
        self._world.writable(asked.values.get("chat_id"))
        file = self._file(asked, "photo", "photos")
        return self.post(asked, {"photo": [photo_size(file)], **caption}).wire()

    def send_chat_action(self, asked: Parameters) -> bool:
        action = asked.text("action")
        if action not in _ACTIONS:
            raise bad_request("wrong parameter action in request")
        chat = self._world.writable(asked.values.get("chat_id"))
        chat.actions.append(action)
        return True

    def edit_message_text(self, asked: Parameters) -> dict[str, Any]:
        text, markup = _text(asked), check_markup(asked.json("reply_markup"))
        message = self._editable(asked)
        if "text" not in message.content:
            raise bad_request("there is no text in the message to edit")
        content = _text_content(text)
        if content == message.content and markup == message.markup:
            raise bad_request(NOT_MODIFIED)
        message.content, message.markup = content, markup
        self._world.changed(message, edited=True)
        return message.wire()

    def edit_message_reply_markup(self, asked: Parameters) -> dict[str, Any]:
        markup = check_markup(asked.json("reply_markup"))
        message = self._editable(asked)
        if markup == message.markup:
            raise bad_request(NOT_MODIFIED)
        message.markup = markup
        self._world.changed(message, edited=True)
        return message.wire()

    def delete_message(self, asked: Parameters) -> bool:
        chat = self._world.chat(asked.values.get("chat_id"))
        message = chat.message(asked.integer("message_id"), "message to delete not found")
        message.deleted = True
        if chat.pinned == message.id:
            chat.pinned = None
        self._world.changed(message)
        return True

    def pin_chat_message(self, asked: Parameters) -> bool:
        chat = self._world.writable(asked.values.get("chat_id"))
        message = chat.message(asked.integer("message_id"), "message to pin not found")
        chat.pinned = message.id
        self._world.changed(message)
        self._world.post(chat, self._world.bot, {"pinned_message": message.wire(with_reply=False)})
        return True

    def set_message_reaction(self, asked: Parameters) -> bool:
        chat = self._world.writable(asked.values.get("chat_id"))
        message = chat.message(asked.integer("message_id"), "message to react not found")
        reactions = asked.mappings("reaction")
        if len(reactions) > 1:
            raise bad_request("REACTIONS_TOO_MANY")
        if any(one.get("type") != "emoji" or not one.get("emoji") for one in reactions):
            raise bad_request("REACTION_INVALID")
        message.reactions = tuple(str(one["emoji"]) for one in reactions)
        self._world.changed(message)
        return True

    def get_file(self, asked: Parameters) -> dict[str, Any]:
        file = self._files.by_id(asked.text("file_id"))
        if file.size_bytes > DOWNLOAD_BYTES_MAX:
            raise bad_request("file is too big")
        return {
            "file_id": file.id,
            "file_unique_id": file.unique_id,
            "file_size": file.size_bytes,
            "file_path": file.path,
        }

    def post(self, asked: Parameters, content: Mapping[str, Any]) -> Message:
        """Into the chat that the call names. Raises TelegramRefusal for all that makes it impossible."""
        markup = check_markup(asked.json("reply_markup"))
        chat = self._world.writable(asked.values.get("chat_id"))
        thread_id = _thread(chat, asked)
        return self._world.post(
            chat,
            self._world.bot,
            content,
            markup=markup,
            thread_id=thread_id,
            reply_to=_reply(chat, asked),
        )

    def _editable(self, asked: Parameters) -> Message:
        if asked.text("inline_message_id"):
            raise bad_request("MESSAGE_ID_INVALID")
        chat = self._world.writable(asked.values.get("chat_id"))
        message = chat.message(asked.integer("message_id"), "message to edit not found")
        if message.sender is not self._world.bot:
            raise bad_request("message can't be edited")
        return message

    def _file(self, asked: Parameters, name: str, folder: str) -> StoredFile:
        upload = asked.upload(name)
        if upload is None:
            reference = asked.text(name)
            if not reference or reference.startswith("attach://"):
                raise bad_request(f"there is no {name} in the request")
            if reference.startswith(("http://", "https://")):
                raise bad_request("failed to get HTTP URL content")
            return self._files.by_id(reference)
        if not upload.content:
            raise bad_request("file must be non-empty")
        if name == "photo":
            if len(upload.content) > PHOTO_BYTES_MAX:
                raise TelegramRefusal(413)
            if sum(image_size(upload.content)) > PHOTO_SIDES_MAX:
                raise bad_request("PHOTO_INVALID_DIMENSIONS")
        return self._files.keep(upload.content, folder=folder, name=upload.name, mime_type=upload.mime_type)


def photo_size(file: StoredFile) -> dict[str, Any]:
    """One size of a photo on the wire. Raises TelegramRefusal where the file is no image."""
    width, height = image_size(file.content)
    return {
        "file_id": file.id,
        "file_unique_id": file.unique_id,
        "width": width,
        "height": height,
        "file_size": file.size_bytes,
    }


def _marked(asked: Parameters, name: str, entities: str) -> Marked:
    """With what Telegram finds by itself where nothing marks it otherwise."""
    marked = parse(asked.text(name), asked.text("parse_mode"))
    given = asked.mappings(entities)
    if given and not asked.text("parse_mode"):
        _check_entities(given, marked.text)
        marked = Marked(marked.text, tuple(given))
    covered = [(one["offset"], one["offset"] + one["length"]) for one in marked.entities]
    found = tuple(
        one
        for one in found_entities(marked.text)
        if not any(begin < one["offset"] + one["length"] and one["offset"] < end for begin, end in covered)
    )
    return Marked(marked.text, tuple(sorted((*marked.entities, *found), key=lambda one: one["offset"])))


def _check_entities(given: Sequence[Mapping[str, Any]], text: str) -> None:
    if any("type" not in one or not all(isinstance(one.get(name), int) for name in _PLACE) for one in given):
        raise bad_request("can't parse entities: expected an Array of MessageEntity")
    if any(one["offset"] < 0 or one["offset"] + one["length"] > utf16_length(text) for one in given):
        raise bad_request("entity beginning or end is outside of the text")


def _text(asked: Parameters) -> Marked:
    text = trimmed(_marked(asked, "text", "entities"))
    if not text.text:
        raise bad_request("message text is empty")
    if text.length > TEXT_UNITS_MAX:
        raise bad_request("message is too long")
    return text


def _caption(asked: Parameters) -> dict[str, Any]:
    caption = trimmed(_marked(asked, "caption", "caption_entities"))
    if caption.length > CAPTION_UNITS_MAX:
        raise bad_request("message caption is too long")
    if not caption.text:
        return {}
    entities = {"caption_entities": list(caption.entities)} if caption.entities else {}
    return {"caption": caption.text, **entities}


def _text_content(text: Marked) -> dict[str, Any]:
    return {"text": text.text, **({"entities": list(text.entities)} if text.entities else {})}


def _thread(chat: Chat, asked: Parameters) -> int | None:
    if not asked.integer("message_thread_id", 0):
        return None
    topic = chat.topic(asked.integer("message_thread_id"))
    if topic.closed:
        raise bad_request("TOPIC_CLOSED")
    return topic.id


def _reply(chat: Chat, asked: Parameters) -> int | None:
    told = asked.mapping("reply_parameters")
    reply_to = Parameters(told).integer("message_id", 0) or asked.integer("reply_to_message_id", 0)
    if not reply_to:
        return None
    message = chat.messages.get(reply_to)
    if message is None or message.deleted:
        if told.get("allow_sending_without_reply") or asked.boolean("allow_sending_without_reply"):
            return None
        raise bad_request("message to be replied not found")
    return message.id

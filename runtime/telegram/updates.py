"""What Telegram sends, as far as we read it. Source: Telegram Bot API 10.0, "Getting updates"."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from runtime.errors import BadInputError

_NUMBER_MAX = (1 << 53) - 1
"""Source: Telegram Bot API, "Chat": an id has 52 significant bits at most."""
_DATE_MAX = (1 << 32) - 1

Number = Annotated[int, msgspec.Meta(ge=-_NUMBER_MAX, le=_NUMBER_MAX)]
Name = Annotated[str, msgspec.Meta(max_length=1_024)]
"""Telegram's own bounds are far lower; what is above ours is none of its."""
Words = Annotated[str, msgspec.Meta(max_length=65_536)]


class User(msgspec.Struct, frozen=True, omit_defaults=True):
    id: Number
    first_name: Name = ""
    last_name: Name = ""
    username: Name = ""
    language_code: Name = ""
    is_bot: bool = False


class Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """Telegram's `Chat`."""

    id: Number
    type: Name = "private"
    title: Name = ""
    is_forum: bool = False

    @property
    def is_private(self) -> bool:
        return self.type == "private"


class MessageEntity(msgspec.Struct, frozen=True, omit_defaults=True):
    type: Name
    offset: Number
    length: Number


class File(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of a document, a voice message, a sticker or a photo."""

    file_id: Name
    file_name: Name = ""
    file_size: Number = 0
    mime_type: Name = ""


class SuccessfulPayment(msgspec.Struct, frozen=True, omit_defaults=True):
    currency: Name
    total_amount: Number
    invoice_payload: Name
    telegram_payment_charge_id: Name
    provider_payment_charge_id: Name = ""


class RefundedPayment(msgspec.Struct, frozen=True, omit_defaults=True):
    currency: Name
    total_amount: Number
    invoice_payload: Name
    telegram_payment_charge_id: Name


class RepliedTo(msgspec.Struct, frozen=True, omit_defaults=True):
    message_id: Number
    sender: User | None = msgspec.field(default=None, name="from")


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    message_id: Number
    chat: Place
    sender: User | None = msgspec.field(default=None, name="from")
    """None for what a channel or an anonymous administrator writes."""
    sender_chat: Place | None = None
    """A channel or group that speaks by itself; `sender` is then nobody's account."""
    date: Number = 0
    """Unix seconds."""
    message_thread_id: Number | None = None
    is_topic_message: bool = False
    text: Words = ""
    caption: Words = ""
    entities: tuple[MessageEntity, ...] = ()
    reply_to_message: RepliedTo | None = None
    document: File | None = None
    voice: File | None = None
    audio: File | None = None
    video: File | None = None
    video_note: File | None = None
    sticker: File | None = None
    photo: tuple[File, ...] = ()
    successful_payment: SuccessfulPayment | None = None
    refunded_payment: RefundedPayment | None = None

    @property
    def sent_at(self) -> datetime:
        return datetime.fromtimestamp(min(max(self.date, 0), _DATE_MAX), UTC)

    @property
    def thread(self) -> int | None:
        """The topic of a forum; a reply in an ordinary group has a thread too, and needs none in its answer."""
        return self.message_thread_id if self.is_topic_message else None


class Pressed(msgspec.Struct, frozen=True, omit_defaults=True):
    """Telegram's `CallbackQuery`: somebody pressed a button."""

    id: Name
    sender: User = msgspec.field(name="from")
    message: Message | None = None
    data: Name = ""


class PreCheckout(msgspec.Struct, frozen=True, omit_defaults=True):
    id: Name
    currency: Name
    total_amount: Number
    invoice_payload: Name
    sender: User = msgspec.field(name="from")


class Member(msgspec.Struct, frozen=True, omit_defaults=True):
    status: Name


class MemberChanged(msgspec.Struct, frozen=True, omit_defaults=True):
    """That somebody blocked or unblocked the bot, or added it to a group."""

    chat: Place
    sender: User = msgspec.field(name="from")
    new_chat_member: Member


class Update(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of the rest is set; an update of another kind has none of them."""

    update_id: Number
    message: Message | None = None
    callback_query: Pressed | None = None
    pre_checkout_query: PreCheckout | None = None
    my_chat_member: MemberChanged | None = None

    @property
    def is_payment(self) -> bool:
        """That Stars were taken."""
        return self.message is not None and self.message.successful_payment is not None

    @property
    def sender(self) -> User | None:
        """Who did it; None where no person did."""
        if self.message is not None and self.message.sender_chat is not None:
            return None
        found = self.message or self.callback_query or self.pre_checkout_query or self.my_chat_member
        return found.sender if found is not None else None

    @property
    def chat(self) -> Place | None:
        """Where it belongs. Who pays does so in private, whichever chat the invoice was in."""
        if self.callback_query is not None:
            shown = self.callback_query.message
            return shown.chat if shown is not None else Place(id=self.callback_query.sender.id)
        if self.pre_checkout_query is not None:
            return Place(id=self.pre_checkout_query.sender.id)
        found = self.message or self.my_chat_member
        return found.chat if found is not None else None


_NOT_TELEGRAMS = "This is not an update of Telegram's"

KINDS: Sequence[str] = ("message", "callback_query", "pre_checkout_query", "my_chat_member")
"""What Telegram is asked to send: without the third, no payment can be completed."""


def parse_update(data: Any) -> Update:
    """Raises BadInputError for what cannot be an update of Telegram's. It names fields, and says nothing of their text.

    A private chat is its person's own: whoever writes there has its id.
    """
    try:
        update = msgspec.convert(data, Update, strict=True)
        msgspec.json.encode(update)
    except (msgspec.ValidationError, RecursionError) as error:
        raise BadInputError(f"{_NOT_TELEGRAMS}: {error}.") from None
    except UnicodeEncodeError:
        raise BadInputError(f"{_NOT_TELEGRAMS}: half a surrogate pair is in its text.") from None
    sender, chat = update.sender, update.chat
    if update.update_id < 0:
        raise BadInputError(f"{_NOT_TELEGRAMS}: its number is negative.")
    if chat is not None and chat.is_private != (chat.id > 0):
        raise BadInputError(f"{_NOT_TELEGRAMS}: its chat is of another kind than its id.")
    if sender is not None and (sender.id <= 0 or (chat is not None and chat.is_private and chat.id != sender.id)):
        raise BadInputError(f"{_NOT_TELEGRAMS}: its chat is not its sender's.")
    return update


def plain_update(update: Update) -> Mapping[str, Any]:
    """As JSON-able data that `parse_update` reads: what we read of it, and nothing else."""
    plain: Mapping[str, Any] = msgspec.to_builtins(update)
    return plain

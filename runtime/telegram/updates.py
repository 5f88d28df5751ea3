"""What Telegram sends, as far as we read it. Source: Telegram Bot API 10.0, "Getting updates"."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from runtime.errors import BadInputError

_UPDATE_ID_MAX = (1 << 53) - 1
_DATE_MAX = (1 << 32) - 1


class User(msgspec.Struct, frozen=True, omit_defaults=True):
    id: int
    first_name: str = ""
    last_name: str = ""
    username: str = ""
    language_code: str = ""
    is_bot: bool = False


class Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """Telegram's `Chat`."""

    id: int
    type: str = "private"
    title: str = ""
    is_forum: bool = False

    @property
    def is_private(self) -> bool:
        return self.type == "private"


class MessageEntity(msgspec.Struct, frozen=True, omit_defaults=True):
    type: str
    offset: int
    length: int


class File(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of a document, a voice message, a sticker or a photo."""

    file_id: str
    file_name: str = ""
    file_size: int = 0
    mime_type: str = ""


class SuccessfulPayment(msgspec.Struct, frozen=True, omit_defaults=True):
    currency: str
    total_amount: int
    invoice_payload: str
    telegram_payment_charge_id: str
    provider_payment_charge_id: str = ""


class RefundedPayment(msgspec.Struct, frozen=True, omit_defaults=True):
    currency: str
    total_amount: int
    invoice_payload: str
    telegram_payment_charge_id: str


class RepliedTo(msgspec.Struct, frozen=True, omit_defaults=True):
    message_id: int
    sender: User | None = msgspec.field(default=None, name="from")


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    message_id: int
    chat: Place
    sender: User | None = msgspec.field(default=None, name="from")
    """None for what a channel or an anonymous administrator writes."""
    date: int = 0
    """Unix seconds."""
    message_thread_id: int | None = None
    is_topic_message: bool = False
    text: str = ""
    caption: str = ""
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

    id: str
    sender: User = msgspec.field(name="from")
    message: Message | None = None
    data: str = ""


class PreCheckout(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    currency: str
    total_amount: int
    invoice_payload: str
    sender: User = msgspec.field(name="from")


class Member(msgspec.Struct, frozen=True, omit_defaults=True):
    status: str


class MemberChanged(msgspec.Struct, frozen=True, omit_defaults=True):
    """That somebody blocked or unblocked the bot, or added it to a group."""

    chat: Place
    sender: User = msgspec.field(name="from")
    new_chat_member: Member


class Update(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of the rest is set; an update of another kind has none of them."""

    update_id: int
    message: Message | None = None
    callback_query: Pressed | None = None
    pre_checkout_query: PreCheckout | None = None
    my_chat_member: MemberChanged | None = None

    @property
    def sender(self) -> User | None:
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


KINDS: Sequence[str] = ("message", "callback_query", "pre_checkout_query", "my_chat_member")
"""What Telegram is asked to send: without the third, no payment can be completed."""


def parse_update(data: Any) -> Update:
    """Raises BadInputError for what cannot be an update of Telegram's."""
    try:
        update = msgspec.convert(data, Update, strict=True)
    except (msgspec.ValidationError, RecursionError) as error:
        raise BadInputError(f"This is not an update of Telegram's: {error}.") from None
    if not 0 <= update.update_id <= _UPDATE_ID_MAX:
        raise BadInputError("This is not an update of Telegram's: its number is out of range.")
    return update


def plain_update(update: Update) -> Mapping[str, Any]:
    """As JSON-able data that `parse_update` reads: what we read of it, and nothing else."""
    plain: Mapping[str, Any] = msgspec.to_builtins(update)
    return plain

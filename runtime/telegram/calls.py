"""What is said to Telegram: calls of its Bot API, as data, so that they can be journalled before they are made."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from runtime.errors import RefusedError
from runtime.ids import BlobId
from runtime.telegram.formatting import fitted


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """A file that goes with a call. Its bytes are a blob."""

    field: str
    """`document` or `photo`."""
    name: str
    blob: BlobId
    is_for_this: bool = False
    """It was stored to be sent, and is removed when it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of the Bot API. `data` are its parameters, JSON-able.

    `plain` is the text without markup, for when Telegram refuses the markup; empty: what is seen of it.
    `mark` says what the sent message is to be known as (`progress/<project>`), so that it can be edited later.
    """

    method: str
    data: Mapping[str, Any]
    plain: str = ""
    file: Attached | None = None
    mark: str = ""

    def frozen(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def thawed(cls, data: Mapping[str, Any]) -> "Call":
        file = data.get("file")
        return cls(**{**data, "file": Attached(**file) if file else None})


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """The bytes of an attached file, as they travel to whoever makes the call."""

    field: str
    name: str
    content: bytes


class BotApi(Protocol):
    """Makes calls, within Telegram's limits. Implemented by the handle of the actor that has the bot's token."""

    async def call(
        self,
        method: str,
        data: Mapping[str, Any],
        upload: Upload | None = None,
        *,
        may_drop: bool = False,
        key: str = "",
    ) -> Any:
        """What Telegram answers. Waits as long as its limits ask for; `may_drop`: or is refused as overload at once.
        With the `key` of a call that is under way, or was answered lately, it is that call.

        Raises OverloadedError, BlockedError, TelegramRefusedError, and UnavailableError where it may have been done.
        """


class TelegramRefusedError(RefusedError):
    """Telegram will not carry the call out, however often it is made. `message` is its own description."""

    code = "telegram_refused"

    @property
    def is_about_markup(self) -> bool:
        return "can't parse entities" in self.message.lower()

    @property
    def is_no_news(self) -> bool:
        """The message is as it was to become already."""
        return "message is not modified" in self.message.lower()


class BlockedError(TelegramRefusedError):
    """The person blocked the bot, or it was removed from the group: nothing arrives there any more."""

    code = "telegram_blocked"


Button = tuple[str, str]
"""What it says, and what comes back when it is pressed (or, with `https://` in front, where it leads)."""


@dataclass(frozen=True, slots=True)
class Where:
    """A chat, and the topic in it."""

    chat: int
    thread: int | None = None

    @property
    def data(self) -> dict[str, Any]:
        return {"chat_id": self.chat} | ({} if self.thread is None else {"message_thread_id": self.thread})


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A message to be sent: HTML as Telegram takes it, and buttons by rows."""

    html: str
    plain: str = ""
    rows: Sequence[Sequence[Button]] = field(default_factory=tuple)
    mark: str = ""
    quiet: bool = False

    def call(self, where: Where) -> Call:
        """One message, whatever a person or a model made of it: Telegram takes none that is longer."""
        text, off = fitted(self.html), {"is_disabled": True}
        data = where.data | {"text": text, "parse_mode": "HTML", "link_preview_options": off}
        if self.rows:
            data["reply_markup"] = keyboard(self.rows)
        if self.quiet:
            data["disable_notification"] = True
        return Call(method="sendMessage", data=data, plain=self.plain, mark=self.mark)


DRAFT = "sendMessageDraft"
"""What is being written, shown until it is sent: in private chats, where the Bot API has it."""


TYPING = "sendChatAction"


def typing(data: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the sign of old, in the place of a draft's."""
    kept = {name: data[name] for name in ("chat_id", "message_thread_id") if name in data}
    return kept | {"action": "typing"}


def keyboard(rows: Sequence[Sequence[Button]]) -> dict[str, Any]:
    return {"inline_keyboard": [[_button(*button) for button in row] for row in rows if row]}


def _button(text: str, what: str) -> dict[str, Any]:
    return {"text": text, "url" if what.startswith("https://") else "callback_data": what}

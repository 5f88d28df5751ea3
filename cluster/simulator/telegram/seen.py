"""What a person sees: the records that the control side tells, and that a transcript is made of."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Kind = Literal["text", "document", "photo", "voice", "sticker", "location", "invoice", "payment", "service"]


class _Seen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SeenButton(_Seen):
    text: str
    data: str | None = None
    url: str | None = None
    pays: bool = False


class SeenFile(_Seen):
    """`id` is what `download` takes."""

    id: str
    name: str
    mime_type: str
    size_bytes: int


class SeenInvoice(_Seen):
    """`total_amount` is in the currency's smallest unit; in Stars for XTR."""

    title: str
    description: str
    currency: str
    total_amount: int


class SeenMessage(_Seen):
    """A message in its last form. `created` and `revision` count the changes of all chats: by `created` messages are
    in the order in which they came, `revision` is that of the last change to this one."""

    id: int
    chat_id: int
    thread_id: int | None = None
    sender: str
    from_bot: bool
    kind: Kind
    text: str = ""
    """Or the caption, or what a service message tells."""
    entities: tuple[dict[str, Any], ...] = ()
    rows: tuple[tuple[SeenButton, ...], ...] = ()
    keyboard: tuple[tuple[str, ...], ...] = ()
    """Labels that the person may send instead of typing."""
    file: SeenFile | None = None
    invoice: SeenInvoice | None = None
    reply_to: int | None = None
    edited: bool = False
    deleted: bool = False
    pinned: bool = False
    reactions: tuple[str, ...] = ()
    created: int
    revision: int

    @property
    def buttons(self) -> tuple[SeenButton, ...]:
        return tuple(button for row in self.rows for button in row)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(button.text for button in self.buttons)


class Answered(_Seen):
    """What the bot answered to a pressed button."""

    text: str = ""
    alert: bool = False
    url: str = ""


class Paid(_Seen):
    """How a payment ended. `why` is what the person is told where it failed."""

    paid: bool
    charge_id: str = ""
    why: str = ""

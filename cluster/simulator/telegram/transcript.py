"""Who said what in a chat, in the order in which it came: plain records, to be drawn or compared."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from cluster.simulator.telegram.seen import Kind, SeenMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A message in its last form, or (`press`) a button that was pressed, whose label is the `text`.

    `rows` are the labels under the message; `entities` as on the wire, in UTF-16 units.
    """

    who: str
    from_bot: bool
    kind: Kind | Literal["press"]
    text: str = ""
    entities: tuple[dict[str, Any], ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    file_name: str = ""
    size_bytes: int = 0
    edited: bool = False
    reactions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressed:
    """`at`: after how many changes of all chats."""

    who: str
    label: str
    at: int


def transcript(messages: Iterable[SeenMessage], presses: Iterable[Pressed] = ()) -> tuple[Line, ...]:
    """Of the messages that a person sees."""
    said = [(message.created, _line(message)) for message in messages]
    done = [(press.at + 0.5, Line(who=press.who, from_bot=False, kind="press", text=press.label)) for press in presses]
    return tuple(line for _, line in sorted([*said, *done], key=lambda placed: placed[0]))


def _line(message: SeenMessage) -> Line:
    text = message.text
    if message.invoice is not None:
        invoice = message.invoice
        text = f"{invoice.title}\n{invoice.description}\n{invoice.total_amount} {invoice.currency}"
    return Line(
        who=message.sender,
        from_bot=message.from_bot,
        kind=message.kind,
        text=text,
        entities=message.entities,
        rows=tuple(tuple(button.text for button in row) for row in message.rows) or message.keyboard,
        file_name=message.file.name if message.file else "",
        size_bytes=message.file.size_bytes if message.file else 0,
        edited=message.edited,
        reactions=message.reactions,
    )

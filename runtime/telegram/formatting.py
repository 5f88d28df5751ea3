"""What models and people write, as Telegram takes it: Markdown becomes HTML, and a long text several messages."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import unescape
from typing import Final

import regex

from runtime.telegram.markdown import parse
from runtime.telegram.rich_text import RichText, clean, escape, utf16_units

__all__ = [
    "UNITS_MAX",
    "Message",
    "clean",
    "escape",
    "fitted",
    "messages",
    "plain",
    "to_html",
    "unmarked",
    "utf16_units",
]

UNITS_MAX: Final = 4_096
"""Of one message. Telegram counts the text that is seen; here the HTML is held to it, which is never shorter."""
_FOOTER_UNITS_MAX = 1_000
_SEEN = regex.compile(r"[^\s\p{Z}\p{Cc}\p{Cf}\p{Cs}\u115f\u1160\u2800\u3164\uffa0]")
"""Telegram takes no message without any of it."""
_PIECE = re.compile(r"<(?P<close>/?)(?P<tag>[a-z-]+)[^<>]*>|&[a-z]+;|.", re.DOTALL)
_MORE = "…"


@dataclass(frozen=True, slots=True)
class Message:
    """`plain` is the same without markup, for when Telegram refuses `html`. Neither is longer than `UNITS_MAX`."""

    html: str
    plain: str


def to_html(markdown: str) -> str:
    """The whole text in Telegram's HTML, however long it is."""
    text = parse(markdown)
    return text.html(0, len(text))


def plain(markdown: str) -> str:
    """The whole text without markup; links are followed by their targets."""
    text = parse(markdown)
    return text.plain(0, len(text))


def messages(markdown: str, footer: str = "") -> Sequence[Message]:
    """The text as messages, in order; none where there is nothing to see.

    It is cut between paragraphs where it can be, else between lines, else between words. `footer` is plain text; it
    stands under a line `---` at the end of the last message. A hostile text of 100 kB takes a second or two: in an
    event loop, ask a thread.
    """
    text = parse(markdown)
    if footer := clean(footer).strip():
        footer = f"\n\n---\n{footer}"
    footer_html = escape(footer)
    if utf16_units(footer_html) > _FOOTER_UNITS_MAX:
        text.add(footer)
        footer = footer_html = ""
    parts = list(_parts(text, utf16_units(footer_html)))
    if not parts:
        return [Message(footer_html.strip(), footer.strip())] if footer else []
    made = [Message(text.html(start, end), text.plain(start, end)) for start, end in parts]
    return [*made[:-1], Message(made[-1].html + footer_html, made[-1].plain + footer)]


def fitted(html: str) -> str:
    """`html` of ours, cut where one message ends: between characters, with what is open there closed again."""
    if utf16_units(html) <= UNITS_MAX:
        return html
    kept, opened, left = list[str](), list[str](), UNITS_MAX - len(_MORE)
    for piece in _PIECE.finditer(html):
        left -= utf16_units(piece[0])
        if piece["close"]:
            opened.pop()
            left += len(f"</{piece['tag']}>")
        elif piece["tag"]:
            opened.append(piece["tag"])
            left -= len(f"</{piece['tag']}>")
        if left < 0:
            if piece["tag"] and not piece["close"]:
                opened.pop()
            break
        kept.append(piece[0])
    return "".join([*kept, _MORE, *(f"</{tag}>" for tag in reversed(opened))])


def unmarked(html: str) -> str:
    """What is seen of `html`."""
    return unescape(re.sub(r"<[^<>]*>", "", html))


def _parts(text: RichText, footer_units: int) -> Iterator[tuple[int, int]]:
    """Where each message begins and ends. The last one leaves room for the footer."""
    borders = _Borders(text)
    start, end = 0, borders.seen_end
    while start < end:
        stop = text.reach(start, UNITS_MAX)
        if stop >= end:
            stop = text.reach(start, UNITS_MAX - footer_units)
        cut = end if stop >= end else borders.last(start, stop)
        if cut == end or _SEEN.search(borders.whole, start, cut):
            yield start, cut
        start = cut


class _Borders:
    """Where a text can be cut."""

    def __init__(self, text: RichText) -> None:
        self.whole = text.text_between(0, len(text))
        self._paragraphs = text.paragraphs
        self._graphemes = text.graphemes()
        seen = max((found.start() for found in _SEEN.finditer(self.whole)), default=-1)
        after = bisect_right(self._graphemes, seen)
        last_end = self._graphemes[after] if after < len(self._graphemes) else len(self.whole)
        self.seen_end = last_end if seen >= 0 else 0
        """After the last character that is seen."""

    def last(self, start: int, stop: int) -> int:
        """The best place after `start` and up to `stop`; one near the start is none, or messages would be tiny."""
        least = start + max(1, (stop - start) // 8)
        for place in self._wished(start, stop):
            if place >= least and self._is_between_graphemes(place):
                return place
        whole = self._graphemes[bisect_right(self._graphemes, stop) - 1]
        return whole if whole > start else stop

    def _wished(self, start: int, stop: int) -> Iterator[int]:
        number = bisect_right(self._paragraphs, stop)
        if number:
            yield self._paragraphs[number - 1]
        for border in ("\n\n", "\n", " "):
            found = self.whole.rfind(border, start, stop)
            if found >= 0:
                yield found + len(border)

    def _is_between_graphemes(self, place: int) -> bool:
        number = bisect_left(self._graphemes, place)
        return number == len(self._graphemes) or self._graphemes[number] == place

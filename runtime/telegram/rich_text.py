"""Text with styles, as Telegram sees a message: characters, and spans of them that look or act differently.

Cutting such a text anywhere leaves two whole ones, which markup never allows.
Source: https://core.telegram.org/bots/api#formatting-options
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape as escape_html
from typing import Final, Literal

import regex

Tag = Literal["b", "i", "u", "s", "tg-spoiler", "a", "code", "pre", "blockquote"]
_VERBATIM: Final = ("code", "pre")
_GRAPHEME = regex.compile(r"\p{RI}{2}[\p{Grapheme_Extend}\u200d]*|\X")
"""Pairs of letters that make a flag come first, because `X` looks back over all flags before each."""
_CONTROLS = dict.fromkeys([*range(9), 11, 12, *range(13, 32), *range(127, 160)])


def clean(text: str) -> str:
    """Without what no message can hold: control characters but for tab and newline; half a surrogate pair becomes �."""
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole.translate(_CONTROLS)


def escape(text: str) -> str:
    """`text` for Telegram's HTML, between tags or in the quotes of an attribute."""
    return escape_html(clean(text), quote=False).replace('"', "&quot;")


def utf16_units(text: str) -> int:
    """What Telegram counts: an emoji outside the basic plane is two."""
    return len(text) + sum(character > "\uffff" for character in text)


@dataclass(frozen=True, slots=True)
class Style:
    tag: Tag
    value: str = ""
    """The target of `a`, the language of `pre`."""

    @property
    def opening(self) -> str:
        if self.tag == "a":
            return f'<a href="{escape(self.value)}">'
        if self.tag == "pre" and self.value:
            return f'<pre><code class="language-{escape(self.value)}">'
        return f"<{self.tag}>"

    @property
    def closing(self) -> str:
        return "</code></pre>" if self.tag == "pre" and self.value else f"</{self.tag}>"


@dataclass(frozen=True, slots=True)
class Run:
    """Text with the same styles, the outermost first. `start` is its place in the whole text, in characters."""

    start: int
    text: str
    styles: tuple[Style, ...]

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@dataclass(slots=True)
class RichText:
    """Grows at its end. Places in it are counted in characters."""

    runs: list[Run] = field(default_factory=list)
    paragraphs: list[int] = field(default_factory=list)
    """Where a paragraph begins that is not inside code; ascending."""

    def __len__(self) -> int:
        return self.runs[-1].end if self.runs else 0

    def text_between(self, start: int, end: int) -> str:
        return "".join(run.text for run in self.part(start, end))

    def add(self, text: str, styles: Sequence[Style] = ()) -> None:
        """Appends. Of styles that Telegram does not have inside each other the outer one stays, or the code."""
        text = clean(text)
        if text:
            self.runs.append(Run(len(self), text, _allowed(styles)))

    def begin_paragraph(self) -> None:
        self.paragraphs.append(len(self))

    def part(self, start: int, end: int) -> Iterator[Run]:
        first = max(0, bisect_right(self.runs, start, key=lambda run: run.start) - 1)
        for index in range(first, len(self.runs)):
            run = self.runs[index]
            if run.start >= end:
                return
            begin, stop = max(start, run.start), min(end, run.end)
            if begin < stop:
                yield Run(begin, run.text[begin - run.start : stop - run.start], run.styles)

    def html(self, start: int, end: int) -> str:
        written: list[str] = []
        opened: tuple[Style, ...] = ()
        for run in self.part(start, end):
            written += [_turn(opened, run.styles), escape_html(run.text, quote=False)]
            opened = run.styles
        return "".join([*written, _turn(opened, ())])

    def plain(self, start: int, end: int) -> str:
        """Without styles. A link's target follows it in parentheses where its text does not tell it."""
        written: list[str] = []
        link, shown = "", ""
        for run in self.part(start, end):
            target = next((style.value for style in run.styles if style.tag == "a"), "")
            if target != link:
                written.append(_told(link, shown))
                link, shown = target, ""
            shown += run.text
            written.append(run.text)
        return "".join([*written, _told(link, shown)])

    def reach(self, start: int, units_max: int) -> int:
        """The furthest place to which the HTML from `start` is no longer than `units_max`, and so the text, too."""
        opened: tuple[Style, ...] = ()
        left = units_max
        for run in self.part(start, len(self)):
            left -= utf16_units(_turn(opened, run.styles))
            opened = run.styles
            closing = utf16_units(_turn(opened, ()))
            for place, character in enumerate(run.text, run.start):
                left -= _cost(character)
                if left < closing:
                    return place
        return len(self)

    def graphemes(self) -> Sequence[int]:
        """Where what is seen as one character begins: flags, families and letters with their accents are one."""
        return [found.start() for found in _GRAPHEME.finditer(self.text_between(0, len(self)))]


def _allowed(styles: Sequence[Style]) -> tuple[Style, ...]:
    kept: list[Style] = []
    for style in styles:
        tags = [other.tag for other in kept]
        if style.tag in tags or "pre" in tags or "code" in tags or (style.tag in _VERBATIM and "a" in tags):
            continue
        if style.tag in _VERBATIM:
            kept = [other for other in kept if other.tag == "blockquote"]
        kept.append(style)
    return tuple(kept)


def _turn(before: tuple[Style, ...], after: tuple[Style, ...]) -> str:
    """The tags between two runs; what both have stays open."""
    same = 0
    while same < min(len(before), len(after)) and before[same] == after[same]:
        same += 1
    closed = [style.closing for style in reversed(before[same:])]
    return "".join([*closed, *(style.opening for style in after[same:])])


def _told(target: str, shown: str) -> str:
    return f" ({target})" if target and target != shown else ""


def _cost(character: str) -> int:
    """In the HTML, in UTF-16 units."""
    return {"&": 5, "<": 4, ">": 4}.get(character) or (2 if character > "\uffff" else 1)

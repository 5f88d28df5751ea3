"""Draws a transcript as one SVG: the bot on the left, people on the right, buttons under their message.

Equal transcripts are drawn equally. Fonts are the viewer's own, so widths are estimated and lines broken early. It
brings its own background, and follows the viewer's choice of light or dark.
"""

import html
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from cluster.simulator.telegram.transcript import Line

WIDTH = 480
_MARGIN, _PADDING, _GAP = 14, 12, 8
_BUBBLE_MAX = 360
_LINE, _FONT, _SMALL = 20, 15, 12
_BUTTON = 34
_PHOTO_HEIGHT = 150
_BOLD = 1.12
"""How much wider bold letters are."""
LINES_MAX = 60
"""Of one message; what is longer ends in an ellipsis."""
_STYLES = {
    "bold": "b", "italic": "i", "code": "m", "pre": "m", "text_link": "a", "url": "a", "bot_command": "a",
    "mention": "a", "strikethrough": "s", "underline": "u",
}  # fmt: skip
_NARROW, _SLIM, _BROAD = frozenset("iljI|.,:;'!`"), frozenset('ftr()[]{}-"/\\ '), frozenset("mwMW@%&")
_FORBIDDEN = re.compile(r"[^\t\n -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CSS = """
.bg{fill:#dfe7ee}.bot{fill:#fff}.me{fill:#e2fcd0}.t{fill:#0f1419}.q{fill:#5c6b78}.btn{fill:#fff;fill-opacity:.75}
.l{fill:#1c6fb8}.pill{fill:#5c6b78;fill-opacity:.25}.ico{fill:#3390d6}.onico{fill:#fff}.pic{fill:#b9cad8}.hill{fill:#8fa9bd}
text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;font-size:15px}
.x{font-size:12px}.b{font-weight:600}.i{font-style:italic}.s{text-decoration:line-through}.u{text-decoration:underline}
.m{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:13px}.a{fill:#1c6fb8}
@media (prefers-color-scheme:dark){.bg{fill:#0e1621}.bot{fill:#1f2c3a}.me{fill:#2b5278}.t{fill:#f1f4f7}.q{fill:#9fb0bf}
.btn{fill:#2c3b4b;fill-opacity:1}.l,.a{fill:#8ac4f5}.pill{fill:#9fb0bf}.pic{fill:#34485b}.hill{fill:#4d6478}}
""".strip()


@dataclass(frozen=True, slots=True)
class _Char:
    text: str
    styles: str
    """Classes, sorted."""

    @property
    def width(self) -> float:
        if "m" in self.styles.split():
            return 13 * 0.62 * sum(2 if _is_wide(char) else 1 for char in self.text)
        return _width_of(self.text, _FONT) * (_BOLD if "b" in self.styles.split() else 1)


def draw(lines: Sequence[Line], *, title: str = "Masterbuilder") -> str:
    """An SVG of `WIDTH` pixels; as high as it must be."""
    people = {line.who for line in lines if not line.from_bot}
    parts, y = list(_header(title)), 58.0
    for line in lines:
        drawn, height = _drawn(line, y, named=len(people) > 1)
        parts += drawn
        y += height + _GAP
    height = round(y + _MARGIN - _GAP)
    alt = html.escape(f"A chat with {title}")
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'role="img" aria-label="{alt}">',
        f"<title>{alt}</title>",
        f"<style>{_CSS}</style>",
        f'<rect class="bg" width="{WIDTH}" height="{height}" rx="14"/>',
        *parts,
        "</svg>",
        "",
    ])  # fmt: skip


def _header(title: str) -> Iterator[str]:
    yield f'<circle class="ico" cx="{_MARGIN + 16}" cy="28" r="16"/>'
    initial = html.escape(_clean(title)[:1].upper())
    yield f'<text class="onico b" x="{_MARGIN + 16}" y="33" text-anchor="middle">{initial}</text>'
    yield f'<text class="t b" x="{_MARGIN + 42}" y="25">{html.escape(_clean(title))}</text>'
    yield f'<text class="q x" x="{_MARGIN + 42}" y="41">bot</text>'


def _drawn(line: Line, y: float, *, named: bool) -> tuple[list[str], float]:
    """The elements, and the height that they take."""
    if line.kind == "press":
        return _pill(f"{line.who} pressed “{line.text}”", y)
    if line.kind == "service":
        return _pill(line.text, y)
    return _bubble(line, y, named=named)


def _pill(text: str, y: float) -> tuple[list[str], float]:
    shown = _clean(text).replace("\n", " ")
    while _width_of(shown, _SMALL) > WIDTH - 80:
        shown = shown[:-2].rstrip() + "…"
    width = _width_of(shown, _SMALL) + 24
    return [
        f'<rect class="pill" x="{_n((WIDTH - width) / 2)}" y="{_n(y)}" width="{_n(width)}" height="22" rx="11"/>',
        f'<text class="t x" x="{WIDTH // 2}" y="{_n(y + 15)}" text-anchor="middle">{html.escape(shown)}</text>',
    ], 22.0


def _bubble(line: Line, y: float, *, named: bool) -> tuple[list[str], float]:
    text_lines = _broken(_chars(line), _BUBBLE_MAX - 2 * _PADDING)
    if len(text_lines) > LINES_MAX:
        text_lines = [*text_lines[: LINES_MAX - 1], [_Char("…", "")]]
    name = line.who if named and not line.from_bot else ""
    marks = " ".join((*line.reactions, *(["edited"] if line.edited else ())))
    widths = [sum(char.width for char in row) for row in text_lines]
    widths += [_width_of(name, _FONT), _width_of(marks, _SMALL)]
    if line.kind == "document":
        widths.append(56 + max(_width_of(_short(line.file_name), _FONT) * _BOLD, 90))
    if line.kind == "photo":
        widths.append(260)
    if line.kind in ("voice", "sticker", "location"):
        widths.append(120)
    if line.rows:
        widths += [sum(_width_of(label, _FONT) + 28 for label in row) for row in line.rows]
    width = min(_BUBBLE_MAX, max(60.0, *widths) + 2 * _PADDING)
    x = _MARGIN if line.from_bot else WIDTH - _MARGIN - width
    inside: list[str] = []
    at = y + _PADDING / 2 + 2
    if name:
        inside.append(_text(x + _PADDING, at + 15, "l b", name))
        at += _LINE
    media, media_height = _media(line, x + _PADDING, at, width - 2 * _PADDING)
    inside += media
    at += media_height
    for row in text_lines:
        inside.append(_styled(x + _PADDING, at + 15, row))
        at += _LINE
    if marks:
        inside.append(_text(x + width - _PADDING, at + 11, "q x", marks, anchor="end"))
        at += 15
    height = at - y + _PADDING / 2 + 2
    side = "bot" if line.from_bot else "me"
    rect = f'<rect class="{side}" x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" rx="14"/>'
    buttons, buttons_height = _buttons(line.rows, x, y + height + 4, width)
    return [rect, *inside, *buttons], height + buttons_height


def _media(line: Line, x: float, y: float, width: float) -> tuple[list[str], float]:
    match line.kind:
        case "document":
            return [
                f'<circle class="ico" cx="{_n(x + 20)}" cy="{_n(y + 22)}" r="20"/>',
                f'<path class="onico" d="M{_n(x + 13)} {_n(y + 12)}h9l6 6v14h-15z"/>',
                _text(x + 50, y + 19, "t b", _short(line.file_name)),
                _text(x + 50, y + 36, "q x", _size(line.size_bytes)),
            ], 48.0
        case "photo":
            bottom = y + _PHOTO_HEIGHT
            return [
                f'<rect class="pic" x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_PHOTO_HEIGHT}" rx="8"/>',
                f'<circle class="hill" cx="{_n(x + width - 42)}" cy="{_n(y + 40)}" r="14"/>',
                f'<path class="hill" d="M{_n(x + 20)} {_n(bottom - 16)}l{_n(width * 0.28)} -70l{_n(width * 0.2)} 46'
                f'l{_n(width * 0.12)} -24l{_n(width * 0.24)} 48z"/>',
            ], _PHOTO_HEIGHT + 6.0
        case "voice" | "sticker" | "location":
            return [_text(x, y + 15, "q i", line.kind.capitalize())], float(_LINE)
    return [], 0.0


def _buttons(rows: Sequence[Sequence[str]], x: float, y: float, width: float) -> tuple[list[str], float]:
    parts: list[str] = []
    for number, row in enumerate(rows):
        each = (width - 4 * (len(row) - 1)) / len(row)
        top = y + number * (_BUTTON + 4)
        for place, label in enumerate(row):
            left = x + place * (each + 4)
            shown = _clean(label)
            while len(shown) > 1 and _width_of(shown, _FONT) > each - 12:
                shown = shown[:-2].rstrip() + "…"
            parts.append(
                f'<rect class="btn" x="{_n(left)}" y="{_n(top)}" width="{_n(each)}" height="{_BUTTON}" rx="10"/>'
            )
            parts.append(_text(left + each / 2, top + 22, "l", shown, anchor="middle"))
    return parts, float(len(rows) * (_BUTTON + 4))


def _chars(line: Line) -> list[_Char]:
    """Each character with the classes of the entities that it is in."""
    text = _clean(line.text)
    if line.kind == "invoice":
        first = text.partition("\n")[0]
        return [_Char(char, "b" if place < len(first) else "") for place, char in enumerate(text)]
    marks = [(one["offset"], one["offset"] + one["length"], _STYLES.get(one["type"], "")) for one in line.entities]
    chars, units = [], 0
    for char in text:
        found = {style for begin, end, style in marks if begin <= units < end and style}
        chars.append(_Char("    " if char == "\t" else char, " ".join(sorted(found))))
        units += 2 if ord(char) > 0xFFFF else 1
    return chars


def _broken(chars: Sequence[_Char], width: float) -> list[list[_Char]]:
    """Into lines that fit: at spaces, and inside of a word that is longer than a line."""
    rows: list[list[_Char]] = []
    row: list[_Char] = []
    used = 0.0
    for char in chars:
        if char.text == "\n":
            rows.append(row)
            row, used = [], 0.0
            continue
        row.append(char)
        used += char.width
        if used > width and len(row) > 1:
            cut = next((at for at in range(len(row) - 1, 0, -1) if row[at].text == " "), len(row) - 2)
            kept, row = row[: cut + 1], row[cut + 1 :]
            while kept and kept[-1].text == " ":
                kept.pop()
            rows.append(kept)
            used = sum(one.width for one in row)
    return [*rows, row] if row or rows else []


def _styled(x: float, y: float, row: Iterable[_Char]) -> str:
    runs = (
        ("".join(char.text for char in chars), styles) for styles, chars in groupby(row, key=lambda one: one.styles)
    )
    spans = "".join(
        f'<tspan class="{styles}">{html.escape(text)}</tspan>' if styles else html.escape(text) for text, styles in runs
    )
    return f'<text class="t" x="{_n(x)}" y="{_n(y)}" xml:space="preserve">{spans}</text>'


def _text(x: float, y: float, classes: str, text: str, *, anchor: str = "") -> str:
    place = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text class="{classes}" x="{_n(x)}" y="{_n(y)}"{place}>{html.escape(_clean(text))}</text>'


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:15]}…{name[-12:]}"


def _size(size_bytes: int) -> str:
    for unit, scale in (("MB", 1 << 20), ("KB", 1 << 10)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.1f} {unit}"
    return f"{size_bytes} B"


def _clean(text: str) -> str:
    """Without what XML cannot hold; as long as before."""
    return _FORBIDDEN.sub("\ufffd", text)


def _width_of(text: str, size: int) -> float:
    return sum(_share(char) for char in text) * size


def _share(char: str) -> float:
    """Of the font's size; on the wide side."""
    if char in _NARROW:
        return 0.3
    if char in _SLIM:
        return 0.4
    if char in _BROAD:
        return 0.95
    if unicodedata.combining(char) or char in "\u200d\ufe0f":
        return 0.0
    if _is_wide(char):
        return 1.3
    if char.isdigit():
        return 0.65
    return 0.72 if char.isupper() else 0.62


def _is_wide(char: str) -> bool:
    return unicodedata.east_asian_width(char) in "WF" or ord(char) > 0x1F000


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")

"""Bytes to text, whatever they are: the worst that happens is a wrong letter."""

import codecs
import re

from charset_normalizer import from_bytes

SAMPLE_BYTES = 32_000
"""Enough to tell a legacy encoding by its letters; the work of telling grows with it."""
HTML_DECLARED_WITHIN_BYTES = 1024
"""Source: HTML Standard, 13.2.3.2, prescan a byte stream to determine its encoding."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LEGACY = "cp1252"
_DECLARED = re.compile(rb"""<meta[^>]{0,200}?charset\s{0,9}=\s{0,9}["']?\s{0,9}([A-Za-z0-9_:.-]{1,40})""", re.I)
_STRAY = re.compile("[\udc80-\udcff]+")
_HIGH = bytes(range(128, 256))


def decoded(content: bytes, *, is_html: bool = False) -> str:
    """By its mark, as UTF-8, as an HTML page declares itself, or else by its letters. Never raises.

    Bytes that stray into UTF-8, as where files were joined, are read as the legacy encoding of the West.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, "replace")
    return _utf8(content) or _declared(content, is_html=is_html) or _guessed(content)


def _utf8(content: bytes) -> str | None:
    """None where more bytes stray than are UTF-8: by chance that is as good as never so in a text of letters."""
    text = content.decode("utf-8", "surrogateescape")
    stray = sum(len(run[0]) for run in _STRAY.finditer(text))
    ascii_only = len(content.translate(None, _HIGH))
    if stray > len(text) - stray - ascii_only:
        return None
    return _STRAY.sub(lambda run: _legacy(run[0].encode("ascii", "surrogateescape")), text) if stray else text


def _declared(content: bytes, *, is_html: bool) -> str | None:
    found = _DECLARED.search(content[:HTML_DECLARED_WITHIN_BYTES]) if is_html else None
    return None if found is None else _by_name(content, found[1].decode("ascii"))


def _guessed(content: bytes) -> str:
    # What is ASCII tells nothing; the letters that do may all be far down.
    first = next((found.start() for found in re.finditer(rb"[\x80-\xff]", content)), 0)
    best = from_bytes(content[first : first + SAMPLE_BYTES]).best()
    return (_by_name(content, best.encoding) if best else None) or _legacy(content)


def _by_name(content: bytes, encoding: str) -> str | None:
    """None for an encoding that is unknown, or not of text, or one that would need a mark."""
    try:
        info = codecs.lookup(encoding)
        # A page that declares what it cannot be, since the declaration was read as ASCII.
        if info.name.startswith(("utf", "idna", "punycode", "unicode", "raw")):
            return None
        return content.decode(info.name, "replace")
    except (LookupError, UnicodeError, ValueError):
        return None


def _legacy(content: bytes) -> str:
    return content.decode(_LEGACY, "replace")

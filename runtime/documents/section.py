"""A stretch of a document's text, with what tells a reader where it stands."""

import re
from dataclasses import dataclass

HEADINGS = " > "
"""Between the headings that a section stands under, as in `Install > Docker`."""
HEADING_CHARACTERS_MAX = 100
"""Of a heading where it is named; its whole text is in the section's."""

_UNPRINTABLE = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufeff\ufffe]")
_LETTER = re.compile(r"[^\W_]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """All of a document's text is in its sections, headings included, and in its order."""

    text: str
    page: int | None = None
    """From 1, of formats that have pages."""
    heading: str = ""
    start_line: int | None = None
    """From 1, of formats whose lines a person can look up."""


def cleaned(text: str) -> str:
    """Without control characters and what is no character at all; every line ends in a newline, no line is lost."""
    return _UNPRINTABLE.sub(" ", text.replace("\r\n", "\n").replace("\r", "\n"))


def has_words(text: str) -> bool:
    """Whether there is a letter or a digit in it: the rest is ornament."""
    return _LETTER.search(text) is not None

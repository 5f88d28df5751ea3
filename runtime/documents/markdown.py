"""Markdown to sections: one for each heading. All other marks stay, for they can be read as they are."""

import re
from collections.abc import Sequence

from runtime.documents.outline import Outline
from runtime.documents.section import Section

_MARK = re.compile(r"^(?P<level>#{1,6})[ \t]+(?P<heading>.*)|^[ \t]*(?P<fence>```|~~~)", re.MULTILINE)


def sections_of(text: str) -> Sequence[Section]:
    """What looks like a heading inside a fenced block of code is code."""
    outline = Outline()
    fence = ""
    start, line = 0, 1
    for mark in _MARK.finditer(text):
        if found := mark["fence"]:
            fence = "" if fence == found else fence or found
        elif not fence:
            outline.add(text[start : mark.start()], start_line=line)
            line += text.count("\n", start, mark.start())
            outline.heading(len(mark["level"]), mark["heading"].rstrip(" \t#"), start_line=line)
            start = mark.end()
    outline.add(text[start:], start_line=line)
    outline.end()
    return outline.sections

"""A document's text in pieces of the size that is embedded, ranked and shown."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from runtime.documents.section import Section, has_words

OWN_CHARACTERS_MAX = 800
"""Of a passage's own text, which is in no other; the last of a section may have a short tail more."""
OVERLAP_CHARACTERS = 200
"""Of the text before, repeated so that no sentence is known by its end alone."""
CHARACTERS_MAX = OWN_CHARACTERS_MAX + OVERLAP_CHARACTERS
CHARACTERS_MIN = 100
"""What is shorter tells too little by itself: it goes with what stands next to it."""

_JOINT = "\n\n"
_STOP = r"\w[.!?\u2026][\"'\u201d\u2019\u00bb)\]]*"
"""A sentence's end, with the quotes and brackets that it closes."""
_WIDE_STOP = r"[\u3002\uff01\uff1f]"
"""Of Chinese and Japanese, after which no blank comes."""
# Where a piece is cut, the best place first, and how much of it must come before, so that it is not a fragment.
# Each is anchored and greedy: it finds the last place in the window, in time that is bounded by the window.
_CUTS = (
    (re.compile(r"(?s:.*)\n[^\S\n]*\n"), OWN_CHARACTERS_MAX // 4),
    (re.compile(rf"(?s:.*)(?:{_STOP}\s|{_WIDE_STOP})"), OWN_CHARACTERS_MAX // 2),
    (re.compile(r"(?s:.*)\n"), OWN_CHARACTERS_MAX // 2),
    (re.compile(r"(?s:.*)\s"), OWN_CHARACTERS_MAX // 2),
)
_STARTS = (re.compile(rf"{_STOP}\s+|{_WIDE_STOP}|\n"), re.compile(r"\s+"))
"""Where an overlap begins, the best place first, if half of it is left then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """`page`, `heading` and `start_line` are of its own text, before which it may repeat the end of the last one."""

    index: int
    """From 0, in the order of the document."""
    text: str
    page: int | None = None
    heading: str = ""
    start_line: int | None = None


def passages_of(sections: Iterable[Section]) -> Iterator[Passage]:
    """At most CHARACTERS_MAX characters each; every letter of the document is in one of them.

    Only a document that is that short itself comes to a passage of less than CHARACTERS_MIN, or one in which as much
    is blank. Each step goes on by a quarter of OWN_CHARACTERS_MAX at least, whatever the text: it ends, in linear time.
    """
    index = 0
    before = _Run()
    for run in _runs(sections):
        shared = before.text[-OVERLAP_CHARACTERS:] + _JOINT if run.goes_on_from(before) else ""
        for start, end in _cuts(run.text):
            own = run.text[start:end]
            if not has_words(own):
                continue
            room = min(OVERLAP_CHARACTERS, CHARACTERS_MAX - len(own))
            overlap = _overlap(run.text[max(0, start - room) : start] if start else shared, room)
            first = start + len(own) - len(own.lstrip())
            yield run.passage(index, (overlap + own).strip(), first)
            index += 1
        before = run


@dataclass(slots=True)
class _Run:
    """Sections that are cut as one, since some are too short to stand alone."""

    text: str = ""
    starts: list[int] = field(default_factory=list)
    """Where each of `sections` begins."""
    sections: list[Section] = field(default_factory=list)
    _counted_to: int = 0
    """Up to where the line ends of a section are counted; counted anew for each passage they took quadratic time."""
    _lines: int = 0

    def add(self, section: Section) -> None:
        self.text += _JOINT if self.text else ""
        self.starts.append(len(self.text))
        self.sections.append(section)
        self.text += section.text

    @property
    def is_short(self) -> bool:
        return len(self.text.strip()) < CHARACTERS_MIN

    def goes_on_from(self, other: "_Run") -> bool:
        """From page to page a text goes on; under another heading it is about something else."""
        return bool(other.sections) and other.sections[-1].heading == self.sections[0].heading

    def passage(self, index: int, text: str, first: int) -> Passage:
        """`first` is where the passage's own text begins: further on than that of the last one."""
        number = bisect_right(self.starts, first) - 1
        section = self.sections[number]
        if section.start_line is not None:
            if self._counted_to < self.starts[number]:
                self._counted_to, self._lines = self.starts[number], 0
            self._lines += self.text.count("\n", self._counted_to, first)
            self._counted_to = first
        return Passage(
            index=index,
            text=text,
            page=section.page,
            heading=section.heading,
            start_line=None if section.start_line is None else section.start_line + self._lines,
        )


def _runs(sections: Iterable[Section]) -> Iterator[_Run]:
    """A short section goes with the next ones, or with the last where there is none."""
    last: _Run | None = None
    run = _Run()
    for section in sections:
        if not section.text.strip():
            continue
        run.add(section)
        if not run.is_short:
            if last is not None:
                yield last
            last, run = run, _Run()
    if last is not None:
        for section in run.sections:
            last.add(section)
        yield last
    elif run.sections:
        yield run


def _cuts(text: str) -> Iterator[tuple[int, int]]:
    """Slices that together are all of `text`."""
    start = 0
    while len(text) - start > OWN_CHARACTERS_MAX + CHARACTERS_MIN:
        end = start + _length(text, start)
        yield start, end
        start = end
    if start < len(text):
        yield start, len(text)


def _length(text: str, start: int) -> int:
    for cut, least in _CUTS:
        found = cut.match(text, start, start + OWN_CHARACTERS_MAX)
        if found is not None and found.end() - start >= least:
            return found.end() - start
    return OWN_CHARACTERS_MAX


def _overlap(text: str, room: int) -> str:
    """The end of `text`, from the start of a sentence or at least of a word, where one begins there."""
    text = text[-room:] if room else ""
    for start in _STARTS:
        found = start.search(text)
        if found is not None and found.end() <= len(text) // 2:
            return text[found.end() :]
    return text

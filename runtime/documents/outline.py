"""Text and headings in the order in which they come, gathered to sections."""

from runtime.documents.section import HEADING_CHARACTERS_MAX, HEADINGS, Section

LEVEL_MAX = 9
"""Word's deepest heading; HTML and Markdown have six."""
SECTIONS_MAX = 20_000
"""A heading after that many is text like any other: a document may consist of nothing else."""


class Outline:
    """Each heading begins a section, whose text it stands in too."""

    def __init__(self) -> None:
        self.sections: list[Section] = []
        """Those that are complete."""
        self._headings: list[str] = [""] * LEVEL_MAX
        self._parts: list[str] = []
        self._start_line: int | None = None

    def heading(self, level: int, text: str, *, start_line: int | None = None) -> None:
        """`level` is 1 for a chapter, up to LEVEL_MAX."""
        if len(self.sections) < SECTIONS_MAX - 1:
            self.end()
            named = " ".join(text[: 2 * HEADING_CHARACTERS_MAX].split())[:HEADING_CHARACTERS_MAX]
            self._headings = [*self._headings[: level - 1], named, *[""] * (LEVEL_MAX - level)]
        self.add(text, start_line=start_line)

    def add(self, text: str, *, start_line: int | None = None) -> None:
        """`text` brings the line breaks that part it from what was added before."""
        if not self._parts:
            self._start_line = start_line
        self._parts.append(text)

    def end(self) -> None:
        """Completes the last section."""
        text = "".join(self._parts)
        if text.strip():
            heading = HEADINGS.join(filter(None, self._headings))
            self.sections.append(Section(text=text, heading=heading, start_line=self._start_line))
        self._parts = []

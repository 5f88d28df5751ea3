"""HTML: what a reader of the page sees, under its headings. No tree is built, so nesting costs nothing."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lxml import etree  # type: ignore[import-untyped]

from runtime.documents.outline import Outline
from runtime.documents.parsers.refusal import Budget, Refusal
from runtime.documents.section import Section

_UNSEEN = frozenset({"script", "style", "template"})
_HEADINGS = {"title": 1, **{f"h{level}": level for level in range(1, 7)}}
_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "body", "caption", "dd", "details", "div", "dl", "fieldset",
    "figcaption", "figure", "footer", "form", "header", "hr", "main", "nav", "ol", "p", "pre", "section", "summary",
    "table", "ul",
})  # fmt: skip
_LINES = frozenset({"br", "dt", "legend", "li", "option", "tr"})
_CELLS = frozenset({"td", "th"})
_BLANKS = re.compile(r"\s+")


def sections_of(path: Path, budget: Budget) -> Sequence[Section]:
    """`path` is UTF-8, whatever the page declares."""
    page = _Page(budget)
    # Without `huge_tree` a long text is cut, and nesting ends the reading; what it lifts is bounded from outside.
    parser = etree.HTMLParser(target=page, encoding="utf-8", huge_tree=True)
    try:
        etree.fromstring(path.read_bytes(), parser)
    except etree.LxmlError as error:
        raise Refusal("cannot be read as HTML") from error
    return page.sections


class _Page:
    """Told of the page's parts one after another, by lxml."""

    def __init__(self, budget: Budget) -> None:
        self.sections: Sequence[Section] = ()
        self._budget = budget
        self._outline = Outline()
        self._unseen = 0
        """How many elements are open that hide what is in them."""
        self._preformatted = 0
        self._heading: list[str] | None = None
        self._gap = ""
        """What parts the next text from the last."""
        self._row_has_cell = False

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if tag in _UNSEEN:
            self._unseen += 1
        elif tag in _HEADINGS:
            self._end_heading()
            self._heading = []
        elif tag in _CELLS and self._row_has_cell:
            self._part(" | ")
        self._preformatted += tag == "pre"
        self._row_has_cell = tag in _CELLS or (self._row_has_cell and tag != "tr")
        self._part(_gap(tag))

    def end(self, tag: str) -> None:
        if tag in _UNSEEN:
            self._unseen -= 1
        elif tag in _HEADINGS:
            self._end_heading(_HEADINGS[tag])
        self._preformatted -= tag == "pre"
        self._part(_gap(tag))

    def data(self, text: str) -> None:
        if self._unseen:
            return
        shown = text if self._preformatted else _BLANKS.sub(" ", text)
        if not shown.strip():
            self._part(" ")
        elif self._heading is not None:
            self._heading.append(self._taken_gap() + shown)
        else:
            self._outline.add(self._budget.spend(self._taken_gap() + shown))

    def close(self) -> None:
        self._end_heading()
        self._outline.end()
        self.sections = self._outline.sections

    def _end_heading(self, level: int = 1) -> None:
        text = "".join(self._heading or ()).strip()
        self._heading = None
        if text:
            self._outline.add("\n\n")
            self._outline.heading(level, self._budget.spend(text))
            self._gap = "\n\n"

    def _part(self, gap: str) -> None:
        """The widest of several gaps holds."""
        if _WIDTHS.index(gap) > _WIDTHS.index(self._gap):
            self._gap = gap

    def _taken_gap(self) -> str:
        gap, self._gap = self._gap, ""
        return gap


_WIDTHS = ("", " ", " | ", "\n", "\n\n")


def _gap(tag: str) -> str:
    if tag in _BLOCKS or tag in _HEADINGS:
        return "\n\n"
    return "\n" if tag in _LINES else ""

"""DOCX: paragraphs, headings and tables, as they stand in the archive's parts. No tree is built.

Source: ECMA-376 part 1, 17 (WordprocessingML); part 2 (the archive).
"""

import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.parsers import expat

from runtime.documents.outline import LEVEL_MAX, Outline
from runtime.documents.parsers.refusal import Budget, Refusal
from runtime.documents.section import Section

XML_BYTES_MAX = 100_000_000
"""Of all parts that are read, once unpacked."""
DEPTH_MAX = 500
"""Of elements. Word itself nests a few dozen."""
CHUNK_BYTES = 1 << 16

_BODY = "word/document.xml"
_NOTES = ("word/footnotes.xml", "word/endnotes.xml")
_STYLES = "word/styles.xml"
_HEADING_STYLE = re.compile(r"heading ([1-9])", re.IGNORECASE)
_OUTLINE_BODY_TEXT = 9
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)
"""What `zipfile` raises for archives that are not what they say."""


def sections_of(path: Path, budget: Budget) -> Sequence[Section]:
    try:
        with zipfile.ZipFile(path) as archive:
            parts = _Parts(archive)
            styles = _Styles()
            parts.parse(_STYLES, styles)
            outline = Outline()
            for name in (_BODY, *_NOTES):
                parts.parse(name, _Story(outline, styles.levels, budget))
    except _BROKEN as error:
        raise Refusal("is broken: its archive cannot be unpacked") from error
    outline.end()
    return outline.sections


class _Parts:
    """The archive's XML files. Only those asked for are unpacked; never to disk, so links among them mean nothing."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._left = XML_BYTES_MAX
        if _BODY not in archive.NameToInfo:
            raise Refusal("is no Word document: there is no word/document.xml in it")

    def parse(self, name: str, listener: "_Listener") -> None:
        """Nothing, where there is no such part."""
        part = self._archive.NameToInfo.get(name)
        if part is None:
            return
        # The other methods unpack as much at once as the archive likes; Office uses none of them.
        if part.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Refusal("is no Word document: it is packed in a way that Word does not use")
        # No more is unpacked of a part than it declares.
        self._left -= part.file_size
        if self._left < 0:
            raise Refusal(f"unpacks to more than {XML_BYTES_MAX // 1_000_000} MB", is_too_large=True)
        with self._archive.open(part) as file:
            _parse(iter(lambda: file.read(CHUNK_BYTES), b""), listener)


class _Listener:
    """Told of a part's elements. Names are local: the two editions of the format differ in their namespaces alone."""

    def __init__(self) -> None:
        self.path: list[str] = []
        """The open elements, the innermost last."""

    def start(self, name: str, attributes: Mapping[str, str]) -> None: ...

    def end(self, name: str) -> None: ...

    def text(self, text: str) -> None: ...


def _parse(chunks: Iterator[bytes], listener: _Listener) -> None:
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True

    def start(name: str, attributes: Mapping[str, str]) -> None:
        if len(listener.path) >= DEPTH_MAX:
            raise Refusal(f"is nested deeper than {DEPTH_MAX} elements")
        listener.path.append(_local(name))
        listener.start(_local(name), {_local(key): value for key, value in attributes.items()})

    def end(name: str) -> None:
        listener.end(_local(name))
        listener.path.pop()

    def doctype(*_: object) -> None:
        # Entities, with which few bytes come to any number and other files are drawn in, need one.
        raise Refusal("is no Word document: its XML declares a document type, which Word never does")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = listener.text
    parser.StartDoctypeDeclHandler = doctype
    try:
        for chunk in chunks:
            parser.Parse(chunk)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise Refusal(f"is broken: its XML is wrong in line {error.lineno}") from error


def _local(name: str) -> str:
    return name.rpartition(" ")[2]


class _Styles(_Listener):
    """Which paragraph styles are headings: their names are the same in every language, their ids are not."""

    def __init__(self) -> None:
        super().__init__()
        self.levels: dict[str, int] = {}
        """By the style's id, from 1."""
        self._style = ""

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        value = attributes.get("val", "")
        if name == "style":
            self._style = attributes.get("styleId", "")
        elif name == "name" and self.path[-2:-1] == ["style"]:
            level = _HEADING_STYLE.fullmatch(value)
            if level or value.lower() == "title":
                self.levels[self._style] = int(level[1]) if level else 1
        elif name == "basedOn" and value in self.levels:
            self.levels.setdefault(self._style, self.levels[value])
        elif name == "outlineLvl" and (outlined := _outline_level(value)):
            self.levels.setdefault(self._style, outlined)


class _Story(_Listener):
    """One part's text: paragraphs, and tables whose rows are lines."""

    def __init__(self, outline: Outline, levels: Mapping[str, int], budget: Budget) -> None:
        super().__init__()
        self._outline = outline
        self._levels = levels
        self._budget = budget
        self._paragraphs: list[_Paragraph] = []
        """The open ones: a text box is a paragraph within a paragraph."""
        self._cells: list[list[str]] = []
        """The paragraphs of the open cells, the innermost last."""
        self._rows: list[list[str]] = []
        """The cells of the open rows."""
        self._fallbacks = 0
        """How many elements are open that repeat something for older versions of Word."""

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        match name:
            case "Fallback":
                self._fallbacks += 1
            case "p":
                self._paragraphs.append(_Paragraph())
            case "tr":
                self._rows.append([])
            case "tc":
                self._cells.append([])
            case "pStyle" if self._paragraphs:
                self._paragraphs[-1].level = self._levels.get(attributes.get("val", ""), 0)
            case "outlineLvl" if self._paragraphs:
                self._paragraphs[-1].level = _outline_level(attributes.get("val", ""))
            case "tab" | "br" | "cr" | "noBreakHyphen":
                # Tab stops are named like tabs, but they stand before all text, where blanks are cut off.
                self._add(_CHARACTERS[name])

    def text(self, text: str) -> None:
        if self.path[-1] == "t":
            self._add(text)

    def end(self, name: str) -> None:
        match name:
            case "Fallback":
                self._fallbacks -= 1
            case "p":
                self._end_paragraph(self._paragraphs.pop())
            case "tc":
                cell = " ".join(self._cells.pop())
                if self._rows:
                    self._rows[-1].append(cell)
            case "tr":
                cells = self._rows.pop()
                if any(cells):
                    self._emit(" | ".join(cells), after="\n")
            case "tbl" if not self._cells:
                self._outline.add("\n")

    def _add(self, text: str) -> None:
        if self._paragraphs and not self._fallbacks:
            self._paragraphs[-1].parts.append(text)

    def _end_paragraph(self, paragraph: "_Paragraph") -> None:
        text = "".join(paragraph.parts).strip()
        if not text:
            return
        if paragraph.level and not self._cells and not self._paragraphs:
            self._outline.heading(paragraph.level, self._budget.spend(text))
            self._outline.add("\n\n")
        else:
            self._emit(text, after="\n\n")

    def _emit(self, text: str, *, after: str) -> None:
        if self._cells:
            self._cells[-1].append(text)
        else:
            self._outline.add(self._budget.spend(text) + after)


class _Paragraph:
    def __init__(self) -> None:
        self.parts: list[str] = []
        self.level = 0
        """Of a heading, from 1; 0 for text."""


_CHARACTERS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}


def _outline_level(value: str) -> int:
    """From 1; 0 for body text, which has the value 9."""
    level = int(value) if value.isdecimal() and len(value) == 1 else _OUTLINE_BODY_TEXT
    return level + 1 if level < min(LEVEL_MAX, _OUTLINE_BODY_TEXT) else 0

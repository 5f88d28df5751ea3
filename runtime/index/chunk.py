"""Files to chunks: the pieces that are embedded, ranked and shown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby, islice, pairwise
from pathlib import PurePosixPath
from typing import Literal

from runtime.index.definition import Definition, Structure, structure_of, uncommented

FILE_BYTES_MAX = 1 << 20
CHUNKS_PER_FILE_MAX = 1000
CHUNK_ROWS_MAX = 40
TEXT_CHARS_MAX = 1600
"""Of a chunk of text; the embedder reads the first 500 or so."""
CALLS_MAX = 64
"""Of a chunk."""
LINE_CHARS_MAX = 1000
"""A longer line of code is data or minified; it is cut."""

_BINARY_SAMPLE_BYTES = 8192
_GENERATED_NAMES = {"package-lock.json", "yarn.lock", "pnpm-lock.yaml", "poetry.lock", "uv.lock", "go.sum"}
_GENERATED_SUFFIXES = (".min.js", ".min.css", ".map")
_MARKDOWN_SUFFIXES = {".md", ".markdown", ".mdx"}


Kind = Literal["function", "class", "module", "text", "passage"]
"""`module` is what is left of one; `text` is no code, or of a language that is not read; `passage` is of a document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Lines `start_line` to `end_line` (from 1, inclusive) of `path`.

    Lines left out of `text` are marked by a line `...`: a class shows the signatures of its functions, the rest of a
    module what is in no definition, and every further piece of a long definition starts with its signature, which
    stands above `start_line`.
    """

    path: str
    start_line: int
    end_line: int
    symbol: str
    """`Class.method`; headings of a Markdown section (`Install > Docker`); empty for the rest of a module."""
    docstring: str
    """Of a definition; the comment above one is that of its first piece alone, which shows it."""
    text: str
    kind: Kind = "text"
    page: int | None = None
    """From 1, of a passage of a document that has pages."""
    calls: tuple[str, ...] = ()
    """The last parts of the names it calls, each once, in order. Neither its vector nor its words depend on them."""

    @property
    def embedded_text(self) -> str:
        """Path, symbol and docstring first: with them the ranking is better than with the code alone.

        A passage's path is its document's id, which means nothing.
        """
        if self.kind == "passage":
            return f"{self.symbol}\n{self.text}" if self.symbol else self.text
        is_shown = _is_shown(self.docstring, self.text)
        head = [self.path, self.symbol, "" if is_shown else self.docstring]
        return "\n".join([*(part for part in head if part), self.text])

    @property
    def content_hash(self) -> str:
        """Hex SHA-256 of all that its vector depends on."""
        return sha256(self.embedded_text.encode("utf-8", "replace")).hexdigest()


def why_unreadable(path: str, content: bytes) -> str | None:
    """Why a file is not worth a look, or None."""
    name = PurePosixPath(path).name.lower()
    if name in _GENERATED_NAMES or name.endswith(_GENERATED_SUFFIXES):
        return "generated"
    if len(content) > FILE_BYTES_MAX:
        return f"larger than {FILE_BYTES_MAX >> 20} MiB"
    sample = content[:_BINARY_SAMPLE_BYTES]
    replaced = sample.decode("utf-8", "replace").count("\ufffd")
    return "binary" if b"\0" in sample or replaced * 10 > len(sample) else None


def chunk_file(path: str, content: bytes) -> list[Chunk]:
    """In order of their first line, at most CHUNKS_PER_FILE_MAX. Bytes that are not UTF-8 become U+FFFD.

    Never raises, whatever the content. Deterministic but for what takes longer to parse than any code does.
    """
    source = content.decode("utf-8", "replace").replace("\r\n", "\n")
    structure = structure_of(path, source)
    chunks = _text_chunks(path, source) if structure is None else _SourceChunks(path, source, structure).all()
    return sorted(chunks, key=lambda chunk: (chunk.start_line, chunk.end_line))[:CHUNKS_PER_FILE_MAX]


def _is_shown(docstring: str, text: str) -> bool:
    """As it stands there, or as a comment of several lines."""
    if docstring in " ".join(text.split()):
        return True
    return docstring in " ".join(" ".join(map(uncommented, text.split("\n"))).split())


class _SourceChunks:
    def __init__(self, path: str, source: str, structure: Structure) -> None:
        self._path = path
        self._definitions = structure.definitions
        self._calls: dict[int, list[str]] = {
            row: [call.name for call in calls] for row, calls in groupby(structure.calls, key=lambda call: call.row)
        }
        self._lines = [
            line if len(line) <= LINE_CHARS_MAX else line[:LINE_CHARS_MAX] + "…" for line in source.split("\n")
        ]

    def all(self) -> Iterator[Chunk]:
        rows = self._outside(self._definitions, range(len(self._lines)))
        yield from self._pieces(rows, symbol="", docstring="", comment="", head=(), kind="module")
        for definition in self._definitions:
            yield from self._definition(definition)

    def _definition(self, it: Definition) -> Iterator[Chunk]:
        signatures = [row for inner in it.inner for row in inner.signature]
        rows = sorted([*self._outside(it.inner, it.rows), *signatures])
        yield from self._pieces(
            rows,
            symbol=it.symbol,
            docstring=it.docstring,
            comment=it.comment,
            head=it.signature,
            kind="class" if it.is_class else "function",
        )
        for inner in it.inner:
            yield from self._definition(inner)

    def _outside(self, definitions: Sequence[Definition], rows: range) -> list[int]:
        """The rows in no definition, without the blank ones around each gap."""
        covered = {row for definition in definitions for row in definition.rows}
        runs = groupby(rows, key=lambda row: row in covered)
        return [row for is_covered, run in runs if not is_covered for row in self._trimmed(list(run))]

    def _pieces(
        self, rows: Sequence[int], *, symbol: str, docstring: str, comment: str, head: Sequence[int], kind: Kind
    ) -> Iterator[Chunk]:
        for number, piece in enumerate(_even_pieces(rows)):
            shown = self._trimmed(piece)
            if shown:
                yield Chunk(
                    path=self._path,
                    start_line=shown[0] + 1,
                    end_line=shown[-1] + 1,
                    symbol=symbol,
                    docstring=docstring or (comment if number == 0 else ""),
                    text=self._text([*(row for row in head if row < shown[0]), *shown]),
                    kind=kind,
                    calls=self._called(shown),
                )

    def _called(self, rows: Sequence[int]) -> tuple[str, ...]:
        names = dict.fromkeys(name for row in rows for name in self._calls.get(row, ()))
        return tuple(islice(names, CALLS_MAX))

    def _trimmed(self, rows: Sequence[int]) -> Sequence[int]:
        filled = [number for number, row in enumerate(rows) if self._lines[row].strip()]
        return rows[filled[0] : filled[-1] + 1] if filled else ()

    def _text(self, rows: Sequence[int]) -> str:
        shown = [self._lines[rows[0]]]
        for above, row in pairwise(rows):
            line = self._lines[row]
            if row != above + 1:
                shown.append(line[: len(line) - len(line.lstrip())] + "...")
            shown.append(line)
        return "\n".join(shown)


def _even_pieces(rows: Sequence[int]) -> Iterator[Sequence[int]]:
    """As few as fit CHUNK_ROWS_MAX each, of nearly one length, so that no piece is a few lines' tail."""
    pieces = -(-len(rows) // CHUNK_ROWS_MAX)
    for number in range(pieces):
        yield rows[len(rows) * number // pieces : len(rows) * (number + 1) // pieces]


@dataclass(frozen=True, slots=True)
class _Line:
    row: int
    text: str
    section: str


def _text_chunks(path: str, source: str) -> Iterator[Chunk]:
    """Paragraphs, packed up to CHUNK_ROWS_MAX lines and TEXT_CHARS_MAX characters, never across a heading."""
    is_markdown = PurePosixPath(path).suffix.lower() in _MARKDOWN_SUFFIXES
    for section, lines in groupby(_text_lines(source, is_markdown=is_markdown), key=lambda line: line.section):
        for piece in _packed(list(lines)):
            yield Chunk(
                path=path,
                start_line=piece[0].row + 1,
                end_line=piece[-1].row + 1,
                symbol=section,
                docstring="",
                text="\n".join(line.text for line in piece),
            )


def _text_lines(source: str, *, is_markdown: bool) -> Iterator[_Line]:
    """Every line, an overlong one in several parts, with the Markdown headings it stands under."""
    headings: list[str] = []
    is_code = False
    for row, line in enumerate(source.split("\n")):
        if is_markdown and line.startswith(("```", "~~~")):
            is_code = not is_code
        level = len(line) - len(line.lstrip("#")) if is_markdown and not is_code else 0
        if 1 <= level <= 6 and line[level : level + 1] == " ":
            headings = [*(headings + [""] * 6)[: level - 1], line[level:].strip()[:100]]
        section = " > ".join(heading for heading in headings if heading)
        for start in range(0, max(len(line), 1), TEXT_CHARS_MAX):
            yield _Line(row, line[start : start + TEXT_CHARS_MAX], section)


def _packed(lines: Sequence[_Line]) -> Iterator[list[_Line]]:
    """Cut where the next paragraph would no longer fit; a paragraph that fits nowhere is cut between its lines."""
    piece: list[_Line] = []
    chars = 0
    for is_blank, block in groupby(lines, key=lambda line: not line.text.strip()):
        paragraph = list(block)
        if is_blank and not piece:
            continue
        if not is_blank and not _fits(len(piece) + len(paragraph), chars + _chars(paragraph)):
            yield from _trimmed(piece)
            piece, chars = [], 0
        for line in paragraph:
            if not _fits(len(piece) + 1, chars + _chars([line])):
                yield from _trimmed(piece)
                piece, chars = [], 0
            piece.append(line)
            chars += _chars([line])
    yield from _trimmed(piece)


def _fits(rows: int, chars: int) -> bool:
    return rows <= CHUNK_ROWS_MAX and chars <= TEXT_CHARS_MAX


def _chars(lines: Sequence[_Line]) -> int:
    return sum(len(line.text) + 1 for line in lines)


def _trimmed(lines: Sequence[_Line]) -> Iterator[list[_Line]]:
    filled = [number for number, line in enumerate(lines) if line.text.strip()]
    if filled:
        yield list(lines[filled[0] : filled[-1] + 1])

"""The functions and classes of one source file, as line ranges."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from tree_sitter import Node, Parser

from runtime.index.language import SYNTAXES, Syntax, language_of

SOURCE_BYTES_MAX = 256 << 10
"""Parsing holds the interpreter's lock: at this size a hostile file (unclosed brackets) holds it for half a second."""
DEPTH_MAX = 32
"""Nodes from the root to a definition. Deeper ones stay part of what they are in."""
SIGNATURE_ROWS_MAX = 8
DOCSTRING_CHARS_MAX = 300

_COMMENT_STARTS = ("#", "//", "/*", "*", "@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """Rows count from 0. Siblings are in order and share no row; those inside start below the signature."""

    symbol: str
    """Qualified: `Outer.method`."""
    rows: range
    """With decorators and the comments directly above."""
    signature: range
    docstring: str
    """Its first paragraph, in one line; empty when there is none."""
    inner: Sequence["Definition"]
    """Of a class. A function's inner functions are part of it."""


def definitions_of(path: str, source: str) -> Sequence[Definition] | None:
    """The outermost definitions, or None when the file's structure cannot be read: language unknown, or too large.

    Never raises for bad code: tree-sitter reads around errors.
    """
    syntax = SYNTAXES.get(PurePosixPath(path).suffix.lower())
    content = source.encode()
    if syntax is None or len(content) > SOURCE_BYTES_MAX:
        return None
    language = language_of(syntax.grammar)
    if language is None:
        return None
    root = Parser(language).parse(content).root_node
    return _SourceReader(syntax, source.split("\n")).inside(root, "", above=-1, depth=0)


class _SourceReader:
    def __init__(self, syntax: Syntax, lines: Sequence[str]) -> None:
        self._syntax = syntax
        self._lines = lines

    def inside(self, node: Node, outer: str, *, above: int, depth: int) -> list[Definition]:
        """The definitions in `node`, which all start below row `above`. One that shares a row with the one before it
        is left out: its lines then count as lines of what is around it."""
        found: list[Definition] = []
        for definition, start in self._candidates(node, depth):
            above = found[-1].rows.stop - 1 if found else above
            if start > above:
                found.append(self._definition(definition, outer, start=start, above=above, depth=depth))
        return found

    def _candidates(self, node: Node, depth: int, start: int | None = None) -> Iterator[tuple[Node, int]]:
        """Each definition with the row it starts on: `start`, if a wrapper around it began there."""
        if depth > DEPTH_MAX:
            return
        for child in node.named_children:
            row = child.start_point.row if start is None else start
            if self._is_definition(child):
                yield child, row
            elif child.type in self._syntax.wrappers:
                yield from self._candidates(child, depth + 1, row)
            elif child.type in self._syntax.containers or child.type == "ERROR":
                yield from self._candidates(child, depth + 1)

    def _is_definition(self, node: Node) -> bool:
        if node.type in self._syntax.classes:
            return True
        return node.type in self._syntax.functions and _body(node) is not None

    def _definition(self, node: Node, outer: str, *, start: int, above: int, depth: int) -> Definition:
        name = _name(node)
        symbol = f"{outer}.{name}" if outer else name
        body = _body(node)
        first = node.start_point.row
        last = max(first, node.end_point.row - (node.end_point.column == 0))
        signature = range(first, min(self._signature_end(body, first), last, first + SIGNATURE_ROWS_MAX - 1) + 1)
        is_class = node.type in self._syntax.classes
        inner = self.inside(body, symbol, above=signature[-1], depth=depth + 1) if is_class and body else []
        return Definition(
            symbol=symbol,
            rows=range(self._with_comments(start, above), last + 1),
            signature=signature,
            docstring=_docstring(body),
            inner=inner,
        )

    def _signature_end(self, body: Node | None, first: int) -> int:
        """The row above a body that starts on a row of its own, else the body's first row (`{` ends the signature)."""
        if body is None:
            return first
        row, column = body.start_point
        stands_alone = not self._lines[row].encode()[:column].strip()
        return max(first, row - 1 if stands_alone else row)

    def _with_comments(self, start: int, above: int) -> int:
        while start - 1 > above and self._lines[start - 1].lstrip().startswith(_COMMENT_STARTS):
            start -= 1
        return start


def _body(node: Node) -> Node | None:
    """Of the definition, or of the function that is its value."""
    body = node.child_by_field_name("body")
    if body is None and (value := node.child_by_field_name("value")) is not None:
        body = value.child_by_field_name("body")
    return body


def _name(node: Node) -> str:
    name = node.child_by_field_name("name") or node.child_by_field_name("property")
    return name.text.decode()[:200] if name and name.text else "?"


def _docstring(body: Node | None) -> str:
    """A string that stands alone at the head of the body (Python). Other languages comment above the definition."""
    statement = _first_child(body)
    string = _first_child(statement) if statement and statement.type == "expression_statement" else None
    if string is None or string.type != "string" or not string.text:
        return ""
    text = string.text.decode().lstrip("rRuUbBfF").strip("\"'")
    return " ".join(text.strip().split("\n\n", 1)[0].split())[:DOCSTRING_CHARS_MAX]


def _first_child(node: Node | None) -> Node | None:
    return node.named_child(0) if node and node.named_child_count else None

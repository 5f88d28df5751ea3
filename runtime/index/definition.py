"""The functions and classes of one source file, as line ranges, and what it calls."""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import dropwhile, islice, takewhile
from pathlib import PurePosixPath

from tree_sitter import Language, Node, Parser, Point, Tree

from runtime.index.language import SYNTAXES, Syntax, language_of
from runtime.index.nesting import arrows_of, nesting_of

SOURCE_BYTES_MAX = 256 << 10
"""Parsing holds the interpreter's lock. Code of this size holds it for a tenth of a second."""
NESTING_MAX = 300
"""Of brackets: unclosed ones by the thousand take some grammars minutes, and others the process's stack. In 15,000
files of installed libraries there were never more than 217."""
PARSE_CPU_S_MAX = 1.0
"""Asked between steps. Code of SOURCE_BYTES_MAX took at most 0.2. What is no code can take the square of its length."""
DEPTH_MAX = 32
"""Nodes from the root to a definition. Deeper ones stay part of what they are in."""
SIGNATURE_ROWS_MAX = 8
DOCSTRING_CHARS_MAX = 300
NAME_CHARS_MAX = 200
CALLS_PER_FILE_MAX = 20_000
NAME_DEPTH_MAX = 16

_ASCII = bytes(byte if byte < 128 else ord("_") for byte in range(256))
_SCRIPT_SUFFIXES = {".vue"}
_CALLED_FIELDS = ("name", "field", "attribute", "property", "suffix", "method", "function", "type")
_CALLED_FIRST = {"generic_type", "command_name"}
_CALLED_LAST = {
    "navigation_expression",
    "qualified_name",
    "scoped_type_identifier",
    "user_type",
}
_CALLED = re.compile(r"(?:[^\W\d]|\$)[\w$?!-]*")
_PATH = re.compile(r"[\w$]+(?:\.[\w$]+)*")
_NAME_PARTS = re.compile(r"::|\\|->")
_TYPE_ARGUMENTS = re.compile(r"(?<=\w)(?<!operator)<[^<>]*>")
_COMMENT_MARKS = re.compile(r"/\*[*!]*<?|//[/!]*<?|\*+(?!/)|#+(?!\[)|--+|\*+/")
_NOT_DOCUMENTATION = re.compile(r"[@\\]\w|go:|!|-\*-")


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
    comment: str
    """The same of the comment directly above, where that is a language's documentation."""
    inner: Sequence["Definition"]
    """Of a class. A function's inner functions are part of it."""
    is_class: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    row: int
    name: str
    """The last part of what is called: `c` for `a.b.c(x)`, `Cart` for `new shop.Cart()`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    definitions: Sequence[Definition]
    """The outermost ones."""
    calls: Sequence[Call]
    """In order of their rows, those outside of definitions too."""


def structure_of(path: str, source: str) -> Structure | None:
    """None when the file's structure cannot be read: language unknown, too large, or nothing that people write (the
    grammar of shell takes minutes for zero bytes).

    Never raises for bad code: tree-sitter reads around errors.
    """
    suffix = PurePosixPath(path).suffix.lower()
    syntax = SYNTAXES.get(suffix)
    if syntax is None:
        return None
    code = _scripts(source) if suffix in _SCRIPT_SUFFIXES else source
    content = code.encode("utf-8", "replace")
    language = language_of(syntax.grammar)
    if language is None or len(content) > SOURCE_BYTES_MAX or b"\0" in content or nesting_of(content) > NESTING_MAX:
        return None
    if not syntax.has_arrows and arrows_of(content) > NESTING_MAX:
        return None
    tree = _parsed(language, content.translate(_ASCII) if syntax.is_ascii else content)
    return None if tree is None else _SourceReader(syntax, content, code.split("\n")).structure(tree.root_node)


def uncommented(line: str) -> str:
    """Without the marks of a comment."""
    text = line.strip()
    mark = _COMMENT_MARKS.match(text)
    return text[mark.end() if mark else 0 :].removesuffix("*/").strip()


def _scripts(source: str) -> str:
    """The lines between `<script>` and `</script>`, the others blank."""
    lines: list[str] = []
    is_script = False
    for line in source.split("\n"):
        is_script = is_script and "</script" not in line
        lines.append(line if is_script else "")
        is_script = is_script or (line.startswith("<script") and "</script" not in line)
    return "\n".join(lines)


def _parsed(language: Language, content: bytes) -> Tree | None:
    """None when it takes more than PARSE_CPU_S_MAX of this thread's time, so that other load does not count."""
    end_s = time.thread_time() + PARSE_CPU_S_MAX
    try:
        return Parser(language).parse(
            lambda offset, point: content[offset:],
            progress_callback=lambda offset, has_error: time.thread_time() > end_s,
        )
    except ValueError:
        return None


class _SourceReader:
    def __init__(self, syntax: Syntax, content: bytes, lines: Sequence[str]) -> None:
        self._syntax = syntax
        self._content = content
        self._lines = lines
        self._comments = tuple(syntax.comments)
        self._documenting = tuple(syntax.documenting)

    def structure(self, root: Node) -> Structure:
        definitions = self._inside(root, "", above=-1, depth=0)
        return Structure(definitions=definitions, calls=self._calls(root))

    def _inside(self, node: Node, outer: str, *, above: int, depth: int) -> list[Definition]:
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
        if node.type in self._syntax.containers and self._name_node(node) is None:
            return False
        if node.type in self._syntax.assignments and not _PATH.fullmatch(self._text(node.children[0])):
            return False
        if node.type in self._syntax.functions:
            return self._body(node) is not None
        return node.type in self._syntax.classes

    def _definition(self, node: Node, outer: str, *, start: int, above: int, depth: int) -> Definition:
        symbol = f"{outer}.{self._name(node)}" if outer else self._name(node)
        body = self._body(node)
        first = self._first_row(node)
        last = max(first, node.end_point.row - self._is_indentation(node.end_point))
        signature = range(first, min(self._signature_end(body, first), last, first + SIGNATURE_ROWS_MAX - 1) + 1)
        is_class = node.type in self._syntax.classes
        inner = self._inside(body, symbol, above=signature[-1], depth=depth + 1) if is_class and body else []
        top = self._with_comments(start, above)
        return Definition(
            symbol=symbol,
            rows=range(top, last + 1),
            signature=signature,
            docstring=self._docstring(body),
            comment=self._documentation(self._lines[top:start]),
            inner=inner,
            is_class=is_class,
        )

    def _body(self, node: Node) -> Node | None:
        """Of the definition, or of the function that is its value."""
        if body := self._own_body(node):
            return body
        value = _first_of(node, self._syntax.values)
        return self._own_body(value) if value else None

    def _own_body(self, node: Node) -> Node | None:
        if body := node.child_by_field_name("body"):
            return body
        bodies = self._syntax.bodies
        return next((child for child in node.named_children if child.type in bodies), None) if bodies else None

    def _name_node(self, node: Node) -> Node | None:
        """Where C has declarators around the name, it is the innermost."""
        name = _first_of(node, self._syntax.names)
        for _ in range(NAME_DEPTH_MAX):
            if name is None or not name.type.endswith("_declarator"):
                break
            name = name.child_by_field_name("declarator") or _first_child(name)
        return name

    def _name(self, node: Node) -> str:
        """Of one language as of another: `A.B.c` for `A::B<T>::c`, with the receiver before it."""
        name = self._name_node(node)
        if name is None:
            return self._syntax.unnamed.get(node.type, "?")
        text = " ".join(self._text(name).split())
        if node.type in self._syntax.assignments:
            parts = text.split(".")
            text = ".".join(part for part in parts if part not in self._syntax.unsaid) or parts[-1]
        if name.type == "operator_cast":
            text = text.partition("(")[0]
        while (shorter := _TYPE_ARGUMENTS.sub("", text)) != text:
            text = shorter
        text = _NAME_PARTS.sub(".", text) if "operator" not in text else text.replace("::", ".")
        receiver = node.child_by_field_name(self._syntax.receiver) if self._syntax.receiver else None
        owners = re.findall(r"\w+", self._text(receiver).partition("[")[0]) if receiver else []
        return ".".join([*owners[-1:], text])[:NAME_CHARS_MAX] or "?"

    def _text(self, node: Node) -> str:
        """Enough of it for any name."""
        return self._content[node.start_byte : min(node.end_byte, node.start_byte + 4 * NAME_CHARS_MAX)].decode(
            "utf-8", "ignore"
        )

    def _first_row(self, node: Node) -> int:
        """Without annotations."""
        annotations = self._syntax.annotations
        children = node.children if annotations else []
        while children:
            first = next((child for child in children if child.type not in annotations), None)
            if first is None:
                break
            if first.type != "modifiers":
                return first.start_point.row
            if any(child.type not in annotations for child in first.children):
                children = first.children
            else:
                children = children[children.index(first) + 1 :]
        return node.start_point.row

    def _signature_end(self, body: Node | None, first: int) -> int:
        """The row above a body that starts on a row of its own, else the body's first row (`{` ends the signature)."""
        if body is None:
            return first
        return max(first, body.start_point.row - self._is_indentation(body.start_point))

    def _is_indentation(self, point: Point) -> bool:
        """Whether nothing stands before it in its row."""
        return not self._lines[point.row].encode("utf-8", "replace")[: point.column].strip()

    def _with_comments(self, start: int, above: int) -> int:
        while start - 1 > above:
            opening = self._block_comment(start - 1, above)
            if opening is None and not self._lines[start - 1].lstrip().startswith(self._comments):
                break
            start = start - 1 if opening is None else opening
        return start

    def _block_comment(self, last: int, above: int) -> int | None:
        """Where the comment of several rows starts that ends in row `last`, if it documents what is below."""
        if not self._lines[last].rstrip().endswith("*/") or "/*" in self._lines[last]:
            return None
        opening = next((row for row in range(last - 1, above, -1) if "/*" in self._lines[row]), None)
        is_documenting = opening is not None and self._lines[opening].lstrip().startswith(self._documenting)
        return opening if is_documenting else None

    def _documentation(self, above: Sequence[str]) -> str:
        """The first paragraph of the comment at the end of the lines above a definition."""
        lines = [line.strip() for line in above] if self._documenting else []
        while lines and lines[-1].startswith(("@", "#[")):
            lines.pop()
        if not lines:
            return ""
        if lines[-1].endswith("*/"):
            first = next((row for row in range(len(lines) - 1, -1, -1) if "/*" in lines[row]), 0)
        else:
            first = len(lines)
            while first and lines[first - 1].startswith(self._documenting):
                first -= 1
        comment = lines[first:]
        if not comment or not comment[0].startswith(self._documenting):
            return ""
        texts = dropwhile(lambda text: not text, map(uncommented, comment))
        paragraph = takewhile(lambda text: text and not _NOT_DOCUMENTATION.match(text), texts)
        return " ".join(" ".join(paragraph).split())[:DOCSTRING_CHARS_MAX]

    def _docstring(self, body: Node | None) -> str:
        """A string that stands alone at the head of the body (Python)."""
        statement = _first_child(body)
        string = _first_child(statement) if statement and statement.type == "expression_statement" else None
        if string is None or string.type != "string":
            return ""
        source = self._content[string.start_byte : string.end_byte].decode("utf-8", "ignore")
        text = source.lstrip("rRuUbBfF").strip("\"'")
        return " ".join(text.strip().split("\n\n", 1)[0].split())[:DOCSTRING_CHARS_MAX]

    def _calls(self, root: Node) -> list[Call]:
        named = [name for call in islice(self._call_nodes(root), CALLS_PER_FILE_MAX) if (name := self._called(call))]
        named.sort(key=lambda name: name.start_byte)
        return [Call(row=name.start_point.row, name=self._text(name)) for name in named]

    def _call_nodes(self, root: Node) -> Iterator[Node]:
        """By a cursor: its time grows with the nodes alone, that of a tree-sitter query with the square of their depth
        and of the unnamed siblings too."""
        cursor = root.walk()
        while True:
            if (node := cursor.node) and node.type in self._syntax.calls:
                yield node
            if cursor.goto_first_child():
                continue
            while not cursor.goto_next_sibling():
                if not cursor.goto_parent():
                    return

    def _called(self, call: Node) -> Node | None:
        """The last part of the name of what is called; None for what has no name: `f(x)[0](y)`."""
        field = self._syntax.calls[call.type]
        name = call.child_by_field_name(field) if field else _first_child(call)
        if name and self._text(name) == "new":
            name = call.child_by_field_name("receiver") or name  # Ruby's `Cart.new` constructs a Cart.
        for _ in range(NAME_DEPTH_MAX):
            if name is None or name.named_child_count == 0:
                break
            name = _last_part(name)
        if name is None or not _CALLED.fullmatch(text := self._text(name)):
            return None
        is_html = call.type.startswith("jsx_") and text[0].islower()
        return None if is_html else name


def _last_part(name: Node) -> Node | None:
    if part := _first_of(name, _CALLED_FIELDS):
        return part
    if name.type in _CALLED_FIRST:
        return _first_child(name)
    if name.type in _CALLED_LAST:
        return next((part for part in reversed(name.named_children) if part.type != "type_arguments"), None)
    return None


def _first_of(node: Node, fields: Sequence[str]) -> Node | None:
    return next((child for field in fields if (child := node.child_by_field_name(field))), None)


def _first_child(node: Node | None) -> Node | None:
    return node.named_child(0) if node and node.named_child_count else None

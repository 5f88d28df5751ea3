"""The documented functions of a source file, and the rows of their documentation."""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from tree_sitter import Node, Parser

from runtime.index.language import language_of

NODES_DEEP_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Documented:
    """Rows count from 0, before anything is taken out."""

    name: str
    text: str
    """The documentation without its marks; empty for what only has to be taken out."""
    first_row: int
    """Of the function itself, below decorators."""
    last_row: int
    rows: range
    """Of the documentation. No code is on them, except before or behind a Python docstring."""
    instead: str
    """What is left of those rows; empty for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grammar:
    language: str
    functions: frozenset[str]
    """Those that are asked for, if they, or their value, have a body."""
    signatures: frozenset[str] = frozenset()
    """Declared elsewhere as well: their documentation is only taken out."""
    between: frozenset[str] = frozenset()
    """May stand between the documentation and the function."""
    wrappers: frozenset[str] = frozenset()
    """Start where the function directly inside starts."""
    line_mark: str = ""
    """Lines of documentation start so; else it is a `/** */`."""


_SCRIPT = _Grammar(
    language="tree_sitter_javascript:language",
    functions=frozenset(
        {
            "function_declaration",
            "generator_function_declaration",
            "method_definition",
            "field_definition",
            "public_field_definition",
            "variable_declarator",
            "assignment_expression",
            "pair",
        }
    ),
    signatures=frozenset({"function_signature", "method_signature", "abstract_method_signature"}),
    between=frozenset({"decorator"}),
    wrappers=frozenset({"export_statement", "lexical_declaration", "variable_declaration", "expression_statement"}),
)
_GO = _Grammar(
    language="tree_sitter_go:language",
    functions=frozenset({"function_declaration", "method_declaration"}),
    line_mark="//",
)
_RUST = _Grammar(
    language="tree_sitter_rust:language",
    functions=frozenset({"function_item"}),
    signatures=frozenset({"function_signature_item"}),
    between=frozenset({"attribute_item"}),
    line_mark="///",
)
_TYPESCRIPT = "tree_sitter_typescript:language_typescript"
_TSX = "tree_sitter_typescript:language_tsx"
_GRAMMARS = {".go": (_GO, _GO.language), ".rs": (_RUST, _RUST.language)}
_GRAMMARS |= dict.fromkeys((".js", ".jsx", ".mjs", ".cjs"), (_SCRIPT, _SCRIPT.language))
_GRAMMARS |= {".ts": (_SCRIPT, _TYPESCRIPT), ".mts": (_SCRIPT, _TYPESCRIPT), ".tsx": (_SCRIPT, _TSX)}


def documented_in(path: str, source: str) -> list[Documented]:
    """In order. Functions inside functions are part of those. None in a file that cannot be read."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix == ".py":
        return _in_python(source)
    grammar, name = _GRAMMARS.get(suffix, (None, ""))
    language = language_of(name) if grammar else None
    if grammar is None or language is None:
        return []
    reader = _Reader(grammar, source.split("\n"))
    return list(reader.inside(Parser(language).parse(source.encode()).root_node, 0))


def _in_python(source: str) -> list[Documented]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return []
    lines = source.split("\n")
    return [it for function in _python_functions(tree) if (it := _python_documented(function, lines))]


def _python_functions(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
        elif isinstance(child, ast.ClassDef | ast.If | ast.Try):
            yield from _python_functions(child)


def _python_documented(function: ast.FunctionDef | ast.AsyncFunctionDef, lines: Sequence[str]) -> Documented | None:
    text = ast.get_docstring(function)
    statement = function.body[0]
    if text is None or statement.end_lineno is None or statement.end_col_offset is None:
        return None
    before = lines[statement.lineno - 1].encode()[: statement.col_offset].decode()
    after = lines[statement.end_lineno - 1].encode()[statement.end_col_offset :].decode()
    filler = "..." if len(function.body) == 1 else "pass" if after.lstrip().startswith(";") else ""
    instead = before + filler + after
    return Documented(
        name=function.name,
        text=text,
        first_row=function.lineno - 1,
        last_row=(function.end_lineno or function.lineno) - 1,
        rows=range(statement.lineno - 1, statement.end_lineno),
        instead=instead if instead.strip() else "",
    )


class _Reader:
    """Finds documentation directly above functions."""

    def __init__(self, grammar: _Grammar, lines: Sequence[str]) -> None:
        self._grammar = grammar
        self._lines = lines

    def inside(self, node: Node, depth: int) -> Iterator[Documented]:
        for child in node.named_children if depth < NODES_DEEP_MAX else ():
            is_function = child.type in self._grammar.functions and _has_body(child)
            if is_function or child.type in self._grammar.signatures:
                yield from self._documented(child, is_asked=is_function)
            else:
                yield from self.inside(child, depth + 1)

    def _documented(self, node: Node, *, is_asked: bool) -> Iterator[Documented]:
        rows = self._above(self._start(node))
        if rows:
            text = self._plain(rows)
            yield Documented(
                name=_name(node),
                text=text if is_asked else "",
                first_row=node.start_point.row,
                last_row=node.end_point.row,
                rows=rows,
                instead="",
            )

    def _start(self, node: Node) -> int:
        """The row of its first decorator, or of the statement around it."""
        while node.parent and node.parent.type in self._grammar.wrappers:
            node = node.parent
        above = node.prev_named_sibling
        while above and (above.type in self._grammar.between or self._is_remark(above)):
            node, above = above, above.prev_named_sibling
        return node.start_point.row

    def _is_remark(self, node: Node) -> bool:
        """A comment about the code, between the documentation and the function."""
        text = (node.text or b"").decode()
        if not node.type.endswith("comment") or not self._lines[node.start_point.row].lstrip().startswith("//"):
            return False
        return not text.startswith(self._grammar.line_mark or "/*")

    def _above(self, row: int) -> range:
        mark = self._grammar.line_mark
        first = row
        if mark:
            while first > 0 and self._lines[first - 1].lstrip().startswith(mark):
                first -= 1
            return range(first, row)
        while row > 0 and not self._lines[row - 1].strip():
            row -= 1
        if row > 0 and self._lines[row - 1].rstrip().endswith("*/"):
            first = row - 1
            while first > 0 and "/*" not in self._lines[first]:
                first -= 1
        return range(first if self._lines[first].lstrip().startswith("/**") else row, row)

    def _plain(self, rows: range) -> str:
        mark = self._grammar.line_mark
        lines = [self._lines[row].strip() for row in rows]
        if mark:
            return "\n".join(line.removeprefix(mark).strip() for line in lines if not line.startswith("//go:"))
        text = "\n".join(lines).removeprefix("/**").removesuffix("*/")
        return "\n".join(re.sub(r"^\*+ ?", "", line.strip()).strip() for line in text.split("\n"))


def _has_body(node: Node) -> bool:
    value = node.child_by_field_name("value") or node.child_by_field_name("right")
    return any(it is not None and it.child_by_field_name("body") is not None for it in (node, value))


def _name(node: Node) -> str:
    names = (node.child_by_field_name(field) for field in ("name", "property", "key", "left"))
    name = next((it for it in names if it is not None), None)
    return name.text.decode().rpartition(".")[2] if name and name.text else ""

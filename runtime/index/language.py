"""The languages whose structure the index reads. A language is one row here and its grammar's wheel."""

import importlib
from collections.abc import Set
from dataclasses import dataclass
from functools import cache

from tree_sitter import Language


@dataclass(frozen=True, slots=True, kw_only=True)
class Syntax:
    """What the nodes of a tree-sitter grammar are called. Their `name`, `body` and `value` fields go by those names."""

    grammar: str
    """`module:function` that gives the language; the module is the grammar's wheel."""
    functions: Set[str]
    """One chunk each, if they, or their value (`const f = () => {}`), have a body."""
    classes: Set[str]
    """A skeleton, and a chunk for each function inside."""
    wrappers: Set[str]
    """Belong to the definition directly inside: decorators, `export`."""
    containers: Set[str]
    """May hold definitions, but give them no name."""


_PYTHON = Syntax(
    grammar="tree_sitter_python:language",
    functions={"function_definition"},
    classes={"class_definition"},
    wrappers={"decorated_definition"},
    containers={"module", "block", "if_statement", "elif_clause", "else_clause", "try_statement", "except_clause"},
)
_JAVASCRIPT = Syntax(
    grammar="tree_sitter_javascript:language",
    functions={
        "function_declaration",
        "generator_function_declaration",
        "method_definition",
        "variable_declarator",
        "field_definition",
    },
    classes={"class_declaration"},
    wrappers={"export_statement", "lexical_declaration", "variable_declaration"},
    containers={"program", "class_body", "statement_block", "if_statement"},
)
_TSX = Syntax(
    grammar="tree_sitter_typescript:language_tsx",
    functions=_JAVASCRIPT.functions | {"public_field_definition"},
    classes=_JAVASCRIPT.classes | {"abstract_class_declaration", "interface_declaration", "internal_module"},
    wrappers=_JAVASCRIPT.wrappers | {"expression_statement"},
    containers=_JAVASCRIPT.containers,
)
_TYPESCRIPT = Syntax(
    grammar="tree_sitter_typescript:language_typescript",
    functions=_TSX.functions,
    classes=_TSX.classes,
    wrappers=_TSX.wrappers,
    containers=_TSX.containers,
)
_GO = Syntax(
    grammar="tree_sitter_go:language",
    functions={"function_declaration", "method_declaration"},
    classes={"type_spec"},
    wrappers={"type_declaration"},
    containers={"source_file"},
)

SYNTAXES = {
    ".py": _PYTHON,
    ".pyi": _PYTHON,
    ".js": _JAVASCRIPT,
    ".jsx": _JAVASCRIPT,
    ".mjs": _JAVASCRIPT,
    ".cjs": _JAVASCRIPT,
    ".ts": _TYPESCRIPT,
    ".mts": _TYPESCRIPT,
    ".tsx": _TSX,
    ".go": _GO,
}
"""By file suffix."""


@cache
def language_of(grammar: str) -> Language | None:
    """None when the grammar's wheel is not installed: its files are then read as plain text."""
    module, _, function = grammar.partition(":")
    try:
        return Language(getattr(importlib.import_module(module), function)())
    except ImportError:
        return None

"""The languages whose structure the index reads. A language is one row here and its grammar's wheel.

Markup, style sheets and data (HTML, CSS, JSON, YAML, XML) have no row: they are read by their paragraphs, as text is.
SQL has none either: its paragraphs are its statements. Nor has Scala: its grammar takes gigabytes and minutes for some
256 KiB that are no code, and cannot be interrupted there.
"""

import importlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cache

from tree_sitter import Language


@dataclass(frozen=True, slots=True, kw_only=True)
class Syntax:
    """What the nodes and fields of a tree-sitter grammar are called."""

    grammar: str
    """`module:function` that gives the language; the module is the grammar's wheel."""
    functions: Set[str]
    """One chunk each, if they, or their value (`const f = () => {}`), have a body."""
    classes: Set[str]
    """A skeleton, and a chunk for each function inside. One that is among `functions` too has to have a body."""
    wrappers: Set[str]
    """Belong to the definition directly inside: decorators, `export`."""
    containers: Set[str]
    """May hold definitions, but give them no name. A class that is here too may have no name (`namespace {`)."""
    calls: Mapping[str, str]
    """Calls and constructions, each with its field that holds what is called; empty when that is the first child."""
    names: Sequence[str] = ("name", "property")
    """The first of these fields that there is leads to the name of a definition."""
    unnamed: Mapping[str, str] = field(default_factory=dict)
    """What definitions are called that have no name."""
    receiver: str = ""
    """A field with the type that a method belongs to when it does not stand inside of it."""
    values: Sequence[str] = ("value",)
    assignments: Set[str] = frozenset()
    """Of `functions`, those that name what is assigned by a path: `Cart.prototype.total = function () {}`."""
    unsaid: Set[str] = frozenset()
    """Parts of such a path that are left out of the name, unless nothing is left."""
    bodies: Set[str] = frozenset()
    """Children that are the body, where the grammar has no field `body`."""
    annotations: Set[str] = frozenset()
    """Children, perhaps among `modifiers`, that stand before the signature."""
    comments: Sequence[str] = ("//", "/*", "*", "@", "#")
    """What the lines directly above a definition start with that belong to it."""
    documenting: Sequence[str] = ("/**",)
    """What a comment starts with that documents what is below it."""
    is_ascii: bool = False
    """Its scanner asks of every character what C only knows of a byte, and reads memory that is not its own: it is
    given a `_` for each byte of others."""
    has_arrows: bool = True
    """Whether `=>` is a word of it. Where it is none, thousands in one statement take the cube of their number, in one
    step at the file's end that nothing can break off."""


_PYTHON = Syntax(
    grammar="tree_sitter_python:language",
    functions={"function_definition"},
    classes={"class_definition"},
    wrappers={"decorated_definition"},
    containers={"module", "block", "if_statement", "elif_clause", "else_clause", "try_statement", "except_clause"},
    calls={"call": "function"},
    documenting=(),
)
_JAVASCRIPT = Syntax(
    grammar="tree_sitter_javascript:language",
    functions={
        "function_declaration",
        "generator_function_declaration",
        "method_definition",
        "variable_declarator",
        "field_definition",
        "assignment_expression",
    },
    classes={"class_declaration"},
    wrappers={"export_statement", "lexical_declaration", "variable_declaration", "expression_statement"},
    containers={"program", "class_body", "statement_block", "if_statement"},
    calls={
        "call_expression": "function",
        "new_expression": "constructor",
        "jsx_opening_element": "name",
        "jsx_self_closing_element": "name",
    },
    names=("name", "property", "left"),
    values=("value", "right"),
    assignments={"assignment_expression"},
    unsaid={"module", "exports", "prototype", "this"},
)
_TSX = replace(
    _JAVASCRIPT,
    grammar="tree_sitter_typescript:language_tsx",
    functions=_JAVASCRIPT.functions | {"public_field_definition"},
    classes=_JAVASCRIPT.classes | {"abstract_class_declaration", "interface_declaration", "internal_module"},
)
_TYPESCRIPT = replace(
    _TSX,
    grammar="tree_sitter_typescript:language_typescript",
    calls={"call_expression": "function", "new_expression": "constructor"},
)
_VUE = replace(_TYPESCRIPT, containers=_TYPESCRIPT.containers | {"object", "pair", "call_expression", "arguments"})
"""Only its scripts, where methods stand in the objects of a call: `defineComponent({methods: {add() {}}})`."""
_GO = Syntax(
    grammar="tree_sitter_go:language",
    functions={"function_declaration", "method_declaration"},
    classes={"type_spec"},
    wrappers={"type_declaration"},
    containers={"source_file"},
    calls={"call_expression": "function", "composite_literal": "type"},
    receiver="receiver",
    documenting=("//", "/*"),
)
_JAVA = Syntax(
    grammar="tree_sitter_java:language",
    has_arrows=False,
    functions={"method_declaration", "constructor_declaration", "compact_constructor_declaration"},
    classes={
        "class_declaration",
        "interface_declaration",
        "enum_declaration",
        "record_declaration",
        "annotation_type_declaration",
    },
    wrappers=frozenset(),
    containers={"program", "class_body", "interface_body", "enum_body", "enum_body_declarations"},
    calls={"method_invocation": "name", "object_creation_expression": "type"},
    annotations={"annotation", "marker_annotation"},
)
_C = Syntax(
    grammar="tree_sitter_c:language",
    has_arrows=False,
    functions={"function_definition", "struct_specifier", "union_specifier", "enum_specifier", "type_definition"},
    classes=frozenset(),
    wrappers=frozenset(),
    containers={
        "translation_unit",
        "declaration_list",
        "linkage_specification",
        "preproc_if",
        "preproc_ifdef",
        "preproc_else",
        "preproc_elif",
    },
    calls={"call_expression": "function"},
    names=("name", "declarator"),
    values=("type",),
    comments=("//", "/*", "*"),
    documenting=("//", "/*"),
)
_CPP = replace(
    _C,
    grammar="tree_sitter_cpp:language",
    functions=_C.functions | {"class_specifier", "namespace_definition"},
    classes={"class_specifier", "struct_specifier", "union_specifier", "namespace_definition"},
    wrappers={"template_declaration", "field_declaration"},
    containers=_C.containers | {"namespace_definition", "field_declaration_list"},
    calls={"call_expression": "function", "new_expression": "type"},
)
_RUST = Syntax(
    grammar="tree_sitter_rust:language",
    functions={"function_item", "mod_item"},
    classes={
        "struct_item",
        "enum_item",
        "union_item",
        "trait_item",
        "impl_item",
        "mod_item",
        "macro_definition",
    },
    wrappers=frozenset(),
    containers={"source_file", "declaration_list", "foreign_mod_item"},
    calls={"call_expression": "function", "macro_invocation": "macro", "struct_expression": "name"},
    names=("name", "type"),
    documenting=("///", "/**"),
)
_RUBY = Syntax(
    grammar="tree_sitter_ruby:language",
    functions={"method", "singleton_method"},
    classes={"class", "module"},
    wrappers=frozenset(),
    containers={"program", "body_statement", "singleton_class", "if", "unless"},
    calls={"call": "method"},
    comments=("#",),
    documenting=("#",),
)
_PHP = Syntax(
    grammar="tree_sitter_php:language_php",
    functions={"function_definition", "method_declaration"},
    classes={"class_declaration", "interface_declaration", "trait_declaration", "enum_declaration"},
    wrappers=frozenset(),
    containers={
        "program",
        "namespace_definition",
        "compound_statement",
        "declaration_list",
        "enum_declaration_list",
        "if_statement",
    },
    calls={
        "function_call_expression": "function",
        "member_call_expression": "name",
        "nullsafe_member_call_expression": "name",
        "scoped_call_expression": "name",
        "object_creation_expression": "",
    },
    annotations={"attribute_list"},
)
_SWIFT = Syntax(
    grammar="tree_sitter_swift:language",
    functions={"function_declaration", "init_declaration", "deinit_declaration"},
    classes={"class_declaration", "protocol_declaration"},
    wrappers=frozenset(),
    containers={"source_file", "class_body", "enum_class_body", "protocol_body"},
    calls={"call_expression": "", "constructor_expression": "constructed_type"},
    unnamed={"deinit_declaration": "deinit"},
    annotations={"attribute"},
    documenting=("///", "/**"),
)
_KOTLIN = Syntax(
    grammar="tree_sitter_kotlin:language",
    functions={"function_declaration", "secondary_constructor"},
    classes={"class_declaration", "object_declaration", "companion_object"},
    wrappers=frozenset(),
    containers={"source_file", "class_body", "enum_class_body", "companion_object"},
    calls={"call_expression": "", "constructor_invocation": ""},
    unnamed={"secondary_constructor": "constructor"},
    bodies={"function_body", "class_body", "enum_class_body", "block"},
    annotations={"annotation"},
)
_BASH = Syntax(
    grammar="tree_sitter_bash:language",
    is_ascii=True,
    functions={"function_definition"},
    classes=frozenset(),
    wrappers=frozenset(),
    containers={"program", "if_statement", "else_clause", "elif_clause"},
    calls={"command": "name"},
    comments=("#",),
    documenting=("#",),
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
    ".vue": _VUE,
    ".go": _GO,
    ".java": _JAVA,
    ".c": _C,
    ".h": _CPP,
    ".hpp": _CPP,
    ".hh": _CPP,
    ".cpp": _CPP,
    ".cc": _CPP,
    ".cxx": _CPP,
    ".rs": _RUST,
    ".rb": _RUBY,
    ".php": _PHP,
    ".swift": _SWIFT,
    ".kt": _KOTLIN,
    ".kts": _KOTLIN,
    ".sh": _BASH,
    ".bash": _BASH,
}
"""By file suffix. A header may be C or C++: the grammar of C++ reads both."""


@cache
def language_of(grammar: str) -> Language | None:
    """None when the grammar's wheel is not installed: its files are then read as plain text."""
    module, _, function = grammar.partition(":")
    try:
        return Language(getattr(importlib.import_module(module), function)())
    except ImportError:
        return None

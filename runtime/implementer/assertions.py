"""What a test file checks, read without running it: Python by its syntax tree, scripts and shell by their lines.

It says what is plainly there and nothing of what is not: a file of another language is not read at all.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from runtime.implementer.python_syntax import parse

SCRIPTS = (".js", ".mjs", ".cjs", ".jsx", ".ts", ".mts", ".cts", ".tsx")
SHELLS = (".sh", ".bash")

_CHECKING_NAME = re.compile(r"assert|expect|raises|warns|verify|check|fail", re.IGNORECASE)
_SKIPPING = frozenset({"skip", "xfail", "expectedFailure", "skipTest", "SkipTest"})
_SKIPPING_WHERE = frozenset({"skipif", "skipIf", "skipUnless"})
_EXITING = frozenset({"sys.exit", "exit", "quit", "SystemExit"})
_SCRIPT_CASE = re.compile(r"\b(?:it|test)\s*\(\s*(['\"`])(.*?)\1")
_SCRIPT_CHECK = re.compile(r"\b(?:expect|assert\w*)\b|\b(?:t|tap)\.\w+\(|\bshould\b")
_SCRIPT_SKIP = re.compile(
    r"\b(?:it|test|describe|suite)\.(?:skip|todo|only)\b|\bx(?:it|test|describe)\s*\(|\b(?:skip|todo|only):\s*true\b"
)
_SCRIPT_EXIT = re.compile(r"\bprocess\.(?:exit|reallyExit)\s*\(\s*0?\s*\)")
_SCRIPT_REMARK = re.compile(r"^\s*(?://|\*|/\*)")
_SHELL_CHECK = re.compile(r"(?:^|[\s;&|(!])(?:\[\[?|test|grep|diff|cmp)\s|\|\|\s*(?:exit|return|false|fail|die)")
_SHELL_CONSTANT = re.compile(r"(?:^|[\s;&|(!])(?:\[\[?|test)\s+[^$`/.*-]*$")
_SHELL_EXIT = re.compile(r"^(?:exit|return|exec\s+true)(?:\s+0)?\s*(?:#.*)?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class TestFile:
    """`checks` are its assertions as they are written, those that compare nothing but constants apart."""

    __test__ = False
    cases: frozenset[str] = frozenset()
    checks: Counter[str] = field(default_factory=Counter)
    skips: Sequence[str] = ()
    """Whatever keeps a case from being run, where no condition is asked."""
    exits: Sequence[str] = ()
    """Whatever ends the run well, before what comes after it was run."""


def read_test(path: str, text: str) -> TestFile | None:
    """None for a language that is not read here, and for Python that cannot be parsed."""
    if path.endswith(".py"):
        try:
            return _python(parse(text))
        except (SyntaxError, ValueError, RecursionError):
            return None
    lines = [line.strip() for line in text.splitlines()]
    if path.endswith(SCRIPTS):
        said = [line for line in lines if not _SCRIPT_REMARK.match(line)]
        return TestFile(
            cases=frozenset(found[2] for line in said for found in _SCRIPT_CASE.finditer(line)),
            checks=Counter(line for line in said if _SCRIPT_CHECK.search(line)),
            skips=[line for line in said if _SCRIPT_SKIP.search(line)],
            exits=[line for line in said if _SCRIPT_EXIT.search(line)],
        )
    if path.endswith(SHELLS):
        said = [line.rstrip() for line in text.splitlines() if not line.lstrip().startswith("#")]
        at = [n for n, line in enumerate(said) if _SHELL_CHECK.search(line) and not _SHELL_CONSTANT.search(line)]
        # A status that closes a script is a habit; what stands below another is never run.
        exits = [line for n, line in enumerate(said) if _SHELL_EXIT.match(line) and at and n < at[-1]]
        return TestFile(checks=Counter(said[n].strip() for n in at), exits=exits)
    return None


def called(node: ast.expr) -> str:
    """The dotted name of what a call or a decorator names; an empty string for anything else."""
    if isinstance(node, ast.Call):
        return called(node.func)
    if isinstance(node, ast.Attribute):
        inner = called(node.value)
        return f"{inner}.{node.attr}" if inner else node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _python(tree: ast.Module) -> TestFile:
    cases: set[str] = set()
    checks: Counter[str] = Counter()
    skips: list[str] = []
    exits = [ast.unparse(each) for each in _always(tree.body) if called(each) in _EXITING and _ends_well(each)]
    skips += [ast.unparse(each) for each in _always(tree.body) if _last(called(each)) in _SKIPPING]
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                skips += [ast.unparse(each) for each in node.decorator_list if _skips(each)]
                if not isinstance(node, ast.ClassDef):
                    skips += [ast.unparse(each) for each in _always(node.body) if _last(called(each)) in _SKIPPING]
                    cases |= {node.name} if node.name.startswith("test") else set()
            case ast.Assign(value=value) if any(isinstance(t, ast.Name) and t.id == "pytestmark" for t in node.targets):
                skips += [ast.unparse(value)] if _skips(value) else []
            case ast.Assert(test=test) if not _is_constant(test):
                checks[ast.unparse(test)] += 1
            case ast.Call() if _checks(node):
                checks[ast.unparse(node)] += 1
            case ast.Call() if called(node) == "os._exit" and _ends_well(node):
                exits.append(ast.unparse(node))
    return TestFile(cases=frozenset(cases), checks=checks, skips=skips, exits=exits)


def _always(body: Sequence[ast.stmt]) -> Iterator[ast.expr]:
    """What these statements call or raise outright, under no condition."""
    for statement in body:
        if isinstance(statement, ast.Expr):
            yield statement.value
        elif isinstance(statement, ast.Raise) and statement.exc is not None:
            yield statement.exc


def _ends_well(node: ast.expr) -> bool:
    """Whether the status that it ends with is 0, whatever was found."""
    status = node.args[0] if isinstance(node, ast.Call) and node.args else None
    return status is None or (isinstance(status, ast.Constant) and not status.value)


def _checks(call: ast.Call) -> bool:
    """Helpers of the test's own count as well; of `assertEqual(1, 1)` everybody knows what it says."""
    name = _last(called(call))
    says_nothing = name.startswith("assert") and call.args and all(map(_is_constant, call.args))
    return _CHECKING_NAME.search(name) is not None and not says_nothing


def _is_constant(node: ast.expr) -> bool:
    return not any(isinstance(each, ast.Name | ast.Attribute | ast.Call) for each in ast.walk(node))


def _skips(node: ast.expr) -> bool:
    name = _last(called(node))
    if name in _SKIPPING_WHERE and isinstance(node, ast.Call) and node.args:
        return _is_constant(node.args[0])
    return name in _SKIPPING


def _last(name: str) -> str:
    return name.rpartition(".")[2]

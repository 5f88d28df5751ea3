"""What a change does beside its task, seen without running any of it.

An implementer that cannot make its tests pass may be tempted to make them pass otherwise: by taking them away, by
emptying them, by having nothing run them. What it writes may also be what no project should hold: a secret, which would
stay in the history, or a file that is no text or far too large. Every fault is told in words, to its author and in the
log; nothing of such a change is run or kept.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from runtime.implementer.assertions import SCRIPTS, SHELLS, TestFile, called, read_test
from runtime.implementer.python_syntax import parse
from runtime.project.scanning import secrets_in

FILE_BYTES_MAX = 1 << 20
CHANGE_BYTES_MAX = 4 << 20
FAULTS_MAX = 20
SHOWN_CHARACTERS_MAX = 160

_TEST_PLACE = re.compile(r"(^|/)(tests?|__tests__|spec)/|(^|/)test_[^/]*$|[._-](test|spec)\.[A-Za-z]+$")
_CODE = (".py", ".rb", ".go", ".rs", ".java", ".c", ".h", ".cpp", ".cs", ".php", *SCRIPTS, *SHELLS)
_TEXT = (".md", ".txt", ".html", ".css", ".json", ".toml", ".yaml", ".yml", ".cfg", ".ini", ".csv", ".sql", *_CODE)
_STAND_IN = re.compile(
    r"(^|/)(sitecustomize|usercustomize)\.py$|^(src/|lib/)?(pytest|_pytest|unittest)(\.py$|/)|(^|/)node_modules/"
)
_HOOKS = frozenset({
    "pytest_cmdline_main", "pytest_collection_modifyitems", "pytest_ignore_collect", "pytest_collect_file",
    "pytest_pycollect_makeitem", "pytest_pyfunc_call", "pytest_runtest_protocol", "pytest_runtest_call",
    "pytest_runtest_makereport", "pytest_report_teststatus", "pytest_sessionfinish", "pytest_unconfigure",
})  # fmt: skip
_UNRUN = re.compile(
    r"^\s*addopts\s*=.*(--co\b|--collect-only|--ignore|--deselect|-k\b|--pyargs|-p\s+no:)", re.MULTILINE
)
_EMPTY_SCRIPT = re.compile(r'"test"\s*:\s*"\s*(true|:|exit 0|echo\b[^"&|;]*)\s*"')
_KNOWS_OF_TESTS = re.compile(
    r"PYTEST_CURRENT_TEST|JEST_WORKER_ID|[\"'](?:_?pytest|unittest)[\"']\s+(?:not\s+)?in\s+sys\.modules"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """`before` and `after`: the files that differ; None for one that is not there."""

    before: Mapping[str, bytes | None]
    after: Mapping[str, bytes | None]
    tests: Sequence[str] = ()
    """Test files that the checks run."""
    kept_tests: Sequence[str] = ()
    """Those that finished tasks must pass and that this one has nothing to do with: each of their checks stays."""
    grown_tests: Sequence[str] = ()
    """Those that finished tasks must pass and that this one is told to work on: they may not check less."""


def faults_of(change: Change) -> list[str]:
    """Empty for a change that may be run and judged by its checks."""
    size = sum(len(data) for data in change.after.values() if data is not None)
    faults = [f"it writes {_mb(size)}; a task may write {_mb(CHANGE_BYTES_MAX)}"] if size > CHANGE_BYTES_MAX else []
    for path in sorted(change.after):
        faults += _file_faults(change, path, change.before.get(path), change.after[path])
    written = {path: data for path, data in change.after.items() if data is not None}
    known = {path: data for path, data in change.before.items() if data is not None}
    there = secrets_in(known)
    faults += [f"{found}; a secret may not get into the history" for found in secrets_in(written) if found not in there]
    return faults[:FAULTS_MAX]


def _file_faults(change: Change, path: str, before: bytes | None, after: bytes | None) -> Iterator[str]:
    is_kept = path in change.kept_tests or path in change.grown_tests
    if after is None:
        if is_kept:
            yield f"{path} is a test that finished tasks must pass, and is removed"
        return
    if len(after) > FILE_BYTES_MAX:
        yield f"{path} has {_mb(len(after))}; a file may have {_mb(FILE_BYTES_MAX)}"
        return
    if _STAND_IN.search(path):
        yield f"{path} takes the place of a program that runs the tests"
    if b"\0" in after and path.endswith(_TEXT):
        yield f"{path} is no text"
    text = _text(after)
    if text is None:
        return
    yield from _runner_faults(path, text)
    if path in change.tests or is_kept or (_TEST_PLACE.search(path) and path.endswith(_CODE)):
        now = read_test(path, text)
        then = read_test(path, _text(before or b"") or "") if before is not None else None
        if now is not None:
            yield from _test_faults(path, now, then, is_run=path in change.tests or is_kept)
            if then is not None and is_kept:
                yield from _lost(path, now, then, each=path in change.kept_tests)
    elif found := _KNOWS_OF_TESTS.search(text):
        yield f"{path} asks whether it is being tested: {found[0]}"


def _test_faults(path: str, now: TestFile, then: TestFile | None, *, is_run: bool) -> Iterator[str]:
    if is_run and not now.checks:
        yield f"{path} is a test that checks nothing"
    elif is_run and not now.cases and path.endswith(".py"):
        yield f"{path} has no test case: no function whose name begins with `test`"
    for skip in now.skips:
        if then is None or skip not in then.skips:
            yield f"{path} keeps its tests from being run: {_shown(skip)}"
    for end in now.exits if is_run else ():
        if then is None or end not in then.exits:
            yield f"{path} ends the run of the tests: {_shown(end)}"


def _lost(path: str, now: TestFile, then: TestFile, *, each: bool) -> Iterator[str]:
    """What a test that is to be kept does not check any more."""
    if each:
        gone = [*sorted(then.cases - now.cases), *(then.checks - now.checks)]
        if gone:
            yield f"{path} is a test of finished tasks, and does not check any more: {_shown('; '.join(gone))}"
        return
    had, has = then.checks.total(), now.checks.total()
    if has < had or len(now.cases) < len(then.cases):
        yield (
            f"{path} is a test of finished tasks, and checks less than before: {len(then.cases)} cases with {had} "
            f"checks were there, {len(now.cases)} with {has} are left"
        )


def _runner_faults(path: str, text: str) -> Iterator[str]:
    name = path.rpartition("/")[2]
    if name.endswith(".py") and (name == "conftest.py" or "pytest_" in text):
        for hook in _hooks(text):
            yield f"{path} changes which tests are run, or what becomes of them: {hook}"
    if name in ("pytest.ini", "tox.ini", "setup.cfg", "pyproject.toml") and (found := _UNRUN.search(text)):
        yield f"{path} keeps tests from being run: {_shown(found[0].strip())}"
    if name == "package.json" and (found := _EMPTY_SCRIPT.search(text)):
        yield f"{path} has a test script that runs nothing: {_shown(found[0])}"


def _hooks(text: str) -> list[str]:
    try:
        tree = parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return []
    functions = [each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
    assigned = [
        called(target) for each in tree.body if isinstance(each, ast.Assign) for target in each.targets
    ]  # fmt: skip
    ignored = [each for each in assigned if each in ("collect_ignore", "collect_ignore_glob")]
    return [*(each for each in functions if each in _HOOKS), *ignored]


def _text(data: bytes) -> str | None:
    try:
        return None if b"\0" in data else data.decode()
    except UnicodeDecodeError:
        return None


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS_MAX else f"{line[:SHOWN_CHARACTERS_MAX]} ..."


def _mb(size: int) -> str:
    return f"{size / (1 << 20):.1f} MB"

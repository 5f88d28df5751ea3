"""A change that takes tests away, empties them or has nothing run them is told from honest work, in words."""

import pytest

from runtime.implementer.inspection import CHANGE_BYTES_MAX, FAULTS_MAX, FILE_BYTES_MAX, Change, faults_of

PYTHON = """import unittest

from src.app import add


class Add(unittest.TestCase):
    def test_add(self):
        self.assertEqual(add(1, 2), 3)

    def test_refuses(self):
        with self.assertRaises(ValueError):
            add(1, "x")
"""
SCRIPT = """import test from 'node:test';
import assert from 'node:assert';
test('adds', () => {
  assert.equal(add(1, 2), 3);
});
test('refuses', () => {
  assert.throws(() => add(1, 'x'));
});
"""


def faults(path: str, after: str | bytes | None, before: str | None = None, **more: tuple[str, ...]) -> str:
    """What is said of a change to one file, which is a test of the task itself unless more is said."""
    data = after.encode() if isinstance(after, str) else after
    was = before.encode() if before is not None else None
    return "; ".join(faults_of(Change(before={path: was}, after={path: data}, **{"tests": (path,), **more})))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("tests/test_a.py", PYTHON),
        ("tests/test_a.py", "def test_a():\n    assert add(1, 2) == 3\n"),
        ("tests/test_a.py", "import pytest\ndef test_a():\n    with pytest.raises(ValueError):\n        add('x')\n"),
        ("tests/test_a.py", "@pytest.mark.skipif(sys.platform == 'win32')\n" + "def test_a():\n    assert f()\n"),
        ("tests/test_a.py", "def test_a():\n    if not node:\n        pytest.skip('no node')\n    assert f()\n"),
        ("tests/test_a.py", "def test_a():\n    check_layout('src')\n"),
        ("tests/test_a.py", PYTHON + "\n\nif __name__ == '__main__':\n    sys.exit(unittest.main())\n"),
        ("tests/a.test.mjs", SCRIPT),
        ("src/a.spec.ts", "it('adds', () => { expect(add(1)).toBe(2) })\n"),
        ("tests/a.sh", 'out=$(sh src/a.sh)\n[ "$out" = 3 ] || exit 1\n'),
        ("tests/a.sh", "sh src/a.sh | grep -q total\n"),
        ("tests/a.sh", 'if ! command -v node; then\n  exit 0\nfi\n[ "$x" = 1 ] || exit 1\nexit 0\n'),
        ("tests/run.js", "expect(f()).toBe(1)\nprocess.exit(failed ? 1 : 0)\n"),
        ("tests/test_a.py", "def test_a():\n    assert f()\n\n\nsys.exit(run())\n"),
        ("tests/a_test.go", "package a\n"),
        ("tests/test_a.py", "def test_a(:\n"),
    ],
)  # fmt: skip
def test_test__that_is_honest_has_no_fault(path: str, text: str) -> None:
    assert faults(path, text) == ""


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("tests/test_a.py", "def test_a():\n    assert True\n", "checks nothing"),
        ("tests/test_a.py", "def test_a():\n    self.assertEqual(1, 1)\n", "checks nothing"),
        ("tests/test_a.py", "", "checks nothing"),
        ("tests/test_a.py", "def later():\n    assert f()\n", "no test case"),
        ("tests/test_a.py", "@pytest.mark.skip\n" + "def test_a():\n    assert f()\n", "being run: pytest.mark.skip"),
        ("tests/test_a.py", "@unittest.skipIf(True, 'x')\n" + "def test_a():\n    assert f()\n", "being run"),
        ("tests/test_a.py", "@pytest.mark.xfail\n" + "def test_a():\n    assert f()\n", "being run"),
        ("tests/test_a.py", "pytestmark = pytest.mark.skip\ndef test_a():\n    assert f()\n", "being run"),
        ("tests/test_a.py", "def test_a():\n    self.skipTest('later')\n    assert f()\n", "being run"),
        ("tests/test_a.py", "sys.exit(0)\ndef test_a():\n    assert f()\n", "ends the run of the tests: sys.exit(0)"),
        ("tests/test_a.py", "def test_a():\n    assert f()\n    os._exit(0)\n", "ends the run"),
        ("tests/a.test.js", "test('a', () => {})\n", "checks nothing"),
        ("tests/a.test.js", "test.skip('a', () => { expect(f()).toBe(1) })\n", "being run"),
        ("tests/a.test.js", "test.only('a', () => { expect(f()).toBe(1) })\n", "being run"),
        ("tests/a.test.js", "process.exit(0)\ntest('a', () => { expect(f()).toBe(1) })\n", "ends the run"),
        ("tests/a.sh", "echo fine\n", "checks nothing"),
        ("tests/a.sh", "[ 1 = 1 ]\n", "checks nothing"),
        ("tests/a.sh", 'exit 0\n[ "$x" = 1 ]\n', "ends the run"),
    ],
)
def test_test__that_proves_nothing_is_named_with_what_is_wrong(path: str, text: str, words: str) -> None:
    assert f"{path} " in faults(path, text)
    assert words in faults(path, text)


def test_test_of_finished_tasks__keeps_each_of_its_checks() -> None:
    kept = {"tests": (), "kept_tests": ("tests/test_a.py",)}
    assert faults("tests/test_a.py", PYTHON + "\n\ndef test_more():\n    assert add(2, 2) == 4\n", PYTHON, **kept) == ""
    weaker = PYTHON.replace("self.assertEqual(add(1, 2), 3)", "self.assertTrue(add(1, 2))")
    assert "does not check any more: self.assertEqual(add(1, 2), 3)" in faults(
        "tests/test_a.py", weaker, PYTHON, **kept
    )
    other = PYTHON.replace("3)", "4)")
    assert "does not check any more" in faults("tests/test_a.py", other, PYTHON, **kept)
    assert "is removed" in faults("tests/test_a.py", None, PYTHON, **kept)


def test_test_of_finished_tasks__that_the_task_is_told_of_may_change_but_not_check_less() -> None:
    grown = {"tests": (), "grown_tests": ("tests/a.test.mjs",)}
    assert faults("tests/a.test.mjs", SCRIPT.replace("3)", "4)"), SCRIPT, **grown) == ""
    less = SCRIPT.replace("  assert.throws(() => add(1, 'x'));\n", "")
    assert "checks less than before" in faults("tests/a.test.mjs", less, SCRIPT, **grown)
    assert "is removed" in faults("tests/a.test.mjs", None, SCRIPT, **grown)


def test_skip__that_was_there_before_is_not_this_change_s_fault() -> None:
    before = "@pytest.mark.skip\ndef test_a():\n    assert f()\n"
    assert faults("tests/test_a.py", before + "\n\ndef test_b():\n    assert g()\n", before) == ""


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        (
            "conftest.py",
            "def pytest_collection_modifyitems(items):\n    items.clear()\n",
            "changes which tests are run",
        ),
        ("tests/conftest.py", "collect_ignore = ['test_a.py']\n", "collect_ignore"),
        ("src/plugin.py", "def pytest_runtest_makereport(item):\n    return 'passed'\n", "what becomes of them"),
        ("sitecustomize.py", "import os\n", "takes the place"),
        ("src/unittest.py", "def main(): pass\n", "takes the place"),
        ("pytest/__init__.py", "", "takes the place"),
        ("node_modules/vitest/index.js", "export const it = () => {}\n", "takes the place"),
        ("pytest.ini", "[pytest]\naddopts = --collect-only\n", "keeps tests from being run"),
        ("package.json", '{"scripts": {"test": "exit 0"}}', "a test script that runs nothing"),
        ("src/app.py", "import os\nif 'PYTEST_CURRENT_TEST' in os.environ:\n    x = 1\n", "whether it is being tested"),
        ("src/app.py", "x = 1 if 'pytest' in sys.modules else 2\n", "whether it is being tested"),
    ],
)
def test_file__that_has_the_tests_run_otherwise_is_named(path: str, text: str, words: str) -> None:
    assert words in faults(path, text, tests=())


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("conftest.py", "import pytest\n\n\n@pytest.fixture\ndef app():\n    return 1\n"),
        ("pytest.ini", "[pytest]\naddopts = -q --strict-markers\n"),
        ("package.json", '{"scripts": {"test": "node --test"}}'),
        ("src/app.py", "import sys\n\n\ndef main():\n    sys.exit(0)\n"),
        ("src/tests_view.py", "def skip(): ...\n"),
        ("tests/unittest/helper.py", "import os\nos._exit(0)\n"),
        ("tests/bin/fake.sh", 'exit 0\n[ "$x" = 1 ]\n'),
        ("assets/logo.png", b"\x89PNG\0\0"),
        ("data/latin.csv", "né\n".encode("latin-1")),
    ],
)
def test_file__that_is_ordinary_has_no_fault(path: str, text: str | bytes) -> None:
    assert faults(path, text, tests=()) == ""


def test_secret__never_reaches_the_history_and_is_not_told() -> None:
    key = "sk-live9aZ8bY7cX6dW5eV4fU3gT2hS1"
    said = faults("src/a.py", f"x = 1\nKEY = '{key}'\n")
    assert "src/a.py:2 looks like a model provider's key" in said
    assert key not in said


def test_size__of_a_file_and_of_a_change_is_bounded_and_so_is_what_is_said() -> None:
    assert "a file may have 1.0 MB" in faults("data/a.bin", b"x" * (FILE_BYTES_MAX + 1), tests=())
    many = {f"data/{n}.bin": b"x" * FILE_BYTES_MAX for n in range(CHANGE_BYTES_MAX // FILE_BYTES_MAX + 1)}
    assert "a task may write 4.0 MB" in faults_of(Change(before={}, after=many))[0]
    bad: dict[str, bytes | None] = {f"tests/test_{n}.py": b"" for n in range(FAULTS_MAX + 5)}
    assert len(faults_of(Change(before={}, after=bad, tests=tuple(bad)))) == FAULTS_MAX

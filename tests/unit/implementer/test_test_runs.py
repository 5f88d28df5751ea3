"""Status 0 is not believed of a runner that does not say what it ran."""

import pytest

from runtime.implementer.test_runs import hollow

UNITTEST = "..\n----\nRan 2 tests in 0.001s\n\nOK\n"


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("python3 -m unittest tests/test_a.py", UNITTEST),
        ("python3 -m unittest a", "Ran 2 tests in 0.001s\n\nOK (skipped=1)\n"),
        ("cd app && PYTHONPATH=src python -m pytest -q tests", "..  [100%]\n2 passed in 0.02s\n"),
        (".venv/bin/pytest tests/test_a.py", "\x1b[32m\x1b[1m1 passed\x1b[0m, 1 skipped in 0.1s"),
        ("uv run pytest", "1 passed"),
        ("node --test tests/a.test.mjs", "# tests 1\n# pass 1\n# fail 0\n"),
        (
            "node --test",
            "\N{INFORMATION SOURCE} tests 3\n\N{INFORMATION SOURCE} pass 3\n\N{INFORMATION SOURCE} fail 0\n",
        ),
        ("npx vitest run", " Test Files  1 passed (1)\n      Tests  3 passed (3)\n"),
        ("npx jest", "Tests:       1 skipped, 2 passed, 3 total\n"),
        ("npx mocha tests", "  2 passing (10ms)\n"),
        ("pytest -qq", "..\n"),
        ("pytest --version", "pytest 8.0\n"),
        ("python3 -m unittest a > log.txt", ""),
        ("pip install pytest", "Successfully installed pytest\n"),
        ("npm test", ""),
        ("sh tests/run.sh", ""),
        ("echo 'unclosed", ""),
    ],
)
def test_run__that_tells_what_it_ran_or_is_of_no_known_runner_is_believed(command: str, output: str) -> None:
    assert hollow(command, output) == ""


@pytest.mark.parametrize(
    ("command", "output", "words"),
    [
        ("python3 -m unittest tests/test_a.py", "", "without the summary of unittest"),
        ("python3 -m unittest tests/test_a.py", "Ran 0 tests in 0.000s\n\nOK\n", "any test passed"),
        ("python3 -m unittest a", "Ran 2 tests in 0.001s\n\nOK (skipped=2)\n", "any test passed"),
        ("python3 -m pytest", "collected 2 items\n", "any test passed"),
        ("pytest", "2 skipped in 0.01s\n", "any test passed"),
        ("node --test", "# tests 0\n# pass 0\n", "any test passed"),
        ("npm run build && npx vitest run", "built in 3 s\n", "any test passed"),
    ],
)
def test_run__that_ran_nothing_is_not_believed(command: str, output: str, words: str) -> None:
    assert words in hollow(command, output)

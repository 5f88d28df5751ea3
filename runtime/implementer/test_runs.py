"""Whether a test run that ended well has run any test: a program that ends with status 0 may have been made to.

Asked of the runners whose summaries are known. A run that was ended from inside shows none.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_PARTS = re.compile(r"&&|\|\||[;|]")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*")
_CARRIERS = (("npx",), ("uv", "run"), ("poetry", "run"), ("env",))
_RUNS_NOTHING = frozenset({"--version", "--help", "-h", "--collect-only", "--co"})
_PASSED: Mapping[str, re.Pattern[str]] = {
    "unittest": re.compile(r"^Ran (\d+) tests? in ", re.MULTILINE),
    "pytest": re.compile(r"\b(\d+) (?:passed|xpassed)\b"),
    "node": re.compile(r"^\S*\s*pass (\d+)\b", re.MULTILINE),
    "jest": re.compile(r"^\s*Tests:.*?\b(\d+) passed\b", re.MULTILINE),
    "vitest": re.compile(r"^\s*Tests\s.*?\b(\d+) passed\b", re.MULTILINE),
    "mocha": re.compile(r"^\s*(\d+) passing\b", re.MULTILINE),
}
"""Runner -> the line of its summary that says how many passed; of unittest, how many ran."""
_SKIPPED = re.compile(r"^OK \(.*?\bskipped=(\d+)", re.MULTILINE)


def hollow(command: str, output: str) -> str:
    """Why a command that passed proves nothing, in words; empty where it does, or where nobody can say."""
    runners = [runner for part in _PARTS.split(command) if (runner := _runner(part))]
    shown = _COLOUR.sub("", output)
    for runner in dict.fromkeys(runners):
        counts = [int(found[1]) for found in _PASSED[runner].finditer(shown)]
        if runner == "unittest":
            counts.append(-sum(int(found[1]) for found in _SKIPPED.finditer(shown)))
            if not counts[:-1]:
                return f"It ended with status 0 and without the summary of {runner}: something ended it before."
        if sum(counts) <= 0:
            return f"It ended with status 0, and {runner} does not say that any test passed."
    return ""


def _runner(part: str) -> str:
    """The known test runner that one command of a line is, if it is one whose summary is shown."""
    try:
        words = shlex.split(part)
    except ValueError:
        return ""
    while words and _ASSIGNMENT.fullmatch(words[0]):
        words = words[1:]
    for carrier in _CARRIERS:
        if tuple(words[: len(carrier)]) == carrier:
            words = words[len(carrier) :]
    if not words or _RUNS_NOTHING.intersection(words) or ">" in part or _is_silent(words):
        return ""
    program = PurePosixPath(words[0]).name
    if program.startswith("python") and "-m" in words[:-1]:
        program = words[words.index("-m") + 1]
    if program == "node":
        return "node" if "--test" in words else ""
    program = {"py.test": "pytest"}.get(program, program)
    return program if program in _PASSED and program != "node" else ""


def _is_silent(words: Sequence[str]) -> bool:
    """pytest prints no summary when it is told twice to be quiet."""
    return "-qq" in words or sum(word in ("-q", "--quiet") for word in words) > 1

"""What comes after attempts that failed: another one, the stronger model, or no more. Pure.

An attempt that made the same change as an earlier one, or failed in the same way, has learned nothing: another round
with the same model would be paid for the same result.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

REDONE_MAX = 3
"""So many attempts in a row may go back because others changed main meanwhile, before they count as failures."""

# What differs from run to run, though nothing is different: times, dates, ids, addresses, temporary paths.
_FLEETING = (
    (re.compile(r"\x1b\[[0-9;]*[A-Za-z]"), ""),
    (re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?"), "DATE"),
    (re.compile(r"\b\d\d:\d\d:\d\d(?:[.,]\d+)?\b"), "TIME"),
    (re.compile(r"\b\d+(?:\.\d+)? ?(?:s|sec|secs|seconds|ms|us)\b"), "TIME"),
    (re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE), "ID"),
    (re.compile(r"\b0x[0-9a-f]+\b", re.IGNORECASE), "ADDRESS"),
    (re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{16,64}\b", re.IGNORECASE), "HASH"),
    (re.compile(r"/tmp/[^\s'\":]+"), "/tmp/X"),
    (re.compile(r"\b(pid|port)([ =:#]*)\d+\b", re.IGNORECASE), r"\1\2N"),
    (re.compile(r"\b(127\.0\.0\.1|localhost|\[::1\]):\d+\b"), r"\1:N"),
    (re.compile(r"[ \t]+"), " "),
)
_PLACES = re.compile(rb"^(?:index [0-9a-f]+\.\.[0-9a-f]+.*|@@ .* @@.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """An attempt that did not land. Equal marks mean the same; an empty one is not known."""

    cause: str
    """As in `Attempt`."""
    failure: str
    change: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How to go on."""

    stronger: bool = False
    hopeless: bool = False
    """Every attempt that may be paid for has failed."""
    repeated: str = ""
    """What the newest attempt did as one before it: `made the same change`, `failed in the same way`."""


def way_on(tries: Sequence[Tried], rounds_max: int, *, has_stronger: bool) -> Way:
    """After these attempts at one item, oldest first, since it last landed.

    The stronger model has one attempt: after `rounds_max` failures, or as soon as one repeats another; when it is no
    other model, a repetition is the end. Attempts that went back because main had moved are no failures, up to
    REDONE_MAX of them.
    """
    counted: list[Tried] = []
    redone = 0
    strong_had_turn = False
    way = Way()
    for each in tries:
        redone += each.cause != "checks"
        if each.cause != "checks" and redone <= REDONE_MAX:
            continue
        counted.append(each)
        repeated = _repeats(counted)
        if strong_had_turn:
            return Way(stronger=True, hopeless=True, repeated=repeated or way.repeated)
        if len(counted) >= rounds_max or repeated:
            strong_had_turn = True
            way = Way(stronger=True, hopeless=bool(repeated) and not has_stronger, repeated=repeated)
            if way.hopeless:
                return way
    return way


def failure_mark(report: str) -> str:
    for pattern, name in _FLEETING:
        report = pattern.sub(name, report)
    return _mark("\n".join(line.strip() for line in report.splitlines() if line.strip()).encode())


def change_mark(patch: bytes) -> str:
    """Of a git diff: the same for the same change, wherever in the files it is made."""
    return _mark(_PLACES.sub(b"", patch))


def _repeats(tries: Sequence[Tried]) -> str:
    *before, last = tries
    if last.change and any(last.change == each.change for each in before):
        return "made the same change"
    if last.failure and any(last.failure == each.failure for each in before):
        return "failed in the same way"
    return ""


def _mark(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]

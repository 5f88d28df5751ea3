"""The load's own memory, which no kill of the service touches: what was sent, and what was answered when.

One line each: `s <number>` before a message is first sent; `a <number> <time>` when it was acknowledged; `r <number>
<time>` when it was refused by a rule; `x <number> <text>` for an answer that nobody should ever get.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A diary, read."""

    next_number: int
    open: Sequence[int]
    """Sent and not answered."""
    accepted: Sequence[int]
    acknowledged_at: Sequence[float]
    """Unix times, in order; refusals count, for they are answers too."""
    wrong: Sequence[str]
    slowest_s: float
    """The longest time from first sending to the answer."""


class Diary:
    """Lines reach the kernel before the call returns, so they survive the writer's kill -9."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("a", buffering=1)

    def sent(self, number: int) -> None:
        self._file.write(f"s {number} {time.time():.3f}\n")

    def acknowledged(self, number: int) -> None:
        self._file.write(f"a {number} {time.time():.3f}\n")

    def refused(self, number: int) -> None:
        self._file.write(f"r {number} {time.time():.3f}\n")

    def wrong(self, number: int, text: str) -> None:
        self._file.write(f"x {number} {' '.join(text.split())}\n")


def read(path: Path) -> Told:
    """Of a diary that may be being written: a line without its end is not there yet."""
    sent: dict[int, float] = {}
    accepted: list[int] = []
    times: list[float] = []
    wrong: list[str] = []
    slowest_s = 0.0
    next_number = 0
    text = path.read_text() if path.exists() else ""
    for line in text.split("\n")[:-1]:
        what, number_text, rest = line.split(" ", 2)
        number = int(number_text)
        if what == "s":
            sent[number] = float(rest)
            next_number = max(next_number, number + 1)
        elif what == "x":
            wrong.append(f"message {number}: {rest}")
        else:
            at = float(rest)
            slowest_s = max(slowest_s, at - sent.pop(number))
            times.append(at)
            if what == "a":
                accepted.append(number)
    return Told(
        next_number=next_number,
        open=sorted(sent),
        accepted=accepted,
        acknowledged_at=times,
        wrong=wrong,
        slowest_s=slowest_s,
    )

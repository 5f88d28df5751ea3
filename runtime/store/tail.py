"""Where an entity's newest snapshot and the events after it stand in the journal, as one short text.

    ""              nothing yet               "s4"        a snapshot at position 4, no event after it
    "4 7 19"        three events              "s4 7 19"   a snapshot, then two events
    "*"             more events than are listed; "s4 *" the same after a snapshot

The text is a hint: whoever reads by it checks that it led to the right entries, and looks through the journal when
it did not, or when it ends with a star.
"""

from collections.abc import Sequence
from dataclasses import dataclass

LISTED_MAX = 256
"""Longer tails are not listed, because every append writes its entity's tail again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    snapshot: int | None
    """Position of the newest snapshot."""
    events: Sequence[int]
    """Positions of the events after it, in order; empty when not `listed`."""
    listed: bool

    @property
    def positions(self) -> Sequence[int]:
        return self.events if self.snapshot is None else [self.snapshot, *self.events]


def parse(text: str) -> Tail:
    """Raises ValueError for a text that is none of these."""
    snapshot = None
    if text.startswith("s"):
        first, _, text = text[1:].partition(" ")
        snapshot = int(first)
    if text == "*":
        return Tail(snapshot=snapshot, events=(), listed=False)
    return Tail(snapshot=snapshot, events=[int(part) for part in text.split()], listed=True)


def extended(text: str, positions: Sequence[int]) -> str:
    """The tail after events at `positions`."""
    if not positions or text.endswith("*"):
        return text
    if text.count(" ") + 1 + len(positions) > LISTED_MAX:
        return f"{text.split(' ', 1)[0]} *" if text.startswith("s") else "*"
    added = " ".join(map(str, positions))
    return f"{text} {added}" if text else added


def restarted(snapshot: int) -> str:
    """The tail after a snapshot at this position."""
    return f"s{snapshot}"

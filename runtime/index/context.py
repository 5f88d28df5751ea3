"""Hits as a part of a prompt."""

import re
from collections.abc import Iterable

from runtime.index.hit import Hit

_FENCE_RUN = re.compile(r"`{3,}")


def context_for(hits: Iterable[Hit], byte_budget: int) -> str:
    """The best hits that fit `byte_budget` (UTF-8 bytes), in order of path and line; empty when none fits.

    Chosen by score; a hit that is too large gives way to smaller ones behind it. The text names no commit, score or
    time, so an unchanged choice is an unchanged prompt, which providers' prompt caches recognise.
    """
    chosen: dict[tuple[str, int, int, str], str] = {}
    left = byte_budget
    for hit in sorted(hits, key=lambda hit: (-hit.score, *_place(hit))):
        block = _block(hit)
        size = len(block.encode()) + (2 if chosen else 0)  # the blank line between two blocks
        if _place(hit) not in chosen and size <= left:
            chosen[_place(hit)] = block
            left -= size
    return "\n\n".join(block for _, block in sorted(chosen.items()))


def _place(hit: Hit) -> tuple[str, int, int, str]:
    return (hit.path, hit.start_line, hit.end_line, hit.text)


def _block(hit: Hit) -> str:
    """A header `path:first-last symbol` and the text in a fence longer than any inside it."""
    symbol = f" {hit.symbol}" if hit.symbol else ""
    fence = "`" * max([3, *(len(run) + 1 for run in _FENCE_RUN.findall(hit.text))])
    return f"{hit.path}:{hit.start_line}-{hit.end_line}{symbol}\n{fence}\n{hit.text}\n{fence}"

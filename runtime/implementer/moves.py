"""How a model says that a file is to be removed or renamed, whichever edit engine asks it.

Read by `blocks` here and by the worker of `aider` in Aider's own Python, so it imports nothing of ours.
"""

import re
from collections.abc import Iterator

MOVES_NOTE = """To remove a file, or to rename one, write a line like these, alone and outside of any block:
<<<<<<< DELETE src/old.py
<<<<<<< RENAME src/old.py => src/new.py
Change a renamed file afterwards, under its new path. All these paths must be among the files that may be changed."""

_DELETE = re.compile(r"<{5,9} DELETE (?P<path>\S.*?)\s*")
_RENAME = re.compile(r"<{5,9} RENAME (?P<path>\S.*?) => (?P<new>\S.*?)\s*")
_BLOCK_BEGINS = re.compile(r"<{5,9} SEARCH\s*")
_BLOCK_ENDS = re.compile(r">{5,9} REPLACE\s*")


def read_move(line: str) -> tuple[str, str | None] | None:
    """A path and its new one, which is None for a removal; None for any other line."""
    if found := _DELETE.fullmatch(line):
        return found["path"], None
    if found := _RENAME.fullmatch(line):
        return found["path"], found["new"]
    return None


def read_moves(reply: str) -> Iterator[tuple[str, str | None]]:
    """Those outside of edit blocks, in order."""
    is_inside = False
    for line in reply.splitlines():
        if _BLOCK_BEGINS.fullmatch(line):
            is_inside = True
        elif _BLOCK_ENDS.fullmatch(line):
            is_inside = False
        elif not is_inside and (move := read_move(line)):
            yield move

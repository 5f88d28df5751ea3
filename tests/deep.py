"""A folder that Python's own walkers cannot follow."""

import os
from pathlib import Path

DEPTH = 3_000


def nest(folder: Path) -> None:
    """Makes that many folders, each in the one before it."""
    inside = os.open(folder, os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir("d", dir_fd=inside)
        outside, inside = inside, os.open("d", os.O_RDONLY, dir_fd=inside)
        os.close(outside)
    os.close(inside)

"""A folder that Python's own walkers cannot follow."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEPTH = 3_000


@contextmanager
def nest(folder: Path) -> Iterator[None]:
    """That many folders, each in the one before it; at the end they are gone, or nobody's temporary folder would be."""
    inside = os.open(folder, os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir("d", dir_fd=inside)
        outside, inside = inside, os.open("d", os.O_RDONLY, dir_fd=inside)
        os.close(outside)
    os.close(inside)
    try:
        yield
    finally:
        subprocess.run(["rm", "-rf", "--", folder / "d"], check=False)

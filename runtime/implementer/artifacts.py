"""Files that are brought out of a tree in which generated code has written: nothing of it is trusted."""

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from runtime.errors import BadInputError
from runtime.project.paths import is_forbidden_part


def read_artifacts(folder: Path, paths: Sequence[str], bytes_max: int) -> dict[str, bytes]:
    """Blocking. Plain files of at most `bytes_max` each; what is a link, leads through one, or is missing is left out.

    Raises BadInputError for a path that is not inside the tree.
    """
    found: dict[str, bytes] = {}
    for path in paths:
        *folders, name = path.split("/")
        if any(map(is_forbidden_part, (*folders, name))):
            raise BadInputError(f"{path!r} is not a path inside the tree.", "Use a relative path.")
        with contextlib.suppress(OSError):
            content = _read(folder, folders, name, bytes_max)
            if content is not None:
                found[path] = content
    return found


def _read(folder: Path, folders: Sequence[str], name: str, bytes_max: int) -> bytes | None:
    """Opens each part in the one before, so that no link on the way can lead elsewhere."""
    with contextlib.ExitStack() as opened:
        here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        opened.callback(os.close, here)
        for part in folders:
            here = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            opened.callback(os.close, here)
        # A pipe in its place would otherwise wait for a writer.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=here)
        with os.fdopen(descriptor, "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode) or facts.st_size > bytes_max:
                return None
            return file.read(bytes_max)

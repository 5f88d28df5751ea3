"""A project's files in memory, without git: as they go to whoever edits or checks them."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from runtime.errors import BadInputError, UnavailableError
from runtime.project.paths import is_plain_path

Tree = Mapping[str, bytes]
"""Each file's content by its path. That it may be executed is not kept: edits bring contents alone."""
_IN_THE_WAY = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)


class TreeAt(NamedTuple):
    """The files of one commit."""

    commit: str
    files: Tree


def write_tree(folder: Path, files: Tree) -> None:
    """Blocking. Writes the files into a folder that nobody else writes in; it is made where it is missing.

    Raises BadInputError for a path out of the folder, and nothing is written then, or where one path is a folder of
    another; UnavailableError when the disk does not take them.
    """
    for path in files:
        if not is_plain_path(path):
            raise BadInputError(f"{path!r} is not a path inside the project.", "Use a relative path.")
    made: set[str] = set()
    path = ""
    try:
        for path, content in files.items():
            target = os.path.join(folder, path)
            if (parent := os.path.dirname(target)) not in made:
                os.makedirs(parent, exist_ok=True)
                made.add(parent)
            with open(target, "xb") as file:
                file.write(content)
    except OSError as error:
        if error.errno in _IN_THE_WAY:
            raise BadInputError(f"{path} cannot be written: {error.strerror}.", "Use another path.") from error
        raise UnavailableError(
            f"{path} cannot be written: {error.strerror}.", "See whether its disk is full."
        ) from error

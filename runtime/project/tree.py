"""A project's files in memory, without git: as they go to whoever edits or checks them."""

import errno
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from runtime.errors import BadInputError, UnavailableError
from runtime.index.messages import Change
from runtime.project.paths import is_plain_path

Tree = Mapping[str, bytes]
"""Each file's content by its path. That it may be executed is not kept: edits bring contents alone."""
CHANGED_FILES_MAX = 500
CHANGED_BYTES_MAX = 4 << 20
_IN_THE_WAY = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)


class TreeAt(NamedTuple):
    """The files of one commit."""

    commit: str
    files: Tree


def change_between(before: TreeAt, after: TreeAt) -> Change | None:
    """What the later files are other than the earlier ones; None where that is more than CHANGED_FILES_MAX files or
    CHANGED_BYTES_MAX."""
    new = {path: content for path, content in after.files.items() if before.files.get(path) != content}
    if len(new) > CHANGED_FILES_MAX or sum(map(len, new.values())) > CHANGED_BYTES_MAX:
        return None
    files = {path: (git_id(content), content) for path, content in new.items()}
    return Change(since=before.commit, files=files, removed=sorted(before.files.keys() - after.files.keys()))


def git_id(content: bytes) -> str:
    """Git's name of a file's content. Source: git's gitformat-loose(5)."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


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

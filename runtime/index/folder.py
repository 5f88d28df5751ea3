"""A folder of somebody's own code as a tree to index, whether it is a git repository or not."""

import os
import stat
from collections.abc import Collection, Iterator, Mapping
from hashlib import sha256
from pathlib import Path

from git.cmd import Git
from git.exc import GitCommandError

from runtime.errors import BadInputError
from runtime.index.chunk import FILE_BYTES_MAX
from runtime.index.source import Reading, read_file

FILES_MAX = 100_000

_PASSED_OVER = {"node_modules", "__pycache__"}
_PRIVATE_FOLDER = "pyvenv.cfg"
"""A folder that holds it is an environment of Python's, not somebody's code."""
_GIT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_CONFIG_COUNT": "3",
    # A repository may name programs in its own configuration; none is run.
    "GIT_CONFIG_KEY_0": "core.fsmonitor",
    "GIT_CONFIG_VALUE_0": "false",
    "GIT_CONFIG_KEY_1": "core.hooksPath",
    "GIT_CONFIG_VALUE_1": "/dev/null",
    "GIT_CONFIG_KEY_2": "safe.directory",
    "GIT_CONFIG_VALUE_2": "*",
}


class Folder:
    """The files below `folder` as they are now, changes that are in no commit included.

    Of a git repository what git tracks or would add; elsewhere all but hidden folders, packages and environments.
    Links are not followed. A file that changes while it is read is read again by the next update.
    """

    def __init__(self, folder: Path) -> None:
        """Blocks. Raises BadInputError when it is no folder, or holds more than FILES_MAX files."""
        self._folder = folder.resolve()
        if not self._folder.is_dir():
            raise BadInputError(f"{folder} is not a folder.", "Name the folder that holds your code.")
        self.ids = self._known()
        self.commit = sha256("\n".join(f"{path}\0{self.ids[path]}" for path in sorted(self.ids)).encode()).hexdigest()

    def read(self, paths: Collection[str]) -> Mapping[str, Reading]:
        found: dict[str, Reading] = {}
        for path in paths:
            try:
                descriptor = os.open(self._folder / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                with os.fdopen(descriptor, "rb") as file:
                    if stat.S_ISREG(os.fstat(descriptor).st_mode):
                        # Of a file that is too large to be indexed, enough to see that it is.
                        found[path] = read_file(path, file.read(FILE_BYTES_MAX + 1))
            except OSError:
                continue
        return found

    def _known(self) -> dict[str, str]:
        ids: dict[str, str] = {}
        for path in self._tracked() or self._walked():
            try:
                seen = (self._folder / path).lstat()
            except OSError:
                continue
            if not stat.S_ISREG(seen.st_mode):
                continue
            ids[path] = f"{seen.st_ino}-{seen.st_size}-{seen.st_mtime_ns}-{seen.st_ctime_ns}"
            if len(ids) > FILES_MAX:
                raise BadInputError(
                    f"{self._folder} holds more than {FILES_MAX} files.", "Name a folder further down, or a repository."
                )
        return ids

    def _tracked(self) -> list[str]:
        """Empty where git does not know the folder."""
        git = Git(str(self._folder))
        git.update_environment(**_GIT)
        try:
            listed = git.execute(
                ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"],
                stdout_as_string=False,
            )
        except GitCommandError:
            return []
        assert isinstance(listed, bytes)
        return [os.fsdecode(path) for path in listed.split(b"\0") if path]

    def _walked(self) -> Iterator[str]:
        for root, folders, names in os.walk(self._folder):
            folders[:] = sorted(name for name in folders if self._is_looked_into(Path(root) / name))
            for name in sorted(names):
                yield str((Path(root) / name).relative_to(self._folder))

    def _is_looked_into(self, folder: Path) -> bool:
        if folder.name.startswith(".") or folder.name in _PASSED_OVER:
            return False
        return not (folder / _PRIVATE_FOLDER).exists()

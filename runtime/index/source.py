"""What is indexed: the files of one commit."""

from collections.abc import Collection, Mapping
from hashlib import sha256
from typing import Protocol


class Source(Protocol):
    """A tree that does not change."""

    @property
    def commit(self) -> str:
        """Names the tree; every hit says it."""

    @property
    def ids(self) -> Mapping[str, str]:
        """Path -> a name of its content, never empty: equal names are equal contents."""

    def read(self, paths: Collection[str]) -> Mapping[str, bytes]:
        """The contents of those of `paths` that are there. Blocks."""


class Files:
    """A tree in memory."""

    def __init__(self, commit: str, files: Mapping[str, bytes]) -> None:
        self.commit = commit
        self.ids = {path: sha256(content).hexdigest() for path, content in files.items()}
        self._files = files

    def read(self, paths: Collection[str]) -> Mapping[str, bytes]:
        return {path: self._files[path] for path in paths}

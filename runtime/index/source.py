"""What is indexed: the files of one commit, the documents of one person."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from runtime.index.chunk import CHUNKS_PER_FILE_MAX, Chunk, chunk_file, why_unreadable


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a file comes to."""

    chunks: Sequence[Chunk]
    skipped: str = ""
    """Why it is not, or not wholly, searchable; empty when it is."""


class Source(Protocol):
    """A tree that does not change."""

    @property
    def commit(self) -> str:
        """Names the tree; every hit says it."""

    @property
    def ids(self) -> Mapping[str, str]:
        """Path -> a name of its content, never empty: equal names are equal contents."""

    def read(self, paths: Collection[str]) -> Mapping[str, Reading]:
        """Of those of `paths` that are there. Blocks."""


class Files:
    """A tree in memory."""

    def __init__(self, commit: str, files: Mapping[str, bytes]) -> None:
        self.commit = commit
        self.ids = {path: sha256(content).hexdigest() for path, content in files.items()}
        self._files = files

    def read(self, paths: Collection[str]) -> Mapping[str, Reading]:
        return {path: read_file(path, self._files[path]) for path in paths}


def read_file(path: str, content: bytes) -> Reading:
    """Of code or text. Never raises, whatever the content."""
    if reason := why_unreadable(path, content):
        return Reading(chunks=(), skipped=reason)
    chunks = chunk_file(path, content)
    is_cut = len(chunks) == CHUNKS_PER_FILE_MAX
    return Reading(chunks=chunks, skipped=f"only its first {CHUNKS_PER_FILE_MAX} chunks" if is_cut else "")

"""What is indexed of a repository: which of its files, and how they are read."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import Self

from runtime.errors import BadInputError
from runtime.index.chunk import FILE_BYTES_MAX
from runtime.index.source import Reading, read_file
from runtime.index.tree import is_test_path
from runtime.project.paths import is_plain_path
from runtime.repositories.git import BareRepository

FILES_MAX = 1_000
"""That are indexed. Source: spec/assistant.md §12."""
LISTING_BYTES_MAX = 32 << 20
"""Some 300,000 paths. A tree may repeat itself: a few objects can stand for more than could ever be listed."""
_CODE = frozenset(
    {
        *(".py", ".js", ".ts", ".jsx", ".tsx", ".java", ".cpp", ".c", ".h", ".hpp", ".go", ".rs", ".rb", ".php"),
        *(".swift", ".kt", ".scala", ".sh", ".sql", ".vue"),
    }
)
_MORE = frozenset({".html", ".css", ".scss", ".md", ".json", ".yaml", ".yml", ".xml"})
ENDINGS = _CODE | _MORE
"""Source: spec/assistant.md §12."""

_PLAIN_MODES = ("100644", "100755")
_AT_ONCE = 32
"""Files that are in memory together, of FILE_BYTES_MAX each at the most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    path: str
    blob: str
    size_bytes: int | None
    """None of one that was too large to be downloaded."""


class RepositoryContent:
    """One commit: its files with one of `ENDINGS`, at most FILES_MAX. Links and submodules are none."""

    def __init__(self, commit: str, repository: BareRepository, files: Sequence[_File]) -> None:
        """For `of`."""
        chosen, over = files[:FILES_MAX], files[FILES_MAX:]
        self.commit = commit
        self.ids = {file.path: file.blob for file in chosen}
        self.over = dict.fromkeys([file.path for file in over], f"beyond the first {FILES_MAX} files")
        """What is left out because there is too much, in the order of its worth, with that reason."""
        self._files = {file.path: file for file in chosen}
        self._repository = repository

    @classmethod
    def of(cls, commit: str, repository: BareRepository) -> Self:
        """Blocks. Raises BadInputError for a repository with too many files, UnavailableError where git fails."""
        listed = [file for file in _listed(commit, repository) if _ending(file.path) in ENDINGS]
        return cls(commit, repository, sorted(listed, key=_worth))

    def read(self, paths: Collection[str]) -> Mapping[str, Reading]:
        wanted = [self._files[path] for path in paths if path in self._files]
        readings = {file.path: _TOO_LARGE for file in wanted if not _is_small(file)}
        small = iter([file for file in wanted if _is_small(file)])
        while some := list(islice(small, _AT_ONCE)):
            contents = _contents(self._repository, [file.blob for file in some])
            readings |= {file.path: read_file(file.path, contents[file.blob]) for file in some}
        return readings


_TOO_LARGE = Reading(chunks=(), skipped=f"larger than {FILE_BYTES_MAX >> 20} MiB")


def _is_small(file: _File) -> bool:
    return file.size_bytes is not None and file.size_bytes <= FILE_BYTES_MAX


def _worth(file: _File) -> tuple[bool, bool, int, str]:
    """Where not all fit: code before texts and data, the product before its tests, the top before what is below."""
    path = file.path
    return _ending(path) not in _CODE, is_test_path(path), path.count("/"), path


def _ending(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _listed(commit: str, repository: BareRepository) -> Iterator[_File]:
    with repository.running("ls-tree", "-r", "-l", "-z", "--full-tree", commit) as (_, stdout):
        told = stdout.read(LISTING_BYTES_MAX + 1)
        if len(told) > LISTING_BYTES_MAX:
            raise BadInputError("The repository has too many files to be searched.", "Clone a smaller one.")
    for line in told.split(b"\0")[:-1]:
        facts, _, name = line.partition(b"\t")
        mode, _, blob, size = facts.decode().split()
        path = name.decode("utf-8", "replace")
        if mode in _PLAIN_MODES and is_plain_path(path):
            yield _File(path=path, blob=blob, size_bytes=int(size) if size.isdigit() else None)


def _contents(repository: BareRepository, blobs: Sequence[str]) -> dict[str, bytes]:
    with repository.running("cat-file", "--batch", "--buffer") as (stdin, stdout):
        stdin.write("".join(f"{blob}\n" for blob in blobs).encode())
        stdin.close()
        found: dict[str, bytes] = {}
        for blob in blobs:
            # `<id> blob <size>`, a line end, the content, a line end.
            size = int(stdout.readline().split()[2])
            found[blob] = stdout.read(size)
            stdout.read(1)
    return found

"""A project's index: what of a commit is searched, and what it tells of its own work."""

from itertools import pairwise
from pathlib import Path

import pytest

from runtime.errors import StoreUnavailableError
from runtime.ids import BlobId, ProjectId, UserId, index_entity
from runtime.index.embedder import NoEmbedder
from runtime.index.entity import IndexEntity
from runtime.index.messages import Change, Found, SearchIndex, UpdateIndex
from runtime.project.repository import Author, ProjectRepository
from runtime.project.tree import TreeAt, change_between
from runtime.reports.port import IndexFigures
from runtime.store.seal import Seal

ANN = UserId("ann")
BUNDLE = BlobId("b" * 64)


class Blobs:
    def __init__(self, bundle: bytes) -> None:
        self._bundle = bundle

    async def get_blob(self, blob: BlobId) -> bytes:
        return self._bundle


class Reports:
    def __init__(self) -> None:
        self.told: list[IndexFigures] = []
        self.raises: Exception | None = None

    async def indexed(self, figures: IndexFigures) -> None:
        if self.raises:
            raise self.raises
        self.told.append(figures)


@pytest.fixture
def commit(tmp_path: Path) -> tuple[str, bytes]:
    author = Author(name="Ann", email="ann@example.com")
    repository = ProjectRepository.init(tmp_path / "repository", author)
    made = repository.write_and_commit(
        {"cart.py": "def total():\n    return 1\n", "TODO.md": "- [ ] T-001 the total of a cart\n"}, "cart", author
    )
    return made, repository.bundle()


def index(folder: Path, bundle: bytes, reports: Reports) -> IndexEntity:
    entity = index_entity(ProjectId("p1"))
    return IndexEntity(entity, Blobs(bundle), NoEmbedder(), folder, Seal(bytes(32)), reports)  # type: ignore[arg-type]


async def test_plan__is_not_searched(tmp_path: Path, commit: tuple[str, bytes]) -> None:
    entity = index(tmp_path, commit[1], Reports())
    await entity.receive(UpdateIndex(owner=ANN, commit=commit[0], bundle=BUNDLE))
    found = await entity.receive(SearchIndex(owner=ANN, query="total of a cart", limit=9))
    assert isinstance(found, Found)
    assert {hit.path for hit in found.hits} == {"cart.py"}


async def test_change__brings_an_index_to_what_the_whole_bundle_would(tmp_path: Path) -> None:
    author = Author(name="Ann", email="ann@example.com")
    repository = ProjectRepository.init(tmp_path / "repository", author)
    trees: list[dict[str, str | bytes | None]] = [
        {"cart.py": "def total():\n    return 1\n", "a b.py": "def blank(): ...\n", "TODO.md": "- [ ] the total\n"},
        {"cart.py": "def total():\n    return 2\n", "new/tax.py": "def tax(): ...\n", "TODO.md": "- [x] the total\n"},
        {"a b.py": None, "new/tax.py": None, "data.bin": b"\0\1", "łódź.py": "def boat(): ...\n"},
        {"cart.py": None, "file": "another file\n", "TODO.md": None},
    ]
    at = [TreeAt(repository.write_and_commit(tree, "next", author), repository.contents()) for tree in trees]
    commits = [tree.commit for tree in at]
    repository.reset_hard(commits[0])
    changed = index(tmp_path / "changed", repository.bundle(), Reports())
    await changed.receive(UpdateIndex(owner=ANN, commit=commits[0], bundle=BUNDLE))
    changed._ledger = Blobs(b"no bundle")  # type: ignore[assignment]
    for since, tree in pairwise(at):
        commit, told = tree.commit, change_between(since, tree)
        repository.reset_hard(commit)
        await changed.receive(UpdateIndex(owner=ANN, commit=commit, bundle=BUNDLE, change=told))

        whole = index(tmp_path / commit, repository.bundle(), Reports())
        await whole.receive(UpdateIndex(owner=ANN, commit=commit, bundle=BUNDLE))
        for query in ("total", "tax", "blank", "boat", "file"):
            search = SearchIndex(owner=ANN, query=query, limit=9)
            assert await changed.receive(search) == await whole.receive(search)
        assert changed._shard.content_ids == whole._shard.content_ids


async def test_change__that_begins_elsewhere_is_not_taken(tmp_path: Path, commit: tuple[str, bytes]) -> None:
    entity = index(tmp_path, commit[1], Reports())
    elsewhere = Change(since="f" * 40, files={"wrong.py": ("0" * 40, b"total = 1\n")}, removed=())
    await entity.receive(UpdateIndex(owner=ANN, commit=commit[0], bundle=BUNDLE, change=elsewhere))

    found = await entity.receive(SearchIndex(owner=ANN, query="total", limit=9))
    assert {hit.path for hit in found.hits} == {"cart.py"}


async def test_figures__are_told_once_a_commit_with_the_questions_since_the_last(
    tmp_path: Path, commit: tuple[str, bytes]
) -> None:
    reports = Reports()
    entity = index(tmp_path, commit[1], reports)
    for _ in range(3):
        await entity.receive(SearchIndex(owner=ANN, query="total", limit=4))
    for _ in range(2):
        await entity.receive(UpdateIndex(owner=ANN, commit=commit[0], bundle=BUNDLE))
    (told,) = reports.told
    assert (told.project, told.commit, told.queries) == ("p1", commit[0], 3)
    assert told.chunks >= 1
    assert 0 <= told.query_ms_max <= told.query_ms
    assert told.update_ms > 0


async def test_figures__that_cannot_be_kept_spoil_no_index(tmp_path: Path, commit: tuple[str, bytes]) -> None:
    reports = Reports()
    reports.raises = StoreUnavailableError("the disk is full")
    entity = index(tmp_path, commit[1], reports)
    await entity.receive(UpdateIndex(owner=ANN, commit=commit[0], bundle=BUNDLE))
    found = await entity.receive(SearchIndex(owner=ANN, query="total", limit=1))
    assert isinstance(found, Found)
    assert [hit.path for hit in found.hits] == ["cart.py"]


async def test_an_update__is_in_the_file_soon_and_found_by_the_next_process(
    tmp_path: Path, commit: tuple[str, bytes]
) -> None:
    first = index(tmp_path / "index", commit[1], Reports())
    await first.wake()
    await first.receive(UpdateIndex(owner=ANN, commit=commit[0], bundle=BUNDLE))
    await first.saved()

    second = index(tmp_path / "index", b"", Reports())
    await second.wake()

    found = await second.receive(SearchIndex(owner=ANN, query="total", limit=1))
    assert isinstance(found, Found)
    assert (found.commit, [hit.path for hit in found.hits]) == (commit[0], ["cart.py"])


async def test_an_update__that_cannot_be_saved_is_searched_all_the_same(
    tmp_path: Path, commit: tuple[str, bytes]
) -> None:
    (tmp_path / "index").write_text("a file where the folder would be")
    entity = index(tmp_path / "index", commit[1], Reports())
    await entity.wake()
    await entity.receive(UpdateIndex(owner=ANN, commit=commit[0], bundle=BUNDLE))
    await entity.saved()

    found = await entity.receive(SearchIndex(owner=ANN, query="total", limit=1))
    assert isinstance(found, Found)
    assert found.commit == commit[0]

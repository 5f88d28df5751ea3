import errno
import os
from pathlib import Path

import pytest

from runtime.errors import BadInputError, UnavailableError
from runtime.index.messages import Change
from runtime.project import tree as trees
from runtime.project.repository import Author, ProjectRepository
from runtime.project.tree import Tree, TreeAt, change_between, write_tree


def test_write_tree__writes_every_file_with_its_folders(tmp_path: Path) -> None:
    files = {"a.txt": b"a\r\n", "src/b.py": b"", "src/deep/ö.bin": b"\0\xff"}
    write_tree(tmp_path / "new", files)
    found = {str(path.relative_to(tmp_path / "new")) for path in (tmp_path / "new").rglob("*") if path.is_file()}
    assert found == files.keys()
    assert all((tmp_path / "new" / path).read_bytes() == content for path, content in files.items())


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", ".git/config", "a\\b", ""])
def test_write_tree__refuses_paths_out_of_its_folder_before_it_writes(tmp_path: Path, path: str) -> None:
    with pytest.raises(BadInputError):
        write_tree(tmp_path / "new", {"a.txt": b"a", path: b"x"})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "files", [{"a": b"", "a/b": b""}, {"a/b": b"", "a": b""}, {"x" * 256: b""}], ids=["file", "folder", "name"]
)
def test_write_tree__refuses_a_path_that_cannot_be(tmp_path: Path, files: Tree) -> None:
    with pytest.raises(BadInputError):
        write_tree(tmp_path, files)


def test_write_tree__on_a_full_disk_is_unavailable_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "makedirs", full)
    with pytest.raises(UnavailableError):
        write_tree(tmp_path, {"a": b"x"})


def test_change__tells_what_is_new_other_and_gone_in_either_direction_by_the_ids_that_git_gives(tmp_path: Path) -> None:
    repository = ProjectRepository.init(tmp_path / "repository", Author(name="Ann", email="ann@example.com"))
    first = TreeAt("1" * 40, {"a.txt": b"one\n", "src/b.py": b"b = 1\n", "empty": b""})
    second = TreeAt("2" * 40, {"a.txt": b"\0new", "c d.txt": b"c", "empty": b""})
    for before, after in ((first, second), (second, first)):
        repository.write(after.files)
        ids = repository.blobs()
        new = sorted(path for path in after.files if path != "empty")
        assert change_between(before, after) == Change(
            since=before.commit,
            files={path: (ids[path], after.files[path]) for path in new},
            removed=sorted(before.files.keys() - after.files.keys()),
        )
    assert change_between(second, second) == Change(since=second.commit, files={}, removed=[])


@pytest.mark.parametrize("bound", ["CHANGED_FILES_MAX", "CHANGED_BYTES_MAX"])
def test_change__that_is_too_much_is_none(monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    before, after = TreeAt("1", {}), TreeAt("2", {f"{number}.txt": b"x" for number in range(3)})
    monkeypatch.setattr(trees, bound, 3)
    assert change_between(before, after) is not None
    monkeypatch.setattr(trees, bound, 2)
    assert change_between(before, after) is None

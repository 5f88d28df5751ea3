import errno
import os
from pathlib import Path

import pytest

from runtime.errors import BadInputError, UnavailableError
from runtime.project.tree import Tree, write_tree


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

"""What is brought out of a tree that generated code has written in."""

import os
from pathlib import Path

import pytest

from runtime.errors import BadInputError
from runtime.implementer.artifacts import read_artifacts


def test_artifacts__are_plain_files_within_their_bound(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "small").write_bytes(b"123")
    (tmp_path / "large").write_bytes(b"1234")
    assert read_artifacts(tmp_path, ["a/small", "large", "missing", "a"], 3) == {"a/small": b"123"}


def test_artifacts__are_never_reached_through_a_link_or_a_pipe(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"s")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").symlink_to(outside / "secret")
    (tree / "folder").symlink_to(outside)
    os.mkfifo(tree / "pipe")
    assert read_artifacts(tree, ["file", "folder/secret", "pipe"], 100) == {}


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a//b", ""])
def test_artifacts__outside_the_tree_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(BadInputError):
        read_artifacts(tmp_path, [path], 100)

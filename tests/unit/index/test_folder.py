"""A folder of somebody's own code."""

import os
import subprocess
from pathlib import Path

import pytest

from runtime.errors import BadInputError
from runtime.index import folder as folders
from runtime.index.chunk import FILE_BYTES_MAX
from runtime.index.folder import Folder


def written(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(f"# {path}\n")
    return folder


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


def test_files__of_a_plain_folder_leave_out_hidden_folders_packages_and_environments(tmp_path: Path) -> None:
    written(tmp_path, "a.py", "sub/b.py", ".hidden/c.py", "node_modules/d.js", "env/pyvenv.cfg", "env/lib/e.py")

    assert set(Folder(tmp_path).ids) == {"a.py", "sub/b.py"}


def test_files__of_a_repository_are_what_git_tracks_or_would_add(tmp_path: Path) -> None:
    written(tmp_path, "a.py", ".github/ci.yml", "build/out.py", "new.py")
    (tmp_path / ".gitignore").write_text("build\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "a.py")

    assert set(Folder(tmp_path).ids) == {"a.py", ".github/ci.yml", "new.py", ".gitignore"}


def test_files__of_a_part_of_a_repository_are_named_from_there(tmp_path: Path) -> None:
    written(tmp_path, "a.py", "sub/b.py")
    git(tmp_path, "init", "-q")

    assert set(Folder(tmp_path / "sub").ids) == {"b.py"}


def test_a_repository__runs_no_program_that_it_names(tmp_path: Path) -> None:
    code = written(tmp_path / "code", "a.py")
    git(code, "init", "-q")
    ran = tmp_path / "ran"
    (code / "run.sh").write_text(f"#!/bin/sh\ntouch {ran}\n")
    (code / "run.sh").chmod(0o755)
    git(code, "config", "core.fsmonitor", str(code / "run.sh"))

    assert "a.py" in Folder(code).ids
    assert not ran.exists()


def test_links_and_pipes__are_not_read(tmp_path: Path) -> None:
    code = written(tmp_path / "code", "a.py")
    (tmp_path / "secret.py").write_text("secret")
    (code / "file.py").symlink_to(tmp_path / "secret.py")
    (code / "folder").symlink_to(tmp_path)
    os.mkfifo(code / "pipe.py")

    source = Folder(code)

    assert set(source.ids) == {"a.py"}
    read = source.read(["a.py", "file.py", "pipe.py", "gone.py"])
    assert [(path, it.chunks[0].text) for path, it in read.items()] == [("a.py", "# a.py")]


def test_an_id__changes_with_the_content_also_where_size_and_time_do_not(tmp_path: Path) -> None:
    written(tmp_path, "a.py", "b.py")
    before, seen = Folder(tmp_path), (tmp_path / "a.py").stat()
    (tmp_path / "a.py").write_text("# a.p?\n")
    os.utime(tmp_path / "a.py", ns=(seen.st_atime_ns, seen.st_mtime_ns))
    after = Folder(tmp_path)

    assert before.ids["a.py"] != after.ids["a.py"]
    assert before.ids["b.py"] == after.ids["b.py"]
    assert before.commit != after.commit


def test_a_large_file__is_told_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x" * (FILE_BYTES_MAX + 5))

    assert Folder(tmp_path).read(["a.txt"])["a.txt"].skipped == "larger than 1 MiB"


def test_too_many_files__are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "FILES_MAX", 1)

    with pytest.raises(BadInputError, match="more than 1 files"):
        Folder(written(tmp_path, "a.py", "b.py"))


def test_a_file__is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="is not a folder"):
        Folder(written(tmp_path, "a.py") / "a.py")

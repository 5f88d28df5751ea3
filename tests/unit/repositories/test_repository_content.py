import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from runtime.errors import BadInputError, NotFoundError
from runtime.index.chunk import FILE_BYTES_MAX
from runtime.index.embedder import NoEmbedder
from runtime.index.shard import IndexShard
from runtime.repositories import content as contents
from runtime.repositories.content import RepositoryContent
from runtime.repositories.copy import CopyFacts, RepositoryCopy
from runtime.repositories.git import BareRepository
from runtime.store.seal import Seal

SEAL = Seal(bytes(range(32)))


class Made:
    """A bare repository that is made of objects alone, so that it may hold what git would not write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git("init", "-q", "--bare", str(folder))

    def git(self, *arguments: str, stdin: bytes = b"") -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        cwd = self.folder if self.folder.exists() else self.folder.parent
        done = subprocess.run(["git", *identity, *arguments], cwd=cwd, input=stdin, check=True, capture_output=True)
        return done.stdout.decode().strip()

    def blob(self, content: bytes) -> str:
        return self.git("hash-object", "-w", "--stdin", stdin=content)

    def tree(self, entries: Mapping[str, tuple[str, str]]) -> str:
        """Name -> mode, id."""
        kinds = {"040000": "tree", "160000": "commit"}
        lines = [f"{mode} {kinds.get(mode, 'blob')} {it}\t{name}\0" for name, (mode, it) in entries.items()]
        return self.git("mktree", "-z", "--missing", stdin="".join(lines).encode())

    def commit(self, tree: str) -> str:
        return self.git("commit-tree", tree, "-m", "x")

    def content(self, files: Mapping[str, bytes]) -> RepositoryContent:
        """Of files in the top folder."""
        commit = self.commit(self.tree({name: ("100644", self.blob(data)) for name, data in files.items()}))
        return RepositoryContent.of(commit, BareRepository(self.folder))


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "made.git")


def test_files__with_an_indexed_ending_are_read_and_no_others(made: Made) -> None:
    content = made.content({"a.py": b"x = 1\n", "B.GO": b"package b\n", "c.txt": b"text", "d": b"#!/bin/sh\n"})

    assert set(content.ids) == {"a.py", "B.GO"}
    assert set(content.read(["a.py", "B.GO", "c.txt"])) == {"a.py", "B.GO"}


def test_links_submodules_and_names_out_of_the_tree__are_no_files(made: Made) -> None:
    blob = made.blob(b"x = 1\n")
    up = made.tree({"up.py": ("100644", blob)})
    tree = made.tree(
        {
            "a.py": ("100644", blob),
            "link.py": ("120000", made.blob(b"/etc/passwd")),
            "sub.py": ("160000", "1" * 40),
            "..": ("040000", up),
            ".git": ("040000", up),
        }
    )
    assert set(RepositoryContent.of(made.commit(tree), BareRepository(made.folder)).ids) == {"a.py"}


def test_where_not_all_fit__code_comes_first_and_the_rest_is_told(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "FILES_MAX", 2)
    files = {"README.md": b"# A\n", "a_test.go": b"package a\n", "main.go": b"package a\n", "z.py": b"x = 1\n"}
    content = made.content(files)

    assert list(content.ids) == ["main.go", "z.py"]
    assert list(content.over) == ["a_test.go", "README.md"]


def test_what_is_too_large_or_missing__is_skipped_without_being_read(made: Made) -> None:
    tree = made.tree(
        {
            "large.py": ("100644", made.blob(b"x = 1\n" * (FILE_BYTES_MAX // 6 + 1))),
            "gone.py": ("100644", "2" * 40),
            "small.py": ("100644", made.blob(b"x = 1\n")),
        }
    )
    content = RepositoryContent.of(made.commit(tree), BareRepository(made.folder))
    shard = IndexShard(NoEmbedder())
    shard.update(content)

    assert shard.skipped == {"large.py": "larger than 1 MiB", "gone.py": "larger than 1 MiB"}
    assert shard.chunk_counts["small.py"] == 1


def test_more_files_than_are_in_memory_at_once__are_all_read(made: Made) -> None:
    files = {f"f{number}.py": f"x = {number}\n".encode() for number in range(70)} | {"same.py": b"x = 7\n"}
    content = made.content(files)

    readings = content.read(content.ids)

    assert {path: readings[path].chunks[0].text.strip() for path in readings} == {
        path: data.decode().strip() for path, data in files.items()
    }


def test_a_tree_that_repeats_itself__is_refused_and_not_walked_through(made: Made) -> None:
    """A few objects, ten to the sixteenth paths."""
    level = made.tree({f"{number:02}.py": ("100644", made.blob(b"x = 1\n")) for number in range(100)})
    for _ in range(7):
        level = made.tree({f"{number:02}": ("040000", level) for number in range(100)})

    with pytest.raises(BadInputError, match="too many files"):
        RepositoryContent.of(made.commit(level), BareRepository(made.folder))


def copied(made: Made, folder: Path, files: Mapping[str, bytes]) -> tuple[RepositoryCopy, CopyFacts]:
    commit = made.commit(made.tree({name: ("100644", made.blob(data)) for name, data in files.items()}))
    made.git("update-ref", "refs/heads/main", commit)
    made.git("repack", "-a", "-d", "-q")
    (pack,) = (made.folder / "objects" / "pack").glob("*.pack")
    facts = CopyFacts(clone_url="https://x/a/b.git", branch="main", commit=commit, size_bytes=pack.stat().st_size)
    copy = RepositoryCopy(folder / "a.copy", SEAL, folder / "scratch")
    copy.keep(facts, pack)
    return copy, facts


def test_copy__opens_as_what_was_kept(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.repositories.copy._PIECE_BYTES", 100)
    files = {f"f{number}.py": f"secret_{number} = {number * 7919}\n".encode() for number in range(20)}
    copy, facts = copied(made, tmp_path, files)

    assert copy.facts() == facts
    with copy.opened(facts.commit) as repository:
        content = RepositoryContent.of(facts.commit, repository)
        assert content.ids.keys() == files.keys()
    assert list((tmp_path / "scratch").iterdir()) == []
    assert (tmp_path / "a.copy").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("spoilt", ["gone", "cut", "shortened by a piece", "altered", "of another file", "empty"])
def test_copy__that_is_damaged_is_as_one_that_is_not_there(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoilt: str
) -> None:
    monkeypatch.setattr("runtime.repositories.copy._PIECE_BYTES", 100)
    copy, facts = copied(made, tmp_path, {f"f{number}.py": b"x = 1\n" * number for number in range(20)})
    file = tmp_path / "a.copy"
    stored = file.read_bytes()
    match spoilt:
        case "gone":
            file.unlink()
        case "cut":
            file.write_bytes(stored[:-3])
        case "shortened by a piece":
            last = len(stored) - (facts.size_bytes % 100 + 28 + 4)
            file.write_bytes(stored[:last])
        case "altered":
            file.write_bytes(stored[:-1] + bytes([stored[-1] ^ 1]))
        case "of another file":
            copy = RepositoryCopy(file.rename(tmp_path / "b.copy"), SEAL, tmp_path / "scratch")
        case _:
            file.write_bytes(b"")

    with pytest.raises(NotFoundError), copy.opened(facts.commit):
        pass
    assert list((tmp_path / "scratch").iterdir()) == []


def test_copy__of_another_commit_is_not_opened(made: Made, tmp_path: Path) -> None:
    copy, _ = copied(made, tmp_path, {"a.py": b"x = 1\n"})

    with pytest.raises(NotFoundError), copy.opened("0" * 40):
        pass


def test_copy__that_is_removed_leaves_nothing_beside_it(made: Made, tmp_path: Path) -> None:
    copy, _ = copied(made, tmp_path, {"a.py": b"x = 1\n"})
    (tmp_path / "a.copy.0a1b.tmp").write_bytes(b"left by a killed process")

    copy.remove()
    copy.remove()

    assert [path.name for path in tmp_path.glob("a.copy*")] == []
    assert copy.facts() is None

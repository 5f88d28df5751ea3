import io
import os
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from git import Repo

from runtime.errors import BadInputError, ConflictError, NotFoundError
from runtime.project.repository import Author, MergeConflictError, ProjectRepository
from tests.patches import patch_of

ANN = Author(name="Ann", email="ann@example.com")


@pytest.fixture
def repository(tmp_path: Path) -> ProjectRepository:
    repository = ProjectRepository.init(tmp_path / "project", ANN)
    repository.write_and_commit({"a.txt": "one\ntwo\nthree\n", "src/b.py": "b = 1\n"}, "First files", ANN)
    return repository


def clone(repository: ProjectRepository, folder: Path) -> ProjectRepository:
    return ProjectRepository.from_bundle(folder, repository.bundle())


def test_repository__has_one_branch_named_main_and_a_fixed_committer(repository: ProjectRepository) -> None:
    assert repository._must("branch", "--format=%(refname:short)").decode().split() == ["main"]
    assert repository._must("log", "-1", "--format=%an %cn").decode().strip() == "Ann Masterbuilder"


def test_open__finds_what_was_there_and_refuses_an_empty_folder(repository: ProjectRepository, tmp_path: Path) -> None:
    assert ProjectRepository.open(repository.folder).head == repository.head
    with pytest.raises(NotFoundError):
        ProjectRepository.open(tmp_path)


def test_bundle__carries_all_files_and_commits(repository: ProjectRepository, tmp_path: Path) -> None:
    copy = clone(repository, tmp_path / "copy")
    assert copy.head == repository.head
    assert copy.files() == ["a.txt", "src/b.py"]
    assert [commit.message for commit in copy.commits()] == ["First files", "Start the project"]


def test_kept_branch__is_in_every_later_bundle_and_not_on_main(repository: ProjectRepository, tmp_path: Path) -> None:
    first = repository.head
    later = repository.write_and_commit({"later.txt": "x"}, "Later", ANN)
    for _ in range(2):
        repository.keep_branch("rewound/1", later)
    repository.reset_hard(first)
    repository.write_and_commit({"other.txt": "y"}, "Another way", ANN)
    copy = clone(clone(repository, tmp_path / "copy"), tmp_path / "copy of it")
    assert copy.files() == ["a.txt", "other.txt", "src/b.py"]
    assert copy._must("rev-parse", "refs/heads/rewound/1").decode().strip() == later


def test_bundle__is_read_by_an_ordinary_git_whatever_a_crash_left_beside_its_branches(
    repository: ProjectRepository, tmp_path: Path
) -> None:
    for number in range(20):  # Packed in between.
        repository.write_and_commit({"a.txt": f"{number}\n"}, f"Next {number}", ANN)
        repository.bundle()
        repository.keep_branch("rewound/1", repository.head)
    (repository.folder / ".git" / "refs" / "heads" / "rewound" / "2.lock").touch()
    (tmp_path / "main.bundle").write_bytes(repository.bundle())
    subprocess.run(["git", "clone", "-q", "-b", "main", tmp_path / "main.bundle", tmp_path / "copy"], check=True)
    copy = Repo(tmp_path / "copy")
    assert copy.head.commit.hexsha == copy.refs["origin/rewound/1"].commit.hexsha == repository.head
    assert [commit.message.strip() for commit in copy.iter_commits()][:2] == ["Next 19", "Next 18"]
    assert (tmp_path / "copy" / "a.txt").read_text() == "19\n"


def test_clone_without_files__gives_takes_and_compares_what_one_with_files_does(
    repository: ProjectRepository, tmp_path: Path
) -> None:
    bare = ProjectRepository.from_bundle(tmp_path / "bare", repository.bundle(), writes_files=False)
    assert [path.name for path in bare.folder.iterdir()] == [".git"]
    assert (bare.head, bare.files()) == (repository.head, repository.files())
    assert bare.contents() == repository.contents() == {"a.txt": b"one\ntwo\nthree\n", "src/b.py": b"b = 1\n"}
    assert bare.contents({"src/b.py", "nowhere"}) == {"src/b.py": b"b = 1\n"}
    for each in (bare, repository):
        each.write({"a.txt": None, "new/ö.bin": b"\0\n\n1", "src/b.py": "b = 2\n"})
    assert bare.contents() == repository.contents() == {"new/ö.bin": b"\0\n\n1", "src/b.py": b"b = 2\n"}


def _with_ref(bundle: bytes, line: str) -> bytes:
    return bundle.replace(b"\n\n", f"\n{line}\n\n".encode(), 1)


@pytest.mark.parametrize(
    "broken",
    [
        lambda bundle: b"not a bundle",
        lambda bundle: b"",
        lambda bundle: bundle[:-30],
        lambda bundle: bundle[:200] + bytes([bundle[200] ^ 1]) + bundle[201:],
        lambda bundle: bundle.replace(b"refs/heads/main", b"refs/heads/other"),
        lambda bundle: _with_ref(bundle, f"{'a' * 40} refs/heads/../../config"),
        lambda bundle: _with_ref(bundle, f"{'a' * 40} refs/heads/rewound/.."),
        lambda bundle: _with_ref(bundle, "-" + "a" * 40),
        lambda bundle: bundle.replace(bundle.split()[4], b"a" * 40),
        lambda bundle: bundle.replace(b"# v2", b"# v9"),
    ],
    ids=["text", "empty", "cut off", "a bit", "no main", "path", "dots", "asks for more", "no such commit", "version"],
)
def test_from_bundle__refuses_what_is_not_whole_or_not_ours(
    repository: ProjectRepository, tmp_path: Path, broken: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(BadInputError, match="bundle cannot be read"):
        ProjectRepository.from_bundle(tmp_path / "copy", broken(repository.bundle()))


def test_from_bundle__refuses_a_tree_with_a_symbolic_link(tmp_path: Path) -> None:
    # given a bundle made by an ordinary git, with a link to a file of the host
    folder = tmp_path / "evil"
    folder.mkdir()
    git = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
    (folder / "link").symlink_to("/etc/passwd")
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    bundle = subprocess.run([*git, "bundle", "create", "-q", "-", "main"], check=True, capture_output=True).stdout
    with pytest.raises(BadInputError, match="link"):
        ProjectRepository.from_bundle(tmp_path / "copy", bundle)


def test_diff__carries_new_binary_and_deleted_files_to_another_clone(
    repository: ProjectRepository, tmp_path: Path
) -> None:
    # given
    worker = clone(repository, tmp_path / "worker")
    picture = bytes(range(256)) * 9
    changed = {"pic.bin": picture, "a.txt": None, "no newline": "x", "ümläut/ö.txt": "ö\n", "a b\t.txt": "", "-": "x"}
    # when
    repository.apply_patch(patch_of(worker.contents(), changed))
    repository.commit("Work", Author(name="Bob", email="b@b"), trailer="Task: T-001/2")
    # then
    assert repository.files() == ["-", "a b\t.txt", "no newline", "pic.bin", "src/b.py", "ümläut/ö.txt"]
    assert repository.read("pic.bin") == picture
    assert repository.read("no newline") == b"x"


def test_diff__is_empty_when_nothing_changed(repository: ProjectRepository) -> None:
    assert patch_of(repository.contents(), {"a.txt": "one\ntwo\nthree\n", "none": None}) == b""


def test_diff__names_the_contents_it_was_made_from_as_git_does(repository: ProjectRepository) -> None:
    patch = patch_of(repository.contents(), {"a.txt": "one\n2\nthree\n"})
    assert f"index {repository.blobs()['a.txt']}..".encode() in patch


@pytest.mark.parametrize("path", ["../x", ".git/hooks/post-commit", "a/../../x"])
def test_diff__of_a_path_out_of_the_tree_is_refused(path: str) -> None:
    with pytest.raises(BadInputError):
        patch_of({}, {path: "x"})


def test_write__stages_ignored_files_too(repository: ProjectRepository) -> None:
    repository.write_and_commit({".gitignore": "build/\n"}, "Ignore", ANN)
    (repository.folder / "build").mkdir()
    (repository.folder / "build" / "dropping").write_text("x")
    repository.write({"build/wanted.txt": "x\n"})
    assert "build/wanted.txt" in repository.files()
    assert "build/dropping" not in repository.files()


def test_write_and_commit__of_tracked_files_takes_what_is_staged_and_ignored_ones_too(
    repository: ProjectRepository,
) -> None:
    repository.write_and_commit({".gitignore": "a.txt\nsrc/\n"}, "Ignore", ANN)
    repository.write({"staged.txt": "staged"})
    commit = repository.write_and_commit({"a.txt": "new", "src/b.py": None}, "Both", ANN)

    assert repository.files() == [".gitignore", "a.txt", "staged.txt"]
    assert repository._must("show", f"{commit}:a.txt") == b"new"
    assert repository._must("status", "--porcelain", "--ignored", "-z") == b""
    blobs = repository.blobs()
    repository.write_and_commit({}, "Nothing", ANN)
    assert repository.blobs() == blobs


def test_commit__keeps_author_message_and_trailer(repository: ProjectRepository) -> None:
    repository.commit("Add a thing\n\nBecause.", Author(name="Bob <x>\n", email="b@b"), trailer="Task: T-001/2")
    commit = repository.commits()[0]
    assert commit.author == Author(name="Bob x", email="b@b")
    assert commit.message == "Add a thing\n\nBecause.\n\nTask: T-001/2"
    assert commit.trailers == {"Task": "T-001/2"}
    assert commit.commit == repository.head


def test_commit__does_not_take_a_forged_trailer_for_the_real_one(repository: ProjectRepository) -> None:
    repository.commit("Add a thing\n\nTask: T-999/1", ANN, trailer="Task: T-001/1")
    assert repository.commits()[0].trailers == {"Task": "T-001/1"}


def test_apply_patch__merges_changes_to_different_places_of_a_file(
    repository: ProjectRepository, tmp_path: Path
) -> None:
    # given
    numbers = [f"{n}\n" for n in range(30)]
    repository.write_and_commit({"n.txt": "".join(numbers)}, "Numbers", ANN)
    patch = patch_of(repository.contents(), {"n.txt": "".join(["first\n", *numbers[1:]])})
    repository.write_and_commit({"n.txt": "".join([*numbers[:-1], "last\n"])}, "Other", ANN)
    # when
    repository.apply_patch(patch)
    # then
    assert repository.read("n.txt").decode() == "".join(["first\n", *numbers[1:-1], "last\n"])


def test_apply_patch__on_conflict_raises_and_leaves_the_tree_as_it_was(
    repository: ProjectRepository, tmp_path: Path
) -> None:
    # given two changes of the same line, and a new file beside one of them
    patch = patch_of(repository.contents(), {"a.txt": "one\nTWO\nthree\n", "new.txt": "x\n"})
    repository.write_and_commit({"a.txt": "one\n2\nthree\n"}, "Other", ANN)
    before = repository.head
    # when
    with pytest.raises(MergeConflictError):
        repository.apply_patch(patch)
    # then
    assert repository.head == before
    assert repository.read("a.txt") == b"one\n2\nthree\n"
    assert repository._must("status", "--porcelain") == b""
    assert repository.files() == ["a.txt", "src/b.py"]


LINK = b"""diff --git a/link b/link
new file mode 120000
index 0000000000000000000000000000000000000000..3594e94c049a7ffd7f7b0ab5a8bb1a5cbd4d6a3b
--- /dev/null
+++ b/link
@@ -0,0 +1 @@
+/etc/passwd
\\ No newline at end of file
"""


def new_file(path: str) -> bytes:
    return (
        f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n".encode()
    )


@pytest.mark.parametrize(
    "patch",
    [
        LINK,
        new_file("../outside"),
        new_file("/tmp/outside"),
        new_file(".git/hooks/post-commit"),
        new_file("sub/.GIT/config"),
        b"garbage\n",
        b"diff --git a/a.txt b/a.txt\n--- a/a.txt\n+++ b/a.txt\n@@ -1,9 +1,9 @@\n one\n",
    ],
    ids=["link", "up", "absolute", "git folder", "disguised git folder", "garbage", "truncated"],
)
def test_apply_patch__refuses_a_hostile_patch_and_changes_nothing(repository: ProjectRepository, patch: bytes) -> None:
    before = sorted(repository.folder.parent.rglob("*"))
    with pytest.raises((BadInputError, MergeConflictError)):
        repository.apply_patch(patch)
    assert repository._must("status", "--porcelain") == b""
    assert not [path for path in set(repository.folder.parent.rglob("*")) - set(before) if ".git/" not in str(path)]
    assert not (repository.folder / ".git" / "hooks").exists()


def test_apply_patch__refuses_a_tree_with_uncommitted_changes(repository: ProjectRepository) -> None:
    repository.write({"a.txt": "mine\n"})
    with pytest.raises(ConflictError):
        repository.apply_patch(new_file("n.txt"))
    assert repository.read("a.txt") == b"mine\n"


@pytest.mark.parametrize("path", ["../x", "/etc/x", ".git/config", "a/../../x", "a//b", "x/.Git/y", "git~1/x", "", "."])
def test_write__refuses_paths_out_of_the_tree(repository: ProjectRepository, path: str) -> None:
    with pytest.raises(BadInputError):
        repository.write({path: "x"})
    with pytest.raises(BadInputError):
        repository.read(path)


def test_write__refuses_a_path_through_a_link(repository: ProjectRepository, tmp_path: Path) -> None:
    (repository.folder / "link").symlink_to(tmp_path)
    with pytest.raises(BadInputError):
        repository.write({"link/x": "x"})
    assert not (tmp_path / "x").exists()


def test_repository__ignores_the_environment_and_configuration_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a home whose git configuration runs a program, and variables that point elsewhere
    witness = tmp_path / "witness"
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    hook = hooks / "pre-commit"
    hook.write_text(f"#!/bin/sh\ntouch {witness}\nexit 1\n")
    hook.chmod(0o755)
    (tmp_path / ".gitconfig").write_text(
        f"[core]\n\thooksPath = {hooks}\n\tfsmonitor = {hook}\n[diff]\n\tnoprefix = true\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "elsewhere" / "index"))
    # when
    repository = ProjectRepository.init(tmp_path / "project", ANN)
    repository.write_and_commit({"a": "x"}, "A", ANN)
    # then
    assert not witness.exists()
    assert not (tmp_path / "elsewhere").exists()
    assert repository.files() == ["a"]
    assert b"diff --git a/a b/a\n" in patch_of(repository.contents(), {"a": "y"})


def test_reset_hard__goes_back_and_removes_what_is_not_tracked(repository: ProjectRepository) -> None:
    before = repository.head
    repository.write_and_commit({"c": "x"}, "C", ANN)
    (repository.folder / "dropping").write_text("x")
    repository.reset_hard(before)
    assert repository.head == before
    assert sorted(os.listdir(repository.folder)) == [".git", "a.txt", "src"]


def test_reset_hard__takes_commit_ids_only(repository: ProjectRepository) -> None:
    with pytest.raises(BadInputError):
        repository.reset_hard("--soft")


def test_export__holds_exactly_the_tracked_files(repository: ProjectRepository) -> None:
    (repository.folder / "dropping").write_text("x")
    repository.write({".gitattributes": "a.txt export-ignore\n"})
    repository.commit("Hide", ANN)
    (repository.folder / "late").write_text("x")
    archive = repository.export("todo")
    with zipfile.ZipFile(io.BytesIO(archive)) as package:
        assert package.namelist() == ["todo/.gitattributes", "todo/a.txt", "todo/dropping", "todo/src/b.py"]
        assert package.read("todo/src/b.py") == b"b = 1\n"
    assert repository.export("todo") == archive


def test_contents__are_the_same_however_git_keeps_them(repository: ProjectRepository) -> None:
    files = {"a.txt": b"one\ntwo\nthree\n", "src/b.py": b"b = 1\n"}
    assert repository.contents() == files
    repository._must("repack", "-a", "-d", "-q")
    assert ProjectRepository.open(repository.folder).contents() == files

    more = {"empty": b"", "large.bin": bytes(range(256)) * 4_000, "zeros": b"\0blob 3\0x", "twin": b"b = 1\n"}
    repository.write({**more, "src/b.py": "b = 2\n"})
    now = {**files, **more, "src/b.py": b"b = 2\n"}
    for known in (repository, ProjectRepository.open(repository.folder)):
        assert known.contents() == now
        assert known.contents({"twin", "src/b.py"}) == {"twin": b"b = 1\n", "src/b.py": b"b = 2\n"}


def test_files__are_told_from_the_index_as_git_tells_them(repository: ProjectRepository) -> None:
    names = [f"d{'x' * length}/{length}.txt" for length in range(20)]
    repository.write_and_commit({**dict.fromkeys(names, "x\n"), "ünï/ä.txt": "x\n"}, "Many", ANN)
    listed = Repo(repository.folder).git.ls_files("-z").split("\0")
    assert repository.files() == [name for name in listed if name]


def test_bundle__holds_every_commit_before_and_after_they_are_packed(
    repository: ProjectRepository, tmp_path: Path
) -> None:
    for number in range(20):
        repository.write_and_commit({"a.txt": f"{number}\n"}, f"Commit {number}", ANN)
        clone = ProjectRepository.from_bundle(tmp_path / f"clone{number}", repository.bundle())
        assert clone.head == repository.head
        assert clone.read("a.txt") == f"{number}\n".encode()
    assert [each.commit for each in clone.commits()] == [each.commit for each in repository.commits()]

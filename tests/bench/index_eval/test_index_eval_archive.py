"""Archives are strangers' files: only plain source files below one folder are taken."""

import io
import tarfile
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from runtime.errors import UnavailableError
from tests.bench.index_eval import archive, fetching
from tests.bench.index_eval.archive import ArchiveTooLargeError, read_archive
from tests.bench.index_eval.fetching import fetch
from tests.bench.index_eval.folder import read_folder
from tests.bench.index_eval.packages import Package, packages_of


def tgz(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as container:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            container.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            container.addfile(info)
    return path


def test_read_archive__takes_source_below_its_folder_only(tmp_path: Path) -> None:
    members = {
        "package/src/a.ts": b"a",
        "package/src/deep/b.js": b"b",
        "package/src/a.d.ts": b"declared",
        "package/src/c.min.js": b"made",
        "package/src/dist/a.js": b"made",
        "package/src/logo.png": b"png",
        "package/dist/a.js": b"made",
        "package/src/../../evil.js": b"evil",
        "/package/src/root.js": b"evil",
    }
    found = read_archive(tgz(tmp_path / "a.tgz", members, {"package/src/link.js": "/etc/passwd"}), "package/src")
    assert found == {"a.ts": b"a", "deep/b.js": b"b"}


def test_read_archive__reads_wheels(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as container:
        container.writestr("pack/a.py", "a")
        container.writestr("pack/../../b.py", "b")
        container.writestr("pack-1.dist-info/c.py", "c")
    assert read_archive(tmp_path / "a.whl", "pack") == {"a.py": b"a"}


def test_read_archive__has_a_bound_for_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = tgz(tmp_path / "a.tgz", {"a/large.js": b"x" * (2 << 20), "a/b.js": b"bb", "a/c.js": b"cc"})
    assert set(read_archive(packed, "a")) == {"b.js", "c.js"}
    monkeypatch.setattr(archive, "MEMBERS_MAX", 2)
    with pytest.raises(ArchiveTooLargeError):
        read_archive(packed, "a")
    monkeypatch.setattr(archive, "MEMBERS_MAX", 10)
    monkeypatch.setattr(archive, "BYTES_MAX", 3)
    with pytest.raises(ArchiveTooLargeError):
        read_archive(packed, "a")


def package(sha: str) -> Package:
    return Package(name="a", client="npm", package="a", version="1", sha256=sha, source="a")


def test_fetch__takes_only_the_pinned_archive_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def fetched(wanted: Package, folder: Path) -> Path:
        made.append(wanted)
        return tgz(folder / "a-1.tgz", {"a/a.js": b"a"})

    monkeypatch.setattr(fetching, "_fetched", fetched)
    with pytest.raises(UnavailableError, match="not the archive that is pinned"):
        fetch(package("0" * 64), tmp_path)
    assert not list(tmp_path.iterdir())

    once = tgz(tmp_path / "known.tgz", {"a/a.js": b"a"})
    digest = sha256(once.read_bytes()).hexdigest()
    once.rename(tmp_path / f"{digest[:16]}.tgz")
    assert read_archive(fetch(package(digest), tmp_path), "a") == {"a.js": b"a"}
    assert len(made) == 1


def test_packages__are_in_one_part_only_and_pinned() -> None:
    choosing, held_out = packages_of("choosing"), packages_of("held_out")
    assert not {it.package for it in choosing} & {it.package for it in held_out}
    assert all(len(it.sha256) == 64 and it.version for it in (*choosing, *held_out))


def test_read_folder__leaves_out_copies_and_hidden_folders(tmp_path: Path) -> None:
    for path in ("src/a.ts", "node_modules/b/b.js", "dist/a.js", ".git/c.py", "README.md"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    (tmp_path / "link.py").symlink_to("/etc/passwd")
    assert read_folder(tmp_path) == {"src/a.ts": b"x"}

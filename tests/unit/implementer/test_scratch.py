"""The folder that generated code writes in: whose it is, and that it goes."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.errors import UnavailableError
from runtime.implementer.scratch import Scratch, remove_tree_now
from tests.deep import nest


async def test_open__makes_it_for_this_user_alone_and_close_removes_it(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "root")
    await scratch.open()
    await scratch.open()
    assert [oct(folder.stat().st_mode & 0o777) for folder in (tmp_path / "root", scratch.folder)] == ["0o700", "0o700"]
    async with scratch.subfolder("edit") as folder:
        (folder / "x").write_text("x")
    assert list(scratch.folder.iterdir()) == []
    await scratch.close()
    assert not scratch.folder.exists()


def _link(root: Path) -> None:
    (root.parent / "elsewhere").mkdir()
    root.symlink_to(root.parent / "elsewhere")


def _open_to_all(root: Path) -> None:
    root.mkdir()
    root.chmod(0o777)


def _of_somebody_else(root: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give folders away")
    root.mkdir()
    os.chown(root, 65534, 65534)


@pytest.mark.parametrize("taken", [_link, _open_to_all, _of_somebody_else, Path.touch])
async def test_name_that_somebody_took__is_not_used(tmp_path: Path, taken: Callable[[Path], None]) -> None:
    taken(tmp_path / "root")
    scratch = Scratch(tmp_path / "root")
    with pytest.raises(UnavailableError, match="root cannot be used") as refused:
        await scratch.open()
    assert "SCRATCH_DIR" in refused.value.next_step
    with pytest.raises(UnavailableError, match="root cannot be used"):
        async with scratch.subfolder("edit"):
            pass
    assert not list((tmp_path / "elsewhere").glob("*"))


async def test_folder_without_programs__is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(tmp_path)
    flags = (*real[:8], real.f_flag | os.ST_NOEXEC, *real[9:])
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(flags))
    with pytest.raises(UnavailableError, match="noexec"):
        await Scratch(tmp_path / "root").open()


def test_remove__goes_deeper_than_python_can(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    with nest(tmp_path / "deep"):
        remove_tree_now(tmp_path / "deep")
        assert not (tmp_path / "deep").exists()
        remove_tree_now(tmp_path / "deep")

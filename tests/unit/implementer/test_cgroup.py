"""Against folders that look like the kernel's: which files are written, and when there is no group at all."""

import os
from pathlib import Path

import pytest

from runtime.implementer.cgroup import Cgroup, sweep

KERNEL_FILES = {
    "v2": ("cgroup.procs", "memory.max", "memory.swap.max", "pids.max"),
    "memory": ("cgroup.procs", "memory.limit_in_bytes"),
    "pids": ("cgroup.procs", "pids.max"),
}


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> dict[Path, tuple[str, ...]]:
    """Parent folder -> the files that appear in a group made there."""
    trees: dict[Path, tuple[str, ...]] = {}
    ordinary = Path.mkdir

    def mkdir(self: Path, *args: int, **kwargs: bool) -> None:
        ordinary(self, *args, **kwargs)
        for file in trees.get(self.parent, ()):
            (self / file).touch()

    monkeypatch.setattr(Path, "mkdir", mkdir)
    return trees


def test_cgroup__bounds_memory_and_processes_in_a_unified_tree(tmp_path: Path, kernel: dict) -> None:  # type: ignore[type-arg]
    kernel[tmp_path] = KERNEL_FILES["v2"]
    group = Cgroup.make(memory_bytes=1000, process_count=7, root=tmp_path)
    assert group is not None
    (folder,) = group.folders
    assert [(folder / name).read_text() for name in KERNEL_FILES["v2"][1:]] == ["1000", "0", "7"]
    group.add(123)
    assert (folder / "cgroup.procs").read_text() == "123"


def test_cgroup__bounds_memory_and_processes_in_separate_trees(tmp_path: Path, kernel: dict) -> None:  # type: ignore[type-arg]
    for tree in ("memory", "pids"):
        (tmp_path / tree).mkdir()
        kernel[tmp_path / tree] = KERNEL_FILES[tree]
    group = Cgroup.make(memory_bytes=1000, process_count=7, root=tmp_path)
    assert group is not None
    memory, pids = group.folders
    assert (memory / "memory.limit_in_bytes").read_text() == "1000"
    assert (pids / "pids.max").read_text() == "7"
    assert not (memory / "memory.memsw.limit_in_bytes").exists()


def test_cgroup__is_not_made_where_a_controller_is_missing(tmp_path: Path, kernel: dict) -> None:  # type: ignore[type-arg]
    (tmp_path / "memory").mkdir()
    kernel[tmp_path / "memory"] = KERNEL_FILES["memory"]
    assert Cgroup.make(memory_bytes=1000, process_count=7, root=tmp_path) is None
    assert Cgroup.make(memory_bytes=1000, process_count=7, root=tmp_path / "absent") is None


def test_sweep__removes_groups_of_processes_that_are_gone(tmp_path: Path) -> None:
    gone = tmp_path / "pids" / "masterbuilder-999999999-aa"
    ours = tmp_path / "pids" / f"masterbuilder-{os.getpid()}-aa"
    foreign = tmp_path / "pids" / "docker"
    for folder in (gone, ours, foreign):
        folder.mkdir(parents=True)
    sweep(root=tmp_path)
    assert sorted(path.name for path in (tmp_path / "pids").iterdir()) == sorted([ours.name, "docker"])

"""A control group that bounds the memory and the number of processes of one sandboxed run, where one can be made.

Both of Linux's layouts are used as found: one tree for all controllers (v2), or one tree each (v1).
Source: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/{memory,pids}.rst of the kernel.
"""

import contextlib
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

_PREFIX = "masterbuilder-"
_REMOVAL_S_MAX = 2.0
_TREES = ("", "memory", "pids")
"""The unified tree (v2), and those of the two controllers that are used (v1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroup:
    """Folders that together are one group. Blocking, but each method is a few writes to kernel files."""

    folders: tuple[Path, ...]

    @classmethod
    def make(cls, *, memory_bytes: int, process_count: int, root: Path = Path("/sys/fs/cgroup")) -> Self | None:
        """None where no group with both bounds can be made: the caller then falls back to rlimits."""
        name = f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        unified = {"memory.max": memory_bytes, "pids.max": process_count, "memory.swap.max": 0}
        if folder := _first_made(_parents(root, ""), name, unified, required=("memory.max", "pids.max")):
            return cls(folders=(folder,))
        memory = {"memory.limit_in_bytes": memory_bytes, "memory.memsw.limit_in_bytes": memory_bytes}
        made = (
            _first_made(_parents(root, "memory"), name, memory, required=("memory.limit_in_bytes",)),
            _first_made(_parents(root, "pids"), name, {"pids.max": process_count}, required=("pids.max",)),
        )
        folders = tuple(folder for folder in made if folder)
        if len(folders) == len(made):
            return cls(folders=folders)
        for folder in folders:
            _remove_folder(folder, until=0.0)
        return None

    def add(self, pid: int) -> None:
        """Moves a process in; its future children are born there. Raises OSError."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        """To be called when its processes are gone; the kernel may need a moment to forget them."""
        for folder in self.folders:
            _remove_folder(folder, until=time.monotonic() + _REMOVAL_S_MAX)


def sweep(root: Path = Path("/sys/fs/cgroup")) -> None:
    """Removes empty groups that processes which are gone could not remove themselves."""
    for parent in {parent for controller in _TREES for parent in _parents(root, controller)}:
        for folder in parent.glob(f"{_PREFIX}*"):
            pid = folder.name.removeprefix(_PREFIX).split("-")[0]
            if pid.isdecimal() and not psutil.pid_exists(int(pid)):
                _remove_folder(folder, until=0.0)


def _parents(root: Path, controller: str) -> list[Path]:
    """Where a group may be made: in this process's own group, which bounds it too, or else at the top."""
    tree = root / controller
    return list(dict.fromkeys((tree / _own_group(controller).lstrip("/"), tree)))


def _own_group(controller: str) -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                return path
    return "/"


def _first_made(
    parents: Sequence[Path], name: str, values: Mapping[str, int], *, required: Sequence[str]
) -> Path | None:
    for parent in parents:
        folder = parent / name
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            # The kernel fills a new group with the files of its controllers; without them it bounds nothing.
            for file, value in values.items():
                if file in required or (folder / file).exists():
                    _set(folder / file, value)
        except OSError:
            _remove_folder(folder, until=0.0)
        else:
            return folder
    return None


def _set(file: Path, value: int) -> None:
    """Never creates: a missing file means a missing controller. Raises OSError."""
    descriptor = os.open(file, os.O_WRONLY | os.O_TRUNC)
    try:
        os.write(descriptor, str(value).encode())
    finally:
        os.close(descriptor)


def _remove_folder(folder: Path, *, until: float) -> None:
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() >= until:
                return
            time.sleep(0.005)
        else:
            return

"""The folder of things made once: by one at a time, whole or not at all, bounded, never removed while used."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.implementer.packages.shelf import Shelf

MIB = 1 << 20


class Maker:
    """Makes an entry of so many bytes, slowly, and counts how often and how many at once."""

    def __init__(self, size_bytes: int = 10, fails: bool = False) -> None:
        self.size_bytes = size_bytes
        self.fails = fails
        self.made = 0
        self.at_once = 0
        self.at_once_max = 0

    async def __call__(self, folder: Path) -> None:
        self.made += 1
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        (folder / "file").write_bytes(b"x" * self.size_bytes)
        await asyncio.sleep(0.02)
        self.at_once -= 1
        if self.fails:
            raise ValueError("no")


def shelf(folder: Path, bytes_max: int = 100 * MIB) -> Shelf:
    """As another process would have it: only the folder is shared."""
    return Shelf(folder, bytes_max=bytes_max)


async def use(shelf: Shelf, key: str, maker: Maker) -> bytes:
    async with shelf.use(key, maker) as entry:
        return (entry / "file").read_bytes()


def entries(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


async def test_shelf__makes_an_entry_once_for_all_who_want_it(tmp_path: Path) -> None:
    maker = Maker()
    found = await asyncio.gather(*(use(shelf(tmp_path / "s"), "a", maker) for _ in range(12)))
    assert found == [b"x" * 10] * 12
    assert (maker.made, maker.at_once_max) == (1, 1)
    assert entries(tmp_path / "s") == ["a"]
    assert [name for name in os.listdir(tmp_path / "s") if name != ".locks"] == ["a"]


async def test_shelf__makes_different_entries_side_by_side(tmp_path: Path) -> None:
    maker = Maker()
    await asyncio.gather(*(use(shelf(tmp_path), f"k{n}", maker) for n in range(4)))
    assert (maker.made, maker.at_once_max) == (4, 4)


async def test_shelf__keeps_nothing_of_a_failure(tmp_path: Path) -> None:
    failing = Maker(fails=True)
    with pytest.raises(ValueError, match="no"):
        await use(shelf(tmp_path), "a", failing)
    assert [name for name in os.listdir(tmp_path) if name != ".locks"] == []
    assert await use(shelf(tmp_path), "a", Maker()) == b"x" * 10


async def test_shelf__that_is_full_lets_the_longest_unused_go(tmp_path: Path) -> None:
    large = shelf(tmp_path)
    for key in ("a", "b", "c"):
        await use(large, key, Maker(MIB))
    for key, last_used in {"a": 3, "b": 1, "c": 2}.items():
        os.utime(tmp_path / key, (last_used, last_used))
    await use(shelf(tmp_path, bytes_max=MIB * 5 // 2), "d", Maker())
    assert entries(tmp_path) == ["a", "c", "d"]


async def test_shelf__never_removes_what_is_used(tmp_path: Path) -> None:
    # given an entry in use
    small = shelf(tmp_path, bytes_max=1)
    async with small.use("a", Maker()) as used:
        # when another one needs room
        await use(shelf(tmp_path, bytes_max=1), "b", Maker())
        # then
        assert entries(tmp_path) == ["a", "b"]
        assert (used / "file").read_bytes() == b"x" * 10
    await use(small, "c", Maker())
    assert entries(tmp_path) == ["c"]


async def test_shelf__can_be_left_while_waiting(tmp_path: Path) -> None:
    slow = asyncio.create_task(use(shelf(tmp_path), "b", Maker()))
    await asyncio.sleep(0)
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    assert await use(shelf(tmp_path), "b", Maker()) == b"x" * 10


async def test_shelf__goes_on_after_a_process_that_died_making(tmp_path: Path) -> None:
    # given a process that is killed while it makes an entry
    code = f"""
import asyncio, os, signal, sys
from pathlib import Path
from runtime.implementer.packages.shelf import Shelf
async def make(folder):
    (folder / "file").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
async def main():
    async with Shelf(Path({str(tmp_path)!r}), bytes_max=100).use("a", make):
        pass
asyncio.run(main())
"""
    died = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], cwd=Path(__file__).parents[3])
    assert died.returncode == -9
    assert [name for name in os.listdir(tmp_path) if name != ".locks"] != []
    # when
    assert await use(shelf(tmp_path), "a", Maker()) == b"x" * 10
    # then what it left is gone
    assert [name for name in os.listdir(tmp_path) if name != ".locks"] == ["a"]


async def test_shelf__is_readable_for_all(tmp_path: Path) -> None:
    async def make(folder: Path) -> None:
        (folder / "in").mkdir(mode=0o700)
        (folder / "in" / "file").write_text("x")
        (folder / "in" / "file").chmod(0o600)

    async with shelf(tmp_path / "s").use("a", make) as entry:
        assert (entry / "in").stat().st_mode & 0o055 == 0o055
        assert (entry / "in" / "file").stat().st_mode & 0o044 == 0o044

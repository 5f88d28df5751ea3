"""`make chaos-index SEED=1`: kill -9, at random, of the process of an index.

It is updated, by a change and from a whole bundle, made anew by a job with another embedder, and saved.

What is loaded afterwards must be one whole commit with the vectors of one embedder, never a mixture, and not older than
the newest that was told to be saved. One JSON line a figure; what does not hold is told on stderr.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import numpy as np

from runtime.ids import BlobId, EntityId, ProjectId, UserId, index_entity
from runtime.index.entity import IndexEntity
from runtime.index.messages import UpdateIndex
from runtime.index.rebuilding import Rebuilder, Shard
from runtime.index.shard import IndexShard
from runtime.index.source import Files
from runtime.project.messages import Describe
from runtime.project.repository import Author, ProjectRepository
from runtime.project.tree import TreeAt, change_between
from runtime.store.seal import Seal
from tests.bench.figures import figure
from tests.bench.index import WordEmbedder

SEAL = Seal(bytes(range(32)))
FILES = 40
OWNER, PROJECT = UserId("ann"), ProjectId("6f1c0000-0000-0000-0000-000000000000")
AUTHOR = Author(name="Ann", email="ann@example.com")
EMBEDDERS = {each.name: each for each in (WordEmbedder(), WordEmbedder("other words", seed=8))}
KINDS = ("change", "bundle", "reindex")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.index", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        asyncio.run(_work_on(given.work, given.number, given.seed))
    return run(given.kills, given.seed)


def run(kills: int, seed: int) -> int:
    chance = random.Random(seed)
    killed: Counter[str] = Counter()
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told = _Told()
        for number in range(kills):
            _kill(folder, told, chance.uniform(0.0, 1.5), chance.randrange(1 << 30))
            killed[told.doing] += 1
            if fault := _fault(folder, told):
                wrong += 1
                print(f"kill {number}: {fault}", file=sys.stderr)
        left = len(os.listdir(folder)) - 1
    _tell("kills", kills, "count")
    for doing, count in sorted(killed.items()):
        _tell(f"kills_{doing.replace(' ', '_')}", count, "count")
    _tell("not_a_whole_commit", wrong, "count", target="== 0", holds=wrong == 0)
    _tell("unfinished_files_left", left, "count", target=f"<= {kills}", holds=left <= kills)
    return 0 if wrong == 0 else 1


class _World:
    """What its ledger, its project and its host are to an index."""

    def __init__(self, folder: Path, repository: ProjectRepository) -> None:
        default = EMBEDDERS["words"]
        entity = index_entity(PROJECT)
        self.index = IndexEntity(entity, cast("Any", self), default, folder, SEAL, named=EMBEDDERS.__getitem__)
        self._repository = repository

    async def get_blob(self, blob: BlobId) -> bytes:
        return await asyncio.to_thread(self._repository.bundle)

    async def ask(self, entity: EntityId, message: Any, *, timeout_s: float = 30.0) -> Any:
        if isinstance(message, Describe):
            return SimpleNamespace(commit=self._repository.head, bundle=BlobId("b"))
        return await self.index.receive(message)


async def _work_on(folder: Path, number: int, seed: int) -> NoReturn:
    """For ever: one commit after the other, from `number` on; tells what it does, and what is saved."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        repository = ProjectRepository.init(Path(name) / "repository", AUTHOR)
        world = _World(folder, repository)
        await world.index.wake()
        before = TreeAt(repository.head, {})
        while True:
            number += 1
            newer = _tree(number)
            gone = dict.fromkeys(before.files.keys() - newer.keys())
            commit = repository.write_and_commit({**newer, **gone}, str(number), AUTHOR)
            after = TreeAt(commit, newer)
            kind = chance.choice(KINDS)
            print(json.dumps({"doing": kind, "commit": commit, "number": number}), flush=True)
            if kind == "reindex":
                embedder = chance.choice(list(EMBEDDERS.values()))
                rebuilder = Rebuilder(cast("Any", world), cast("Any", world), embedder, f"job-{commit}")
                await rebuilder.rebuild(Shard(kind="project", name=PROJECT, owner=OWNER))
            else:
                change = change_between(before, after) if kind == "change" else None
                await world.index.receive(UpdateIndex(owner=OWNER, commit=commit, bundle=BlobId("b"), change=change))
            print(json.dumps({"doing": f"{kind} saving"}), flush=True)
            await world.index.saved()
            print(json.dumps({"doing": "committing", "saved": commit}), flush=True)
            before = after


def _tree(number: int) -> dict[str, bytes]:
    """Every commit changes a file, and every third one removes a file and brings a new one."""
    files = {}
    for each in range(FILES):
        last_change = number - (number - each) % FILES
        name = f"part_{each}_{last_change // 3 if each % 3 == 0 else 0}.py"
        lines = [f"def function_{each}_{last_change}_{line}():\n    return {line}\n" for line in range(20)]
        files[name] = "\n".join(lines).encode()
    return files


@dataclass
class _Told:
    """By all processes until now."""

    numbers: dict[str, int] = field(default_factory=dict)
    """Of each commit."""
    saved: int = 0
    doing: str = ""
    """What the last one was killed at."""

    def hear(self, line: Mapping[str, Any]) -> None:
        self.doing = line["doing"]
        if "commit" in line:
            self.numbers[line["commit"]] = line["number"]
        if "saved" in line:
            self.saved = self.numbers[line["saved"]]


def _kill(folder: Path, told: _Told, after_s: float, seed: int) -> None:
    number = max(told.numbers.values(), default=0)
    command = [sys.executable, "-m", "tests.chaos.index", "--work", str(folder), "--number", str(number)]
    process = subprocess.Popen([*command, "--seed", str(seed)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    lines: list[str] = []
    try:
        # At first as in every commit, and no sooner than something is saved.
        while not lines or "saved" not in json.loads(lines[-1]):
            lines.append(process.stdout.readline())
            assert lines[-1], "it works"
        time.sleep(after_s)
    finally:
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().split("\n")[:-1]
        process.wait()
    for line in filter(None, lines):
        told.hear(json.loads(line))


def _fault(folder: Path, told: _Told) -> str:
    """Empty when there is none."""
    shard = IndexShard(EMBEDDERS["words"], named=EMBEDDERS.__getitem__)
    status = shard.load(folder / f"{PROJECT}.index", SEAL)
    if not status.commit:
        return f"nothing is there, after {told.saved} was saved"
    number = told.numbers[status.commit]
    if number < told.saved:
        return f"it stands at {number}, after {told.saved} was saved"
    expected = IndexShard(EMBEDDERS[status.embedder])
    expected.update(Files(status.commit, _tree(number)))
    ours, theirs = cast("Any", shard)._tree, cast("Any", expected)._tree
    if list(ours.chunks) != list(theirs.chunks):
        return f"its chunks are not those of {number}"
    ids = np.sort(theirs.dense.ids)
    if not np.array_equal(np.sort(ours.dense.ids), ids):
        return f"its vectors are not those of {number}"
    if not np.array_equal(ours.dense.vectors[ours.dense.rows(ids)], theirs.dense.vectors[theirs.dense.rows(ids)]):
        return f"its vectors are not those of {status.embedder}"
    query = f"function_3_{number}"
    if shard.search(query, 10) != expected.search(query, 10):
        return f"it does not find what {number} finds"
    return ""


def _tell(name: str, value: float, unit: str, *, target: str | None = None, holds: bool = True) -> None:
    print(json.dumps(figure("chaos-index", name, value, unit, against=None, target=target, holds=holds)), flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""`make chaos-index SEED=1`: kill -9, at random, of a process that updates an index and saves it.

What is loaded afterwards must be one whole commit, never a mixture, and not older than the newest that was told to be
saved. One JSON line a figure; what does not hold is told on stderr.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

from runtime.index.shard import IndexShard
from runtime.index.source import Files
from runtime.store.seal import Seal
from tests.bench.figures import figure
from tests.bench.index import WordEmbedder

SEAL = Seal(bytes(range(32)))
FILES = 40
START_S_MAX = 120.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.index", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--updates", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.updates:
        _update_on(given.updates)
    return run(given.kills, given.seed)


def run(kills: int, seed: int) -> int:
    chance = random.Random(seed)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "project.index"
        for number in range(kills):
            told = _killed(file, chance.uniform(0.0, 1.5))
            if fault := _fault(file, told):
                wrong += 1
                print(f"kill {number}: {fault}", file=sys.stderr)
        left = len(os.listdir(folder)) - 1
    _tell("kills", kills, "count")
    _tell("not_a_whole_commit", wrong, "count", target="== 0", holds=wrong == 0)
    _tell("unfinished_files_left", left, "count", target=f"<= {kills}", holds=left <= kills)
    return 0 if wrong == 0 else 1


def _update_on(file: Path) -> None:
    """For ever: from where the file stands, one commit after the other; tells each once it is saved."""
    shard = IndexShard(WordEmbedder())
    commit = shard.load(file, SEAL).commit
    number = int(commit or 0)
    while True:
        number += 1
        shard.update(_tree(number))
        shard.save(file, SEAL)
        print(number, flush=True)


def _tree(number: int) -> Files:
    """Every commit changes a file, and every third one removes a file and brings a new one."""
    files = {}
    for each in range(FILES):
        last_change = number - (number - each) % FILES
        name = f"part_{each}_{last_change // 3 if each % 3 == 0 else 0}.py"
        lines = [f"def function_{each}_{last_change}_{line}():\n    return {line}\n" for line in range(20)]
        files[name] = "\n".join(lines).encode()
    return Files(str(number), files)


def _killed(file: Path, after_s: float) -> int:
    """The newest commit that was told to be saved."""
    command = [sys.executable, "-m", "tests.chaos.index", "--updates", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        first = process.stdout.readline()
        assert first.strip(), "it updates"
        time.sleep(after_s)
    finally:
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
        process.wait()
    told = [line for line in (first + rest).split("\n")[:-1] if line]
    return int(told[-1])


def _fault(file: Path, told: int) -> str:
    """Empty when there is none."""
    shard = IndexShard(WordEmbedder())
    commit = shard.load(file, SEAL).commit
    if not commit:
        return f"nothing is there, after {told} was saved"
    if int(commit) < told:
        return f"it stands at {commit}, after {told} was saved"
    expected = IndexShard(WordEmbedder())
    expected.update(_tree(int(commit)))
    ours, theirs = cast("Any", shard)._tree, cast("Any", expected)._tree
    if list(ours.chunks) != list(theirs.chunks):
        return f"its chunks are not those of {commit}"
    if not (ours.dense.vectors == theirs.dense.vectors).all():
        return f"its vectors are not those of {commit}"
    query = f"function_3_{commit}"
    if shard.search(query, 10) != expected.search(query, 10):
        return f"it does not find what {commit} finds"
    return ""


def _tell(name: str, value: float, unit: str, *, target: str | None = None, holds: bool = True) -> None:
    print(json.dumps(figure("chaos-index", name, value, unit, against=None, target=target, holds=holds)), flush=True)


if __name__ == "__main__":
    sys.exit(main())

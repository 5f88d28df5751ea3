"""`make bench NAME=reindex`: how much faster two workers make indexes anew than one, in the real service.

With words alone, and, on a part of the projects, with the real model on one thread a worker. What is timed begins with
the first shard; that the second worker of a pool is up some .7 s after the first counts, so a run of a few seconds says
little. `--projects` and `--rounds` make a run
smaller. One JSON line a figure.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.jobs.reindex import outcomes
from runtime.config import Settings
from runtime.errors import WorkLostError
from runtime.index.embedder import LEXICAL, default_name
from runtime.index.rebuilding import Shard, every_shard
from tests.bench.figures import figure
from tests.bench.ray_service import run_alone, service, small_ray
from tests.cluster.seeded import seed

RATIO_MIN = 1.6
FUNCTIONS = 40
MODEL_TAKES = 10
"""Times as long for a chunk, about: so many projects less it is given."""


def main(arguments: Sequence[str]) -> int:
    given = _given(arguments)
    if given.folder is None:
        return run_alone("tests.bench.reindex", arguments)
    models_dir = Path(os.environ.get("MODEL_CACHE_DIR") or Path(tempfile.gettempdir()) / "bench-models")
    settings = Settings(data_dir=given.folder / "data", probe_entities=True, model_cache_dir=models_dir)
    seed(settings, [_tree(number, given.files) for number in range(given.projects)])
    holds = True
    with small_ray():
        for embedder in given.embedders:
            holds &= asyncio.run(_scaling(settings, embedder, given.rounds))
    return 0 if holds else 1


async def _scaling(settings: Settings, embedder: str, rounds: int) -> bool:
    taken: dict[int, list[float]] = {1: [], 2: []}
    async with service(settings) as system:
        shards = await every_shard(system.ledger)
        if embedder != LEXICAL:
            shards = shards[: max(2, len(shards) // MODEL_TAKES)]
        chunks = 0
        for number in range(rounds):
            for workers in (1, 2):
                generation = f"bench-{embedder}-{number}-{workers}"
                seconds, chunks = await asyncio.to_thread(_made, shards, workers, settings, embedder, generation)
                taken[workers].append(seconds)
    ratio = statistics.median(one / two for one, two in zip(taken[1], taken[2], strict=True))
    holds = ratio >= RATIO_MIN
    line = figure(
        "reindex",
        "two_workers",
        round(statistics.median(taken[2]), 2),
        "s",
        against=f"one worker: {len(shards)} projects, {chunks} chunks by {embedder}, {os.cpu_count()} cores",
        ratio=round(ratio, 3),
        target=f"one / two >= {RATIO_MIN}",
        holds=holds,
    )
    print(json.dumps(line), flush=True)
    return holds


def _made(
    shards: Sequence[Shard], workers: int, settings: Settings, embedder: str, generation: str
) -> tuple[float, int]:
    """Seconds from the first shard's beginning to the last one's end, and how many chunks they have."""
    began_s, chunks = float("inf"), 0
    for row in outcomes(shards, workers, 0, (settings, embedder, generation)):
        if row["outcome"] != "done":
            raise WorkLostError(f"{row['name']} was not made: {row['why']}")
        began_s = min(began_s, time.perf_counter() - row["seconds"])
        chunks += row["chunks"]
    return time.perf_counter() - began_s, chunks


def _tree(number: int, files: int) -> Mapping[str, str]:
    """Functions in words of their own, so that no two projects share a vector."""
    return {
        f"part_{part}.py": "\n\n".join(
            f"def price_{number}_{part}_{each}(items, rate):\n"
            f'    """Adds up the prices of shelf {each} of part {part} in shop {number}, with tax."""\n'
            f"    shelf = [item for item in items if item.shelf == {each}]\n"
            f"    return sum(item.price * rate for item in shelf) + {number * part}"
            for each in range(FUNCTIONS)
        )
        + "\n"
        for part in range(files)
    }


def _given(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.bench.reindex")
    parser.add_argument("--projects", type=int, default=60)
    parser.add_argument("--files", type=int, default=20, help="of each project, with 40 functions each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--embedders", nargs="*", default=list(dict.fromkeys((LEXICAL, default_name()))))
    parser.add_argument("--folder", type=Path, help="where to work: given by the process that cleans up")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

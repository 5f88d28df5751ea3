"""Makes indexes anew, as a job of Ray: `python -m cluster.jobs.reindex --generation NAME --embedder NAME --workers N`.

It says what it does by JSON lines on stdout, each with a key `reindex`: `begun`, `shard` for each, `ended`. Exit status
1 when a shard failed. Stopped at any moment it leaves every index whole, old or new.
"""

import argparse
import asyncio
import json
import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import ray
import ray.data

from actors.embedding import reach
from actors.entities import EntitiesHandle
from actors.handles import NAMESPACE, find
from actors.ledger import NAME as LEDGER
from actors.ledger import LedgerHandle
from actors.process import prepare_process
from runtime.config import Settings
from runtime.errors import MasterbuilderError
from runtime.ids import ProjectId, UserId, vectors_entity
from runtime.index.behalf import Behalf, on_behalf
from runtime.index.embedder import Embedders, is_paid, uses_gpu
from runtime.index.rebuilding import Rebuilder, Rebuilt, Shard, every_shard, shard_of

WORKER_CPUS = 0.01
"""Logical. Next to nothing, so that there is always room beside the service; the threads are what bounds a worker."""
NICENESS = 10
"""Whoever searches goes first."""
RETRIES_MAX = 2
"""Of a shard whose worker died."""

log = logging.getLogger(__name__)

T = TypeVar("T")


class Worker:
    """One process of the pool, with an embedder of its own. Takes one shard at a time."""

    def __init__(self, settings: Settings, embedder: str, generation: str) -> None:
        prepare_process()
        os.nice(NICENESS)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="rebuilding", daemon=True).start()
        self._embedder = embedder
        self._rebuilder = self._run(_rebuilder(settings, embedder, generation))

    def __call__(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """A shard as a row; what became of it as another. Never raises."""
        began_s = time.monotonic()
        rebuilt = self._run(self._rebuild(_shard(row)))
        told = {"outcome": rebuilt.outcome, "chunks": rebuilt.chunks, "why": rebuilt.why, "pid": os.getpid()}
        return {**row, **told, "seconds": round(time.monotonic() - began_s, 2)}

    async def _rebuild(self, shard: Shard) -> Rebuilt:
        # From nothing, unless it was paid: then what was paid before is not paid again.
        given = Behalf(owner=shard.owner, shard=shard.file) if is_paid(self._embedder) else None
        try:
            with on_behalf(given):
                return await self._rebuilder.rebuild(shard)
        except MasterbuilderError as error:
            return Rebuilt(outcome="failed", why=str(error))
        except Exception as error:
            log.exception("%s could not be made", shard.index)
            return Rebuilt(outcome="failed", why=f"This should not have happened: {type(error).__name__}: {error}")

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _rebuilder(settings: Settings, embedder: str, generation: str) -> Rebuilder:
    ledger, entities = LedgerHandle(await asyncio.to_thread(find, LEDGER)), EntitiesHandle()

    def vectors(message: Any) -> Awaitable[Any]:
        return entities.ask(vectors_entity(message.owner), message)

    reached = reach(settings, ledger, vectors, asyncio.get_running_loop())
    # Without a default of its own: what costs is the operator's here, whoever the indexes belong to.
    named = await asyncio.to_thread(Embedders(settings.models_dir, threads=1, reach=reached).named, embedder)
    return Rebuilder(ledger, entities, named, generation)


def main() -> int:
    asked = _arguments()
    prepare_process()
    settings = Settings.from_environment(os.environ)
    ray.init(namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
    try:
        # Once, before many workers would convert the model side by side; and what is not installed is said once.
        if not is_paid(asked.embedder):
            Embedders(settings.models_dir, threads=1).named(asked.embedder)
        shards = asyncio.run(_shards(asked.project))
    except MasterbuilderError as error:
        _say("ended", error=error.message, next_step=error.next_step)
        return 1
    counts = _carry_out(_largest_first(shards, settings.data_dir / "index"), settings, asked)
    return 1 if counts["failed"] else 0


async def _shards(project: str) -> Sequence[Shard]:
    journal = LedgerHandle(await asyncio.to_thread(find, LEDGER))
    return [await shard_of(journal, ProjectId(project))] if project else await every_shard(journal)


def _largest_first(shards: Sequence[Shard], folder: Path) -> Sequence[Shard]:
    """By the files of the indexes in place: no worker is left with a large one at the end."""

    def size_bytes(shard: Shard) -> int:
        try:
            return (folder / shard.file).stat().st_size
        except OSError:
            return 0

    return sorted(shards, key=lambda shard: (-size_bytes(shard), shard.kind, shard.name))


def _carry_out(shards: Sequence[Shard], settings: Settings, asked: argparse.Namespace) -> Counter[str]:
    began_s = time.monotonic()
    gpus = int(cast("Any", ray).cluster_resources().get("GPU", 0)) if uses_gpu(asked.embedder) else 0
    workers = max(1, min(asked.workers, len(shards), gpus or asked.workers))
    paid = is_paid(asked.embedder)
    _say("begun", shards=len(shards), embedder=asked.embedder, workers=workers, gpu=bool(gpus), paid=paid)
    counts: Counter[str] = Counter(done=0, skipped=0, failed=0)
    missing = {shard.index: shard for shard in shards}
    trouble = "Its worker died again and again."
    try:
        for row in outcomes(shards, workers, gpus, (settings, asked.embedder, asked.generation)):
            missing.pop(_shard(row).index)
            counts[row["outcome"]] += 1
            _say("shard", **row)
    except Exception as error:
        log.exception("the job broke off")
        trouble = f"The job broke off: {type(error).__name__}: {(str(error).splitlines() or [''])[-1]}"
    for shard in missing.values():
        counts["failed"] += 1
        row = {"outcome": "failed", "chunks": 0, "why": trouble, "seconds": 0.0, "pid": 0}
        _say("shard", **_row(shard), **row)
    _say("ended", **counts, seconds=round(time.monotonic() - began_s, 1))
    return counts


def outcomes(
    shards: Sequence[Shard], workers: int, gpus: int, made_with: tuple[Settings, str, str]
) -> Iterator[Mapping[str, Any]]:
    """In the order in which they end. A shard whose worker dies is begun again by another; at last it is left out."""
    if not shards:
        return
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    rows = ray.data.from_items([_row(shard) for shard in shards], override_num_blocks=len(shards))
    rebuilt = rows.map(
        cast("Any", Worker),
        fn_constructor_args=made_with,
        # The next shard waits at the worker: handing one out takes Ray Data longer than a small one takes to be made.
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
        num_cpus=WORKER_CPUS,
        num_gpus=1 if gpus else None,
        # Unless said, a shard that kills whoever takes it is begun again for ever.
        max_task_retries=RETRIES_MAX,
    )
    for batch in rebuilt.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"):
        yield from cast("Any", batch).to_pylist()


def _row(shard: Shard) -> dict[str, Any]:
    return {"kind": shard.kind, "name": shard.name, "owner": shard.owner}


def _shard(row: Mapping[str, Any]) -> Shard:
    return Shard(kind=row["kind"], name=row["name"], owner=UserId(row["owner"]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--generation", required=True)
    parser.add_argument("--embedder", required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--project", default="")
    return parser.parse_args()


def _say(event: str, **facts: Any) -> None:
    print(json.dumps({"reindex": event, **facts}), flush=True)


if __name__ == "__main__":
    # Workers find the class by its module's name, which is not that of the script that is run.
    from cluster.jobs import reindex

    sys.exit(reindex.main())

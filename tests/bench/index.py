"""How fast the index answers and follows its code: `make bench NAME=index`. How well it finds: `make eval-index`.

Chunks are those of the installed libraries. For large indexes their vectors are made from their words by a random
projection, so that nothing needs to be embedded; where embedding is part of the figure, the real model does it.
One JSON line a figure.
"""

import asyncio
import json
import os
import statistics
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Self, cast

import numpy as np

from runtime.ids import BlobId, ProjectId, UserId, index_entity, vectors_entity
from runtime.index import dense
from runtime.index.behalf import Behalf, on_behalf
from runtime.index.dense import DenseVectors
from runtime.index.embedder import Embedder, NoEmbedder, Vectors, choose_embedder
from runtime.index.entity import IndexEntity
from runtime.index.from_threads import LoopVectors
from runtime.index.messages import Found, SearchIndex, UpdateIndex
from runtime.index.shard import IndexShard
from runtime.index.source import Files, read_file
from runtime.index.terms import term_keys
from runtime.index.tree import IndexedTree
from runtime.index.vector_cache import CachedEmbedder
from runtime.index.vectors_entity import VectorsEntity
from runtime.project.repository import Author, ProjectRepository
from runtime.project.tree import TreeAt, change_between
from runtime.store.seal import Seal
from tests.bench.figures import figure

SIZES = ((10_000, 2.0), (100_000, 10.0))
"""Chunks, and the most milliseconds that a search may take."""
DEPTH = 10
QUESTIONS = 200
COMMITS = 5
EMBEDDED_CHUNKS = 600
AUTHOR = Author(name="Ann", email="ann@example.com")
OWNER = UserId("ann")


class WordEmbedder:
    """Texts that share words are near each other. Computes in microseconds what a model computes in milliseconds."""

    dimension = 384

    def __init__(self, name: str = "words", *, seed: int = 7) -> None:
        self.name = name
        self._words = np.random.default_rng(seed).normal(size=(8192, self.dimension)).astype(np.float32)
        self.embedded = 0

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.embedded += len(texts)
        rows = np.empty((len(texts), self.dimension), np.float32)
        for number, text in enumerate(texts):
            rows[number] = self._words[np.array(term_keys(text[:500]) or [0]) % len(self._words)].sum(axis=0)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def main() -> None:
    embedder = WordEmbedder()
    for size, p50_ms_max in SIZES:
        files = _files(size)
        shard = IndexShard(embedder)
        shard.update(Files("bench", files))
        questions = _questions(shard)
        _search(shard, embedder, questions, p50_ms_max)
        _recall(shard, embedder, questions)
        asyncio.run(_one_file_commits(embedder, files, questions))
    _indexing(choose_embedder(Path(os.environ.get("MODEL_CACHE_DIR") or Path(tempfile.gettempdir()) / "bench-models")))


def _search(shard: IndexShard, embedder: WordEmbedder, questions: Sequence[str], p50_ms_max: float) -> None:
    """Asked twice: the second time a question's vector is known, so that what is timed is the search alone."""
    for question in questions:
        shard.search(question, DEPTH)
    before = embedder.embedded
    taken = sorted(_ms(partial(shard.search, question, DEPTH)) for question in questions)
    chunks = f"{shard.status.chunks} chunks"
    _tell("search_p50", statistics.median(taken), "ms", chunks, at_most=p50_ms_max)
    _tell("search_p99", taken[len(taken) * 99 // 100], "ms", chunks)
    _tell("questions_embedded_again", embedder.embedded - before, "count", chunks, at_most=0)


def _recall(shard: IndexShard, embedder: WordEmbedder, questions: Sequence[str]) -> None:
    """Of the ten nearest vectors, computed exactly, how many the index gives."""
    tree = cast("Any", shard)._tree
    vectors = embedder.embed([chunk.embedded_text for chunk in tree.chunks])
    index = DenseVectors.of(np.arange(len(vectors)), vectors)
    shares = []
    for query in embedder.embed(questions[:50]):
        exact = vectors @ query
        border = np.partition(exact, -DEPTH)[-DEPTH]
        found = index.nearest(query, DEPTH, None)
        shares.append(float(np.mean(exact[found] >= border - 1e-6)))
    kept = "float16" if len(vectors) > dense.FLOAT32_MAX else "float32"
    _tell("index_recall_at_10", statistics.mean(shares), "share", f"{len(vectors)} vectors in {kept}", at_least=0.99)


async def _one_file_commits(embedder: WordEmbedder, files: dict[str, bytes], questions: Sequence[str]) -> None:
    """From a commit that has landed to an answer with its code, while others ask without a pause: by its change, as a
    build tells it, and from the whole bundle."""
    with tempfile.TemporaryDirectory() as folder:
        repository = ProjectRepository.init(Path(folder) / "repository", AUTHOR)
        commit = repository.write_and_commit(dict(files), "all", AUTHOR)
        blobs = _Blobs(repository.bundle())
        entity = index_entity(ProjectId("bench"))
        index = IndexEntity(entity, cast("Any", blobs), embedder, Path(folder) / "index", Seal(bytes(32)))
        update = UpdateIndex(owner=OWNER, commit=commit, bundle=BlobId("0"))
        status = await index.receive(update)
        await index.saved()
        asking = asyncio.create_task(_ask_on(index, questions))
        taken: dict[bool, list[float]] = {True: [], False: []}
        embedded = []
        for number in range(2 * COMMITS):
            text = f"def landed_{number}_commit():\n    return {number}\n"
            before = TreeAt(commit, files)
            files = {**files, "bench_added.py": text.encode()}
            commit = await asyncio.to_thread(repository.write_and_commit, {"bench_added.py": text}, "one", AUTHOR)
            blobs.bundle = await asyncio.to_thread(repository.bundle)
            is_told = number % 2 == 0
            began_s = time.perf_counter()
            change = change_between(before, TreeAt(commit, files)) if is_told else None
            update = UpdateIndex(owner=OWNER, commit=commit, bundle=BlobId("0"), change=change)
            status = await index.receive(update)
            found = await index.receive(SearchIndex(owner=OWNER, query=f"landed_{number}_commit", limit=1))
            taken[is_told].append((time.perf_counter() - began_s) * 1e3)
            assert isinstance(found, Found)
            assert (found.commit, found.hits[0].path) == (commit, "bench_added.py")
            embedded.append(cast("Any", status).embedded)
        asking.cancel()
        asked = (await asyncio.gather(asking, return_exceptions=True))[0]
        await index.saved()
    chunks = f"{cast('Any', status).chunks} chunks"
    meanwhile = f"{chunks}, searched meanwhile"
    _tell("one_file_commit", statistics.median(taken[True]), "ms", meanwhile, at_most=2000)
    _tell("one_file_commit_from_the_bundle", statistics.median(taken[False]), "ms", meanwhile)
    _tell("one_file_commit_embedded", max(embedded), "chunks", chunks, at_most=1)
    assert isinstance(asked, asyncio.CancelledError), asked


async def _ask_on(index: IndexEntity, questions: Sequence[str]) -> None:
    while True:
        for question in questions:
            await index.receive(SearchIndex(owner=OWNER, query=question, limit=DEPTH))
            await asyncio.sleep(0.01)


class _Blobs:
    def __init__(self, bundle: bytes) -> None:
        self.bundle = bundle

    async def get_blob(self, blob: BlobId) -> bytes:
        return self.bundle


def _indexing(model: Embedder) -> None:
    """A whole index beside nothing but the embedding of the same chunks, in turn."""
    files = _files(EMBEDDED_CHUNKS)
    tree = IndexedTree.empty(NoEmbedder()).updated(Files("bench", files))
    texts = [chunk.embedded_text for chunk in tree.chunks]
    whole, bare, alone, keeping, again = [], [], [], [], []
    with tempfile.TemporaryDirectory() as folder, _Keeping(Path(folder)) as cache:
        kept = CachedEmbedder(model, cache)
        for number in range(3):
            source = Files(str(number), files)
            bare.append(_ms(partial(model.embed, texts)))
            whole.append(_ms(partial(IndexShard(model).update, source)))
            alone.append(_cpu_ms(partial(IndexShard(model).update, source)))
            with on_behalf(Behalf(owner=UserId(f"owner-{number}"), shard="one.index")):
                keeping.append(_cpu_ms(partial(IndexShard(kept).update, source)))
            with on_behalf(Behalf(owner=UserId(f"owner-{number}"), shard="two.index")):
                again.append(_cpu_ms(partial(IndexShard(kept).update, source)))
    chunks = f"{len(texts)} chunks by {model.name}"
    _tell("indexing", statistics.median(whole), "ms", chunks, ratio=_ratio(whole, bare), ratio_max=1.2)
    for name, taken, against, ratio_max in (
        ("indexing_kept", keeping, alone, 1.05),
        ("indexing_second_project", again, alone, 0.25),
    ):
        what = f"without kept vectors: {chunks}"
        _tell(name, statistics.median(taken), "CPU ms", what, ratio=_ratio(taken, against), ratio_max=ratio_max)


def _ratio(of: Sequence[float], to: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(of, to, strict=True))


class _Keeping(LoopVectors):
    """Vectors kept in files of a folder, by the entities of a loop that runs beside."""

    def __init__(self, folder: Path) -> None:
        self._files: dict[UserId, VectorsEntity] = {}
        self._threads = ThreadPoolExecutor(1)
        self._host_loop = asyncio.new_event_loop()
        self._runner = threading.Thread(target=self._host_loop.run_forever, daemon=True)

        async def ask(message: Any) -> Any:
            owner = message.owner
            if owner not in self._files:
                self._files[owner] = VectorsEntity(vectors_entity(owner), folder, Seal(bytes(32)), self._threads)
            return await self._files[owner].receive(message)

        super().__init__(self._host_loop, ask)

    def __enter__(self) -> Self:
        self._runner.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0.1), self._host_loop).result()
        self._host_loop.call_soon_threadsafe(self._host_loop.stop)
        self._runner.join()
        self._threads.shutdown(wait=True)


def _files(chunks: int) -> dict[str, bytes]:
    """Installed Python, as much of it as gives about so many chunks."""
    root = Path(sysconfig.get_path("purelib"))
    files: dict[str, bytes] = {}
    found = 0
    for path in sorted(root.rglob("*.py")):
        content = path.read_bytes()
        files[str(path.relative_to(root))] = content
        found += _chunks_in(str(path), content)
        if found >= chunks:
            return files
    return files


def _chunks_in(path: str, content: bytes) -> int:
    return len(read_file(path, content).chunks)


def _questions(shard: IndexShard) -> list[str]:
    chunks = cast("Any", shard)._tree.chunks
    said = [chunk.docstring for chunk in chunks[:: max(1, len(chunks) // 2000)] if len(chunk.docstring.split()) > 3]
    return list(dict.fromkeys(said))[:QUESTIONS]


def _cpu_ms(work: Callable[[], object]) -> float:
    """Of all threads: what a busy machine hardly changes. What is written beside counts where the next one waits."""
    began_s = time.process_time()
    work()
    return (time.process_time() - began_s) * 1e3


def _ms(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return (time.perf_counter() - began_s) * 1e3


def _tell(
    name: str,
    value: float,
    unit: str,
    against: str,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    ratio: float | None = None,
    ratio_max: float | None = None,
) -> None:
    target = None
    holds = True
    if at_most is not None:
        target, holds = f"<= {at_most}", value <= at_most
    if at_least is not None:
        target, holds = f">= {at_least}", value >= at_least
    if ratio is not None and ratio_max is not None:
        target, holds = f"ratio <= {ratio_max}", ratio <= ratio_max
    line = figure(
        "index",
        name,
        round(value, 4),
        unit,
        against=against,
        ratio=ratio and round(ratio, 4),
        target=target,
        holds=holds,
    )
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

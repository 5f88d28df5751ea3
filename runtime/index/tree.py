"""One state of an index: everything needed to rank the chunks of one tree. Built whole, then only read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Self

import numpy as np

from runtime.index.chunk import Chunk
from runtime.index.dense import DenseVectors
from runtime.index.embedder import Embedder
from runtime.index.filter import EVERYTHING, Filter
from runtime.index.ranking import Flags, Ranking
from runtime.index.source import Reading, Source
from runtime.index.terms import TermCounts, count_terms

CHUNKS_MAX = 200_000
"""A search over this many takes some 10 ms; what is above is skipped, and said to be."""

_TEST_FOLDERS = {"test", "tests", "__tests__"}


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedFile:
    content_id: str
    """As `Source.ids` names it; empty where the file has to be read again."""
    skipped: str
    """Why it is not (wholly) searchable; empty when it is."""
    chunks: Sequence[Chunk]
    terms: Sequence[TermCounts]
    ids: Sequence[int]
    """The key of each chunk's vector: 63 bits of its content hash. Chunks of one text share it."""

    @classmethod
    def of(cls, content_id: str, it: Reading) -> Self:
        return cls(
            content_id=content_id,
            skipped=it.skipped,
            chunks=it.chunks,
            terms=[count_terms((chunk.text, chunk.symbol, chunk.path)) for chunk in it.chunks],
            ids=[int(chunk.content_hash[:16], 16) >> 1 for chunk in it.chunks],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedTree:
    commit: str
    files: Mapping[str, IndexedFile]
    chunks: Sequence[Chunk]
    """By path, then line."""
    dense: DenseVectors | None
    """None when the embedder gives no vectors."""
    embedded: int
    ranking: Ranking

    @classmethod
    def of(cls, commit: str, files: Mapping[str, IndexedFile], dense: DenseVectors | None, embedded: int) -> Self:
        """`dense` holds the vector of every chunk in `files`."""
        chunks = [chunk for file in files.values() for chunk in file.chunks]
        chunks_per_file = [len(file.chunks) for file in files.values()]
        return cls(
            commit=commit,
            files=files,
            chunks=chunks,
            dense=dense,
            embedded=embedded,
            ranking=Ranking(
                terms=[counts for file in files.values() for counts in file.terms],
                ids=np.array([it for file in files.values() for it in file.ids], dtype=np.int64),
                is_test=np.repeat([is_test_path(path) for path in files], chunks_per_file).astype(np.bool_),
                dense=dense,
            ),
        )

    @classmethod
    def empty(cls, embedder: Embedder) -> Self:
        return cls.of("", {}, DenseVectors.empty(embedder.dimension) if embedder.dimension else None, 0)

    def updated(self, source: Source, embedder: Embedder) -> "IndexedTree":
        """The tree `source`; what did not change since this one is taken over. Raises what these raise."""
        files = self._read(source)
        if self.dense is None:
            return IndexedTree.of(source.commit, files, None, 0)
        texts = {
            it: chunk.embedded_text for file in files.values() for it, chunk in zip(file.ids, file.chunks, strict=True)
        }
        dense, embedded = self.dense.with_texts(texts, embedder)
        return IndexedTree.of(source.commit, files, dense, embedded)

    def allowed(self, wanted: Filter) -> Flags | None:
        """bool[chunks]; None for all of them."""
        if wanted == EVERYTHING:
            return None
        counts = [len(file.chunks) for file in self.files.values()]
        return np.repeat(np.array([wanted.allows(path) for path in self.files], np.bool_), counts)

    def _read(self, source: Source) -> dict[str, IndexedFile]:
        known = {
            path: self.files[path] for path, content_id in source.ids.items() if self._content_id(path) == content_id
        }
        readings = source.read(source.ids.keys() - known.keys())
        files: dict[str, IndexedFile] = {}
        room = CHUNKS_MAX
        for path in sorted(known.keys() | readings.keys()):
            file = known.get(path) or IndexedFile.of(source.ids[path], readings[path])
            if len(file.chunks) > room:
                # Without an id, so that the next update, which may have room, reads it again.
                file = IndexedFile.of("", Reading(chunks=(), skipped="the index is full"))
            files[path] = file
            room -= len(file.chunks)
        return files

    def _content_id(self, path: str) -> str:
        file = self.files.get(path)
        return file.content_id if file else ""


def is_test_path(path: str) -> bool:
    parts = PurePosixPath(path.lower()).parts
    name = parts[-1] if parts else ""
    return (
        not _TEST_FOLDERS.isdisjoint(parts[:-1])
        or name.startswith(("test_", "conftest."))
        or any(mark in name for mark in ("_test.", ".test.", ".spec."))
    )

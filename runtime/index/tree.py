"""One state of an index: everything needed to rank the chunks of one tree. Built whole, then only read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import PurePosixPath
from typing import Self

import numpy as np

from runtime.errors import NotEmbeddedError
from runtime.index.bm25 import Postings
from runtime.index.chunk import Chunk
from runtime.index.dense import DenseVectors, Ids
from runtime.index.embedder import Embedder
from runtime.index.filter import EVERYTHING, Filter
from runtime.index.ranking import FIELDS, Flags, Ranking
from runtime.index.source import Reading, Source
from runtime.index.terms import count_terms

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
    ids: Sequence[int]
    """The key of each chunk's vector: 63 bits of its content hash. Chunks of one text share it."""

    @classmethod
    def of(cls, content_id: str, it: Reading) -> Self:
        return cls(
            content_id=content_id,
            skipped=it.skipped,
            chunks=it.chunks,
            ids=[int(chunk.content_hash[:16], 16) >> 1 for chunk in it.chunks],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedTree:
    commit: str
    embedder: Embedder
    """What made its vectors, makes those of questions, and goes on with it."""
    generation: str
    """As `IndexStatus.generation`."""
    files: Mapping[str, IndexedFile]
    chunks: Sequence[Chunk]
    """By path, then line."""
    dense: DenseVectors | None
    """None when the embedder gives no vectors."""
    embedded: int
    ranking: Ranking
    waits: str = ""
    """Why vectors are missing; then `dense` has only some, and none of them is searched."""

    @classmethod
    def of(
        cls,
        commit: str,
        embedder: Embedder,
        generation: str,
        files: Mapping[str, IndexedFile],
        postings: Postings,
        dense: DenseVectors | None,
        embedded: int,
        waits: str = "",
    ) -> Self:
        """`postings` are those of the chunks of `files`; `dense` holds the embedder's vector of each, or of some, if it
        waits; None: it gives none."""
        chunks = [chunk for file in files.values() for chunk in file.chunks]
        chunks_per_file = [len(file.chunks) for file in files.values()]
        return cls(
            commit=commit,
            embedder=embedder,
            generation=generation,
            files=files,
            chunks=chunks,
            dense=dense,
            embedded=embedded,
            ranking=Ranking(
                postings=postings,
                ids=_ids(files),
                is_test=np.repeat([is_test_path(path) for path in files], chunks_per_file).astype(np.bool_),
                dense=None if waits else dense,
            ),
            waits=waits,
        )

    @classmethod
    def empty(cls, embedder: Embedder, generation: str = "") -> Self:
        dense = DenseVectors.empty(embedder.dimension) if embedder.dimension else None
        return cls.of("", embedder, generation, {}, Postings.empty(FIELDS), dense, 0)

    def updated(self, source: Source) -> "IndexedTree":
        """The tree `source`; what did not change since this one is taken over. Raises what these raise."""
        files = self._read(source)
        return self._embedded(source.commit, files, self._postings(files))

    def completed(self) -> "IndexedTree":
        """The same tree with the vectors that it waits for, where they can be had by now."""
        return self._embedded(self.commit, self.files, self.ranking.postings) if self.waits else self

    def _embedded(self, commit: str, files: Mapping[str, IndexedFile], postings: Postings) -> "IndexedTree":
        if self.dense is None:
            return IndexedTree.of(commit, self.embedder, self.generation, files, postings, None, 0)

        def texts_of(missing: Ids) -> list[str]:
            wanted = set(missing.tolist())
            chunk_of = {
                it: chunk
                for file in files.values()
                for it, chunk in zip(file.ids, file.chunks, strict=True)
                if it in wanted
            }
            return [chunk_of[it].embedded_text for it in missing.tolist()]

        ids = np.unique(_ids(files))
        waits = ""
        try:
            dense, embedded = self.dense.with_ids(ids, texts_of, self.embedder)
        except NotEmbeddedError as error:
            dense, embedded, waits = self.dense.only(ids), 0, str(error)
        return IndexedTree.of(commit, self.embedder, self.generation, files, postings, dense, embedded, waits)

    def allowed(self, wanted: Filter) -> Flags | None:
        """bool[chunks]; None for all of them."""
        if wanted == EVERYTHING:
            return None
        counts = [len(file.chunks) for file in self.files.values()]
        allowed = np.repeat(np.array([wanted.allows(path) for path in self.files], np.bool_), counts)
        if wanted.kind:
            allowed &= np.fromiter((chunk.kind == wanted.kind for chunk in self.chunks), np.bool_, len(self.chunks))
        return allowed

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

    def _postings(self, files: Mapping[str, IndexedFile]) -> Postings:
        """Those of files that are the same here are taken over; the words of the others are counted."""
        earlier = self.ranking.postings
        starts, starts_here = _starts(files), _starts(self.files)
        kept = [path for path, file in self.files.items() if files.get(path) is file]
        numbers = np.full(earlier.size, -1, np.int32)
        for path in kept:
            start, count = starts_here[path], len(files[path].chunks)
            numbers[start : start + count] = np.arange(starts[path], starts[path] + count)
        added = {
            starts[path] + number: count_terms((chunk.text, chunk.symbol, chunk.path))
            for path in files.keys() - kept
            for number, chunk in enumerate(files[path].chunks)
        }
        return earlier.changed(numbers, added, sum(len(file.chunks) for file in files.values()))


def _ids(files: Mapping[str, IndexedFile]) -> Ids:
    """int64[chunks]"""
    return np.fromiter(chain.from_iterable(file.ids for file in files.values()), np.int64)


def _starts(files: Mapping[str, IndexedFile]) -> dict[str, int]:
    """The number of each file's first chunk."""
    counts = [len(file.chunks) for file in files.values()]
    return dict(zip(files, accumulate(counts, initial=0), strict=False))


def is_test_path(path: str) -> bool:
    parts = PurePosixPath(path.lower()).parts
    name = parts[-1] if parts else ""
    return (
        not _TEST_FOLDERS.isdisjoint(parts[:-1])
        or name.startswith(("test_", "conftest."))
        or any(mark in name for mark in ("_test.", ".test.", ".spec."))
    )

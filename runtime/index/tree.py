"""One state of an index: everything needed to rank the chunks of one tree. Built whole, then only read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Self

import numpy as np
import numpy.typing as npt

from runtime.index.bm25 import FieldBm25
from runtime.index.chunk import CHUNKS_PER_FILE_MAX, Chunk, chunk_file, why_unreadable
from runtime.index.dense import DenseVectors
from runtime.index.embedder import Embedder
from runtime.index.terms import TermCounts, count_terms, term_keys

CHUNKS_MAX = 50_000
"""An exact search over this many takes about 10 ms; what is above is skipped, and said to be."""

_DENSE, _TEXT, _SYMBOL = 0.4, 0.4, 0.2
_TEXT_FIELDS = (1.0, 1.0, 0.5)  # body, name, path
_SYMBOL_FIELDS = (0.0, 1.0, 1.0)
_TEST_FACTOR = 0.75
_TEST_FOLDERS = {"test", "tests", "__tests__"}
_TEST_KEY = term_keys("test")[0]

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedFile:
    content_sha256: str
    skipped: str
    """Why it is not (wholly) searchable; empty when it is."""
    chunks: Sequence[Chunk]
    terms: Sequence[TermCounts]
    ids: Sequence[int]
    """The key of each chunk's vector: 63 bits of its content hash. Chunks of one text share it."""

    @classmethod
    def of(cls, content_sha256: str, skipped: str, chunks: Sequence[Chunk]) -> Self:
        return cls(
            content_sha256=content_sha256,
            skipped=skipped,
            chunks=chunks,
            terms=[count_terms((chunk.text, chunk.symbol, chunk.path)) for chunk in chunks],
            ids=[int(chunk.content_hash[:16], 16) >> 1 for chunk in chunks],
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
    ids: npt.NDArray[np.int64]
    text: FieldBm25
    symbols: FieldBm25
    is_test: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, commit: str, files: Mapping[str, IndexedFile], dense: DenseVectors | None, embedded: int) -> Self:
        """`dense` holds the vector of every chunk in `files`."""
        chunks = [chunk for file in files.values() for chunk in file.chunks]
        terms = [counts for file in files.values() for counts in file.terms]
        return cls(
            commit=commit,
            files=files,
            chunks=chunks,
            dense=dense,
            embedded=embedded,
            ids=np.array([it for file in files.values() for it in file.ids], dtype=np.int64),
            text=FieldBm25(terms, _TEXT_FIELDS),
            symbols=FieldBm25(terms, _SYMBOL_FIELDS),
            is_test=np.array([is_test_path(chunk.path) for chunk in chunks], dtype=np.bool_),
        )

    @classmethod
    def empty(cls, embedder: Embedder) -> Self:
        return cls.of("", {}, DenseVectors.empty(embedder.dimension) if embedder.dimension else None, 0)

    def updated(self, commit: str, contents: Mapping[str, bytes], embedder: Embedder) -> "IndexedTree":
        """The tree `contents`; what did not change since this one is taken over. Raises what the embedder raises."""
        files = self._read(contents)
        if self.dense is None:
            return IndexedTree.of(commit, files, None, 0)
        texts = {
            it: chunk.embedded_text for file in files.values() for it, chunk in zip(file.ids, file.chunks, strict=True)
        }
        dense, embedded = self.dense.with_texts(texts, embedder)
        return IndexedTree.of(commit, files, dense, embedded)

    def scores(self, query: str, embedder: Embedder) -> Scores:
        """float32[chunks], 0 to 1.

        .4 text + .4 vector + .2 symbol, each scaled to 0..1 over all chunks (min-max; words from 0, so that a chunk
        with a word of the query is found even where all have it); a test's x .75, unless the query speaks of tests.
        Without vectors the other two share the whole. Chosen on eight repositories and held on two others, where it
        found more than reciprocal rank fusion and than any of its parts.
        """
        keys = np.array(term_keys(query), dtype=np.int64)
        words = _TEXT * _scaled(self.text.scores(keys)) + _SYMBOL * _scaled(self.symbols.scores(keys))
        if self.dense is None:
            total = words / (_TEXT + _SYMBOL)
        else:
            cosines = self.dense.scores(embedder.embed([query]), self.ids)
            total = words + _DENSE * _scaled(cosines, low=float(cosines.min()))
        if _TEST_KEY not in keys:
            total = np.where(self.is_test, total * _TEST_FACTOR, total)
        return np.clip(total, 0.0, 1.0).astype(np.float32)

    def _read(self, contents: Mapping[str, bytes]) -> dict[str, IndexedFile]:
        files: dict[str, IndexedFile] = {}
        room = CHUNKS_MAX
        for path in sorted(contents):
            digest = sha256(contents[path]).hexdigest()
            known = self.files.get(path)
            file = known if known and known.content_sha256 == digest else _read_file(path, contents[path], digest)
            if len(file.chunks) > room:
                # Without a digest, so that the next update, which may have room, reads it again.
                file = IndexedFile.of("", "the index is full", ())
            files[path] = file
            room -= len(file.chunks)
        return files


def is_test_path(path: str) -> bool:
    parts = PurePosixPath(path.lower()).parts
    name = parts[-1] if parts else ""
    return (
        not _TEST_FOLDERS.isdisjoint(parts[:-1])
        or name.startswith(("test_", "conftest."))
        or any(mark in name for mark in ("_test.", ".test.", ".spec."))
    )


def _read_file(path: str, content: bytes, digest: str) -> IndexedFile:
    if reason := why_unreadable(path, content):
        return IndexedFile.of(digest, reason, ())
    chunks = chunk_file(path, content)
    cut = f"only its first {CHUNKS_PER_FILE_MAX} chunks" if len(chunks) == CHUNKS_PER_FILE_MAX else ""
    return IndexedFile.of(digest, cut, chunks)


def _scaled(scores: Scores, low: float = 0.0) -> Scores:
    """`low` becomes 0 and the highest 1, so that even in an index of one chunk that chunk can be found."""
    high = float(scores.max())
    if high > low:
        return np.asarray((scores - low) / (high - low), np.float32)
    return np.full_like(scores, float(high > 0))

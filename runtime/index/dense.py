"""Vectors by content, in FAISS."""

from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import faiss
import numpy as np
import numpy.typing as npt

from runtime.index.embedder import Embedder, Vectors

FLOAT32_MAX = 50_000
"""Above it vectors are kept in float16: half the memory to read is half the time, and the same ten are found."""
SAMPLE_MAX = 1024

Ids = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]
Scores = npt.NDArray[np.float32]


class DenseVectors:
    """An inner-product index that looks at every vector. Never changed after it is built, so any number of threads may
    search it."""

    def __init__(self, ids: Ids, index: Any) -> None:
        """For `of`: row i of `ids` is row i of the FAISS index, and everywhere here."""
        self.ids = ids
        self._index = index
        self._by_id = np.argsort(ids)
        # By their ids, so that equal vectors have an equal sample, however their index came about.
        self._sample = self._vectors_of(self._by_id[:: max(1, len(ids) // SAMPLE_MAX)])

    @classmethod
    def of(cls, ids: Ids, vectors: Vectors) -> Self:
        """`ids` int64[n], each once; `vectors` float32[n, d] with d > 0, of L2 length 1."""
        index = _empty_index(vectors.shape[1], is_large=len(ids) > FLOAT32_MAX)
        if len(ids):
            index.add(np.ascontiguousarray(vectors))
        return cls(ids, index)

    @classmethod
    def empty(cls, dimension: int) -> Self:
        return cls.of(np.empty(0, np.int64), np.empty((0, dimension), np.float32))

    @property
    def vectors(self) -> npt.NDArray[np.float32 | np.float16]:
        """[n, d] in the order of `ids`; float16 where no more is known of them."""
        vectors = self._vectors_of(np.arange(len(self.ids)))
        return vectors.astype(np.float16) if len(self.ids) > FLOAT32_MAX else vectors

    def with_ids(
        self, ids: Ids, texts_of: Callable[[Ids], Sequence[str]], embedder: Embedder
    ) -> tuple["DenseVectors", int]:
        """Vectors of exactly `ids`, which ascend, and how many had to be computed; the others are taken from here."""
        missing = ids[~np.isin(ids, self.ids, assume_unique=True)]
        stays = np.isin(self.ids, ids, assume_unique=True)
        if not len(missing) and stays.all():
            return self, 0
        computed = embedder.embed(texts_of(missing))
        assert computed.shape == (len(missing), embedder.dimension), "one vector for each text"
        assert np.isfinite(computed).all(), "vectors are numbers"
        return self._changed(stays, missing, computed), len(missing)

    def _changed(self, stays: npt.NDArray[np.bool_], new_ids: Ids, new_vectors: Vectors) -> "DenseVectors":
        """Copied as they are kept, which is many times faster than building anew."""
        ids = np.concatenate([self.ids[stays], new_ids])
        if (len(ids) > FLOAT32_MAX) != (len(self.ids) > FLOAT32_MAX):
            return DenseVectors.of(ids, np.concatenate([self._vectors_of(np.flatnonzero(stays)), new_vectors]))
        index = faiss.clone_index(self._index)
        if not stays.all():
            cast("Any", index).remove_ids(np.flatnonzero(~stays))
        if len(new_ids):
            index.add(np.ascontiguousarray(new_vectors))
        return DenseVectors(ids, index)

    def only(self, ids: Ids) -> "DenseVectors":
        """Those of `ids` that are here."""
        return self._changed(np.isin(self.ids, ids), np.empty(0, np.int64), np.empty((0, self._index.d), np.float32))

    def rows(self, ids: Ids) -> Rows:
        """intp[len(ids)]: where each stands; all of them must be here."""
        return self._by_id[np.searchsorted(self.ids, ids, sorter=self._by_id)]

    def nearest(self, query: Vectors, count: int, allowed: npt.NDArray[np.bool_] | None) -> Rows:
        """At most `count` rows, nearest to `query` float32[d] first; only those of `allowed` bool[n], if given."""
        # Of this thread alone. A second core saves less than waiting for it costs where others are at work.
        faiss.omp_set_num_threads(1)
        parameters = None if allowed is None else _only(allowed)
        _, found = self._index.search(query[None], min(count, len(self.ids)), params=parameters)
        return np.asarray(found[0][found[0] >= 0])

    def cosines(self, query: Vectors, rows: Rows) -> Scores:
        return np.asarray(self._vectors_of(rows) @ query, np.float32)

    def background(self, query: Vectors) -> float:
        """The cosine that `query` has with a vector on average, by a sample: what is not above it says nothing."""
        return float((self._sample @ query).mean()) if len(self._sample) > 1 else 0.0

    def _vectors_of(self, rows: Rows) -> Vectors:
        if not len(rows):
            return np.empty((0, self._index.d), np.float32)
        return np.asarray(self._index.reconstruct_batch(rows), np.float32)


def _empty_index(dimension: int, *, is_large: bool) -> Any:
    if not is_large:
        return faiss.IndexFlatIP(dimension)
    return faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)


def _only(allowed: npt.NDArray[np.bool_]) -> Any:
    library: Any = faiss  # its annotations know nothing of what its Python layer accepts
    return library.SearchParameters(sel=library.IDSelectorBitmap(np.packbits(allowed, bitorder="little")))

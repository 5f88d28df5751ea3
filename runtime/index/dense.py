"""Vectors by content, in FAISS."""

from collections.abc import Mapping
from typing import Self

import faiss
import numpy as np
import numpy.typing as npt

from runtime.index.embedder import Embedder, Vectors

Ids = npt.NDArray[np.int64]


class DenseVectors:
    """An exact inner-product index. Never changed after it is built, so any number of threads may search it."""

    def __init__(self, ids: Ids, vectors: Vectors) -> None:
        """`ids` int64[n], each once; `vectors` float32[n, d] with d > 0, of L2 length 1."""
        self.ids = ids
        self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
        if len(ids):
            self._index.add_with_ids(np.ascontiguousarray(vectors), ids)

    @classmethod
    def empty(cls, dimension: int) -> Self:
        return cls(np.empty(0, np.int64), np.empty((0, dimension), np.float32))

    @property
    def vectors(self) -> Vectors:
        """float32[n, d] in the order of `ids`."""
        if not len(self.ids):
            return np.empty((0, self._index.d), np.float32)
        return np.asarray(self._index.reconstruct_batch(self.ids), np.float32)

    def with_texts(self, texts: Mapping[int, str], embedder: Embedder) -> tuple["DenseVectors", int]:
        """Vectors of exactly `texts` (id -> text), and how many had to be computed; the others are taken from here."""
        ids = np.array(sorted(texts), dtype=np.int64)
        missing = np.setdiff1d(ids, self.ids)
        if not len(missing) and len(ids) == len(self.ids):
            return self, 0
        computed = embedder.embed([texts[int(it)] for it in missing])
        assert computed.shape == (len(missing), embedder.dimension), "one vector for each text"
        assert np.isfinite(computed).all(), "vectors are numbers"
        kept = np.intersect1d(ids, self.ids)
        reused = self._index.reconstruct_batch(kept) if len(kept) else self.empty(embedder.dimension).vectors
        return DenseVectors(np.concatenate([kept, missing]), np.concatenate([reused, computed])), len(missing)

    def scores(self, query: Vectors, ids: Ids) -> npt.NDArray[np.float32]:
        """float32[len(ids)]: the cosine of `query` float32[1, d] with each of `ids`, which must all be here."""
        cosines, found = self._index.search(query, len(self.ids))
        order = np.argsort(found[0])
        return np.asarray(cosines[0][order[np.searchsorted(found[0], ids, sorter=order)]], np.float32)

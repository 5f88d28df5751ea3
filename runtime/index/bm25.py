"""Ranking by words: BM25 over several weighted fields, as one sparse matrix."""

from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from runtime.index.terms import Keys, TermCounts

K1 = 1.2
B = 0.75


class FieldBm25:
    """BM25F. Built once and never changed, so any number of threads may search it.

    Source: Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", section 3.6 (each
    field's count is normalised by that field's length, weighted and summed, and saturates once); idf with the 1 inside
    the logarithm (Lucene), so that a common word never counts against a chunk.
    """

    def __init__(self, postings: "Postings", field_weights: Sequence[float]) -> None:
        """A field of weight 0 is as if it were not there."""
        self._size = postings.size
        weighted = postings.counts @ np.array(field_weights, dtype=np.float32)
        present = np.flatnonzero(weighted > 0)
        keys, self._owners, weighted = postings.keys[present], postings.owners[present], weighted[present]
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        self._keys, self._bounds = keys[starts], np.append(starts, len(keys))
        frequency = np.diff(self._bounds)
        idf = np.log1p((self._size - frequency + 0.5) / (frequency + 0.5))
        self._impact = (np.repeat(idf, frequency) * weighted / (K1 + weighted)).astype(np.float32)

    @classmethod
    def of(cls, chunks: Sequence[TermCounts], field_weights: Sequence[float]) -> Self:
        return cls(Postings(chunks, len(field_weights)), field_weights)

    def scores(self, query: Keys) -> npt.NDArray[np.float32]:
        """float32[chunks], 0 where no word of `query` occurs. A word said twice counts once."""
        scores = np.zeros(self._size, dtype=np.float32)
        wanted = np.unique(query)
        places = np.searchsorted(self._keys, wanted)
        for place, key in zip(places, wanted, strict=True):
            if place < len(self._keys) and self._keys[place] == key:
                postings = slice(self._bounds[place], self._bounds[place + 1])
                scores[self._owners[postings]] += self._impact[postings]
        return scores


class Postings:
    """Which chunk holds which term how often, by term: sorted once for every weighting of the fields."""

    def __init__(self, chunks: Sequence[TermCounts], fields: int) -> None:
        self.size = len(chunks)
        owners = np.repeat(np.arange(self.size, dtype=np.int32), [len(chunk.keys) for chunk in chunks])
        keys = np.concatenate([np.empty(0, np.int64), *(chunk.keys for chunk in chunks)])
        counts = np.concatenate([np.empty((0, fields), np.float32), *(chunk.counts for chunk in chunks)])
        order = np.argsort(keys, kind="stable")
        self.keys: Keys = keys[order]
        self.owners = owners[order]
        self.counts = (counts / _length_norms(chunks, fields)[owners])[order]
        """float32[postings, fields], normalised by the length of the chunk's field."""


def _length_norms(chunks: Sequence[TermCounts], fields: int) -> npt.NDArray[np.float32]:
    """float32[chunks, fields]: below 1 for a field shorter than the average, above for a longer one."""
    lengths = np.array([chunk.lengths for chunk in chunks], dtype=np.float32).reshape(-1, fields)
    average = np.maximum(lengths.mean(axis=0), 1e-9) if len(lengths) else np.ones(fields, np.float32)
    return np.asarray(1 - B + B * lengths / average, dtype=np.float32)

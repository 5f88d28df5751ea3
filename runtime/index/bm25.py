"""Ranking by words: BM25 over several weighted fields, as one sparse matrix."""

from collections.abc import Sequence

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

    def __init__(self, chunks: Sequence[TermCounts], field_weights: Sequence[float]) -> None:
        """A field of weight 0 is as if it were not there."""
        self._size = len(chunks)
        weights = np.array(field_weights, dtype=np.float32)
        owners = np.repeat(np.arange(self._size, dtype=np.int32), [len(chunk.keys) for chunk in chunks])
        keys = np.concatenate([np.empty(0, np.int64), *(chunk.keys for chunk in chunks)])
        counts = np.concatenate([np.empty((0, len(weights)), np.float32), *(chunk.counts for chunk in chunks)])
        weighted = (counts / _length_norms(chunks, len(weights))[owners]) @ weights

        present = np.flatnonzero(weighted > 0)
        order = present[np.argsort(keys[present], kind="stable")]
        self._keys, starts, frequency = np.unique(keys[order], return_index=True, return_counts=True)
        self._bounds = np.append(starts, len(order))
        self._owners = owners[order]
        idf = np.log1p((self._size - frequency + 0.5) / (frequency + 0.5))
        self._impact = (np.repeat(idf, frequency) * weighted[order] / (K1 + weighted[order])).astype(np.float32)

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


def _length_norms(chunks: Sequence[TermCounts], fields: int) -> npt.NDArray[np.float32]:
    """float32[chunks, fields]: below 1 for a field shorter than the average, above for a longer one."""
    lengths = np.array([chunk.lengths for chunk in chunks], dtype=np.float32).reshape(-1, fields)
    average = np.maximum(lengths.mean(axis=0), 1e-9) if len(lengths) else np.ones(fields, np.float32)
    return np.asarray(1 - B + B * lengths / average, dtype=np.float32)

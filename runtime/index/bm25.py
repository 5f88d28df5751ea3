"""Ranking by words: BM25 over several weighted fields, as one sparse matrix."""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from runtime.index.terms import Keys, TermCounts

K1 = 1.2
"""How soon more of a term stops to count, where nothing else is said."""
B = 0.75

Owners = npt.NDArray[np.int32]
Counts = npt.NDArray[np.float32]


class FieldBm25:
    """BM25F. Built once and never changed, so any number of threads may search it.

    Source: Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", section 3.6 (each
    field's count is normalised by that field's length, weighted and summed, and saturates once); idf with the 1 inside
    the logarithm (Lucene), so that a common word never counts against a chunk.
    """

    def __init__(self, postings: "Postings", field_weights: Sequence[float], k1: float = K1) -> None:
        """A field of weight 0 is as if it were not there."""
        self._size = postings.size
        weighted = postings.normalised() @ np.array(field_weights, dtype=np.float32)
        present = np.flatnonzero(weighted > 0)
        keys, self._owners, weighted = postings.keys[present], postings.owners[present], weighted[present]
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        self._keys, self._bounds = keys[starts], np.append(starts, len(keys))
        frequency = np.diff(self._bounds)
        idf = np.log1p((self._size - frequency + 0.5) / (frequency + 0.5))
        self._impact = (np.repeat(idf, frequency) * weighted / (k1 + weighted)).astype(np.float32)

    @classmethod
    def of(cls, chunks: Sequence[TermCounts], field_weights: Sequence[float]) -> Self:
        fresh = Postings.empty(len(field_weights))
        return cls(fresh.changed(fresh.owners, dict(enumerate(chunks)), len(chunks)), field_weights)

    def scores(self, query: Keys, weights: Counts | None = None) -> npt.NDArray[np.float32]:
        """float32[chunks], 0 where no term of `query` occurs.

        `weights`, of terms that are there once, say how much each counts; without them a word said twice counts once.
        """
        if weights is None:
            query = np.unique(query)
            weights = np.ones(len(query), np.float32)
        places = np.searchsorted(self._keys, query)
        found = [
            (slice(self._bounds[place], self._bounds[place + 1]), weight)
            for place, key, weight in zip(places, query, weights, strict=True)
            if place < len(self._keys) and self._keys[place] == key
        ]
        if not found:
            return np.zeros(self._size, np.float32)
        owners = np.concatenate([self._owners[postings] for postings, _ in found])
        impacts = np.concatenate([weight * self._impact[postings] for postings, weight in found])
        return np.bincount(owners, impacts, minlength=self._size).astype(np.float32)


class Postings:
    """Which chunk holds which term how often, by term. Never changed after it is built.

    Sorting is most of what building costs, so the next state is made from this one: it sorts only what is new.
    """

    def __init__(self, keys: Keys, owners: Owners, counts: Counts, lengths: Counts) -> None:
        self.keys = keys
        """int64[postings], ascending."""
        self.owners = owners
        """int32[postings]: the chunk."""
        self.counts = counts
        """float32[postings, fields]"""
        self.lengths = lengths
        """float32[chunks, fields]: terms in each field."""

    @classmethod
    def empty(cls, fields: int) -> Self:
        counts = np.empty((0, fields), np.float32)
        return cls(np.empty(0, np.int64), np.empty(0, np.int32), counts, counts)

    @property
    def size(self) -> int:
        """Chunks."""
        return len(self.lengths)

    def normalised(self) -> Counts:
        """float32[postings, fields]: counts by the length of their field, which is below 1 where it is shorter than the
        average."""
        average = np.maximum(self.lengths.mean(axis=0), 1e-9) if self.size else np.float32(1)
        norms = 1 - B + B * self.lengths / average
        return np.asarray(self.counts / norms[self.owners], np.float32)

    def changed(self, numbers: Owners, added: Mapping[int, TermCounts], size: int) -> "Postings":
        """Those of `size` chunks: chunk i of these is number `numbers[i]` there, or gone (-1); the rest is `added`."""
        fields = self.counts.shape[1]
        lengths = np.zeros((size, fields), np.float32)
        lengths[numbers[numbers >= 0]] = self.lengths[numbers >= 0]
        for number, terms in added.items():
            lengths[number] = terms.lengths

        new_keys = np.concatenate([np.empty(0, np.int64), *(terms.keys for terms in added.values())])
        new_counts = np.concatenate([np.empty((0, fields), np.float32), *(terms.counts for terms in added.values())])
        new_owners = np.repeat(np.array(list(added), np.int32), [len(terms.keys) for terms in added.values()])
        order = np.argsort(new_keys, kind="stable")
        new_keys, new_counts, new_owners = new_keys[order], new_counts[order], new_owners[order]

        owners = numbers[self.owners]
        is_kept = owners >= 0
        keys, owners, counts = self.keys[is_kept], owners[is_kept], self.counts[is_kept]
        places = np.searchsorted(keys, new_keys)
        return Postings(
            np.insert(keys, places, new_keys),
            np.insert(owners, places, new_owners),
            np.insert(counts, places, new_counts, axis=0),
            lengths,
        )

"""What is near to a question: words, names and vectors together, in one order."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.index.bm25 import FieldBm25, Postings
from runtime.index.dense import DenseVectors, Ids
from runtime.index.embedder import Vectors
from runtime.index.hit import Why
from runtime.index.terms import query_terms, term_keys

FIELDS = 3
"""Of the terms of a chunk: body, name, path."""
CANDIDATES_MIN = 256
"""Of each part; fifty found the same ten."""

_MEANING, _WORDS, _NAMES = 0.45, 0.35, 0.2
_WORD_FIELDS, _WORD_K1 = (1.0, 1.0, 0.5), 2.0
_NAME_FIELDS = (0.0, 1.0, 0.5)
_TEST_FACTOR = 0.75
_TEST_KEY = term_keys("test")[0]

Flags = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    place: int
    score: float
    why: Why


class Ranking:
    """Of the chunks of one tree. Never changed after it is built, so any number of threads may ask it."""

    def __init__(self, postings: Postings, ids: Ids, is_test: Flags, dense: DenseVectors | None) -> None:
        """Chunk i has the vector `ids[i]` of `dense` (None: there are none), and `is_test[i]`."""
        self.postings = postings
        self._words = FieldBm25(postings, _WORD_FIELDS, _WORD_K1)
        self._names = FieldBm25(postings, _NAME_FIELDS)
        self._is_test = is_test
        self._dense = dense
        self._rows = dense.rows(ids) if dense else np.empty(0, np.intp)
        self._by_row = np.argsort(self._rows, kind="stable")
        self._ordered_rows = self._rows[self._by_row]

    def best(self, query: str, vector: Vectors | None, limit: int, allowed: Flags | None = None) -> list[Ranked]:
        """The best `limit` of `allowed` (bool[chunks]; None: of all), best first, ties in the chunks' order.

        .45 meaning + .35 words + .2 names, each scaled to 0..1 over what is allowed: words and names from 0, so that a
        chunk with a word of the query is found even where all have it; the cosine from what `vector` float32[d] has
        with nearly everything. A test's x .75, unless the query speaks of tests. Without vectors the other two share
        the whole. Only chunks that are among the best by words or by meaning are looked at. Chosen on nine packages in
        five languages and held on nine others: `make eval-index`.
        """
        asked = query_terms(query)
        words = _scaled(self._words.scores(asked.keys, asked.weights), allowed)
        names = _scaled(self._names.scores(asked.keys, asked.weights), allowed)
        by_words = _WORDS * words + _NAMES * names
        count = max(CANDIDATES_MIN, 2 * limit)
        if self._dense is None or vector is None:
            places = _largest(by_words, count)
            parts = np.stack([np.zeros(len(places), np.float32), _WORDS * words[places], _NAMES * names[places]])
            parts /= _WORDS + _NAMES
        else:
            near = self._near(self._dense, vector, count, allowed)
            places = np.union1d(_largest(by_words, count), near)
            meaning = self._meaning(self._dense, vector, places)
            parts = np.stack([_MEANING * meaning, _WORDS * words[places], _NAMES * names[places]])
        scores = parts.sum(axis=0)
        if _TEST_KEY not in term_keys(query):
            scores = np.where(self._is_test[places], scores * _TEST_FACTOR, scores)
        # The places ascend, and a stable sort keeps that among equals.
        order = np.argsort(-scores, kind="stable")[:limit]
        return [_ranked(int(places[it]), scores[it], parts[:, it]) for it in order if scores[it] > 0]

    def similar(self, query: str, vector: Vectors | None, limit: int) -> list[tuple[int, float]]:
        """At most `limit` chunks that mean the most like `query`, each with the cosine; best first.

        Without vectors they are those whose words fit best, each with its share of the best one's.
        """
        if self._dense is None or vector is None:
            return [(it.place, it.score) for it in self.best(query, None, limit)]
        places = self._near(self._dense, vector, limit, None)
        return [
            (int(place), float(cosine)) for place, cosine in zip(places, self._cosines(vector, places), strict=True)
        ]

    def _cosines(self, vector: Vectors, places: npt.NDArray[np.intp]) -> Scores:
        assert self._dense is not None
        return self._dense.cosines(vector, self._rows[places])

    def _near(self, dense: DenseVectors, vector: Vectors, count: int, allowed: Flags | None) -> npt.NDArray[np.intp]:
        """The chunks with the nearest vectors."""
        allowed_rows = None
        if allowed is not None:
            allowed_rows = np.zeros(len(dense.ids), np.bool_)
            allowed_rows[self._rows[allowed]] = True
        found = dense.nearest(vector, count, allowed_rows)
        first = np.searchsorted(self._ordered_rows, found)
        last = np.searchsorted(self._ordered_rows, found, side="right")
        shared = [self._by_row[start:end] for start, end in zip(first, last, strict=True)]
        joined = np.concatenate([np.empty(0, np.intp), *shared])
        return joined if allowed is None else joined[allowed[joined]]

    def _meaning(self, dense: DenseVectors, vector: Vectors, places: npt.NDArray[np.intp]) -> Scores:
        """Scaled: 0 is what everything has, 1 the nearest of `places`, among which the nearest of all is."""
        cosines = dense.cosines(vector, self._rows[places])
        high = float(cosines.max(initial=1e-3))
        low = min(dense.background(vector), high - 1e-3)
        return np.asarray(np.clip((cosines - low) / (high - low), 0, 1), np.float32)


def _largest(scores: Scores, count: int) -> npt.NDArray[np.intp]:
    """The places of the largest scores above 0, ascending; among equals at the border the first ones."""
    found = np.flatnonzero(scores)
    if len(found) > count:
        border = np.partition(scores[found], -count)[-count]
        above, equal = found[scores[found] > border], found[scores[found] == border]
        found = np.sort(np.concatenate([above, equal[: count - len(above)]]))
    return found


def _scaled(scores: Scores, allowed: Flags | None) -> Scores:
    """The highest becomes 1, and what is not allowed 0."""
    if allowed is not None:
        scores = np.where(allowed, scores, np.float32(0))
    high = scores.max(initial=0)
    return scores / high if high > 0 else scores


def _ranked(place: int, score: float, parts: Scores) -> Ranked:
    meaning, words, names = (float(part) for part in parts)
    return Ranked(place=place, score=min(float(score), 1.0), why=Why(meaning=meaning, words=words, names=names))

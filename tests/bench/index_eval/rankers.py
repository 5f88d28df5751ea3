"""What is compared. Every ranker reads the same files, and each package is an index of its own."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.index.chunk import chunk_file, why_unreadable
from runtime.index.embedder import Embedder, NoEmbedder
from runtime.index.shard import IndexShard
from runtime.index.source import Files
from runtime.index.terms import term_keys
from tests.bench.index_eval.questions import Corpus

DEPTH = 10
WINDOW_ROWS = 40
RRF_K = 60

_K1, _B = 1.2, 0.75

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Lines `start_line` to `end_line` (from 1, inclusive) of `path`."""

    path: str
    start_line: int
    end_line: int
    text: str


Ranker = Callable[[str], Sequence[Piece]]
"""A query to the best DEPTH pieces, best first."""


def make_rankers(corpus: Corpus, embedder: Embedder) -> Mapping[str, Ranker]:
    """By name. `embedder` serves ours and the peers alike; peers see code alone: no path, no symbol."""
    chunks, windows = _chunks(corpus.files), _windows(corpus.files)
    bm25, minilm = _bm25(chunks), _minilm(chunks, embedder)
    window_bm25, window_minilm = _bm25(windows), _minilm(windows, embedder)
    return {
        "ours": _ours(corpus.files, embedder),
        "lexical": _ours(corpus.files, NoEmbedder()),
        "plain_rrf": _Peer(chunks, fused(bm25, minilm)),
        "minilm": _Peer(chunks, minilm),
        "bm25": _Peer(chunks, bm25),
        "windows_bm25": _Peer(windows, window_bm25),
        "windows_rrf": _Peer(windows, fused(window_bm25, window_minilm)),
    }


class PlainBm25:
    """One field, which is all of a text.

    Source: Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", section 3.4, k1 1.2
    and b .75; idf with the 1 inside the logarithm (Lucene).
    """

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [Counter(term_keys(text)) for text in texts]
        lengths = [sum(count.values()) for count in counts]
        average = max(sum(lengths) / max(len(lengths), 1), 1e-9)
        frequency = Counter(key for count in counts for key in count)
        self._size = len(texts)
        self._postings: dict[int, list[tuple[int, float]]] = {key: [] for key in frequency}
        for number, (count, length) in enumerate(zip(counts, lengths, strict=True)):
            norm = _K1 * (1 - _B + _B * length / average)
            for key, times in count.items():
                idf = math.log1p((self._size - frequency[key] + 0.5) / (frequency[key] + 0.5))
                self._postings[key].append((number, idf * times * (_K1 + 1) / (times + norm)))

    def __call__(self, query: str) -> Scores:
        """float64[texts], 0 where no word of `query` occurs."""
        scores = np.zeros(self._size)
        for key in set(term_keys(query)):
            for number, score in self._postings.get(key, ()):
                scores[number] += score
        return scores


Scorer = Callable[[str], Scores]
"""A query to a score for each piece; 0 and below is not found."""


def fused(*scorers: Scorer) -> Scorer:
    """Source: Cormack, Clarke and Buettcher 2009, "Reciprocal rank fusion", k = 60, over whole rankings."""

    def scores(query: str) -> Scores:
        return np.asarray(np.sum([_reciprocal_ranks(scorer(query)) for scorer in scorers], axis=0))

    return scores


def _reciprocal_ranks(scores: Scores) -> Scores:
    ranks = np.empty(len(scores))
    ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return np.where(scores > 0, 1 / (RRF_K + ranks), 0.0)


def _bm25(pieces: Sequence[Piece]) -> Scorer:
    return PlainBm25([piece.text for piece in pieces])


def _minilm(pieces: Sequence[Piece], embedder: Embedder) -> Scorer:
    vectors = embedder.embed([piece.text for piece in pieces])

    def scores(query: str) -> Scores:
        # A cosine of 0 is still better than a lower one, and all are found.
        return np.asarray(vectors @ embedder.embed([query])[0] + 2.0, np.float64)

    return scores


class _Peer:
    def __init__(self, pieces: Sequence[Piece], scorer: Scorer) -> None:
        self._pieces = pieces
        self._scorer = scorer

    def __call__(self, query: str) -> Sequence[Piece]:
        scores = self._scorer(query)
        best = np.argsort(-scores, kind="stable")[:DEPTH]
        return [self._pieces[place] for place in best if scores[place] > 0]


def _ours(files: Mapping[str, bytes], embedder: Embedder) -> Ranker:
    shard = IndexShard(embedder)
    shard.update(Files("evaluated", files))

    def rank(query: str) -> Sequence[Piece]:
        return [
            Piece(path=hit.path, start_line=hit.start_line, end_line=hit.end_line, text=hit.text)
            for hit in shard.search(query, DEPTH)
        ]

    return rank


def _chunks(files: Mapping[str, bytes]) -> list[Piece]:
    return [
        Piece(path=path, start_line=chunk.start_line, end_line=chunk.end_line, text=chunk.text)
        for path, content in sorted(files.items())
        if not why_unreadable(path, content)
        for chunk in chunk_file(path, content)
    ]


def _windows(files: Mapping[str, bytes]) -> list[Piece]:
    return [
        Piece(path=path, start_line=start + 1, end_line=start + len(rows), text="\n".join(rows))
        for path, content in sorted(files.items())
        if not why_unreadable(path, content)
        for lines in [content.decode().split("\n")]
        for start in range(0, len(lines), WINDOW_ROWS)
        for rows in [lines[start : start + WINDOW_ROWS]]
        if any(row.strip() for row in rows)
    ]

"""What counts as found, the peers' arithmetic, and the interval."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from runtime.index.embedder import Vectors
from tests.bench.index_eval.__main__ import figures_of, table
from tests.bench.index_eval.judging import interval, quality_of, shows
from tests.bench.index_eval.questions import Question, make_corpus
from tests.bench.index_eval.rankers import Piece, PlainBm25, fused, make_rankers
from tests.bench.index_eval.vectors import RememberingEmbedder

QUESTION = Question(text="?", path="a.py", first_line=10, last_line=60, definition="    def f(self):")


class HashEmbedder:
    """A vector that says nothing, the same for the same text."""

    name = "hash"
    dimension = 4

    def __init__(self) -> None:
        self.embedded: list[str] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.embedded += texts
        raw = [np.frombuffer(hashlib.sha256(text.encode()).digest()[:4], np.uint8) for text in texts]
        vectors = np.array(raw, np.float32).reshape(-1, 4) + 1
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize(
    ("path", "start", "end", "text", "is_right"),
    [
        ("a.py", 10, 40, "    def f(self):\n        pass", True),
        ("a.py", 41, 60, "    def f(self):\n        ...\n        last", True),
        ("a.py", 1, 90, "class A:\n    def f(self):\n    def g(self):", True),
        ("a.py", 1, 90, "import a\n...\nA = 1", False),
        ("a.py", 41, 60, "        last", False),
        ("a.py", 61, 80, "    def f(self):", False),
        ("b.py", 10, 40, "    def f(self):", False),
    ],
)  # fmt: skip
def test_shows__wants_the_functions_first_line(path: str, start: int, end: int, text: str, is_right: bool) -> None:
    assert shows(Piece(path=path, start_line=start, end_line=end, text=text), QUESTION) is is_right


def test_quality__counts_ranks() -> None:
    assert quality_of(np.array([1, 2, 0, 10])).measures == {
        "mrr": pytest.approx(0.4), "recall_1": 0.25, "recall_5": 0.5, "recall_10": 0.75,
    }  # fmt: skip


def test_interval__holds_the_ratio_and_is_the_same_every_time() -> None:
    random = np.random.default_rng(1)
    ours = {name: random.integers(0, 4, 200) for name in ("a", "b")}
    peers = {name: random.integers(0, 11, 200) for name in ("a", "b")}
    low, high = interval(ours, peers, 500)
    ratio = quality_of(np.concatenate([*ours.values()])).mrr / quality_of(np.concatenate([*peers.values()])).mrr
    assert low < ratio < high
    assert (low, high) == interval(ours, peers, 500)


def test_interval__of_a_ranker_with_itself_is_one() -> None:
    ranks = {"a": np.array([0, 1, 2, 3] * 10)}
    assert interval(ranks, ranks, 100) == (1.0, 1.0)


def test_bm25__finds_the_rare_word_in_the_shorter_text() -> None:
    scores = PlainBm25(["open file", "open file and read it whole", "read other"])("file")
    assert scores[0] > scores[1] > scores[2] == 0


def test_fused__is_the_sum_of_reciprocal_ranks() -> None:
    def first(query: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.array([3.0, 2.0, 0.0])

    def second(query: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.array([1.0, 2.0, 3.0])

    assert fused(first, second)("") == pytest.approx([1 / 61 + 1 / 63, 1 / 62 + 1 / 62, 1 / 61])


def test_embedder__remembers(tmp_path: Path) -> None:
    inner = HashEmbedder()
    first = RememberingEmbedder(inner, tmp_path).embed(["a", "b", "a"])
    again = RememberingEmbedder(inner, tmp_path).embed(["a", "c", "b"])
    assert inner.embedded == ["a", "b", "c"]
    assert np.array_equal(first[[0, 1]], again[[0, 2]])
    assert RememberingEmbedder(inner, tmp_path).embed([]).shape == (0, 4)


def test_rankers__all_answer_and_their_figures_are_told() -> None:
    source = b'def take():\n    "Take a connection of the pool"\n    return 1\n\n\ndef other():\n    return 2\n'
    corpus = make_corpus("pack", {"a.py": source})
    rankers = make_rankers(corpus, HashEmbedder())
    ranked = {name: {"pack": np.array([1])} for name in rankers}
    for ranker in rankers.values():
        assert any(shows(piece, corpus.questions[0]) for piece in ranker("Take a connection of the pool"))

    figures = {str(it["figure"]): it for it in figures_of("held_out", ranked)}
    assert figures["held_out_ours_mrr"]["value"] == 1.0
    assert figures["held_out_ours_to_plain_rrf"]["holds"] is False
    assert figures["held_out_ours_to_plain_rrf_low"]["holds"] is False
    assert "plain_rrf" in table("held_out", ranked)

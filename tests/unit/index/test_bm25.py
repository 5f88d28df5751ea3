"""Ranking by words, against the formula written out."""

import math

import numpy as np
import pytest

from runtime.index.bm25 import K1, B, FieldBm25
from runtime.index.terms import count_terms, term_keys


def keys(text: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(term_keys(text), dtype=np.int64)


def test_scores__are_bm25f() -> None:
    # given two chunks with a body and a name
    chunks = [("load the file", "load"), ("the file is a file", "other")]
    index = FieldBm25.of([count_terms(chunk) for chunk in chunks], (1.0, 2.0))

    scores = index.scores(keys("file load"))

    def term(tf: float, chunks_with: int) -> float:
        return math.log(1 + (2 - chunks_with + 0.5) / (chunks_with + 0.5)) * tf / (K1 + tf)

    def body_norm(length: int) -> float:
        return 1 - B + B * length / 4

    first = term(1 / body_norm(3), 2) + term(1 / body_norm(3) + 2.0, 1)
    second = term(2 / body_norm(5), 2)
    assert scores.tolist() == pytest.approx([first, second], rel=1e-5)


def test_a_field_of_weight_zero__does_not_count() -> None:
    index = FieldBm25.of([count_terms(("load", "x")), count_terms(("y", "load"))], (0.0, 1.0))

    assert index.scores(keys("load"))[0] == 0
    assert index.scores(keys("load"))[1] > 0


@pytest.mark.parametrize("query", ["", "unknown words", "load load"])
def test_scores__of_an_empty_index_are_empty(query: str) -> None:
    assert FieldBm25.of([], (1.0, 1.0)).scores(keys(query)).tolist() == []


def test_a_word_said_twice__counts_once() -> None:
    index = FieldBm25.of([count_terms(("load file",))], (1.0,))

    assert index.scores(keys("load load")).tolist() == index.scores(keys("load")).tolist()

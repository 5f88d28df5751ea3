"""Ranking by words, against the formula written out."""

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.index.bm25 import K1, B, FieldBm25, Postings
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


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text("abc ", max_size=12), max_size=8),
    st.lists(st.text("abc ", max_size=12), max_size=8),
    st.randoms(use_true_random=False),
)
def test_changed__is_what_is_built_from_nothing(before: list[str], new: list[str], random: Random) -> None:
    # given a state, of which some chunks stay, and new ones among them in any order
    kept = [number for number in range(len(before)) if random.random() < 0.6]
    after = [(before[number], number) for number in kept] + [(text, -1) for text in new]
    random.shuffle(after)
    fresh = Postings.empty(1)
    state = fresh.changed(fresh.owners, dict(enumerate(count_terms((text,)) for text in before)), len(before))

    # when it is changed to them
    numbers = np.full(len(before), -1, np.int32)
    for number, (_, was) in enumerate(after):
        if was >= 0:
            numbers[was] = number
    added = {number: count_terms((text,)) for number, (text, was) in enumerate(after) if was < 0}
    changed = state.changed(numbers, added, len(after))

    # then it ranks as if they had been all there ever was
    for query in ("a", "b c", "abc ab"):
        expected = FieldBm25.of([count_terms((text,)) for text, _ in after], (1.0,)).scores(keys(query))
        assert FieldBm25(changed, (1.0,)).scores(keys(query)).tolist() == pytest.approx(expected.tolist(), rel=1e-5)

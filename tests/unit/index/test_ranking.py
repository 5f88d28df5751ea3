"""One order out of words, names and vectors."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.index import ranking
from runtime.index.bm25 import Postings
from runtime.index.dense import DenseVectors
from runtime.index.ranking import Ranked, Ranking
from runtime.index.terms import count_terms

CHUNKS = [
    ("return the price of the cart", "Cart.price", "shop/cart.py"),
    ("price price price", "other", "shop/other.py"),
    ("assert the price", "test_price", "tests/test_cart.py"),
    ("open a file", "load", "shop/load.py"),
]


def postings(chunks: Sequence[tuple[str, str, str]]) -> Postings:
    fresh = Postings.empty(ranking.FIELDS)
    return fresh.changed(fresh.owners, dict(enumerate(map(count_terms, chunks))), len(chunks))


def ranked_of(vectors: DenseVectors | None = None, ids: list[int] | None = None) -> Ranking:
    return Ranking(
        postings=postings(CHUNKS),
        ids=np.array(ids or [0, 1, 2, 3], np.int64),
        is_test=np.array([False, False, True, False]),
        dense=vectors,
    )


def one_hot(*rows: int) -> DenseVectors:
    return DenseVectors.of(np.array(sorted(set(rows)), np.int64), np.eye(4, dtype=np.float32)[sorted(set(rows))])


def places(found: list[Ranked]) -> list[int]:
    return [it.place for it in found]


def test_best__without_vectors_is_words_and_names() -> None:
    found = ranked_of().best("cart price", None, 9)

    assert places(found)[0] == 0
    assert 3 not in places(found)
    assert all(it.why.meaning == 0 for it in found)
    assert found[0].score == pytest.approx(1.0)


def test_best__finds_by_meaning_what_shares_no_word() -> None:
    found = ranked_of(one_hot(0, 1, 2, 3)).best("zzz", np.eye(4, dtype=np.float32)[3], 9)

    assert places(found) == [3]
    assert (found[0].why.words, found[0].why.names) == (0, 0)
    assert found[0].why.meaning == pytest.approx(found[0].score) == pytest.approx(0.45)


def test_why__adds_up_to_the_score_and_a_test_has_three_quarters_of_it() -> None:
    found = ranked_of(one_hot(0, 1, 2, 3)).best("price", np.array([0.5, 0.1, 0.8, 0], np.float32), 9)

    for it in found:
        whole = it.why.meaning + it.why.words + it.why.names
        assert it.score == pytest.approx(whole * (0.75 if it.place == 2 else 1.0))


def test_best__looks_only_at_what_is_allowed_and_scales_over_that() -> None:
    allowed = np.array([False, True, False, True])
    found = ranked_of(one_hot(0, 1, 2, 3)).best("price", np.array([0.9, 0.1, 0.1, 0.4], np.float32), 9, allowed)

    assert sorted(places(found)) == [1, 3]
    assert max(it.why.words for it in found) == pytest.approx(0.35, abs=1e-3)
    assert max(it.why.meaning for it in found) == pytest.approx(0.45, abs=1e-3)


def test_best__finds_every_chunk_of_one_vector() -> None:
    found = ranked_of(one_hot(1, 3), [1, 1, 3, 1]).best("zzz", np.eye(4, dtype=np.float32)[1], 9)

    assert places(found) == [0, 1, 3]


def test_best__equals_are_in_the_order_of_the_chunks_also_where_only_some_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ranking, "CANDIDATES_MIN", 4)
    many = Ranking(postings([("same", "", "")] * 50), np.arange(50), np.zeros(50, np.bool_), None)

    assert places(many.best("same", None, 3)) == [0, 1, 2]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 10))
def test_best__of_a_part_of_the_candidates_is_the_best_of_all(seed: int, limit: int) -> None:
    # given chunks of random words and vectors
    random = np.random.default_rng(seed)
    words = [" ".join(random.choice(list("abcdefgh"), 6)) for _ in range(2000)]
    rows = random.normal(size=(2000, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    made = Ranking(
        postings([(text, text[:1], "") for text in words]),
        np.arange(2000),
        np.zeros(2000, np.bool_),
        DenseVectors.of(np.arange(2000), rows),
    )

    # when everything is a candidate, and when few are
    wide = ranking.CANDIDATES_MIN
    try:
        ranking.CANDIDATES_MIN = 2000
        exact = made.best("a b", rows[0], limit)
        ranking.CANDIDATES_MIN = 500
        near = made.best("a b", rows[0], limit)
    finally:
        ranking.CANDIDATES_MIN = wide

    # then the best is the same, and so is nearly all
    assert exact[0] == near[0]
    assert len(set(places(exact)) & set(places(near))) >= 0.7 * limit

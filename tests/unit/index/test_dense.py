"""Vectors by content."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest

from runtime.index import dense
from runtime.index.dense import DenseVectors


class OneHot:
    """The vector of "3" is 1 in place 3."""

    name = "one-hot"
    dimension = 5

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.eye(self.dimension, dtype=np.float32)[[int(text) for text in texts]]


def named(texts: dict[int, str]) -> tuple[npt.NDArray[np.int64], Callable[[npt.NDArray[np.int64]], list[str]]]:
    return np.array(sorted(texts)), lambda ids: [texts[int(it)] for it in ids]


def test_with_ids__computes_the_new_keeps_the_old_and_drops_the_rest() -> None:
    first, computed_first = DenseVectors.empty(5).with_ids(*named({10: "0", 11: "1", 12: "2"}), OneHot())
    second, computed_second = first.with_ids(*named({12: "2", 3: "3"}), OneHot())
    third, computed_third = second.with_ids(*named({12: "2"}), OneHot())

    assert (computed_first, computed_second, computed_third) == (3, 1, 0)
    assert sorted(second.ids.tolist()) == [3, 12]
    assert third.ids.tolist() == [12]
    assert sorted(first.ids.tolist()) == [10, 11, 12]


@pytest.fixture(params=["float32", "float16"])
def vectors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> DenseVectors:
    if request.param == "float16":
        monkeypatch.setattr(dense, "FLOAT32_MAX", 2)
    made, _ = DenseVectors.empty(5).with_ids(*named({10: "0", 11: "1", 12: "2", 13: "3"}), OneHot())
    return made


QUERY = np.array([0.0, 0.5, 0.75, 0.25, 0.0], np.float32)


def test_nearest__is_in_order_of_the_cosine_and_no_more_than_asked_for(vectors: DenseVectors) -> None:
    assert vectors.nearest(QUERY, 3, None).tolist() == [2, 1, 3]
    assert vectors.nearest(QUERY, 99, None).tolist() == [2, 1, 3, 0]


def test_nearest__finds_only_what_is_allowed(vectors: DenseVectors) -> None:
    allowed = np.array([True, True, False, False])

    assert vectors.nearest(QUERY, 9, allowed).tolist() == [1, 0]
    assert vectors.nearest(QUERY, 9, np.zeros(4, np.bool_)).tolist() == []


def test_cosines__are_in_the_order_asked_for_with_repeats(vectors: DenseVectors) -> None:
    rows = vectors.rows(np.array([12, 10, 12, 11], np.int64))

    assert vectors.cosines(QUERY, rows).tolist() == [0.75, 0.0, 0.75, 0.5]


def test_vectors__are_taken_over_unchanged_from_one_state_to_the_next(vectors: DenseVectors) -> None:
    then, computed = vectors.with_ids(*named({10: "0", 12: "2", 13: "3", 14: "4"}), OneHot())

    assert computed == 1
    assert then.vectors.tolist() == np.eye(5)[[0, 2, 3, 4]].tolist()


def test_vectors__are_the_same_whichever_way_their_number_passes_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "FLOAT32_MAX", 2)
    state = DenseVectors.empty(5)
    for wanted in ({10: "0", 12: "2"}, {9: "4", 10: "0", 11: "1", 12: "2"}, {9: "4", 11: "1", 13: "3"}, {11: "1"}):
        state, _ = state.with_ids(*named(wanted), OneHot())
        ids = np.array(sorted(wanted))
        assert sorted(state.ids.tolist()) == ids.tolist()
        assert state.vectors[state.rows(ids)].tolist() == OneHot().embed([wanted[it] for it in ids.tolist()]).tolist()
        assert state.ids[state.nearest(np.eye(5, dtype=np.float32)[1], 1, None)].tolist() == [
            11 if 11 in wanted else 10
        ]


def test_float16__finds_the_ten_that_float32_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    rows = random.normal(size=(3000, 64)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    exact = DenseVectors.of(np.arange(3000), rows)
    monkeypatch.setattr(dense, "FLOAT32_MAX", 100)
    half = DenseVectors.of(np.arange(3000), rows)

    found = [
        len(set(exact.nearest(query, 10, None).tolist()) & set(half.nearest(query, 10, None).tolist()))
        for query in rows[:100] + random.normal(size=(100, 64)).astype(np.float32) * 0.1
    ]

    assert sum(found) >= 990


def test_background__is_what_most_vectors_have() -> None:
    random = np.random.default_rng(2)
    rows = random.normal(size=(5000, 32)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = rows @ rows[0]

    assert DenseVectors.of(np.arange(5000), rows).background(rows[0]) == pytest.approx(cosines.mean(), abs=0.02)
    assert DenseVectors.empty(32).background(rows[0]) == 0

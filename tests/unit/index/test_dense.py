"""Vectors by content."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from runtime.index.dense import DenseVectors


class OneHot:
    """The vector of "3" is 1 in place 3."""

    name = "one-hot"
    dimension = 5

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.eye(self.dimension, dtype=np.float32)[[int(text) for text in texts]]


def test_with_texts__computes_the_new_keeps_the_old_and_drops_the_rest() -> None:
    first, computed_first = DenseVectors.empty(5).with_texts({10: "0", 11: "1", 12: "2"}, OneHot())
    second, computed_second = first.with_texts({12: "2", 3: "3"}, OneHot())
    third, computed_third = second.with_texts({12: "2"}, OneHot())

    assert (computed_first, computed_second, computed_third) == (3, 1, 0)
    assert sorted(second.ids.tolist()) == [3, 12]
    assert third.ids.tolist() == [12]
    assert sorted(first.ids.tolist()) == [10, 11, 12]


def test_scores__are_cosines_in_the_order_asked_for_with_repeats() -> None:
    vectors, _ = DenseVectors.empty(5).with_texts({10: "0", 11: "1", 12: "2"}, OneHot())
    query = np.array([[0.0, 0.6, 0.8, 0.0, 0.0]], np.float32)

    scores = vectors.scores(query, np.array([12, 10, 12, 11], np.int64))

    assert scores.tolist() == np.array([0.8, 0.0, 0.8, 0.6], np.float32).tolist()

from math import isclose

from hypothesis import given
from hypothesis import strategies as st

from cluster.simulator.embedding import embed


@given(st.text(min_size=1), st.integers(1, 64))
def test_vector__is_of_length_one_and_the_same_again(text: str, dimensions: int) -> None:
    vector = embed("m", text, dimensions)

    assert len(vector) == dimensions
    assert isclose(sum(value * value for value in vector), 1.0)
    assert embed("m", text, dimensions) == vector


def test_vectors__of_texts_that_share_words_are_closer() -> None:
    def likeness(one: str, other: str) -> float:
        return sum(a * b for a, b in zip(embed("m", one, None), embed("m", other, None), strict=True))

    assert likeness("sum of expenses", "the sum of all expenses") > likeness("sum of expenses", "a game of chess")

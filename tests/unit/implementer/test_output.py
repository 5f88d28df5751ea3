from hypothesis import given
from hypothesis import strategies as st

from runtime.implementer.output import BoundedOutput


def test_output__within_the_bound_is_whole() -> None:
    output = BoundedOutput(10)
    output.add(b"01234")
    output.add(b"56789")
    assert output.text() == "0123456789"


def test_output__over_the_bound_is_cut_in_the_middle() -> None:
    output = BoundedOutput(10)
    output.add(b"first, second, last")
    assert output.text() == "first\n[... 9 bytes cut ...]\n last"


def test_output__is_text_whatever_the_bytes_are() -> None:
    output = BoundedOutput(3)
    output.add("ö".encode() * 9 + b"\xff\0")
    assert isinstance(output.text(), str)


def test_output__does_not_break_a_character_at_the_seam_of_its_halves() -> None:
    output = BoundedOutput(4)
    output.add("aöb".encode())
    assert output.text() == "aöb"


@given(st.lists(st.binary(max_size=50)), st.integers(min_value=0, max_value=60))
def test_output__keeps_both_ends_and_no_more_than_the_bound(chunks: list[bytes], limit: int) -> None:
    output = BoundedOutput(limit)
    for chunk in chunks:
        output.add(chunk)
    everything = b"".join(chunks)
    kept = bytes(output._head + output._tail)
    assert len(kept) == min(limit, len(everything))
    assert everything.startswith(bytes(output._head))
    assert everything.endswith(bytes(output._tail))

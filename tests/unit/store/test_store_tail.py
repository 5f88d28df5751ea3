"""The text that says where an entity's newest entries are."""

import pytest

from runtime.store import tail
from runtime.store.tail import LISTED_MAX, Tail


def test_tail__grows_by_events_and_restarts_at_a_snapshot() -> None:
    text = tail.extended("", [4])
    assert tail.parse(text) == Tail(snapshot=None, events=[4], listed=True)
    text = tail.extended(text, range(7, 9))
    assert tail.parse(text) == Tail(snapshot=None, events=[4, 7, 8], listed=True)
    text = tail.restarted(9)
    assert tail.parse(text) == Tail(snapshot=9, events=[], listed=True)
    text = tail.extended(tail.extended(text, []), [12])
    assert tail.parse(text) == Tail(snapshot=9, events=[12], listed=True)
    assert tail.parse(text).positions == [9, 12]
    assert tail.parse("") == Tail(snapshot=None, events=[], listed=True)


@pytest.mark.parametrize(("begin", "end"), [("", "*"), ("s5", "s5 *")])
def test_tail_of_too_many__keeps_only_its_snapshot(begin: str, end: str) -> None:
    one_by_one = at_once = begin
    for position in range(10, 10 + LISTED_MAX + 1):
        one_by_one = tail.extended(one_by_one, [position])
    assert one_by_one == tail.extended(at_once, range(10, 10 + LISTED_MAX + 1)) == end
    assert tail.extended(end, [1000]) == end
    assert tail.parse(end) == Tail(snapshot=5 if begin else None, events=(), listed=False)

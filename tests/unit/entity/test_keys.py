"""Which keys are remembered, and for how long."""

from hypothesis import given
from hypothesis import strategies as st

from runtime.entity.keys import KEPT_S, KEYS_KEPT, Keys


@given(st.lists(st.floats(0.0, KEPT_S / 100), max_size=4 * KEYS_KEPT), st.booleans())
def test_key__is_known_for_a_while_and_among_the_newest_and_none_is_made_up(gaps: list[float], thaws: bool) -> None:
    keys, now, added = Keys(), 1e9, []
    for number, gap in enumerate(gaps):
        now += gap
        keys.add(str(number), now)
        added.append(now)
        if thaws and number % 100 == 0:
            keys = Keys(keys.frozen())
    for number, at in enumerate(added):
        if now - at < KEPT_S or number >= len(added) - KEYS_KEPT:
            assert str(number) in keys
    assert "never" not in keys


def test_old_keys__are_forgotten() -> None:
    keys = Keys()
    for number in range(10 * KEYS_KEPT):
        keys.add(str(number), number * KEPT_S)
    assert len(keys) <= 2 * KEYS_KEPT + 1
    assert "0" not in keys

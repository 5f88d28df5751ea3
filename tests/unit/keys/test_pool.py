import logging
from datetime import UTC, datetime

import pytest
from key_world import key, wish

from runtime.errors import NoProviderError, OverloadedError, ProviderError, UnavailableError
from runtime.keys import pool as pools
from runtime.keys.keys import KeyLimits, KeyOutcome
from runtime.keys.pool import Block, Pool
from runtime.keys.window import WINDOW_S

OK = KeyOutcome(kind="ok")


class Desk:
    """A pool, asked at times of our choosing."""

    def __init__(self, *keys, cooldown_s=60):
        self.notes = []
        self.utc = datetime(2026, 11, 1, tzinfo=UTC)
        self.pool = Pool("openai", cooldown_s=cooldown_s, call_s_max=100, note=self.notes.append, utc=lambda: self.utc)
        self.pool.set_keys(keys)
        self.ids = iter(range(1, 1_000_000))

    def ask(self, now, *, wait_s=100, session="s", **wanted) -> int:
        id = next(self.ids)
        self.pool.ask(session, id, wish(**wanted), wait_s, now)
        return id

    def grants(self, now) -> list[Block]:
        return list(self.pool.tick(now)[0])

    def over(self, block, at, tokens=0):
        self.pool.returned(block.id, 1, tokens, 0, at)


def served(grants):
    return [block.wish for block in grants]


def test_requests_per_minute__are_counted_from_the_latest_arrival():
    desk = Desk(key("a", requests_per_minute=2))
    for _ in range(3):
        desk.ask(0)
    first, second = desk.grants(0)
    assert desk.grants(59) == []
    desk.over(first, at=10)
    assert desk.grants(10 + WINDOW_S - 0.1) == []
    assert len(desk.grants(10 + WINDOW_S + 0.1)) == 1
    desk.over(second, at=70)
    desk.ask(70)
    assert desk.grants(70) == []


def test_permit__that_was_not_used_frees_its_place_at_once():
    desk = Desk(key("a", requests_per_minute=1))
    desk.ask(0)
    desk.ask(0)
    (first,) = desk.grants(0)
    desk.pool.returned(first.id, 0, 0, 1, 1)
    assert len(desk.grants(1)) == 1


def test_permit__that_is_never_reported_counts_until_the_latest_end_of_its_call_and_a_minute_more():
    desk = Desk(key("a", requests_per_minute=1))
    desk.ask(0)
    (block,) = desk.grants(0)
    desk.pool.tick(block.expires_at + 5)
    desk.ask(block.expires_at + 5)
    assert desk.grants(block.expires_at + 5 + WINDOW_S - 1) == []
    assert len(desk.grants(block.expires_at + 5 + WINDOW_S + 1)) == 1


def test_report__repeated_or_overtaken_changes_nothing():
    desk = Desk(key("a", requests_per_minute=10))
    (block,) = desk.pool.take("s", "m", 2, 5, 0)
    desk.pool.returned(block.id, 1, 5, 1, 1)
    before = desk.pool.notes()
    desk.pool.returned(block.id, 1, 5, 0, 1)
    desk.pool.returned(block.id, 1, 5, 1, 1)
    assert desk.pool.notes() == before


def test_tokens__are_reserved_at_their_most_and_counted_as_used():
    desk = Desk(key("a", tokens_per_minute=100))
    for _ in range(3):
        desk.ask(0, tokens=50)
    first, _second = desk.grants(0)
    desk.over(first, at=1, tokens=10)
    assert desk.grants(1) == []
    desk.ask(1, tokens=40)
    desk.pool.withdraw("s", 3)
    assert len(desk.grants(1)) == 1


def test_concurrency__is_free_again_when_a_call_is_over():
    desk = Desk(key("a", concurrency=1))
    desk.ask(0)
    desk.ask(0)
    (first,) = desk.grants(0)
    assert desk.grants(50) == []
    desk.over(first, at=51)
    assert len(desk.grants(51)) == 1


def test_limits__hold_for_each_model_by_itself():
    desk = Desk(key("a", requests_per_minute=1))
    desk.ask(0, model="m")
    desk.ask(0, model="n")
    assert len(desk.grants(0)) == 2


def test_keys__are_used_in_turn_and_none_idles_while_another_is_full():
    desk = Desk(key("a", requests_per_minute=1), key("b"), key("c"))
    for _ in range(7):
        desk.ask(0)
    assert [block.key_id for block in desk.grants(0)] == ["a", "b", "c", "b", "c", "b", "c"]


def test_key__is_given_until_it_expires_and_what_was_given_in_advance_lasts_no_longer():
    desk = Desk(key("a", expires_at=datetime(2026, 11, 1, 12, tzinfo=UTC)), key("b"))
    desk.utc = datetime(2026, 11, 1, 11, 59, 59, tzinfo=UTC)
    taken = desk.pool.take("s", "m", 4, 0, 0)
    assert {block.key_id: block.ttl_s for block in taken} == {"a": 1.0, "b": 2.0}
    desk.utc = datetime(2026, 11, 1, 12, tzinfo=UTC)
    assert [block.key_id for block in desk.pool.take("s", "m", 4, 0, 1)] == ["b"]
    for _ in range(3):
        desk.ask(1)
    assert [block.key_id for block in desk.grants(1)] == ["b"] * 3
    assert [state.expired for state in desk.pool.states(1)] == [True, False]
    assert (desk.pool.vitals(1).cooling, desk.pool.vitals(1).refused) == (1, ())


def test_wait__for_a_key_ends_when_the_key_expires():
    desk = Desk(key("a", expires_at=datetime(2026, 11, 1, 12, tzinfo=UTC), concurrency=1))
    desk.utc = datetime(2026, 11, 1, 11, 59, 50, tzinfo=UTC)
    desk.ask(0)
    desk.grants(0)
    desk.ask(0)
    assert desk.pool.tick(0) == ([], [])
    assert desk.pool.next_change(0) == 10
    desk.utc = datetime(2026, 11, 1, 12, tzinfo=UTC)
    ((_, error),) = desk.pool.tick(10)[1]
    assert "a expired" in str(error)
    with pytest.raises(ProviderError, match="a expired"):
        desk.ask(10)


def test_wait__that_would_be_in_vain_is_refused_at_once():
    desk = Desk(key("a", requests_per_minute=1))
    desk.ask(0)
    (block,) = desk.grants(0)
    desk.over(block, at=0)
    with pytest.raises(UnavailableError, match="another 60 s, longer than the 30 s"):
        desk.ask(0, wait_s=30)
    desk.ask(0, wait_s=70)


def test_wait__that_becomes_vain_is_refused_when_that_is_known():
    desk = Desk(key("a", requests_per_minute=1))
    desk.ask(0)
    desk.grants(0)
    waits = desk.ask(0, wait_s=30)
    desk.pool.told("a", "m", KeyOutcome(kind="rate_limited", retry_after_s=40), 1, 0)
    ((waiter, error),) = desk.pool.tick(1)[1]
    assert waiter.id == waits
    assert "another 40 s" in str(error)


def test_wait__ends_at_its_deadline():
    desk = Desk(key("a", concurrency=1))
    desk.ask(0)
    desk.grants(0)
    desk.ask(0, wait_s=5)
    assert desk.grants(0) == []
    assert desk.pool.next_change(0) == 5
    assert desk.pool.tick(4.9) == ([], [])
    ((_, error),) = desk.pool.tick(5)[1]
    assert isinstance(error, UnavailableError)
    assert desk.pool.vitals(5).waiting == 0


def test_call__larger_than_every_keys_minute_is_refused():
    desk = Desk(key("a", tokens_per_minute=100))
    with pytest.raises(UnavailableError, match="101 tokens"):
        desk.ask(0, tokens=101)
    desk.ask(0, tokens=100)
    assert len(desk.grants(0)) == 1


@pytest.mark.parametrize(("others", "served_by_s"), [("one", 130), ("ever new", 400)])
def test_large_call__is_kept_a_key_for_while_small_ones_go_on_elsewhere(others, served_by_s):
    desk = Desk(key("a", tokens_per_minute=400), key("b", tokens_per_minute=400))
    smaller = 0
    for now in range(served_by_s):
        if now == 10:
            desk.pool.used("m", "large", 5, now)
            large = desk.ask(now, wait_s=1_000, user="large", tokens=400)
        desk.ask(now, wait_s=1_000, user="small" if others == "one" else f"small-{now}", tokens=40)
        for block in desk.grants(now):
            desk.over(block, at=now, tokens=block.tokens_each)
            if now > 10 and block.wish == large:
                assert smaller > 10
                return
            smaller += now > 10
    pytest.fail("the large call starved")


def test_users__share_equally_whatever_they_ask_for():
    desk = Desk(key("a", concurrency=1))
    for user, calls in (("u", 100), ("v", 10), ("w", 10)):
        for _ in range(calls):
            desk.ask(0, user=user)
    order = []
    for now in range(30):
        (block,) = desk.grants(now)
        order.append(block.wish)
        desk.over(block, at=now)
    users = ["u" if id <= 100 else "v" if id <= 110 else "w" for id in order]
    assert {user: users.count(user) for user in "uvw"} in ({"u": 10, "v": 10, "w": 10}, {"u": 11, "v": 10, "w": 9})


def test_users__who_used_the_minute_up_come_after_those_who_got_nothing_of_it():
    desk = Desk(key("a", requests_per_minute=10))
    for block in [desk.ask(0, user="greedy") for _ in range(10)] and desk.grants(0):
        desk.over(block, at=0)
    for user in ("greedy", "other"):
        for _ in range(10):
            desk.ask(1, user=user)
    grants = [block for now in range(61, 75) for block in desk.grants(now)]
    assert sum(11 <= block.wish <= 20 for block in grants) <= 2
    assert len(grants) == 10


def test_users__that_share_a_key_get_half_of_its_minute_at_once_and_the_rest_evenly():
    desk = Desk(key("a", requests_per_minute=60))
    for number in range(200):
        desk.ask(0, user=f"u{number % 2}", wait_s=300)
    at_once = desk.grants(0)
    assert 30 <= len(at_once) <= 31
    by_second = [len(desk.grants(now)) for now in range(1, 50)]
    assert sum(by_second) == 60 - len(at_once)
    assert max(by_second) < 10


def test_users__one_alone_gets_the_whole_minute_at_once():
    desk = Desk(key("a", requests_per_minute=60))
    for _ in range(80):
        desk.ask(0, user="alone")
    assert len(desk.grants(0)) == 60


def test_users__that_share_a_key_get_nothing_of_its_second_half_in_advance():
    desk = Desk(key("a", requests_per_minute=60))
    desk.pool.used("m", "one", 1, 0)
    desk.pool.used("m", "other", 1, 0)
    in_advance = sum(block.permits for _ in range(20) for block in desk.pool.take("s", "m", 60, 10, 0))
    assert 30 <= in_advance <= 40


def test_users__are_not_starved_by_an_endless_row_of_new_ones():
    desk = Desk(key("a", concurrency=1))
    desk.pool.used("m", "old", 1_000, 0)
    mine = desk.ask(0, user="old", wait_s=1_000)
    for now in range(100):
        desk.ask(now, user=f"new-{now}")
        desk.ask(now, user=f"newer-{now}")
        (block,) = desk.grants(now)
        if block.wish == mine:
            return
        desk.over(block, at=now)
    pytest.fail("it starved")


def test_background__waits_for_interactive_but_gets_one_grant_in_ten():
    desk = Desk(key("a", concurrency=1))
    background = [desk.ask(0, priority="background", user="b") for _ in range(5)]
    for _ in range(100):
        desk.ask(0, user="i")
    order = []
    for now in range(40):
        (block,) = desk.grants(now)
        order.append(block.wish in background)
        desk.over(block, at=now)
    assert [index for index, is_background in enumerate(order) if is_background] == [9, 19, 29, 39]


def test_block__is_a_share_of_what_is_left_and_never_given_while_anybody_waits():
    desk = Desk(key("a", requests_per_minute=40))
    (block,) = desk.pool.take("s", "m", 100, 10, 0)
    assert block.permits == 10
    (block,) = desk.pool.take("t", "m", 100, 10, 0)
    assert block.permits == 7
    for _ in range(30):
        desk.ask(0)
    desk.grants(0)
    assert desk.pool.take("s", "m", 1, 10, 0) == ()


def test_block__of_a_model_whose_limits_are_unknown_begins_small_and_grows_with_its_use():
    desk = Desk(key("a"))
    (block,) = desk.pool.take("s", "m", 1_000, 10, 0)
    assert block.permits == pools.START
    assert desk.pool.take("s", "m", 1_000, 10, 0) == ()
    desk.pool.returned(block.id, block.permits, 80, 0, 1)
    (block,) = desk.pool.take("s", "m", 1_000, 10, 1)
    assert block.permits == 3 * pools.START


def test_limit__that_a_provider_teaches_is_kept():
    desk = Desk(key("a"))
    desk.ask(0)
    (block,) = desk.grants(0)
    desk.over(block, at=0)
    said = KeyLimits(requests_per_minute=2, requests_left=1, requests_reset_s=60)
    desk.pool.told("a", "m", KeyOutcome(kind="ok", limits=said), 0, 0)
    desk.ask(0)
    desk.ask(0)
    assert len(desk.grants(0)) == 1


def test_count__of_a_provider_above_ours_is_somebody_elses_and_left_alone():
    desk = Desk(key("a", requests_per_minute=10))
    desk.ask(0)
    (block,) = desk.grants(0)
    desk.over(block, at=0)
    said = KeyLimits(requests_per_minute=10, requests_left=3, requests_reset_s=20)
    desk.pool.told("a", "m", KeyOutcome(kind="ok", limits=said), 0, 0)
    for _ in range(10):
        desk.ask(0)
    assert len(desk.grants(0)) == 3
    assert len(desk.grants(20.1)) == 6


def test_count__of_a_provider_that_is_ours_takes_nothing_away():
    desk = Desk(key("a", requests_per_minute=10))
    for _ in range(5):
        desk.ask(0)
    for block in desk.grants(0):
        desk.over(block, at=0)
    said = KeyLimits(requests_per_minute=10, requests_left=5, requests_reset_s=60)
    desk.pool.told("a", "m", KeyOutcome(kind="ok", limits=said), WINDOW_S + 1, 1.5)
    for _ in range(20):
        desk.ask(WINDOW_S + 1)
    assert len(desk.grants(WINDOW_S + 1)) == 10


def test_days_limit__that_is_used_up_rests_the_model_until_its_reset():
    desk = Desk(key("a"))
    said = KeyLimits(requests_per_minute=1000, requests_left=0, requests_reset_s=500)
    desk.pool.told("a", "m", KeyOutcome(kind="ok", limits=said), 0, 0)
    with pytest.raises(UnavailableError, match="another 500 s"):
        desk.ask(0)
    desk.ask(0, model="other")


def test_rate_limit__cools_that_model_of_the_key_only():
    desk = Desk(key("a"), cooldown_s=30)
    desk.pool.told("a", "m", KeyOutcome(kind="rate_limited"), 0, 0)
    desk.ask(0)
    desk.ask(0, model="n")
    assert served(desk.grants(0)) == [2]
    assert desk.pool.next_change(0) == 30
    assert served(desk.grants(30)) == [1]


def test_refused_key__leaves_with_an_alert_and_everybody_hears_when_it_was_the_last(caplog):
    desk = Desk(key("a", concurrency=1), key("b", concurrency=1))
    for _ in range(3):
        desk.ask(0)
    desk.grants(0)
    with caplog.at_level(logging.WARNING):
        desk.pool.told("a", "m", KeyOutcome(kind="key_refused"), 0, 0)
    assert "openai refuses the key a" in caplog.text
    assert desk.pool.vitals(0).refused == ("a",)
    assert desk.pool.tick(0) == ([], [])
    desk.pool.told("b", "m", KeyOutcome(kind="key_refused"), 0, 0)
    ((_, error),) = desk.pool.tick(0)[1]
    assert isinstance(error, ProviderError)
    desk.pool.set_keys([key("a", concurrency=1)])
    desk.ask(1)
    assert desk.grants(1) == [], "its window is still known"


def test_pool__without_keys_and_with_too_many_waiting_says_so(monkeypatch):
    desk = Desk()
    with pytest.raises(NoProviderError):
        desk.ask(0)
    monkeypatch.setattr(pools, "WAITING_MAX", 1)
    desk.pool.set_keys([key("a", concurrency=1)])
    desk.ask(0)
    with pytest.raises(OverloadedError):
        desk.ask(0)


def test_dead_process__counts_as_having_called_until_its_end():
    desk = Desk(key("a", requests_per_minute=8))
    desk.pool.take("dead", "m", 2, 0, 0)
    desk.ask(0, session="dead", model="n")
    desk.pool.leave("dead", 20)
    assert desk.pool.vitals(20).waiting == 0
    for _ in range(8):
        desk.ask(20)
    assert len(desk.grants(20)) == 6
    assert len(desk.grants(20 + WINDOW_S + 0.1)) == 2


def test_process__that_goes_on_keeps_what_it_has_and_gives_back_what_never_reached_it():
    desk = Desk(key("a", requests_per_minute=16))
    (has,) = desk.pool.take("old", "m", 2, 0, 0)
    desk.pool.take("old", "m", 2, 0, 0)
    desk.pool.resume("old", "new", [(has.id, "a", "m", 2, 0, 1, 5, 0), (999, "a", "m", 3, 0, 1, 7, 0)], 1)
    for _ in range(16):
        desk.ask(1)
    assert len(desk.grants(1)) == 16 - 2 - 3


def test_notes__make_the_same_pool_again():
    desk = Desk(key("a", requests_per_minute=8), key("b", tokens_per_minute=1000))
    for number in range(6):
        desk.ask(number)
    grants = desk.grants(6)
    for block in grants[:3]:
        desk.over(block, at=7, tokens=5)
    (block,) = desk.pool.take("s", "m", 2, 9, 7)[:1]
    desk.pool.returned(block.id, 1, 3, 0, 8)
    desk.pool.told("b", "m", KeyOutcome(kind="rate_limited", retry_after_s=10), 8.0, 0.0)
    desk.pool.told("a", "m", KeyOutcome(kind="ok", limits=KeyLimits(requests_per_minute=7)), 8, 0)
    desk.pool.told("b", "m", KeyOutcome(kind="key_refused"), 8, 0)
    for notes in (desk.notes, desk.pool.notes()):
        again = Desk(key("a", requests_per_minute=8), key("b", tokens_per_minute=1000))
        again.pool.replay(notes)
        assert sorted(map(repr, again.pool.notes())) == sorted(map(repr, desk.pool.notes()))
        assert again.pool.vitals(9) == desk.pool.vitals(9)


def test_states__tell_each_key():
    desk = Desk(key("a", requests_per_minute=8), key("b"))
    desk.ask(0)
    (block,) = desk.grants(0)
    desk.over(block, at=0, tokens=5)
    desk.pool.told("b", "m", KeyOutcome(kind="rate_limited", retry_after_s=10), 0, 0)
    one, other = desk.pool.states(1)
    assert (one.key_id, one.calls_last_minute, one.tokens_last_minute, one.in_flight, one.used) == ("a", 1, 5, 0, 1)
    assert (other.cooling_s, other.refused) == (9, False)


def test_used__is_the_share_of_what_all_keys_together_may_do_of_the_tightest_model():
    desk = Desk(key("a", requests_per_minute=4), key("b", requests_per_minute=4))
    assert desk.pool.vitals(0).used_percent is None
    for _ in range(6):
        desk.ask(0)
    granted = desk.grants(0)
    assert desk.pool.vitals(0).used_percent == 75
    for block in granted:
        desk.over(block, at=1)
    assert desk.pool.vitals(1).used_percent == 75
    assert desk.pool.vitals(1 + WINDOW_S + 1).used_percent == 0


def test_used__is_nothing_where_a_key_has_no_limit_or_was_not_asked_yet():
    free = Desk(key("a", requests_per_minute=1), key("b"))
    for _ in range(4):
        free.ask(0)
    free.grants(0)
    assert free.pool.vitals(0).used_percent is None
    fresh = Desk(key("a", requests_per_minute=1), key("b", requests_per_minute=1))
    fresh.ask(0)
    fresh.grants(0)
    assert fresh.pool.vitals(0).used_percent is None

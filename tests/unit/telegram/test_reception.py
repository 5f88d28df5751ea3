"""The order of updates, on a clock that jumps: duplicates, overtakings, gaps, restarts of the door, slow chats."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import BadInputError, UnavailableError
from runtime.telegram.reception import AGAIN_S_MAX, GAP_S_MAX, MISSING_S_MAX, PENDING_EVERY_S, Reception
from tests.unit.telegram.fake_chats import Chats, Ledger, update
from tests.unit.telegram.jumping_loop import run

FIRST = 700_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    number: int
    chat: int
    at_s: float


def door(chats: Chats, *, is_pushed: bool = True) -> Reception:
    """Only in a loop, whose clock counts."""
    clock = asyncio.get_running_loop().time
    return Reception(Ledger(), chats, is_pushed=is_pushed, clock=clock)  # type: ignore[arg-type]


async def settled(chats: Chats) -> Reception:
    """A door that has been open for long."""
    reception = door(chats)
    await asyncio.sleep(AGAIN_S_MAX)
    return reception


def take(chats: Chats, sent: dict[str, Any]) -> bool:
    async def taken() -> bool:
        return await door(chats).take(sent)

    return run(taken())


async def received(reception: Reception, arrivals: Sequence[Arrival]) -> None:
    async def come(arrival: Arrival) -> None:
        await asyncio.sleep(arrival.at_s)
        await reception.take(update(arrival.number, arrival.chat))

    await asyncio.gather(*(come(arrival) for arrival in arrivals))


def arrivals(within_s: float) -> st.SearchStrategy[list[Arrival]]:
    """Numbers with gaps, some of them twice, in any order."""
    chats = st.integers(1, 3)
    one = st.builds(
        Arrival,
        number=st.integers(FIRST + 1, FIRST + 30),
        chat=st.just(0),
        at_s=st.floats(0.001, within_s, allow_nan=False),
    )
    return st.tuples(st.lists(one, max_size=25), st.lists(chats, min_size=31, max_size=31)).map(
        lambda made: [
            Arrival(number=each.number, chat=made[1][each.number - FIRST], at_s=each.at_s + n * 1e-6)
            for n, each in enumerate(made[0])
        ]
    )


@settings(max_examples=300, deadline=None)
@given(st.one_of(arrivals(0.02), arrivals(0.3), arrivals(5.0)))
def test_updates__are_taken_once_and_those_behind_a_gap_wait(coming: list[Arrival]) -> None:
    chats = Chats()

    async def all_of_it() -> None:
        reception = await settled(chats)
        await reception.take(update(FIRST, 1))
        await received(reception, coming)

    run(all_of_it())
    for chat in (1, 2, 3):
        wanted = {each.number for each in coming if each.chat == chat} | ({FIRST} if chat == 1 else set())
        assert sorted(chats.taken[f"chat:{chat}"]) == sorted(wanted)
    came_s: dict[int, float] = {}
    for each in sorted(coming, key=lambda each: each.at_s):
        came_s.setdefault(each.number, each.at_s)
    for number, at_s in came_s.items():
        before = {other for other, other_s in came_s.items() if other_s < at_s}
        if set(range(FIRST + 1, number)) <= before:
            assert number not in chats.waits_s, "nothing was missing"
    check_order(chats)


def check_order(chats: Chats) -> None:
    """Whatever a chat took before a lower number waits there for it."""
    for taken in chats.taken.values():
        for n, number in enumerate(taken):
            assert number in chats.waits_s or number < min(taken[n + 1 :], default=number + 1), "a lower one came later"


@settings(max_examples=100, deadline=None)
@given(arrivals(5.0), st.floats(0.0, 5.0))
def test_updates__that_a_door_did_not_answer_are_taken_once_by_the_next(coming: list[Arrival], dies_s: float) -> None:
    """What was not answered when it died, Telegram sends again; what was answered may come again too."""
    chats = Chats()

    async def all_of_it() -> None:
        dying = asyncio.create_task(received(door(chats), coming))
        await asyncio.sleep(dies_s)
        dying.cancel()
        await asyncio.gather(dying, return_exceptions=True)
        await received(door(chats), coming)

    run(all_of_it())
    for chat in (1, 2, 3):
        assert sorted(chats.taken[f"chat:{chat}"]) == sorted({each.number for each in coming if each.chat == chat})


def test_gap__that_stays_is_forgotten_by_and_by() -> None:
    chats = Chats()

    async def all_of_it() -> None:
        reception = await settled(chats)
        await reception.take(update(FIRST))
        await reception.take(update(FIRST + 2))
        await asyncio.sleep(MISSING_S_MAX - 1.0)
        await reception.take(update(FIRST + 4))
        await asyncio.sleep(2.0)
        await reception.take(update(FIRST + 3))
        await reception.take(update(FIRST + 5))

    run(all_of_it())
    assert chats.waits_s == {FIRST + 2: GAP_S_MAX, FIRST + 4: GAP_S_MAX}


def test_updates__that_are_fetched_come_in_order_so_a_gap_says_nothing() -> None:
    chats = Chats()

    async def all_of_it() -> None:
        reception = door(chats, is_pushed=False)
        for number in (FIRST, FIRST + 2, FIRST + 5):
            await reception.take(update(number))

    run(all_of_it())
    assert not chats.waits_s


def test_gap__that_closes_at_once_makes_nobody_wait() -> None:
    chats = Chats()

    async def all_of_it() -> None:
        reception = await settled(chats)
        await reception.take(update(FIRST))
        coming = [Arrival(number=FIRST + number, chat=number, at_s=0.01 * n) for n, number in enumerate((3, 2, 1))]
        await received(reception, coming)

    run(all_of_it())
    assert not chats.waits_s


def test_gap__is_seen_however_many_wait_at_telegram() -> None:
    chats = Chats()

    async def all_of_it() -> None:
        reception = await settled(chats)
        await reception.take(update(FIRST))
        for number in (FIRST + 9_000, FIRST + 1, FIRST + 9_001, FIRST + 3, FIRST + 2):
            await reception.take(update(number))

    run(all_of_it())
    assert chats.waits_s.keys() == {FIRST + 9_000, FIRST + 9_001, FIRST + 3}


def test_chat__that_is_slow_holds_up_no_other() -> None:
    chats = Chats(slow="chat:1")

    async def all_of_it() -> None:
        reception = await settled(chats)
        slow = [asyncio.create_task(reception.take(update(FIRST + n, 1))) for n in (0, 1, 2)]
        await asyncio.gather(*(reception.take(update(FIRST + n, n)) for n in range(3, 40)))
        assert asyncio.get_running_loop().time() < AGAIN_S_MAX + GAP_S_MAX
        await asyncio.gather(*slow)

    run(all_of_it())
    assert sorted(chats.taken["chat:1"]) == [FIRST, FIRST + 1, FIRST + 2]
    check_order(chats)


def test_update__that_overtook_one_at_a_slow_chats_door_waits_for_it_however_long_both_stood_there() -> None:
    chats = Chats(slow="chat:1")

    async def all_of_it() -> None:
        reception = await settled(chats)
        coming = [Arrival(number=FIRST + n, chat=1, at_s=0.001 + 0.2 * place) for place, n in enumerate((0, 2, 1))]
        await received(reception, coming)

    run(all_of_it())
    assert chats.taken["chat:1"] == [FIRST, FIRST + 2, FIRST + 1]
    check_order(chats)


def test_update__that_could_not_be_kept_is_refused_and_taken_when_it_comes_again() -> None:
    chats = Chats(away=[FIRST])

    async def all_of_it() -> None:
        reception = await settled(chats)
        with pytest.raises(UnavailableError):
            await reception.take(update(FIRST))
        assert await reception.take(update(FIRST + 1))
        assert await reception.take(update(FIRST))
        assert not await reception.take(update(FIRST))

    run(all_of_it())
    assert chats.waits_s.keys() == {FIRST + 1}


def test_door__that_was_just_opened_lets_all_wait_for_what_came_when_there_was_none() -> None:
    chats = Chats()

    async def all_of_it() -> None:
        reception = door(chats)
        await asyncio.sleep(4.0)
        await reception.take(update(FIRST + 1, 1))
        await asyncio.sleep(3.0)
        await reception.take(update(FIRST, 1))
        await asyncio.sleep(AGAIN_S_MAX)
        await reception.take(update(FIRST + 2, 1))

    run(all_of_it())
    assert chats.waits_s.keys() == {FIRST, FIRST + 1}
    assert chats.waits_s[FIRST + 1] == pytest.approx(AGAIN_S_MAX - 4.0, abs=0.3)
    assert chats.waits_s[FIRST] == pytest.approx(AGAIN_S_MAX - 7.0, abs=0.3)


def test_door__to_which_nothing_more_is_to_come_lets_nobody_wait() -> None:
    chats = Chats()
    answers = [2, UnavailableError("away"), 0]

    async def pending() -> int:
        answer = answers.pop(0)
        if isinstance(answer, UnavailableError):
            raise answer
        return answer

    async def all_of_it() -> None:
        reception = door(chats)
        settling = asyncio.create_task(reception.settle(pending))
        await reception.take(update(FIRST + 1))
        await settling
        await reception.take(update(FIRST + 2))

    run(all_of_it())
    assert chats.waits_s.keys() == {FIRST + 1}


def test_door__asks_no_longer_than_anybody_waits() -> None:
    async def pending() -> int:
        return 1

    async def all_of_it() -> None:
        await door(Chats()).settle(pending)
        assert asyncio.get_running_loop().time() == pytest.approx(AGAIN_S_MAX, abs=PENDING_EVERY_S)

    run(all_of_it())


@pytest.mark.parametrize("comes_again", [True, False])
def test_update__that_could_not_be_kept_is_waited_for_in_its_chat_alone(comes_again: bool) -> None:
    chats = Chats(away=[FIRST])

    async def all_of_it() -> None:
        reception = await settled(chats)
        coming = (reception.take(update(FIRST + n, chat)) for n, chat in enumerate((1, 1, 2)))
        done = await asyncio.gather(*coming, return_exceptions=True)
        assert isinstance(done[0], UnavailableError)
        if comes_again:
            await reception.take(update(FIRST, 1))
        else:
            await asyncio.sleep(AGAIN_S_MAX + 0.01)
        await reception.take(update(FIRST + 3, 1))

    run(all_of_it())
    assert chats.waits_s == {FIRST + 1: pytest.approx(AGAIN_S_MAX, abs=0.1)}


def test_update__behind_a_refused_one_waits_as_long_although_another_stands_at_the_door() -> None:
    chats = Chats(away=[FIRST])

    async def all_of_it() -> None:
        reception = await settled(chats)
        with pytest.raises(UnavailableError):
            await reception.take(update(FIRST, 1))
        await received(reception, [Arrival(number=FIRST + n, chat=1, at_s=0.05 / n) for n in (1, 2)])

    run(all_of_it())
    assert chats.taken["chat:1"] == [FIRST + 2, FIRST + 1]
    assert chats.waits_s == {FIRST + n: pytest.approx(AGAIN_S_MAX, abs=0.3) for n in (1, 2)}


def test_update__that_is_given_up_at_the_door_lets_nobody_overtake_the_one_before_it() -> None:
    chats = Chats(slow="chat:1")

    async def all_of_it() -> None:
        reception = await settled(chats)
        first, second = (asyncio.create_task(reception.take(update(FIRST + n, 1))) for n in (0, 1))
        await asyncio.sleep(1.0)
        second.cancel()
        await asyncio.sleep(1.0)
        third = asyncio.create_task(reception.take(update(FIRST + 2, 1)))
        assert await first
        assert asyncio.get_running_loop().time() < AGAIN_S_MAX + 1_010.0
        assert await third
        assert asyncio.get_running_loop().time() > AGAIN_S_MAX + 2_000.0, "it stood behind the first"
        chats.slow = ""
        assert await reception.take(update(FIRST + 1, 1))

    run(all_of_it())
    assert chats.taken["chat:1"] == [FIRST, FIRST + 2, FIRST + 1]


def test_update__that_is_fetched_and_meets_an_error_of_ours_is_let_go_and_waited_for_by_none() -> None:
    class Broken(Chats):
        async def ask(self, entity: str, message: Any, *, timeout_s: float = 30.0) -> bool:
            if message.update_id == FIRST:
                raise ZeroDivisionError
            return await super().ask(entity, message, timeout_s=timeout_s)

    chats = Broken()

    async def all_of_it() -> None:
        reception = door(chats, is_pushed=False)
        with pytest.raises(ZeroDivisionError):
            await reception.take(update(FIRST))
        assert await reception.take(update(FIRST + 1))

    run(all_of_it())
    assert not chats.waits_s


def test_chat__is_told_up_to_where_nothing_is_missing() -> None:
    chats = Chats()

    async def all_of_it() -> None:
        reception = await settled(chats)
        for n in (0, 2, 3, 1, 5):
            await reception.take(update(FIRST + n))
        await asyncio.sleep(MISSING_S_MAX)
        await reception.take(update(FIRST + 6))

    run(all_of_it())
    told = {number - FIRST: whole_to - FIRST for number, whole_to in chats.whole_to.items()}
    assert told == {0: 0, 2: 0, 3: 0, 1: 3, 5: 3, 6: 6}


def test_update__that_is_let_go_makes_no_other_early() -> None:
    chats = Chats()

    async def all_of_it() -> None:
        reception = await settled(chats)
        await reception.take(update(FIRST))
        with pytest.raises(BadInputError):
            await reception.take({"update_id": FIRST + 1, "message": 5})
        await reception.take(update(FIRST + 2))

    run(all_of_it())
    assert chats.taken["chat:5"] == [FIRST, FIRST + 2]
    assert not chats.waits_s


def test_numbers__that_begin_anew_are_not_early() -> None:
    """Telegram chooses the next number at random after a week without updates."""
    chats = Chats()

    async def all_of_it() -> None:
        reception = await settled(chats)
        for number in (FIRST, 12, 13, FIRST + 5_000_000):
            await reception.take(update(number))

    run(all_of_it())
    assert not chats.waits_s


FROM_NOBODY: dict[str, dict[str, Any]] = {
    "a bot": {"from": {"id": 5, "is_bot": True}},
    "an anonymous administrator": {
        "from": {"id": 1087968824, "is_bot": True},
        "chat": {"id": -9, "type": "supergroup"},
        "sender_chat": {"id": -9, "type": "supergroup"},
    },
    "a channel in its group": {
        "from": {"id": 777000, "is_bot": False},
        "chat": {"id": -9, "type": "supergroup"},
        "sender_chat": {"id": -8, "type": "channel"},
    },
    "a channel": {"chat": {"id": -8, "type": "channel"}, "from": None},
}


@pytest.mark.parametrize("changes", FROM_NOBODY.values(), ids=FROM_NOBODY)
def test_update__that_no_person_sent_reaches_no_chat(changes: dict[str, Any]) -> None:
    chats, sent = Chats(), update(FIRST)
    sent["message"] |= changes
    assert take(chats, sent) is False
    assert not chats.taken


STRANGE: dict[str, dict[str, Any]] = {
    "another's private chat": {"chat": {"id": 6}},
    "another's private chat, called a group": {"chat": {"id": 6, "type": "group"}},
    "a group, called private": {"chat": {"id": -6, "type": "private"}},
    "a person below zero": {"from": {"id": -5}, "chat": {"id": -5, "type": "group"}},
    "a person beyond all numbers": {"from": {"id": 2**63}},
    "a chat beyond all numbers": {"chat": {"id": -(2**63), "type": "group"}},
    "a date beyond all numbers": {"date": 10**30},
    "half a surrogate pair": {"text": "\ud83d"},
    "half a surrogate pair in a name": {"from": {"id": 5, "first_name": "\udc00"}},
    "an endless name": {"from": {"id": 5, "first_name": "x" * 5_000}},
    "an endless text": {"text": "x" * 100_000},
}


@pytest.mark.parametrize("changes", STRANGE.values(), ids=STRANGE)
def test_update__that_cannot_be_telegrams_is_refused(changes: dict[str, Any]) -> None:
    chats, sent = Chats(), update(FIRST)
    sent["message"] |= changes
    with pytest.raises(BadInputError, match="not an update of Telegram's"):
        take(chats, sent)
    assert not chats.taken

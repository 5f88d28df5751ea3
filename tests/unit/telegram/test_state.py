import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runtime.entity.journal import EventRecord
from runtime.ids import EntityId
from runtime.telegram.state import ANNOUNCED_KEPT, DONE_KEPT, MARKS_KEPT, ChatState

NOW = datetime.now(UTC)
PROJECTS = ("p-1", "p-2")
CALL = {"method": "sendMessage", "data": {"text": "hello"}, "plain": "", "file": None, "mark": ""}
FILE = {**CALL, "method": "sendDocument", "file": {"field": "document", "name": "a.zip", "blob": "b"}}
FOLLOWED = {"owner": "ann", "seq": 3, "thread": None}

numbers = st.integers(0, 9)
calls = st.lists(st.sampled_from([CALL, FILE, {**CALL, "mark": "progress/p-1"}]), max_size=3)
expected = st.sampled_from([None, {"what": "change", "project": "p-1", "about": ""}])
follows = st.dictionaries(st.sampled_from(PROJECTS), st.sampled_from([None, FOLLOWED, {**FOLLOWED, "thread": 7}]))
happenings = st.one_of(
    st.tuples(st.just("chat.received"), st.fixed_dictionaries({
        "update_id": numbers, "update": st.just({"update_id": 1}), "user": st.just("ann")},
        optional={"due_s": st.floats(0.0, 2e9)})),
    st.tuples(st.just("chat.handled"), st.fixed_dictionaries({
        "update_id": numbers, "calls": calls, "follows": follows,
        "expects": st.dictionaries(st.sampled_from(["ann", "bob"]), expected)})),
    st.tuples(st.just("chat.told"), st.fixed_dictionaries({"calls": calls, "follows": follows})),
    st.tuples(st.just("chat.announced"), st.fixed_dictionaries({
        "calls": calls, "key": st.text("abc", min_size=1, max_size=2)})),
    st.tuples(st.just("chat.sent"), st.fixed_dictionaries({
        "n": numbers, "message": numbers, "mark": st.sampled_from(["", "progress/p-1", "progress/p-2"])})),
    st.tuples(st.just("chat.dropped"), st.fixed_dictionaries({"n": numbers, "why": st.just("no")})),
    st.tuples(st.sampled_from(["chat.blocked", "chat.unblocked", "chat.left", "chat.of_tomorrow"]), st.just({})),
)  # fmt: skip


def folded(happened: list[tuple[str, dict[str, Any]]], state: ChatState | None = None) -> ChatState:
    state = state or ChatState()
    for number, (type, data) in enumerate(happened, 1):
        state = state.after(record(type, data, number))
    return state


def record(type: str, data: Mapping[str, Any], seq: int = 1) -> EventRecord:
    return EventRecord(
        entity=EntityId("chat:1"),
        seq=seq,
        type=type,
        version=1,
        epoch=1,
        key=f"{type}/{seq}",
        data=data,
        at=NOW,
    )


@given(st.lists(happenings, max_size=40), st.lists(happenings, max_size=10))
def test_state__goes_on_from_a_snapshot_as_it_would_without(
    before: list[tuple[str, dict[str, Any]]], after: list[tuple[str, dict[str, Any]]]
) -> None:
    state = folded(before)
    thawed = ChatState.thawed(json.loads(json.dumps(state.frozen())))
    assert thawed == state
    assert folded(after, thawed) == folded(after, state)
    assert list(thawed.inbox) == list(state.inbox)
    assert list(thawed.outbox) == list(state.outbox)


@given(st.lists(happenings, max_size=60))
def test_state__stays_small_and_numbers_no_call_twice(happened: list[tuple[str, dict[str, Any]]]) -> None:
    state, ever = ChatState(), dict[int, object]()
    for number, (type, data) in enumerate(happened, 1):
        state = state.after(record(type, data, number))
        for n, call in state.outbox.items():
            assert ever.setdefault(n, call) == call
            assert n < state.numbered
    assert list(state.outbox) == sorted(state.outbox)
    assert len(state.done) <= DONE_KEPT
    assert len(state.marks) <= MARKS_KEPT
    assert len(state.announced) <= ANNOUNCED_KEPT
    assert not state.blocked or state.open == bool(state.inbox)


def received(number: int) -> tuple[str, dict[str, Any]]:
    return "chat.received", {"update_id": number, "update": {}, "user": "ann"}


def handled(number: int, calls: list[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    return "chat.handled", {"update_id": number, "calls": calls, "expects": {}, "follows": {"p-1": FOLLOWED}}


def test_update__is_known_until_two_hundred_others_came() -> None:
    state = folded([each for n in range(DONE_KEPT + 1) for each in (received(n), handled(n, []))])
    assert not state.has(0)
    assert state.has(1)
    assert state.has(DONE_KEPT)
    assert folded([received(5)]).has(5)


def test_block__keeps_what_was_to_be_sent_and_who_is_followed() -> None:
    state = folded([received(1), handled(1, [CALL]), ("chat.blocked", {})])
    assert len(state.outbox) == 1
    assert not state.open
    told = folded([("chat.told", {"calls": [CALL], "follows": {"p-1": {**FOLLOWED, "seq": 9}}})], state)
    assert len(told.outbox) == 2
    back = folded([("chat.unblocked", {})], told)
    assert back.open
    assert back.follows["p-1"].seq == 9  # type: ignore[index]


def test_leave__forgets_all_that_was_said_and_takes_no_more() -> None:
    state = folded([received(1), handled(1, [CALL]), received(2), ("chat.left", {})])
    assert (state.outbox, state.inbox, state.follows, state.expects) == ({}, {}, {}, {})
    assert state.has(1)
    assert state.has(2)
    late = folded([handled(2, [CALL]), ("chat.told", {"calls": [CALL], "follows": {"p-1": FOLLOWED}})], state)
    assert (late.outbox, late.follows) == ({}, {})
    assert not late.open

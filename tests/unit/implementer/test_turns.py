from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from runtime.implementer.turns import Turns

BUILDS = ("a", "b", "c", "d", "e")


def test_builds_that_wait__take_turns_however_many_tasks_each_has() -> None:
    turns: Turns[int] = Turns(4)
    for number in range(6):
        turns.add("many", number)
    turns.add("few", 100)
    served = [turns.serve() for _ in range(3)]
    assert served == [("many", 0), ("few", 100), ("many", 1)]
    assert turns.order() == ["many"]


def test_build_at_its_bound__waits_though_places_are_free() -> None:
    turns: Turns[int] = Turns(1)
    turns.add("a", 1)
    turns.add("a", 2)
    assert turns.serve() == ("a", 1)
    assert turns.serve() is None
    turns.end("a")
    assert turns.serve() == ("a", 2)


class AnyOrder(RuleBasedStateMachine):
    """Arrivals, ends and those who give up, in any order, with three places."""

    PLACES, BOUND = 3, 2

    def __init__(self) -> None:
        super().__init__()
        self.turns: Turns[int] = Turns(self.BOUND)
        self.waiting: list[tuple[str, int]] = []
        self.running: list[str] = []
        self.overtaken: dict[str, Counter[str]] = {}
        """Build that waits without a place -> turns that others got meanwhile."""
        self.number = 0

    @rule(build=st.sampled_from(BUILDS))
    def arrive(self, build: str) -> None:
        self.number += 1
        self.waiting.append((build, self.number))
        self.turns.add(build, self.number)
        if build not in self.running:
            self.overtaken.setdefault(build, Counter())
        self._fill()

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 100))
    def end(self, which: int) -> None:
        build = self.running.pop(which % len(self.running))
        self.turns.end(build)
        if build not in self.running and any(each == build for each, _ in self.waiting):
            self.overtaken[build] = Counter()
        self._fill()

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 100))
    def give_up(self, which: int) -> None:
        build, number = self.waiting.pop(which % len(self.waiting))
        self.turns.drop(build, number)
        if not any(each == build for each, _ in self.waiting):
            self.overtaken.pop(build, None)

    def _fill(self) -> None:
        while len(self.running) < self.PLACES and (served := self.turns.serve()):
            assert served in self.waiting
            assert served == next(each for each in self.waiting if each[0] == served[0]), "a build's own tasks in order"
            self.waiting.remove(served)
            self.running.append(served[0])
            self.overtaken.pop(served[0], None)
            for counts in self.overtaken.values():
                counts[served[0]] += 1

    @invariant()
    def no_place_is_free_while_somebody_may_be_served(self) -> None:
        may = [build for build, _ in self.waiting if self.running.count(build) < self.BOUND]
        assert not may or len(self.running) == self.PLACES
        assert max(Counter(self.running).values(), default=0) <= self.BOUND
        assert len(self.turns) == len(self.waiting)

    @invariant()
    def nobody_has_two_turns_before_a_build_that_waits_without_a_place(self) -> None:
        assert all(count <= 1 for counts in self.overtaken.values() for count in counts.values())


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from runtime.providers.breaker import FAILURES, OPEN_S, WITHIN_S, Breakers


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def opened(clock: Clock) -> Breakers:
    breakers = Breakers(clock=clock)
    for _ in range(FAILURES):
        breakers.report("groq", False)
    return breakers


def test_circuit__opens_at_the_third_failure_for_30_seconds(clock):
    breakers = Breakers(clock=clock)
    for _ in range(FAILURES - 1):
        breakers.report("groq", False)
    assert breakers.allows("groq")
    breakers.report("groq", False)
    assert not breakers.allows("groq")
    assert breakers.open() == ["groq"]
    clock.now_s += OPEN_S - 0.1
    assert not breakers.allows("groq")
    clock.now_s += 0.1
    assert breakers.allows("groq")


def test_circuit__stays_closed_while_failures_are_rare(clock):
    breakers = Breakers(clock=clock)
    for _ in range(10):
        breakers.report("groq", False)
        assert breakers.allows("groq")
        assert breakers.open() == []
        clock.now_s += WITHIN_S / 2 + 0.1


def test_circuit__forgets_failures_after_an_answer(clock):
    breakers = Breakers(clock=clock)
    for ok in (False, False, True, False, False):
        breakers.report("groq", ok)
    assert breakers.allows("groq")


def test_circuit__is_each_provider_s_own(clock):
    assert opened(clock).allows("gemini")


def test_half_open__lets_one_call_through_and_its_answer_closes(clock):
    breakers = opened(clock)
    clock.now_s += OPEN_S
    assert [breakers.allows("groq") for _ in range(3)] == [True, False, False]
    breakers.report("groq", True)
    assert [breakers.allows("groq") for _ in range(3)] == [True, True, True]


def test_half_open__whose_probe_fails_is_open_for_30_seconds_more(clock):
    breakers = opened(clock)
    clock.now_s += OPEN_S
    assert breakers.allows("groq")
    clock.now_s += 1
    breakers.report("groq", False)
    clock.now_s += OPEN_S - 0.1
    assert not breakers.allows("groq")
    clock.now_s += 0.1
    assert breakers.allows("groq")


def test_half_open__whose_probe_is_never_reported_probes_again(clock):
    breakers = opened(clock)
    clock.now_s += OPEN_S
    assert breakers.allows("groq")
    clock.now_s += OPEN_S
    assert breakers.allows("groq")


def test_open_circuit__is_not_prolonged_by_calls_that_began_before(clock):
    breakers = opened(clock)
    clock.now_s += OPEN_S - 1
    breakers.report("groq", False)
    clock.now_s += 1
    assert breakers.allows("groq")


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens, a provider is asked at least once in 30 s, and never twice in 30 s between failures."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breakers = Breakers(clock=self.clock)
        self.failures_in_a_row = 0
        self.asked_at_s: float | None = None

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        self.clock.now_s += seconds

    @rule(ok=st.booleans())
    def ask(self, ok: bool) -> None:
        was_closed = not self.breakers.open()
        allowed = self.breakers.allows("p")
        if was_closed:
            assert allowed
        elif allowed and self.asked_at_s is not None:
            assert self.clock.now_s - self.asked_at_s >= OPEN_S
        if allowed:
            self.asked_at_s = self.clock.now_s
            self.breakers.report("p", ok)
            if ok:
                assert not self.breakers.open()

    @rule()
    def wait_long(self) -> None:
        self.clock.now_s += OPEN_S
        assert self.breakers.allows("p")
        self.asked_at_s = self.clock.now_s


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=60, stateful_step_count=30)

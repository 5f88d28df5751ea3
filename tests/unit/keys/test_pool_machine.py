"""Processes call and die, the pool is killed, calls are refused, cancelled, fail: no limit is ever exceeded."""

import asyncio
import random
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from key_world import PoolProcess, Provider, key, kill, one_call, virtual_loop, wish

from runtime.keys.keys import KeyOutcome
from runtime.keys.permits import Permits

PROCESSES = 3
LIMITS = {
    "few": {"requests_per_minute": 4},
    "tokens": {"tokens_per_minute": 300, "requests_per_minute": 50},
    "narrow": {"concurrency": 2, "requests_per_minute": 40},
    "many": {"requests_per_minute": 60},
}
PATIENT_S = 100_000.0


class KeyMachine(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 1000), names=st.lists(st.sampled_from(sorted(LIMITS)), min_size=1, unique=True))
    def begin(self, seed, names):
        self.loop = virtual_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="key-machine-"))
        limits = {name: LIMITS[name] for name in names}
        self.provider = Provider(
            self.loop.time, random.Random(seed), (0.05, 20.0), p_429=0.03, p_500=0.05, limits=limits
        )
        self.pool = PoolProcess(self.folder, [key(name, **limits[name]) for name in names], self.loop)
        self.processes = [self._process() for _ in range(PROCESSES)]
        self.calls = {number: [] for number in range(PROCESSES)}
        self.patient = []

    def _process(self):
        return Permits("openai", self.pool.exchange, clock=self.loop.time)

    def _pass(self, seconds):
        self.loop.run_until_complete(asyncio.sleep(seconds))

    @rule(
        process=st.integers(0, PROCESSES - 1),
        user=st.sampled_from("uvw"),
        calls=st.integers(1, 15),
        tokens=st.integers(1, 60),
        is_background=st.booleans(),
        wait_s=st.sampled_from([0.0, 5.0, 90.0, PATIENT_S]),
    )
    def call(self, process, user, calls, tokens, is_background, wait_s):
        wanted = wish(user, 60, priority="background" if is_background else "interactive")
        for _ in range(calls):
            task = self.loop.create_task(
                one_call(self.processes[process], self.provider, wanted, wait_s, tokens), name=f"call-{wait_s}"
            )
            self.calls[process].append(task)
            if wait_s == PATIENT_S:
                self.patient.append(task)
        self._pass(0.01)

    @rule(seconds=st.sampled_from([0.001, 0.3, 2.0, 15.0, 59.9, 61.0]))
    def time_passes(self, seconds):
        self._pass(seconds)

    @rule(down_s=st.sampled_from([0.0, 0.5, 3.0]))
    def the_pool_is_killed(self, down_s):
        self.pool.kill()
        self._pass(down_s)
        self.pool.start()

    @rule(process=st.integers(0, PROCESSES - 1))
    def a_process_is_killed(self, process):
        """Its calls may still arrive or be in hand at the provider for a moment."""
        kill(self.processes[process])
        for task in self.calls[process]:
            task.cancel()
        self.patient = [task for task in self.patient if task not in self.calls[process]]
        self.calls[process] = []
        self.processes[process] = self._process()
        self._pass(0.001)

    @rule(process=st.integers(0, PROCESSES - 1), number=st.integers(0, 100))
    def a_call_is_cancelled(self, process, number):
        calls = self.calls[process]
        if calls:
            task = calls[number % len(calls)]
            task.cancel()
            self.patient = [each for each in self.patient if each is not task]
            self._pass(0.001)

    @invariant()
    def nothing_is_exceeded(self):
        if hasattr(self, "provider"):
            assert self.provider.violations() == []

    def teardown(self):
        """Whoever can wait long enough is served; and when all is over, everything is free again."""
        if not hasattr(self, "provider"):
            return
        for _ in range(400):
            if all(task.done() for task in self.patient):
                break
            self._pass(30)
        assert [task.result() for task in self.patient if not isinstance(task.result(), KeyOutcome)] == []
        assert self.provider.violations() == []
        self._pass(200)
        assert [state.in_flight for state in self.pool.pool.states(self.loop.time())] == [0] * len(self.pool.keys)
        assert self.pool.pool.vitals(self.loop.time()).waiting == 0
        for process in self.processes:
            self.loop.run_until_complete(process.close())
        self.pool.kill()
        self.loop.close()
        shutil.rmtree(self.folder)


TestKeyMachine = KeyMachine.TestCase
TestKeyMachine.settings = settings(
    max_examples=100, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)

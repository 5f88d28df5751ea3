"""Keeps a failing provider from being asked again and again: its circuit breaker."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

FAILURES = 3
WITHIN_S = 60.0
OPEN_S = 30.0


@dataclass(slots=True)
class _Circuit:
    failed_at_s: deque[float] = field(default_factory=lambda: deque(maxlen=FAILURES))
    probe_from_s: float | None = None
    """None: closed. Until then nothing may be asked, and then one call at a time."""
    probing: bool = False


class Breakers:
    """One per process, for all providers; every method takes constant time. A restart forgets all.

    A provider's circuit opens after 3 failures within 60 s. After 30 s it is half open: one call probes; served, it
    closes the circuit, failed, it opens it for 30 s more. A probe nobody reports counts as over after 30 s.
    Source: spec/assistant.md §3.9.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._circuits: dict[str, _Circuit] = {}

    def allows(self, provider: str) -> bool:
        """Whether to ask it now. True of a half-open circuit takes its probe, so only who asks may call this."""
        circuit = self._circuits.get(provider)
        if circuit is None or circuit.probe_from_s is None:
            return True
        now = self._clock()
        if now < circuit.probe_from_s:
            return False
        circuit.probe_from_s, circuit.probing = now + OPEN_S, True
        return True

    def report(self, provider: str, ok: bool) -> None:
        """How a call ended. An answer closes the circuit, whoever's it was: the provider is well.

        Of an open circuit the failure of a call that began before is no news and prolongs nothing.
        """
        if ok:
            self._circuits.pop(provider, None)
            return
        now = self._clock()
        circuit = self._circuits.setdefault(provider, _Circuit())
        circuit.failed_at_s.append(now)
        is_open = circuit.probe_from_s is not None and now < circuit.probe_from_s and not circuit.probing
        if not is_open and (circuit.probe_from_s is not None or self._many(circuit, now)):
            circuit.probe_from_s, circuit.probing = now + OPEN_S, False

    def open(self) -> list[str]:
        """The providers that are not asked as usual, for the operator."""
        return sorted(name for name, circuit in self._circuits.items() if circuit.probe_from_s is not None)

    def _many(self, circuit: _Circuit, now: float) -> bool:
        failed = circuit.failed_at_s
        return len(failed) == FAILURES and now - failed[0] <= WITHIN_S

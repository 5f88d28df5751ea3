"""Load on anything that answers: at a constant rate, or as much as a number of callers get through."""

import asyncio
import time
from array import array
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import psutil

from runtime.errors import MasterbuilderError

Send = Callable[[int], Awaitable[object]]
"""Sends message number n and waits for its answer."""

TICK_S = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    rate: float
    """Answers in a second."""
    p50_ms: float
    p99_ms: float
    errors: int
    """Messages that were refused or got no answer in time."""
    seconds: float


async def steady(send: Send, first: int, rate: float, seconds: float) -> Outcome:
    """Messages `first`, `first` + 1, ... on a fixed schedule, whether or not earlier ones were answered.

    Latency counts from the moment a message was due, not from when it could be sent: a stall is charged to all
    that it made wait.
    """
    total = int(rate * seconds)
    latencies = array("d")
    errors = 0
    running: set[asyncio.Task[None]] = set()
    begun = time.perf_counter()

    async def one(number: int) -> None:
        nonlocal errors
        try:
            await send(first + number)
        except MasterbuilderError:
            errors += 1
        else:
            latencies.append(time.perf_counter() - begun - number / rate)

    sent = 0
    while sent < total:
        due = min(total, int((time.perf_counter() - begun) * rate) + 1)
        for number in range(sent, due):
            task = asyncio.create_task(one(number))
            running.add(task)
            task.add_done_callback(running.discard)
        sent = due
        await asyncio.sleep(TICK_S)
    if running:
        await asyncio.wait(running)
    return _outcome(latencies, errors, time.perf_counter() - begun)


async def greedy(send: Send, first: int, callers: int, seconds: float) -> Outcome:
    """Each caller sends its next message when its last was answered."""
    latencies = array("d")
    errors = 0
    next_number = first
    begun = time.perf_counter()

    async def caller() -> None:
        nonlocal errors, next_number
        while (now := time.perf_counter()) - begun < seconds:
            number, next_number = next_number, next_number + 1
            try:
                await send(number)
            except MasterbuilderError:
                errors += 1
            else:
                latencies.append(time.perf_counter() - now)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return _outcome(latencies, errors, time.perf_counter() - begun)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not below `share` of all."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


class Effort:
    """CPU seconds of named processes between `__init__` and `spent`; of the others below this one, as `ray`."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        named = set(pids.values())
        below = [process for process in psutil.Process().children(recursive=True) if process.pid not in named]
        self._processes = {**{name: [psutil.Process(pid)] for name, pid in pids.items()}, "ray": below}
        self._before = self._now()
        self._machine_before = self._machine()
        self._begun = time.perf_counter()

    def spent(self) -> Mapping[str, float]:
        """By name; `elsewhere` is the rest of the machine, `cores` the wall-clock seconds times the number of cores."""
        now = self._now()
        own = {name: now[name] - self._before[name] for name in now}
        cores = (time.perf_counter() - self._begun) * (psutil.cpu_count() or 1)
        return {**own, "elsewhere": self._machine() - self._machine_before - sum(own.values()), "cores": cores}

    def _now(self) -> Mapping[str, float]:
        return {name: sum(map(_cpu_s, processes)) for name, processes in self._processes.items()}

    @staticmethod
    def _machine() -> float:
        spent = psutil.cpu_times()
        return float(spent.user + spent.system + getattr(spent, "nice", 0.0))


def _cpu_s(process: psutil.Process) -> float:
    """Of a process that ended: nothing."""
    try:
        spent = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(spent.user + spent.system)


def _outcome(latencies: "array[float]", errors: int, seconds: float) -> Outcome:
    ordered = sorted(latencies) or [float("inf")]
    return Outcome(
        rate=len(latencies) / seconds,
        p50_ms=quantile(ordered, 0.5) * 1e3,
        p99_ms=quantile(ordered, 0.99) * 1e3,
        errors=errors,
        seconds=seconds,
    )

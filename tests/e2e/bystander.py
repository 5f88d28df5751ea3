"""Somebody who has done nothing wrong, and what the service's processes weigh meanwhile."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil
from openai import OpenAI, OpenAIError

from cluster.processes import owned
from tests.e2e.live import Live
from tests.e2e.upstream import GPT

_PAUSE_S = 0.25
_SAMPLE_S = 0.05


@dataclass(slots=True)
class Bystander:
    """Makes one small call after the other, as an SDK does: what is refused as overload is tried again."""

    live: Live
    answered: int = 0
    failures: list[str] = field(default_factory=list)
    longest_s: float = 0.0
    _ended: threading.Event = field(default_factory=threading.Event)

    def call(self) -> None:
        """One of them now. Raises where it is not answered."""
        with OpenAI(base_url=f"{self.live.url}/v1", api_key=self.live.client_token, timeout=60.0) as client:
            self._call(client)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        thread = threading.Thread(target=self._work)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _work(self) -> None:
        with OpenAI(base_url=f"{self.live.url}/v1", api_key=self.live.client_token, timeout=60.0) as client:
            while not self._ended.wait(_PAUSE_S):
                began_s = time.monotonic()
                try:
                    self._call(client)
                except (OpenAIError, AssertionError) as error:
                    self.failures.append(f"{type(error).__name__}: {error}")
                self.longest_s = max(self.longest_s, time.monotonic() - began_s)

    def _call(self, client: OpenAI) -> None:
        reply = client.chat.completions.create(
            model=GPT, messages=[{"role": "user", "content": "synthetic tokens=3"}], max_tokens=10
        )
        assert len((reply.choices[0].message.content or "").split()) == 3
        self.answered += 1


@dataclass(slots=True)
class Weight:
    """In bytes of resident memory, of all processes a request passes through."""

    before_bytes: int
    peak_bytes: int

    @property
    def grown_bytes(self) -> int:
        return self.peak_bytes - self.before_bytes


def door_processes(live: Live) -> list[psutil.Process]:
    """Serve's replicas of the model door, and what stands before them."""
    found = []
    for process in owned(live.instance):
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if "haproxy" in line.partition(" ")[0] or "ServeReplica:gateway" in line or "ProxyActor" in line:
            found.append(process)
    return found


@contextmanager
def weighed(live: Live) -> Iterator[Weight]:
    """What they weigh at most while this lasts."""
    processes = door_processes(live)
    assert processes
    now = _weigh(processes)
    weight = Weight(now, now)
    ended = threading.Event()

    def weigh() -> None:
        while not ended.wait(_SAMPLE_S):
            weight.peak_bytes = max(weight.peak_bytes, _weigh(processes))

    thread = threading.Thread(target=weigh)
    thread.start()
    try:
        yield weight
    finally:
        ended.set()
        thread.join()


def _weigh(processes: list[psutil.Process]) -> int:
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total

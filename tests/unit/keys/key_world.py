"""A world of virtual time: a provider that counts by arrival, a pool that can be killed, processes that call."""

import asyncio
import json
import random
import selectors
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from runtime.errors import MasterbuilderError, WorkLostError
from runtime.ids import UserId
from runtime.keys.desk import Answer, Ask, KeyDesk
from runtime.keys.keys import KeyLimits, KeyOutcome, Lease, ProviderKey, Wish
from runtime.keys.log import PoolLog
from runtime.keys.permits import Permits
from runtime.keys.pool import Pool
from runtime.keys.quotas import parse_quotas


class _Jumps(selectors.DefaultSelector):  # type: ignore[misc,valid-type]
    """Nobody waits for real: the time that would pass, has passed."""

    now_s = 1_000.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everybody waits for ever"
        self.now_s += max(0.0, timeout)
        return super().select(0)


def virtual_loop() -> asyncio.AbstractEventLoop:
    selector = _Jumps()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now_s  # type: ignore[method-assign]
    return loop


def run_virtually(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    loop = virtual_loop()
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


@dataclass
class Provider:
    """Calls arrive after a while, last a while, and are counted in every sliding minute."""

    clock: Callable[[], float]
    random: random.Random
    latency_s: tuple[float, float] = (0.05, 1.5)
    p_429: float = 0.0
    p_500: float = 0.0
    says_limits: bool = False
    limits: dict[str, dict[str, int]] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    arrivals: dict[str, list[list[float]]] = field(default_factory=lambda: defaultdict(list))
    running: Counter[str] = field(default_factory=Counter)
    cooled: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    too_many: list[str] = field(default_factory=list)

    async def call(self, lease: Lease, tokens: int) -> KeyOutcome:
        await asyncio.sleep(self.random.uniform(0, 0.03))
        key, limits = lease.key_id, self.limits[lease.key_id]
        self.arrivals[key].append([self.clock(), tokens])
        self.running[key] += 1
        if self.running[key] > limits.get("concurrency", 10**9):
            self.too_many.append(f"{key}: {self.running[key]} at once")
        try:
            await asyncio.sleep(self.random.uniform(*self.latency_s))
        finally:
            self.running[key] -= 1
        if key in self.dead:
            return KeyOutcome(kind="key_refused")
        chance = self.random.random()
        if chance < self.p_429:
            rest_s = self.random.choice([0.5, 2.0, 6.0])
            self.cooled[key].append((self.clock(), self.clock() + rest_s))
            return KeyOutcome(kind="rate_limited", retry_after_s=rest_s)
        if chance < self.p_429 + self.p_500:
            return KeyOutcome(kind="failed")
        said = None
        if self.says_limits and "requests_per_minute" in limits:
            count = sum(at > self.clock() - 60 for at, _ in self.arrivals[key])
            left = limits["requests_per_minute"] - count
            said = KeyLimits(
                requests_per_minute=limits["requests_per_minute"], requests_left=max(0, left), requests_reset_s=60.0
            )
        return KeyOutcome(kind="ok", tokens=tokens, limits=said)

    def violations(self) -> list[str]:
        """Of windows (t - 60, t], and of concurrency."""
        found = list(self.too_many)
        for key, arrivals in self.arrivals.items():
            arrivals.sort()
            first = tokens = 0
            for index, (at, used) in enumerate(arrivals):
                tokens += int(used)
                while arrivals[first][0] <= at - 60:
                    tokens -= int(arrivals[first][1])
                    first += 1
                if index - first + 1 > self.limits[key].get("requests_per_minute", 10**9):
                    found.append(f"{key}: {index - first + 1} requests in the minute before {at:.2f}")
                if tokens > self.limits[key].get("tokens_per_minute", 10**12):
                    found.append(f"{key}: {tokens} tokens in the minute before {at:.2f}")
        return found


class PoolProcess:
    """The pool with its desk and its log. Killed, it loses all but the log; who was calling hears that it is gone."""

    def __init__(self, folder: Path, keys: Sequence[ProviderKey], loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.path = folder / "pool.log"
        self.keys = keys
        self.clock = loop.time
        self.exchanges = 0
        self.incarnations = 0
        self.pool: Pool | None = None
        self.desk: KeyDesk | None = None
        self._log: PoolLog | None = None
        self._calls: set[asyncio.Task[Answer]] = set()
        self.start()

    def start(self) -> None:
        self.incarnations += 1
        log = PoolLog(self.path, clock=self.clock)
        pool = Pool("openai", cooldown_s=5, call_s_max=120, note=log.note, first_id=self.incarnations << 40)
        pool.set_keys(self.keys)
        log.open(pool)
        self.pool, self._log = pool, log
        self.desk = KeyDesk(pool, log, f"pool-{self.incarnations}", self.clock)
        self.loop.call_soon(self.desk.turn)

    def kill(self) -> None:
        assert self.desk is not None
        assert self._log is not None
        self.desk.close()
        self._log.close()
        self.desk = self.pool = None
        for call in self._calls:
            call.cancel()

    async def exchange(self, ask: Ask) -> Answer:
        self.exchanges += 1
        await asyncio.sleep(0.001)
        if self.desk is None:
            raise WorkLostError("The pool is gone.")
        task = asyncio.ensure_future(self.desk.exchange(ask))
        self._calls.add(task)
        try:
            answer = await task
        except asyncio.CancelledError:
            if task.cancelled():
                raise WorkLostError("The pool is gone.") from None
            raise
        finally:
            self._calls.discard(task)
        await asyncio.sleep(0.001)
        return answer


def key(name: str, expires_at: datetime | None = None, **limits: int) -> ProviderKey:
    quotas = parse_quotas(json.dumps(limits))
    return ProviderKey(
        provider="openai", key_id=name, base_url="http://x/v1", key=f"sk-{name}", quotas=quotas, expires_at=expires_at
    )


def wish(user: str = "u", tokens: int = 10, model: str = "m", **fields: Any) -> Wish:
    return Wish(provider="openai", model=model, user=UserId(user), tokens_max=tokens, **fields)


async def one_call(
    permits: Permits, provider: Provider, wanted: Wish, wait_s: float, tokens: int
) -> KeyOutcome | MasterbuilderError:
    """Reports like `ModelCalls` does, also when it is cancelled."""
    try:
        lease = await permits.lease(wanted, wait_s)
    except MasterbuilderError as error:
        return error
    outcome = KeyOutcome(kind="failed")
    try:
        outcome = await provider.call(lease, tokens)
    finally:
        permits.report(lease, outcome)
    return outcome


def jain(shares: Sequence[float]) -> float:
    """Source: Jain, Chiu, Hawe (1984), DEC-TR-301."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


def kill(permits: Permits) -> None:
    """As kill -9 of its process: nobody hears of it."""
    permits._is_closed = True
    for timer in (permits._beat, permits._gathering):
        if timer is not None:
            timer.cancel()
    for task in permits._tasks:
        task.cancel()

"""Twenty keys, five times the demand they can serve, and everything that goes wrong, in minutes of virtual time."""

import asyncio
import random
from collections import Counter
from math import ceil

import pytest
from key_world import PoolProcess, Provider, jain, key, one_call, run_virtually, wish

from runtime.errors import MasterbuilderError
from runtime.keys.permits import Permits

MINUTES = 3
MEAN_TOKENS = 300


@pytest.mark.parametrize(("seed", "wait_s_max"), [(1, 60.0), (2, 2.0)])
def test_scarcity__no_limit_is_exceeded_no_capacity_lost_and_users_share_equally(tmp_path, seed, wait_s_max):
    dice = random.Random(seed)
    keys = []
    for number in range(20):
        limits = {"requests_per_minute": dice.randint(20, 120)}
        if number % 3 == 0:
            limits["tokens_per_minute"] = limits["requests_per_minute"] * 400
        if number % 4 == 0:
            limits["concurrency"] = dice.randint(4, 12)
        keys.append((f"k{number}", limits))
    capacity_per_s = sum(limits["requests_per_minute"] for _, limits in keys) / 60
    demand = {f"u{number}": weight for number, weight in enumerate([1] * 4 + [2] * 4 + [8] * 2)}
    served: Counter[str] = Counter()
    ends: Counter[str] = Counter()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        provider = Provider(loop.time, dice, p_429=0.02, p_500=0.03, limits=dict(keys), says_limits=True)
        pool = PoolProcess(tmp_path, [key(name, **limits) for name, limits in keys], loop)
        processes = [Permits("openai", pool.exchange, clock=loop.time) for _ in range(3)]
        died: dict[str, float] = {}

        async def user(name: str, rate_per_s: float) -> None:
            calls = []
            while loop.time() - began < MINUTES * 60:
                await asyncio.sleep(dice.expovariate(rate_per_s))
                calls.append(asyncio.create_task(ask(name)))
            for call in calls:
                await call

        async def ask(name: str) -> None:
            tokens = dice.randint(100, 500)
            wait_s = min(wait_s_max, began + MINUTES * 60 - loop.time())
            outcome = await one_call(dice.choice(processes), provider, wish(name, tokens * 2), wait_s, tokens)
            ends[outcome.code if isinstance(outcome, MasterbuilderError) else outcome.kind] += 1
            if not isinstance(outcome, MasterbuilderError):
                served[name] += 1

        async def trouble() -> None:
            for name in ("k5", "k11"):
                await asyncio.sleep(50)
                provider.dead.add(name)
                died[name] = loop.time()
                pool.kill()
                await asyncio.sleep(1)
                pool.start()

        total = sum(demand.values())
        await asyncio.gather(
            trouble(), *(user(name, 5 * capacity_per_s * weight / total) for name, weight in demand.items())
        )
        assert provider.violations() == []
        possible = 0.0
        used = 0
        for name, limits in keys:
            end = died.get(name, began + MINUTES * 60)
            per_minute = min(limits["requests_per_minute"], limits.get("tokens_per_minute", 10**9) / MEAN_TOKENS)
            possible += per_minute * ceil((end - began) / 60)
            used += sum(at <= end for at, _ in provider.arrivals[name])
        fairness = jain(list(served.values()))
        print(f"used {used / possible:.3f} of capacity, Jain {fairness:.4f}, {pool.exchanges} exchanges; {ends}")
        assert used / possible >= 0.95
        assert fairness >= 0.95
        for process in processes:
            await process.close()

    run_virtually(main)

"""Keys for the calls of one process alone, without an actor: the same rules, asked directly."""

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from math import inf

from runtime.catalogue.endpoints import no_provider
from runtime.catalogue.model import canonical_provider
from runtime.entity.vitals import KeyPoolVitals
from runtime.errors import MasterbuilderError
from runtime.keys.keys import KeyOutcome, Lease, ProviderKey, Wish
from runtime.keys.pool import Block, Pool

SESSION = "here"
CALL_S_MAX = 3600.0
POLL_S = 0.05
"""How often is looked when only the end of another call can help."""


class KeyRing:
    """Implements `KeyLeases` over the pools of one or many providers. Nothing outlives it."""

    def __init__(
        self,
        keys: Iterable[ProviderKey],
        *,
        cooldown_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        by_provider: dict[str, list[ProviderKey]] = defaultdict(list)
        for key in keys:
            by_provider[key.provider].append(key)
        self._pools = {
            provider: Pool(provider, cooldown_s=cooldown_s, call_s_max=CALL_S_MAX) for provider in by_provider
        }
        for provider, pool in self._pools.items():
            pool.set_keys(by_provider[provider])
        self._clock = clock
        self._sleep = sleep
        self._ids = itertools.count(1)
        self._answers: dict[int, Block | MasterbuilderError] = {}

    async def lease(self, wish: Wish, wait_s: float) -> Lease:
        pool = self._pool(wish.provider)
        id = next(self._ids)
        pool.ask(SESSION, id, wish, wait_s, self._clock())
        try:
            while True:
                now = self._clock()
                self._tick(pool, now)
                if id in self._answers:
                    break
                change = pool.next_change(now)
                await self._sleep(POLL_S if change in (inf, now) else change - now)
        except BaseException:
            pool.withdraw(SESSION, id)
            if isinstance(block := self._answers.pop(id, None), Block):
                pool.returned(block.id, 0, 0, 1, self._clock())
            raise
        answer = self._answers.pop(id)
        if isinstance(answer, MasterbuilderError):
            raise answer
        key = pool.key(answer.key_id)
        assert key is not None, "keys of a ring are never exchanged"
        return key.lease(wish, answer.id)

    def report(self, lease: Lease, outcome: KeyOutcome) -> None:
        pool = self._pools.get(lease.provider)
        if pool is None:
            return
        now = self._clock()
        if outcome.kind == "unused":
            pool.returned(lease.permit, 0, 0, 1, now)
        else:
            tokens = lease.tokens_max if outcome.tokens is None else outcome.tokens
            pool.returned(lease.permit, 1, tokens, 0, now - (outcome.heard_s_ago or 0.0))
        pool.told(lease.key_id, lease.model, outcome, now, 0.0)

    def vitals(self, provider: str) -> KeyPoolVitals:
        return self._pool(provider).vitals(self._clock())

    def _pool(self, provider: str) -> Pool:
        pool = self._pools.get(canonical_provider(provider))
        if pool is None:
            raise no_provider(provider)
        return pool

    def _tick(self, pool: Pool, now: float) -> None:
        grants, refusals = pool.tick(now)
        for block in grants:
            self._answers[block.wish] = block
        for waiter, error in refusals:
            self._answers[waiter.id] = error

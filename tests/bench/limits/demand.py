"""The users: each asks at its own rate, whether or not anybody answers."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.caller import Caller, End
from tests.bench.limits.plan import make_ask

TICK_S = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    user: int
    end: End


class Demand:
    def __init__(self, caller: Caller, tokens: Sequence[str], seed: int) -> None:
        self._caller = caller
        self._tokens = tokens
        self._dice = random.Random(f"demand {seed}")
        self._running: set[asyncio.Task[None]] = set()
        self.made: list[Made] = []

    async def go_on(self, rates: Sequence[float], seconds: float) -> None:
        """Begins so many calls a second for each user, at random moments, and waits for none of them."""
        until = time.monotonic() + seconds
        users = range(len(rates))
        due = time.monotonic() + self._dice.expovariate(sum(rates))
        while (now := time.monotonic()) < until:
            while due <= now:
                self._begin(self._dice.choices(users, rates)[0])
                due += self._dice.expovariate(sum(rates))
            await asyncio.sleep(TICK_S)

    async def finish(self) -> None:
        """Waits for the calls that are under way."""
        if self._running:
            await asyncio.wait(self._running)

    def _begin(self, user: int) -> None:
        task = asyncio.create_task(self._make(user))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _make(self, user: int) -> None:
        ask = make_ask(self._dice, self._tokens[user])
        self.made.append(Made(user=user, end=await self._caller.call(ask)))

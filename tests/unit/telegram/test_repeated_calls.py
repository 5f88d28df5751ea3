"""What is asked for again is made once: while it is under way, and after its answer."""

import asyncio
from contextlib import suppress

import pytest

from runtime.errors import UnavailableError
from runtime.telegram.repeats import Repeats


class Calls:
    def __init__(self) -> None:
        self.made = 0
        self.may_end = asyncio.Event()
        self.fails = False

    async def make(self) -> int:
        self.made += 1
        number = self.made
        await self.may_end.wait()
        if self.fails:
            raise UnavailableError("away")
        return number


async def test_call__whose_asker_died_goes_on_and_is_the_next_askers() -> None:
    calls, repeats = Calls(), Repeats()
    dead = asyncio.create_task(repeats.once("5/1", calls.make))
    await asyncio.sleep(0)
    dead.cancel()
    with suppress(asyncio.CancelledError):
        await dead
    alive = asyncio.create_task(repeats.once("5/1", calls.make))
    await asyncio.sleep(0)
    calls.may_end.set()
    assert await alive == 1
    assert await repeats.once("5/1", calls.make) == 1
    assert await repeats.once("5/2", calls.make) == 2


async def test_call__that_failed_is_made_again() -> None:
    calls, repeats = Calls(), Repeats()
    calls.may_end.set()
    calls.fails = True
    with pytest.raises(UnavailableError):
        await repeats.once("5/1", calls.make)
    calls.fails = False
    assert await repeats.once("5/1", calls.make) == 2


async def test_answers__of_long_ago_are_forgotten() -> None:
    calls, repeats = Calls(), Repeats(kept=2)
    calls.may_end.set()
    for number in (1, 2, 3):
        assert await repeats.once(f"5/{number}", calls.make) == number
    assert await repeats.once("5/1", calls.make) == 4
    assert await repeats.once("5/3", calls.make) == 3

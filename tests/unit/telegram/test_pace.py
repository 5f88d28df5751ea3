"""What the bot sends stays under Telegram's limits, wherever a call had to wait."""

import asyncio
from collections import defaultdict
from itertools import pairwise
from typing import Any

import pytest

from runtime.telegram.pace import IN_GROUP, Pace


class Wire:
    """When each call reached Telegram, by the loop's clock."""

    def __init__(self) -> None:
        self.at_s: dict[int, list[float]] = defaultdict(list)

    async def take(self, chat: int) -> None:
        self.at_s[chat].append(asyncio.get_running_loop().time())

    @property
    def all_s(self) -> list[float]:
        return sorted(at_s for each in self.at_s.values() for at_s in each)


async def sent(limiter: Pace, wire: Wire, chat: int) -> Any:
    return await limiter.process_request(wire.take, (chat,), {}, "sendMessage", {"chat_id": chat}, None)


def most_in(at_s: list[float], window_s: float) -> int:
    return max(sum(at <= other < at + window_s for other in at_s) for at in at_s)


async def test_chats__get_a_message_a_second_each_although_all_of_them_wait() -> None:
    limiter, wire = Pace(in_chat_s=0.3, start_s=0.0), Wire()
    # Together they wait longer for the whole bot's turn than one chat waits for its own.
    await asyncio.gather(*(sent(limiter, wire, chat) for chat in range(1, 13) for _ in range(3)))
    gaps = [later - sooner for each in wire.at_s.values() for sooner, later in pairwise(each)]
    assert min(gaps) >= 0.29
    assert most_in(wire.all_s, 1.0) <= 26


async def test_process__that_begins_waits_for_what_the_one_before_it_may_have_sent() -> None:
    limiter, wire = Pace(start_s=0.2), Wire()
    began_s = asyncio.get_running_loop().time()
    await sent(limiter, wire, 1)
    assert wire.all_s[0] - began_s >= 0.19


async def test_group__gets_a_burst_and_then_waits() -> None:
    limiter, wire = Pace(in_chat_s=0.0, start_s=0.0), Wire()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await asyncio.gather(*(sent(limiter, wire, -100) for _ in range(8)))
    assert len(wire.at_s[-100]) == IN_GROUP[0]

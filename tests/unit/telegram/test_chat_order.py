"""A chat answers in the order of the numbers, whatever the net did to it."""

import asyncio
from dataclasses import replace
from typing import Any

from runtime.entity.host import Host
from runtime.ids import UserId
from runtime.ledger.money import Tariff
from runtime.telegram.chat import Chat, Receive, chat_entity
from runtime.telegram.reply import Reply
from runtime.testing.memory_journal import MemoryJournal
from runtime.testing.memory_ledger import MemoryLedger
from tests.unit.telegram.fake_chats import update

CHAT = chat_entity(5)
WAITS_S = 1.0


class Noted:
    """In the place of the dialogue: which updates it was asked to answer."""

    def __init__(self) -> None:
        self.answered: list[int] = []

    async def answer(self, state: Any, update: Any, user: UserId) -> Reply:
        self.answered.append(update.update_id)
        return Reply()


async def opened(noted: Noted) -> Host:
    journal = MemoryJournal(MemoryLedger(Tariff(), 0))
    made = {"chat": lambda entity: Chat(entity, None, noted, None)}  # type: ignore[arg-type]
    host = Host(name="host", incarnation="1", journal=journal, factories=made)
    await host.acquire_all()
    return host


def receive(number: int, *, is_early: bool) -> Receive:
    return Receive(owner=UserId("u"), update_id=number, update=update(number), waits_s=WAITS_S if is_early else 0.0)


async def come(host: Host, number: int, *, is_early: bool) -> None:
    await host.ask(CHAT, receive(number, is_early=is_early))


async def until(noted: Noted, count: int, within_s: float) -> None:
    async with asyncio.timeout(within_s):
        while len(noted.answered) < count:  # noqa: ASYNC110 - it is told nothing
            await asyncio.sleep(0.01)


async def test_update__that_came_early_is_answered_after_the_one_that_it_overtook() -> None:
    noted = Noted()
    host = await opened(noted)
    await come(host, 12, is_early=True)
    await come(host, 13, is_early=True)
    await come(host, 11, is_early=True)
    await come(host, 10, is_early=False)
    await until(noted, 4, 10 * WAITS_S)
    assert noted.answered == [10, 11, 12, 13]
    await host.stop()


async def test_update__that_overtook_another_chats_waits_a_moment_and_no_longer_than_what_is_behind_it() -> None:
    noted = Noted()
    host = await opened(noted)
    await come(host, 12, is_early=True)
    await asyncio.sleep(0.1)
    assert not noted.answered
    await come(host, 14, is_early=False)
    await until(noted, 2, 0.7 * WAITS_S)
    await come(host, 16, is_early=True)
    await until(noted, 3, 10 * WAITS_S)
    assert noted.answered == [12, 14, 16]
    await host.stop()


async def test_checkout__waits_for_nothing() -> None:
    noted = Noted()
    host = await opened(noted)
    asked = {
        "id": "q", "from": {"id": 5, "first_name": "Ada"}, "currency": "XTR", "total_amount": 1, "invoice_payload": "p",
    }  # fmt: skip
    checkout = {"update_id": 12, "pre_checkout_query": asked}
    await host.ask(CHAT, replace(receive(12, is_early=True), update=checkout))
    await until(noted, 1, 0.7 * WAITS_S)
    await host.stop()

"""A chat answers in the order of the numbers, whatever the net did to it."""

import asyncio
from dataclasses import replace
from typing import Any

from runtime.entity.host import Host
from runtime.ids import UserId
from runtime.ledger.money import Tariff
from runtime.telegram.calls import Call
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


async def opened(noted: Noted, api: Any = None) -> Host:
    journal = MemoryJournal(MemoryLedger(Tariff(), 0))
    made = {"chat": lambda entity: Chat(entity, api, noted, None)}  # type: ignore[arg-type]
    host = Host(name="host", incarnation="1", journal=journal, factories=made)
    await host.acquire_all()
    return host


def receive(number: int, *, whole_to: int = 0) -> Receive:
    """One below which something is missing, unless the door has all to it."""
    waits_s = WAITS_S if whole_to < number else 0.0
    return Receive(owner=UserId("u"), update_id=number, update=update(number), waits_s=waits_s, whole_to=whole_to)


async def come(host: Host, number: int, *, whole_to: int = 0) -> None:
    await host.ask(CHAT, receive(number, whole_to=whole_to))


def checkout(number: int) -> Receive:
    asked = {
        "id": "q", "from": {"id": 5, "first_name": "Ada"}, "currency": "XTR", "total_amount": 1, "invoice_payload": "p",
    }  # fmt: skip
    return replace(receive(number), update={"update_id": number, "pre_checkout_query": asked})


async def until(noted: Noted, count: int, within_s: float) -> None:
    async with asyncio.timeout(within_s):
        while len(noted.answered) < count:  # noqa: ASYNC110 - it is told nothing
            await asyncio.sleep(0.01)


async def test_update__that_came_early_is_answered_after_the_one_that_it_overtook() -> None:
    noted = Noted()
    host = await opened(noted)
    for number in (12, 13, 11):
        await come(host, number)
    await asyncio.sleep(0.1)
    assert not noted.answered
    await come(host, 10, whole_to=12)
    await until(noted, 3, 0.7 * WAITS_S)
    await asyncio.sleep(0.05)
    assert noted.answered == [10, 11, 12], "nothing is missing below them any more"
    await until(noted, 4, 10 * WAITS_S)
    assert noted.answered == [10, 11, 12, 13]
    await host.stop()


async def test_update__that_overtook_another_chats_waits_a_moment_and_no_longer_than_what_is_behind_it() -> None:
    noted = Noted()
    host = await opened(noted)
    await come(host, 12)
    await asyncio.sleep(0.1)
    assert not noted.answered
    await come(host, 14, whole_to=14)
    await until(noted, 2, 0.7 * WAITS_S)
    await come(host, 16, whole_to=14)
    await until(noted, 3, 10 * WAITS_S)
    assert noted.answered == [12, 14, 16]
    await host.stop()


async def test_checkout__waits_for_nothing_and_lets_nobody_else_overtake() -> None:
    noted = Noted()
    host = await opened(noted)
    await come(host, 11)
    await host.ask(CHAT, checkout(12))
    await until(noted, 1, 0.7 * WAITS_S)
    assert noted.answered == [12]
    await come(host, 10, whole_to=12)
    await until(noted, 3, 10 * WAITS_S)
    assert noted.answered == [12, 10, 11]
    await host.stop()


async def test_chat__that_begins_anew_numbers_no_call_as_one_of_before() -> None:
    call = Call(method="sendMessage", data={"text": "hello"})

    class Greets(Noted):
        async def answer(self, state: Any, update: Any, user: UserId) -> Reply:
            await super().answer(state, update, user)
            return Reply(calls=[call, call])

    keys = list[str]()

    class Api:
        async def call(self, method: str, data: Any, upload: Any = None, *, may_drop: bool = False, key: str) -> Any:
            keys.append(key)
            return {"message_id": 1}

    for sent in (2, 4):  # With another journal each time, as after an erasure.
        host = await opened(Greets(), Api())
        await come(host, 10, whole_to=10)
        async with asyncio.timeout(10.0):
            while len(keys) < sent:  # noqa: ASYNC110 - it is told nothing
                await asyncio.sleep(0.01)
        await host.stop()
    assert len(set(keys)) == 4

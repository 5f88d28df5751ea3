import asyncio
import time

import pytest
from telegram.error import BadRequest, Forbidden, NetworkError, RetryAfter, TimedOut
from telegram.ext import ExtBot

from cluster.simulator.telegram.client import StandInClient
from cluster.simulator.telegram.faults import Fault

Bot = ExtBot[None]


async def texts(control: StandInClient, chat_id: int) -> list[str]:
    return [message.text for message in (await control.messages(chat_id)).messages if message.from_bot]


async def test_too_many_requests__tells_when_to_come_again(bot: Bot, control: StandInClient, ada: int) -> None:
    await control.order_fault(Fault(kind="too_many_requests", retry_after_s=3))

    with pytest.raises(RetryAfter) as refused:
        await bot.send_message(ada, "Hello")

    assert "Retry in 3 seconds" in str(refused.value)
    assert await bot.send_message(ada, "Hello")
    assert await texts(control, ada) == ["Hello"]


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_server_error__is_not_carried_out(bot: Bot, control: StandInClient, ada: int, status: int) -> None:
    await control.order_fault(Fault(kind="server_error", status=status))  # type: ignore[arg-type]

    with pytest.raises(NetworkError):
        await bot.send_message(ada, "Hello")

    assert await texts(control, ada) == []
    assert (await control.counts())["by_error"] == {str(status): 1}


@pytest.mark.parametrize(("kind", "done"), [("dropped_before", []), ("dropped_after", ["Hello"])])
async def test_dropped_connection__leaves_the_client_in_doubt(
    bot: Bot, control: StandInClient, ada: int, kind: str, done: list[str]
) -> None:
    await control.order_fault(Fault(kind=kind))  # type: ignore[arg-type]

    with pytest.raises(NetworkError):
        await bot.send_message(ada, "Hello")

    assert await texts(control, ada) == done
    (call,) = await control.calls("sendMessage")
    assert (call["fault"], call["error_code"]) == (kind, 0 if done else None)


async def test_slow__is_done_at_once_and_answered_late(bot: Bot, control: StandInClient, ada: int) -> None:
    await control.order_fault(Fault(kind="slow", delay_s=0.4, count=2))
    before = (await control.messages(ada)).revision

    with pytest.raises(TimedOut):
        await bot.send_message(ada, "Hello", read_timeout=0.1)
    done = await control.messages(ada, after=before, wait_s=10)
    assert [message.text for message in done.messages] == ["Hello"]
    begun_s = time.monotonic()
    await bot.send_message(ada, "again")
    assert time.monotonic() - begun_s >= 0.4


async def test_blocked__is_what_one_chat_gets(bot: Bot, control: StandInClient, ada: int) -> None:
    bob = await control.add_person("Bob")
    await control.say(bob, bob, "/start")
    await control.order_fault(Fault(kind="blocked", chat_id=bob))

    assert await bot.send_message(ada, "Hello")
    with pytest.raises(Forbidden, match="bot was blocked by the user"):
        await bot.send_message(bob, "Hello")


async def test_markup_refused__leaves_plain_text_alone(bot: Bot, control: StandInClient, ada: int) -> None:
    await control.order_fault(Fault(kind="markup_refused", count=1))

    assert await bot.send_message(ada, "plain")
    with pytest.raises(BadRequest, match="Can't parse entities"):
        await bot.send_message(ada, "<b>bold</b>", parse_mode="HTML")
    assert await texts(control, ada) == ["plain"]


async def test_fault__waits_for_its_method_and_count(bot: Bot, control: StandInClient, ada: int) -> None:
    await control.order_fault(Fault(kind="server_error", method="edit*", count=2))
    sent = await bot.send_message(ada, "one")

    for _ in range(2):
        with pytest.raises(NetworkError):
            await bot.edit_message_text("two", ada, sent.message_id)

    assert await bot.edit_message_text("two", ada, sent.message_id)
    assert await control.faults() == []


async def test_fault__with_a_rate_spoils_the_same_calls_again(bot: Bot, control: StandInClient, ada: int) -> None:
    async def spoiled() -> list[bool]:
        id = await control.order_fault(Fault(kind="server_error", rate=0.5, seed=3))
        results = [await asyncio.gather(bot.send_chat_action(ada, "typing"), return_exceptions=True) for _ in range(20)]
        assert (await control.faults())[0]["taken"] == sum(result[0] is not True for result in results)
        await control.clear_faults(id)
        return [result[0] is not True for result in results]

    first = await spoiled()

    assert await spoiled() == first
    assert 4 <= sum(first) <= 16

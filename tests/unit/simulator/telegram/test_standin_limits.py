import pytest
from telegram.error import RetryAfter
from telegram.ext import ExtBot

from cluster.simulator.telegram.client import StandInClient
from cluster.simulator.telegram.limits import Limits, LimitSetup
from cluster.simulator.telegram.refusal import TelegramRefusal

Bot = ExtBot[None]


class Time:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_limits__report_a_second_message_to_a_chat_in_a_second() -> None:
    time = Time()
    limits = Limits(time)
    limits.note("sendMessage", 1)
    time.now_s = 0.75
    limits.note("editMessageText", 1)
    limits.note("sendMessage", 2)
    time.now_s = 1.75
    limits.note("sendMessage", 1)

    (excess,) = limits.excesses
    assert (excess.rule, excess.method, excess.in_window, excess.spare_s) == ("chat", "editMessageText", 2, 0.25)
    assert limits.counted == 4


def test_limits__report_the_31st_in_a_second_overall() -> None:
    limits = Limits(Time())
    for chat_id in range(1, 32):
        limits.note("sendDocument", chat_id)

    assert [(excess.rule, excess.chat_id, excess.in_window) for excess in limits.excesses] == [("overall", 31, 31)]


def test_limits__report_the_21st_in_a_minute_to_a_group_alone() -> None:
    time = Time()
    limits = Limits(time)
    for chat_id in (-5, 5):
        for _ in range(21):
            limits.note("sendMessage", chat_id)
            time.now_s += 2.0

    assert [(excess.rule, excess.chat_id, excess.in_window) for excess in limits.excesses] == [("group", -5, 21)]


@pytest.mark.parametrize("method", ["getUpdates", "answerCallbackQuery", "deleteMessage", "sendChatAction", "getChat"])
def test_limits__count_what_sends_or_edits_alone(method: str) -> None:
    limits = Limits(Time())
    for _ in range(40):
        limits.note(method, 1)

    assert not limits.excesses
    assert limits.counted == 0


def test_limits__that_are_enforced_refuse_and_do_not_count() -> None:
    time = Time()
    limits = Limits(time)
    limits.setup = LimitSetup(enforced=True, group=1)
    limits.note("sendMessage", -1)
    time.now_s = 20.0
    for _ in range(3):
        with pytest.raises(TelegramRefusal) as refused:
            limits.note("sendMessage", -1)
        assert refused.value.retry_after_s == 40
    time.now_s = 60.0
    limits.note("sendMessage", -1)

    assert len(limits.excesses) == 3


async def test_limits__are_reported_and_enforced_over_the_wire(bot: Bot, control: StandInClient, ada: int) -> None:
    await bot.send_message(ada, "one")
    await bot.send_message(ada, "two")
    (excess,) = await control.excesses()
    assert (excess.rule, excess.method, excess.chat_id) == ("chat", "sendMessage", ada)

    await control.reset_limits()
    await control.set_limits(LimitSetup(enforced=True))
    await bot.send_message(ada, "three")
    with pytest.raises(RetryAfter):
        await bot.send_message(ada, "four")
    assert [message.text for message in (await control.messages(ada)).messages][-1] == "three"

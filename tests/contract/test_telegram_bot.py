"""What becomes of Telegram's refusals on their way through the library: dropped, or kept and tried again."""

import logging
from collections.abc import AsyncIterator

import pytest

from cluster.simulator.telegram.server import TelegramStandIn
from runtime.errors import UnavailableError
from runtime.telegram.bot import Bot
from runtime.telegram.calls import TelegramRefusedError


@pytest.fixture
async def telegram() -> AsyncIterator[TelegramStandIn]:
    async with TelegramStandIn() as telegram:
        yield telegram


async def test_method_that_is_not_there__is_refused_for_good(
    telegram: TelegramStandIn, caplog: pytest.LogCaptureFixture
) -> None:
    bot = Bot(telegram.token, telegram.root_url)
    with caplog.at_level(logging.ERROR), pytest.raises(TelegramRefusedError, match="no method sendHologram"):
        await bot.call("sendHologram", {})
    assert not caplog.records, "the token is not to blame"
    await bot.close()


@pytest.mark.parametrize("token", ["123:other", "none"])
async def test_token_that_is_none__is_told_and_loses_nothing(
    telegram: TelegramStandIn, caplog: pytest.LogCaptureFixture, token: str
) -> None:
    bot = Bot(token, telegram.root_url)
    with caplog.at_level(logging.ERROR), pytest.raises(UnavailableError, match="does not know this token"):
        await bot.call("sendMessage", {"chat_id": 1, "text": "Hello"})
    assert "TELEGRAM_BOT_TOKEN" in caplog.text
    await bot.close()

from collections.abc import AsyncIterator

import pytest
from telegram.ext import ExtBot
from telegram.request import HTTPXRequest

from cluster.simulator.telegram.client import StandInClient
from cluster.simulator.telegram.server import TelegramStandIn


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def telegram(clock: Clock) -> AsyncIterator[TelegramStandIn]:
    async with TelegramStandIn(clock=clock, pre_checkout_s=1.5, retry_s=0.02) as telegram:
        yield telegram


@pytest.fixture
async def control(telegram: TelegramStandIn) -> AsyncIterator[StandInClient]:
    async with StandInClient(telegram.root_url) as control:
        yield control


@pytest.fixture
async def bot(telegram: TelegramStandIn) -> AsyncIterator[ExtBot[None]]:
    request = HTTPXRequest(read_timeout=20.0)
    bot: ExtBot[None] = ExtBot(
        telegram.token,
        base_url=telegram.base_url,
        base_file_url=telegram.base_file_url,
        request=request,
        get_updates_request=HTTPXRequest(read_timeout=20.0),
    )
    async with bot:
        yield bot


@pytest.fixture
async def ada(control: StandInClient) -> int:
    """A person who has started the bot; nothing of it waits."""
    ada = await control.add_person("Ada", last_name="Lovelace", username="ada_l")
    await control.say(ada, ada, "/start")
    await control.drop_updates()
    return ada

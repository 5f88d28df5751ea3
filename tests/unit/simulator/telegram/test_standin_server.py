import asyncio
import signal
import sys

import pytest
from telegram.ext import ExtBot

from cluster.simulator.telegram.client import StandInClient
from cluster.simulator.telegram.person import Person
from cluster.simulator.telegram.server import TelegramStandIn
from runtime.errors import BadInputError, UnavailableError

TOKEN = "123456:another-process"


async def test_process__serves_bot_and_people_until_sigterm() -> None:
    command = (sys.executable, "-m", "cluster.simulator.telegram", "--port", "0", "--token", TOKEN)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        ready = (await process.stdout.readline()).decode()
        root_url = ready.removeprefix("Telegram stand-in ready: ").strip()
        async with (
            StandInClient(root_url) as control,
            ExtBot[None](TOKEN, base_url=f"{root_url}/bot", base_file_url=f"{root_url}/file/bot") as bot,
        ):
            ada = await Person.arrives(control)
            await ada.says("/start")
            await bot.send_message(ada.id, "Hello from elsewhere")
            assert (await ada.hears()).text == "Hello from elsewhere"
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()


async def test_standin__listens_on_loopback_alone() -> None:
    with pytest.raises(BadInputError, match=r"0\.0\.0\.0 is not on loopback"):
        TelegramStandIn(host="0.0.0.0")
    with pytest.raises(BadInputError, match="is no bot token"):
        TelegramStandIn(token="none")


async def test_standin__says_when_its_port_is_taken(telegram: TelegramStandIn) -> None:
    port = int(telegram.root_url.rpartition(":")[2])
    with pytest.raises(BadInputError, match="it is in use"):
        async with TelegramStandIn(port=port):
            pass


async def test_client__says_when_nobody_answers() -> None:
    async with StandInClient("http://127.0.0.1:9") as control:
        with pytest.raises(UnavailableError, match="does not answer"):
            await control.counts()

"""The same journey through the whole product: Serve, Ray, webhook and polling, with everything killed on the way."""

import asyncio
import io
import sys
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from cluster.processes import owned
from cluster.simulator.telegram.client import StandInClient
from cluster.simulator.telegram.journey import Journey
from cluster.simulator.telegram.person import Person
from cluster.simulator.telegram.server import TelegramStandIn
from runtime.config import Secrets
from tests.e2e.live import Live
from tests.e2e.test_telegram_journey import DECIDE, YES
from tests.e2e.world import BRIEF

JOURNEY = Journey(idea=BRIEF, yes=YES, otherwise=DECIDE, step_s=120.0, build_s=600.0)


@asynccontextmanager
async def installation(folder: Path, telegram: TelegramStandIn, **variables: str) -> AsyncIterator[Live]:
    live = Live.in_folder(folder)
    given = {
        **live.start_simulator(),
        "TELEGRAM_BOT_TOKEN": telegram.token,
        "TELEGRAM_API_URL": telegram.root_url,
        "WEBHOOK_URL": live.url,
        **variables,
    }
    try:
        started = await asyncio.to_thread(lambda: live.run("up", **given))
        assert started.returncode == 0, started.stderr
        yield live
    finally:
        await asyncio.to_thread(live.close)


@pytest.mark.parametrize("mode", ["webhook", "polling"])
async def test_person__gets_a_zip_that_works(tmp_path: Path, mode: str) -> None:
    async with (
        TelegramStandIn() as telegram,
        StandInClient(telegram.root_url) as control,
        installation(tmp_path, telegram, TELEGRAM_MODE=mode),
    ):
        person = await Person.arrives(control, "Ada")
        delivered = await JOURNEY.made_by(person)
        assert delivered.file_name == "expense-tracker-for-the-terminal.zip", [
            each.text for each in await person.sees()
        ][-3:]
        folder = tmp_path / "unpacked"
        with zipfile.ZipFile(io.BytesIO(delivered.content)) as archive:
            archive.extractall(folder)
        ran = await asyncio.create_subprocess_exec(
            sys.executable, "expenses.py", "--help", cwd=folder / "generated_project", stdout=asyncio.subprocess.PIPE
        )  # fmt: skip
        said, _ = await ran.communicate()
        assert ran.returncode == 0
        assert b"usage" in said
        assert not await control.excesses()
        assert (await control.counts())["pending"] == 0


async def test_111__dry_run_makes_no_call_and_ends_at_once(tmp_path: Path) -> None:
    """Line 111 of spec/assistant.md §30: the bot starts, answers an update, and Telegram hears nothing of it."""
    async with (
        TelegramStandIn() as telegram,
        StandInClient(telegram.root_url) as control,
        installation(tmp_path, telegram, TELEGRAM_MODE="webhook", TELEGRAM_DRY_RUN="true") as live,
    ):
        sender = {"id": 77, "first_name": "Ada"}
        message = {"message_id": 1, "date": 1, "chat": {"id": 77, "type": "private"}, "from": sender, "text": "/start"}
        secret = Secrets.load(live.instance.data_dir, {}).webhook_secret
        async with httpx.AsyncClient(trust_env=False, timeout=30.0) as client:
            answered = await client.post(
                f"{live.url}/telegram/webhook",
                json={"update_id": 1, "message": message},
                headers={"x-telegram-bot-api-secret-token": secret},
            )
        assert answered.status_code == 200
        (bot,) = [each for each in owned(live.instance) if each.name().startswith("ray::Telegram")]
        await asyncio.sleep(2.0)  # As long as an answer would take.
        bot.terminate()
        assert await asyncio.to_thread(bot.wait, 2.0) is not None or not bot.is_running()
        assert (await control.counts())["by_method"] == {}

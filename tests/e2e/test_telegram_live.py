"""The same journey through the whole product: Serve, Ray, webhook and polling, with everything killed on the way."""

import asyncio
import io
import sys
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cluster.simulator.telegram.client import StandInClient
from cluster.simulator.telegram.journey import Journey
from cluster.simulator.telegram.person import Person
from cluster.simulator.telegram.server import TelegramStandIn
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

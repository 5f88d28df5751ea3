"""From /start to a ZIP on the phone, in one process: real chats, store, sandbox and limiter."""

import io
import zipfile
from pathlib import Path

from cluster.simulator.telegram.client import StandInClient
from cluster.simulator.telegram.journey import Journey, Tap
from cluster.simulator.telegram.person import Person
from cluster.simulator.telegram.server import TelegramStandIn
from tests.e2e.telegram_world import bot_world
from tests.e2e.world import BRIEF

YES = "✅ Build it"
DECIDE = Tap("🤝 You decide")


async def test_person__goes_from_start_to_a_zip_and_is_told_what_it_cost(tmp_path: Path) -> None:
    async with (
        TelegramStandIn() as telegram,
        StandInClient(telegram.root_url) as control,
        bot_world(tmp_path, telegram) as here,
    ):
        anna = await Person.arrives(control, "Anna")
        journey = Journey(idea=BRIEF, answers=["The two of us", Tap("⏭ Skip")], yes=YES, otherwise=DECIDE)
        delivered = await journey.made_by(anna)
        assert len(delivered.questions) == 6
        assert delivered.questions[2].startswith("❓ Question 3 of about 6")
        with zipfile.ZipFile(io.BytesIO(delivered.content)) as archive:
            assert archive.testzip() is None
            assert "generated_project/README.md" in archive.namelist()
        summary = next(each for each in await anna.sees() if "is finished" in each.text)
        assert "10 of 10 requirements proven" in summary.text
        assert delivered.message.text.split()[-1] in summary.text, "the package's SHA-256"
        account = await here.world.store.books.account_of(anna.id)
        assert account is not None
        balance = await here.world.store.books.balance(account.user)
        assert f"{balance.balance_ucredits / 1e6:.2f} are left" in summary.text
        press = await anna.presses("5⭐")
        assert "5 of 5" in (await anna.is_told(press)).text
        progress = next(each for each in await anna.sees() if each.text.startswith("✅ Expense"))
        assert "Finished" in progress.text
        assert not await control.excesses()

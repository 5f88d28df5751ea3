"""The journey of `test_telegram_journey` where Telegram is somebody else's, and sounds the same as at our stand-in."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster.simulator.telegram.client import StandInClient
from cluster.simulator.telegram.journey import Journey, Tap
from cluster.simulator.telegram.person import Person
from cluster.simulator.telegram.seen import SeenMessage
from cluster.simulator.telegram.server import TelegramStandIn
from runtime.telegram import reception
from tests.e2e.npm import missing_programs
from tests.e2e.telegram_test_api import TestApiClient, telegram_test_api
from tests.e2e.telegram_world import bot_world
from tests.e2e.test_telegram_journey import DECIDE, YES
from tests.e2e.world import BRIEF

pytestmark = pytest.mark.skipif(bool(missing_programs()), reason=f"not installed: {missing_programs()}")

TITLE = "Expense tracker for the terminal"
"""Given by the plan; until then the brief's beginning stands there."""
HEARS_S = 120.0
BUILD_S = 600.0
Heard = Sequence[tuple[str, tuple[str, ...]]]
"""What the bot said, in its order, with the buttons under it when all was over."""


def is_progress(message: SeenMessage) -> bool:
    return "credits quoted" in message.text


async def begun(person: Person) -> None:
    """Says what is wanted, answers by text and by buttons, goes back once, agrees, and looks how it stands.

    It is paused then, so that the build says nothing in between.
    """
    answers: list[str | Tap] = ["The two of us", Tap("⏭ Skip"), Tap("◀️ Back"), Tap("⏭ Skip"), "Only files"]
    journey = Journey(
        idea=BRIEF, answers=answers, yes=YES, otherwise=DECIDE, opening=("/help", "/start"), delivers=is_progress,
        step_s=HEARS_S, build_s=HEARS_S,
    )  # fmt: skip
    agreed = await journey.made_by(person)
    assert len(agreed.questions) == 8, "six, and two of them twice"
    await person.hears(lambda each: each.id == agreed.message.id and each.edited and TITLE in each.text, HEARS_S)
    await person.presses("⏸ Pause")
    await person.hears("is paused", HEARS_S)
    await person.says("/status")
    await person.hears("credits are left", HEARS_S)
    await person.says("/help")
    await person.hears("/status", HEARS_S)


async def delivered(person: Person) -> None:
    """And is answered although the document before that could not be sent."""
    await person.presses("▶️ Resume")
    await person.hears("is finished", BUILD_S)
    await person.presses("5⭐")
    await person.hears("What made it 5 of 5?", HEARS_S)


async def cancelled(person: Person) -> None:
    await person.says("/cancel")
    await person.hears("for ever?", HEARS_S)
    await person.presses("✖️ Stop it")
    await person.hears("is cancelled", HEARS_S)
    await person.says("/status")
    await person.hears("no project at work", HEARS_S)


async def heard(person: Person) -> Heard:
    """Without progress, and from the yes on without what differs between two builds: figures, and what was left."""
    said = [each for each in await person.sees() if each.from_bot and each.kind == "text"]
    agreed = next(each.id for each in said if is_progress(each))
    return [
        (each.text if each.id < agreed else _without_figures(each.text), each.labels)
        for each in said
        if not is_progress(each)
    ]


def _without_figures(text: str) -> str:
    told = text.partition("\n")[0] if "is cancelled" in text else text
    return re.sub(r"[0-9a-f]{64}|[\d,.]*\d", "#", told)


@asynccontextmanager
async def at_ours(folder: Path, mode: str) -> AsyncIterator[Person]:
    async with (
        TelegramStandIn() as telegram,
        StandInClient(telegram.root_url) as control,
        bot_world(folder, telegram, telegram_mode=mode),
    ):
        yield await Person.arrives(control, "Anna")


@asynccontextmanager
async def at_theirs(folder: Path, mode: str) -> AsyncIterator[Person]:
    with telegram_test_api(folder) as telegram:
        async with TestApiClient(telegram) as theirs, bot_world(folder, telegram, telegram_mode=mode):
            control: Any = theirs
            yield await Person.arrives(control, "Anna")


@pytest.mark.parametrize(
    ("mode", "ends", "is_refused"), [("polling", delivered, "sendDocument"), ("webhook", cancelled, "")]
)
async def test_journey__is_the_same_at_somebody_elses_telegram(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    ends: Callable[[Person], Any],
    is_refused: str,
) -> None:
    monkeypatch.setattr(reception, "GAP_S_MAX", 0.3)  # Their numbers have gaps, as Telegram's have not.

    async def journey(at: Callable[[Path, str], Any], name: str) -> Heard:
        folder = tmp_path / name
        folder.mkdir()
        async with at(folder, mode) as person:
            await begun(person)
            await ends(person)
            return await heard(person)

    with caplog.at_level(logging.WARNING, "runtime.telegram.chat"):
        theirs, ours = await asyncio.gather(journey(at_theirs, "theirs"), journey(at_ours, "ours"))
    assert theirs == ours
    assert len(theirs) > 10
    assert is_refused in caplog.text

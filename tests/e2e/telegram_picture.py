"""`python -m tests.e2e.telegram_picture cluster/telegram.svg`: the README's picture of a chat, from a real build.

Every message is as it was sent, but the end of long ones is left out, and four of the six questions.
"""

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cluster.simulator.telegram.client import StandInClient
from cluster.simulator.telegram.journey import Journey, Tap
from cluster.simulator.telegram.person import Person
from cluster.simulator.telegram.picture import draw
from cluster.simulator.telegram.server import TelegramStandIn
from cluster.simulator.telegram.transcript import Line
from tests.e2e.telegram_world import bot_world
from tests.e2e.test_telegram_journey import DECIDE, YES
from tests.e2e.world import BRIEF

QUESTION = "❓ Question "
LINES_MAX = 9
QUOTED = "SHA-256"
"""The delivery is shown whole."""
MORE = "…"
LEFT_OUT = tuple(f"{QUESTION}{n} " for n in (2, 3, 4, 5))


async def chat(folder: Path) -> Sequence[Line]:
    async with (
        TelegramStandIn() as telegram,
        StandInClient(telegram.root_url) as control,
        bot_world(folder, telegram),
    ):
        anna = await Person.arrives(control, "Anna")
        answers: list[str | Tap] = ["The two of us, on one laptop. We know a terminal a little."]
        await Journey(idea=BRIEF, answers=answers, yes=YES, otherwise=DECIDE).made_by(anna)
        await anna.presses("5⭐")
        await anna.hears("Thank you")
        return await anna.transcript()


def excerpt(lines: Sequence[Line]) -> list[Line]:
    """Without four of the questions and what was answered to them, and without the end of long messages."""
    kept: list[Line] = []
    skipping = False
    for line in lines:
        if line.from_bot:
            skipping = line.text.startswith(LEFT_OUT)
        if not skipping:
            kept.append(shortened(line) if line.kind == "text" and QUOTED not in line.text else line)
    return kept


def shortened(line: Line) -> Line:
    first = line.text.splitlines()[:LINES_MAX]
    if len(first) == len(line.text.splitlines()):
        return line
    text = "\n".join(first)
    units = len(text.encode("utf-16-le")) // 2
    entities = tuple(each for each in line.entities if each["offset"] + each["length"] <= units)
    return replace(line, text=f"{text}\n{MORE}", entities=entities)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        lines = asyncio.run(chat(Path(folder)))
    Path(sys.argv[1]).write_text(draw(excerpt(lines)))


if __name__ == "__main__":
    main()

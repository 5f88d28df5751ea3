import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from telegram import InlineKeyboardButton, InlineKeyboardMarkup
from telegram.ext import ExtBot

from cluster.simulator.telegram.client import StandInClient
from cluster.simulator.telegram.disorder import DisorderSetup
from cluster.simulator.telegram.journey import Journey, Tap
from cluster.simulator.telegram.person import Person
from runtime.errors import UnavailableError

Bot = ExtBot[None]
QUESTIONS = ("Who uses it?", "Which language?", "Where does it run?")


def buttons(*labels: str) -> InlineKeyboardMarkup:
    return InlineKeyboardMarkup([[InlineKeyboardButton(label, callback_data=label) for label in labels]])


class Builder:
    """A bot that interviews, quotes, and builds at once.

    `edits`: a question takes the place of the one before. `marks`: one that was answered gets another button.
    """

    def __init__(self, bot: Bot, *, edits: bool = False, marks: bool = False, silent_after: int = 99) -> None:
        self.bot = bot
        self.answers: list[str] = []
        self._edits = edits
        self._marks = marks
        self._silent_after = silent_after
        self._asked = 0
        self._question: int | None = None
        self._seen: set[int] = set()

    async def serve(self) -> None:
        offset = 0
        while True:
            for update in await self.bot.get_updates(offset=offset, timeout=5):
                offset = max(offset, update.update_id + 1)
                if update.update_id not in self._seen:
                    self._seen.add(update.update_id)
                    await self._take(update)

    async def _take(self, update: Any) -> None:
        if update.callback_query:
            await update.callback_query.answer()
            said = update.callback_query.data
        else:
            said = update.message.text
        chat_id = update.effective_chat.id
        if said == "/start":
            await self.bot.send_message(chat_id, "Welcome. What shall I build?")
        elif said == "✅ Build it":
            await self.bot.send_message(chat_id, "Building")
            await self.bot.send_document(chat_id, b"PK built", filename="shop.zip", caption="Done")
        else:
            self.answers.append(said)
            await self._next(chat_id)

    async def _next(self, chat_id: int) -> None:
        if self._asked == self._silent_after:
            return
        if self._asked == len(QUESTIONS):
            await self.bot.send_message(chat_id, "A shop.\n12 credits.", reply_markup=buttons("✅ Build it", "Change"))
            return
        question, keys = QUESTIONS[self._asked], buttons("Skip", "You decide")
        self._asked += 1
        if self._marks and self._question:
            marked = buttons("Skip", "You decide", "✓")
            await self.bot.edit_message_reply_markup(chat_id, self._question, reply_markup=marked)
        if self._edits and self._question:
            await self.bot.edit_message_text(question, chat_id, self._question, reply_markup=keys)
        else:
            self._question = (await self.bot.send_message(chat_id, question, reply_markup=keys)).message_id


@asynccontextmanager
async def serving(builder: Builder) -> AsyncIterator[None]:
    task = asyncio.create_task(builder.serve())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("edits", [False, True])
async def test_journey__goes_from_start_to_the_zip(bot: Bot, control: StandInClient, edits: bool) -> None:
    builder = Builder(bot, edits=edits)
    journey = Journey(idea="A web shop", answers=["Only me", Tap("Skip")], yes="✅ Build it", step_s=20, build_s=20)
    async with serving(builder):
        delivered = await journey.made_by(await Person.arrives(control, "Ada"))

    assert builder.answers == ["A web shop", "Only me", "Skip", "You decide"]
    assert delivered.questions == QUESTIONS
    assert delivered.scope == "A shop.\n12 credits."
    assert (delivered.file_name, delivered.content) == ("shop.zip", b"PK built")
    assert [line.text for line in delivered.transcript if line.kind == "press"] == ["Skip", "You decide", "✅ Build it"]
    assert delivered.transcript[-1].file_name == "shop.zip"


async def test_journey__does_not_mind_updates_that_come_twice(bot: Bot, control: StandInClient) -> None:
    await control.set_disorder(DisorderSetup(duplicate=0.5, seed=4))
    async with serving(Builder(bot)):
        delivered = await Journey(idea="A shop", yes="✅ Build it").made_by(await Person.arrives(control, "Ada"))

    assert delivered.questions == QUESTIONS


async def test_journey__may_end_with_a_link(bot: Bot, control: StandInClient) -> None:
    journey = Journey(idea="A shop", yes="✅ Build it", delivers=lambda message: message.text == "Building")
    async with serving(Builder(bot)):
        delivered = await journey.made_by(await Person.arrives(control, "Ada"))

    assert (delivered.file_name, delivered.content, delivered.message.text) == ("", b"", "Building")


async def test_journey__answers_a_question_once(bot: Bot, control: StandInClient) -> None:
    async with serving(Builder(bot, marks=True)):
        delivered = await Journey(idea="A shop", yes="✅ Build it").made_by(await Person.arrives(control, "Ada"))

    assert delivered.questions == QUESTIONS


async def test_journey__ends_when_the_bot_falls_silent(bot: Bot, control: StandInClient) -> None:
    journey = Journey(idea="A shop", yes="✅ Build it", step_s=0.3)
    async with serving(Builder(bot, silent_after=2)):
        with pytest.raises(UnavailableError, match="Ada did not hear what was expected"):
            await journey.made_by(await Person.arrives(control, "Ada"))

import asyncio
import time

import pytest
from telegram import InlineKeyboardButton, InlineKeyboardMarkup, ReplyKeyboardMarkup
from telegram.ext import ExtBot

from cluster.simulator.telegram.client import StandInClient
from cluster.simulator.telegram.person import Person
from runtime.errors import BadInputError, UnavailableError

Bot = ExtBot[None]
CHOICE = InlineKeyboardMarkup(
    [[InlineKeyboardButton("Skip", callback_data="s"), InlineKeyboardButton("Why?", callback_data="w")]]
)


@pytest.fixture
async def ada_lovelace(control: StandInClient) -> Person:
    ada = await Person.arrives(control, "Ada")
    await ada.says("/start")
    return ada


async def test_person__hears_each_message_once_and_in_order(bot: Bot, ada_lovelace: Person) -> None:
    for text in ("one", "two", "three", "two again"):
        await bot.send_message(ada_lovelace.id, text)

    assert (await ada_lovelace.hears()).text == "one"
    assert (await ada_lovelace.hears("two")).text == "two"
    assert (await ada_lovelace.hears("two")).text == "two again"
    with pytest.raises(UnavailableError, match=r"Ada did not hear what was expected in 0.05 s. It said nothing."):
        await ada_lovelace.hears("three", timeout_s=0.05)


async def test_person__hears_an_edit_as_something_new(bot: Bot, ada_lovelace: Person) -> None:
    sent = await bot.send_message(ada_lovelace.id, "Thinking...")
    assert (await ada_lovelace.hears()).text == "Thinking..."

    await bot.edit_message_text("Here it is.", ada_lovelace.id, sent.message_id)

    heard = await ada_lovelace.hears(lambda message: message.edited)
    assert (heard.id, heard.text) == (sent.message_id, "Here it is.")


async def test_person__waits_for_what_is_to_come(bot: Bot, ada_lovelace: Person) -> None:
    hearing = asyncio.create_task(ada_lovelace.hears("done"))
    await asyncio.sleep(0.05)
    await bot.send_message(ada_lovelace.id, "working")
    await bot.send_message(ada_lovelace.id, "done")

    assert (await hearing).text == "done"


async def test_person__that_hears_nothing_says_what_was_last(bot: Bot, ada_lovelace: Person) -> None:
    await bot.send_message(ada_lovelace.id, "Sorry.")
    begun_s = time.monotonic()

    with pytest.raises(UnavailableError, match=r"Last it said: 'Sorry.'"):
        await ada_lovelace.hears("done", timeout_s=0.2)

    assert 0.2 <= time.monotonic() - begun_s < 1.0


async def test_person__presses_by_label_and_predicate(bot: Bot, ada_lovelace: Person) -> None:
    first = await bot.send_message(ada_lovelace.id, "A?", reply_markup=CHOICE)
    second = await bot.send_message(ada_lovelace.id, "B?", reply_markup=CHOICE)
    asked = await ada_lovelace.hears("A?")

    newest = await ada_lovelace.presses("Skip")
    older = await ada_lovelace.presses(lambda button: button.data == "w", on=asked)

    assert (newest.message_id, older.message_id) == (second.message_id, first.message_id)
    queries = [update.callback_query for update in await bot.get_updates() if update.callback_query]
    assert [query.data for query in queries] == ["s", "w"]
    await queries[0].answer("Skipped")
    assert (await ada_lovelace.is_told(newest)).text == "Skipped"
    with pytest.raises(UnavailableError, match="did not answer Ada's button"):
        await ada_lovelace.is_told(older, timeout_s=0.05)
    with pytest.raises(BadInputError, match=r"Ada sees no button 'Build'. There are: Skip, Why\?"):
        await ada_lovelace.presses("Build")


async def test_person__presses_a_key_of_the_keyboard(bot: Bot, ada_lovelace: Person) -> None:
    await bot.send_message(ada_lovelace.id, "What?", reply_markup=ReplyKeyboardMarkup([["Tea"]]))

    assert (await ada_lovelace.presses("Tea")).callback_id == ""
    assert (await ada_lovelace.sees())[-1].text == "Tea"


async def test_person__sends_and_downloads_documents(bot: Bot, ada_lovelace: Person) -> None:
    sent = await ada_lovelace.sends_document("plan.pdf", b"%PDF", caption="my plan")
    back = await bot.send_document(ada_lovelace.id, b"PK", filename="a.zip")

    assert sent.file is not None
    assert sent.file.mime_type == "application/pdf"
    heard = await ada_lovelace.hears(lambda message: message.kind == "document")
    assert heard.id == back.message_id
    assert await ada_lovelace.downloads(heard) == b"PK"


async def test_transcript__has_everything_in_its_last_form(bot: Bot, ada_lovelace: Person) -> None:
    asked = await bot.send_message(ada_lovelace.id, "Sure?", reply_markup=CHOICE)
    gone = await bot.send_message(ada_lovelace.id, "wait")
    await ada_lovelace.presses("Skip")
    await bot.edit_message_text("Skipped.", ada_lovelace.id, asked.message_id)
    await bot.delete_message(ada_lovelace.id, gone.message_id)
    await bot.send_document(ada_lovelace.id, b"PK", filename="a.zip", caption="Yours", reply_markup=CHOICE)

    lines = await ada_lovelace.transcript()

    assert [(line.who, line.kind, line.text) for line in lines] == [
        ("Ada", "text", "/start"),
        ("Masterbuilder", "text", "Skipped."),
        ("Ada", "press", "Skip"),
        ("Masterbuilder", "document", "Yours"),
    ]
    assert (lines[1].edited, lines[1].rows) == (True, ())
    assert (lines[3].file_name, lines[3].size_bytes, lines[3].rows) == ("a.zip", 2, (("Skip", "Why?"),))

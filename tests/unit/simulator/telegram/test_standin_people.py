import asyncio
import struct

import pytest
from telegram import InlineKeyboardButton, InlineKeyboardMarkup
from telegram.error import BadRequest
from telegram.ext import ExtBot

from cluster.simulator.telegram.callbacks import CALLBACK_S
from cluster.simulator.telegram.client import StandInClient
from runtime.errors import BadInputError

Bot = ExtBot[None]
GIF = b"GIF89a" + struct.pack("<HH", 10, 20)
YES = InlineKeyboardMarkup(
    [[InlineKeyboardButton("Yes", callback_data="y"), InlineKeyboardButton("No", callback_data="n")]]
)


async def test_text__bears_the_entities_that_telegram_finds(bot: Bot, control: StandInClient, ada: int) -> None:
    await control.say(ada, ada, "😀 /new@masterbuilder_bot see https://example.org/a?b=/c or ask @bob_b, not a/b")

    (update,) = await bot.get_updates()
    assert update.message is not None
    found = update.message.parse_entities()
    assert {(entity.type, text) for entity, text in found.items()} == {
        ("bot_command", "/new@masterbuilder_bot"),
        ("url", "https://example.org/a?b=/c"),
        ("mention", "@bob_b"),
    }


async def test_long_text__becomes_several_messages(bot: Bot, control: StandInClient, ada: int) -> None:
    await control.say(ada, ada, "😀" * 2049)

    sizes = [len(update.message.text or "") for update in await bot.get_updates() if update.message]
    assert sizes == [2048, 1]


async def test_person__sends_everything_a_phone_can(bot: Bot, control: StandInClient, ada: int) -> None:
    await control.send(ada, ada, "document", b"text", name="notes.txt", mime_type="text/plain", caption="see /help")
    await control.send(ada, ada, "document", b"nameless")
    await control.send(ada, ada, "photo", GIF)
    await control.send(ada, ada, "voice", b"OggS", mime_type="audio/ogg")
    await control.send(ada, ada, "sticker", b"RIFF")
    await control.send_location(ada, ada, 52.5, 13.4)

    messages = [update.message for update in await bot.get_updates() if update.message]
    document, nameless, photo, voice, sticker, location = messages
    assert document.document is not None
    assert (document.document.file_name, document.caption) == ("notes.txt", "see /help")
    assert document.caption_entities[0].type == "bot_command"
    assert nameless.document is not None
    assert nameless.document.file_name is None
    assert (photo.photo[0].width, photo.photo[0].height) == (10, 20)
    assert voice.voice is not None
    assert sticker.sticker is not None
    assert location.location is not None
    assert location.location.latitude == 52.5
    assert bytes(await (await bot.get_file(voice.voice.file_id)).download_as_bytearray()) == b"OggS"


async def test_edit__is_told_to_the_bot(bot: Bot, control: StandInClient, ada: int) -> None:
    said = await control.say(ada, ada, "a shpo")
    await control.edit(ada, ada, said.id, "a shop")

    updates = await bot.get_updates()
    assert updates[-1].edited_message is not None
    assert updates[-1].edited_message.text == "a shop"
    sent = await bot.send_message(ada, "mine")
    with pytest.raises(BadInputError, match="message can't be edited"):
        await control.edit(ada, ada, sent.message_id, "yours")


async def test_press__is_a_query_that_is_answered_once(bot: Bot, control: StandInClient, ada: int) -> None:
    sent = await bot.send_message(ada, "Shall I?", reply_markup=YES)
    press = await control.press(ada, ada, message_id=sent.message_id, text="No")

    (update,) = await bot.get_updates()
    query = update.callback_query
    assert query is not None
    assert (query.id, query.data, query.message, query.from_user.id) == (press.callback_id, "n", sent, ada)
    assert await control.answered(press.callback_id) is None
    await query.answer("Pity")
    answered = await control.answered(press.callback_id)
    assert answered is not None
    assert (answered.text, answered.alert) == ("Pity", False)
    with pytest.raises(BadRequest, match="Query is too old"):
        await query.answer("Pity")


async def test_press__grows_too_old_to_be_answered(bot: Bot, control: StandInClient, ada: int, clock) -> None:  # type: ignore[no-untyped-def]
    await bot.send_message(ada, "Shall I?", reply_markup=YES)
    press = await control.press(ada, ada, data="y")
    clock.now_s += CALLBACK_S + 1

    with pytest.raises(BadRequest, match="Query is too old and response timeout expired"):
        await bot.answer_callback_query(press.callback_id)


async def test_press__needs_such_a_button(bot: Bot, control: StandInClient, ada: int) -> None:
    sent = await bot.send_message(ada, "Shall I?", reply_markup=YES)
    await bot.edit_message_text("Decided.", ada, sent.message_id)

    with pytest.raises(BadInputError, match="there is no such button"):
        await control.press(ada, ada, text="Yes")


async def test_person__that_blocked_the_bot_presses_and_pays_nothing(
    bot: Bot, control: StandInClient, ada: int
) -> None:
    await bot.send_message(ada, "Shall I?", reply_markup=YES)
    await control.block(ada, ada)

    with pytest.raises(BadInputError, match="the bot is not in this chat"):
        await control.press(ada, ada, text="Yes")
    with pytest.raises(BadInputError, match="the bot is not in this chat"):
        await control.pay(ada, ada)


async def test_group__tells_the_bot_what_concerns_it_alone(bot: Bot, control: StandInClient, ada: int) -> None:
    bob = await control.add_person("Bob")
    group = await control.add_group("Builders", [ada])
    sent = await bot.send_message(group, "Here I am")

    await control.say(group, ada, "nice weather")
    await control.say(group, ada, "/status")
    await control.say(group, ada, "/status@other_bot")
    await control.say(group, ada, "hey @masterbuilder_bot what now")
    await control.say(group, ada, "thanks", reply_to=sent.message_id)
    with pytest.raises(BadInputError, match="not in this chat"):
        await control.say(group, bob, "hello")

    texts = [update.message.text for update in await bot.get_updates() if update.message]
    assert texts == ["/status", "hey @masterbuilder_bot what now", "thanks"]


async def test_messages__can_be_waited_for(bot: Bot, control: StandInClient, ada: int) -> None:
    now = (await control.messages(ada)).revision
    waiting = asyncio.create_task(control.messages(ada, after=now, wait_s=5))
    await asyncio.sleep(0.05)
    assert not waiting.done()

    await bot.send_message(ada, "news")

    assert [message.text for message in (await waiting).messages] == ["news"]
    assert (await control.messages(ada, after=(await waiting).revision, wait_s=0.05)).messages == ()


async def test_control__says_what_was_asked_wrongly(control: StandInClient, ada: int) -> None:
    with pytest.raises(BadInputError, match="chat not found"):
        await control.say(4711, ada, "hello")
    with pytest.raises(BadInputError, match="first_name"):
        await control.add_person("")
    with pytest.raises(BadInputError, match="this id"):
        await control.add_person("Eve", id=ada)
    with pytest.raises(BadInputError, match="update not found"):
        await control.deliver_again(1)
    with pytest.raises(BadInputError, match="invalid file_id"):
        await control.download("none")

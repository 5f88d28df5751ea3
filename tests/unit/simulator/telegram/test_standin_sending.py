import asyncio
import io
import struct

import pytest
from telegram import (
    BotCommand,
    BotCommandScopeChat,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    KeyboardButton,
    MessageEntity,
    ReplyKeyboardMarkup,
    ReplyParameters,
)  # fmt: skip
from telegram.error import BadRequest, EndPointNotFound, Forbidden, InvalidToken, NetworkError
from telegram.ext import ExtBot

from cluster.simulator.telegram.client import StandInClient
from cluster.simulator.telegram.server import TelegramStandIn

Bot = ExtBot[None]
PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 320, 200) + b"\x08\x02\x00\x00\x00"


def keyboard(*labels: str) -> InlineKeyboardMarkup:
    return InlineKeyboardMarkup([[InlineKeyboardButton(label, callback_data=label.lower())] for label in labels])


async def test_get_me__tells_the_bot(bot: Bot, telegram: TelegramStandIn) -> None:
    me = await bot.get_me()

    assert me.is_bot
    assert me.id == int(telegram.token.partition(":")[0])
    assert me.username == "masterbuilder_bot"
    assert me.can_read_all_group_messages is False


async def test_message__is_what_the_person_sees(bot: Bot, control: StandInClient, ada: int) -> None:
    sent = await bot.send_message(
        ada, "<b>Hello</b> &lt;you&gt;", parse_mode="HTML", reply_markup=keyboard("Yes", "No")
    )

    assert sent.text == "Hello <you>"
    assert [(one.type, one.offset, one.length) for one in sent.entities] == [("bold", 0, 5)]
    assert sent.from_user is not None
    assert sent.from_user.id == bot.id
    (seen,) = [message for message in (await control.messages(ada)).messages if message.from_bot]
    assert (seen.id, seen.text, seen.labels) == (sent.message_id, "Hello <you>", ("Yes", "No"))
    assert seen.buttons[0].data == "yes"


async def test_edit__is_seen_in_its_last_form(bot: Bot, control: StandInClient, ada: int) -> None:
    sent = await bot.send_message(ada, "one", reply_markup=keyboard("Go"))

    edited = await bot.edit_message_text("two", ada, sent.message_id)

    assert edited.edit_date is not None  # type: ignore[union-attr]
    (seen,) = [message for message in (await control.messages(ada)).messages if message.from_bot]
    assert (seen.text, seen.edited, seen.buttons) == ("two", True, ())


async def test_edit__that_changes_nothing_is_refused(bot: Bot, ada: int) -> None:
    sent = await bot.send_message(ada, "*one*", parse_mode="MarkdownV2", reply_markup=keyboard("Go"))

    with pytest.raises(BadRequest, match=r"^Message is not modified: specified new message content"):
        await bot.edit_message_text("<b>one</b>", ada, sent.message_id, parse_mode="HTML", reply_markup=keyboard("Go"))
    with pytest.raises(BadRequest, match="Message is not modified"):
        await bot.edit_message_reply_markup(ada, sent.message_id, reply_markup=keyboard("Go"))
    assert await bot.edit_message_reply_markup(ada, sent.message_id)


async def test_edit__of_what_cannot_be_edited_is_refused(bot: Bot, control: StandInClient, ada: int) -> None:
    typed = await control.say(ada, ada, "mine")
    document = await bot.send_document(ada, b"content", filename="a.txt")

    with pytest.raises(BadRequest, match="Message can't be edited"):
        await bot.edit_message_text("yours", ada, typed.id)
    with pytest.raises(BadRequest, match="There is no text in the message to edit"):
        await bot.edit_message_text("text", ada, document.message_id)
    with pytest.raises(BadRequest, match="Message to edit not found"):
        await bot.edit_message_text("text", ada, 999)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Message text is empty"),
        (" \n ", "Message text is empty"),
        ("x" * 4097, "Message is too long"),
        ("😀" * 2049, "Message is too long"),
    ],
)
async def test_text__has_1_to_4096_utf16_units(bot: Bot, ada: int, text: str, why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        await bot.send_message(ada, text)


async def test_text__is_measured_without_its_markup(bot: Bot, ada: int) -> None:
    sent = await bot.send_message(ada, f"<b>{'😀' * 2048}</b>", parse_mode="HTML")

    assert sent.entities[0].length == 4096


async def test_caption__has_at_most_1024_units(bot: Bot, ada: int) -> None:
    assert (await bot.send_document(ada, b"x", filename="a", caption="c" * 1024)).caption == "c" * 1024
    with pytest.raises(BadRequest, match="Message caption is too long"):
        await bot.send_document(ada, b"x", filename="a", caption="c" * 1025)


async def test_entities__may_be_given_instead_of_markup(bot: Bot, ada: int) -> None:
    sent = await bot.send_message(ada, "see *this*", entities=[MessageEntity("bold", 4, 6)])

    assert sent.text == "see *this*"
    assert sent.entities[0].type == "bold"
    with pytest.raises(BadRequest, match="outside of the text"):
        await bot.send_message(ada, "short", entities=[MessageEntity("bold", 4, 6)])


@pytest.mark.parametrize(
    ("markup", "why"),
    [
        (InlineKeyboardMarkup([[InlineKeyboardButton("a", callback_data="x" * 65)]]), "Button_data_invalid"),
        (InlineKeyboardMarkup([[InlineKeyboardButton("a", callback_data="é" * 33)]]), "Button_data_invalid"),
        (InlineKeyboardMarkup([[InlineKeyboardButton("a", callback_data="")]]), "Button_data_invalid"),
        (keyboard(*(str(number) for number in range(101))), "Reply_markup_too_long"),
        (InlineKeyboardMarkup([[InlineKeyboardButton("a")]]), "Can't parse inline keyboard button"),
        (InlineKeyboardMarkup([[InlineKeyboardButton("a", url="nowhere")]]), "Wrong HTTP URL"),
    ],
)
async def test_keyboard__is_checked(bot: Bot, ada: int, markup: InlineKeyboardMarkup, why: str) -> None:
    with pytest.raises(BadRequest, match=f"(?i){why}"):
        await bot.send_message(ada, "choose", reply_markup=markup)
    assert await bot.send_message(ada, "choose", reply_markup=keyboard(*(str(number) for number in range(100))))


async def test_keyboard__of_the_persons_own_texts_is_seen_and_pressed(
    bot: Bot, control: StandInClient, ada: int
) -> None:
    keys = ReplyKeyboardMarkup([[KeyboardButton("Tea"), "Coffee"]])
    sent = await bot.send_message(ada, "What?", reply_markup=keys)

    press = await control.press(ada, ada, text="Coffee")

    assert (press.message_id, press.callback_id) == (sent.message_id, "")
    (update,) = await bot.get_updates()
    assert update.message is not None
    assert update.message.text == "Coffee"


async def test_chat__that_is_none_or_shut_is_refused(bot: Bot, control: StandInClient, ada: int) -> None:
    stranger = await control.add_person("Bob")

    with pytest.raises(BadRequest, match="Chat not found"):
        await bot.send_message(4711, "Hello")
    with pytest.raises(Forbidden, match="bot can't initiate conversation with a user"):
        await bot.send_message(stranger, "Hello")
    await control.block(ada, ada)
    with pytest.raises(Forbidden, match="bot was blocked by the user"):
        await bot.send_message(ada, "Hello")
    (update,) = await bot.get_updates()
    assert update.my_chat_member is not None
    assert update.my_chat_member.new_chat_member.status == "kicked"


async def test_chat__is_open_again_when_the_person_writes(bot: Bot, control: StandInClient, ada: int) -> None:
    await control.block(ada, ada)

    await control.say(ada, ada, "/start")

    assert await bot.send_message(ada, "Welcome back")


async def test_token__other_than_its_own_is_refused(telegram: TelegramStandIn) -> None:
    stranger: Bot = ExtBot("123:other", base_url=telegram.base_url)

    with pytest.raises(InvalidToken):
        await stranger.initialize()


async def test_method__that_is_not_there_is_counted(bot: Bot, control: StandInClient, ada: int) -> None:
    with pytest.raises(EndPointNotFound):
        await bot.do_api_request("sendHologram", {"chat_id": ada})

    counts = await control.counts()
    assert counts["unknown"] == {"sendHologram": 1}
    assert counts["by_error"] == {"404": 1}


async def test_document__is_downloaded_by_person_and_bot(bot: Bot, control: StandInClient, ada: int) -> None:
    sent = await bot.send_document(ada, io.BytesIO(b"PK the zip"), filename="project.zip", caption="Done: /history")

    assert sent.document is not None
    assert (sent.document.file_name, sent.document.file_size) == ("project.zip", 10)
    seen = (await control.messages(ada)).messages[-1]
    assert seen.file is not None
    assert (seen.kind, seen.text, seen.file.name) == ("document", "Done: /history", "project.zip")
    assert await control.download(seen.file.id) == b"PK the zip"
    assert bytes(await (await sent.document.get_file()).download_as_bytearray()) == b"PK the zip"
    again = await bot.send_document(ada, sent.document.file_id)
    assert again.document == sent.document


async def test_document__of_50_mb_goes_up_and_of_20_comes_down(bot: Bot, control: StandInClient, ada: int) -> None:
    large = await bot.send_document(ada, bytes(50 << 20), filename="large.zip")
    with pytest.raises(NetworkError, match="Request Entity Too Large"):
        await bot.send_document(ada, bytes((50 << 20) + 1), filename="larger.zip")
    assert large.document is not None
    with pytest.raises(BadRequest, match="File is too big"):
        await bot.get_file(large.document.file_id)
    theirs = await control.send(ada, ada, "document", b"tiny", name="huge.iso", size_bytes=(20 << 20) + 1)
    with pytest.raises(BadRequest, match="File is too big"):
        await bot.get_file(theirs.file.id)  # type: ignore[union-attr]


async def test_document__without_content_is_refused(bot: Bot, ada: int) -> None:
    with pytest.raises(BadRequest, match="File must be non-empty"):
        await bot.send_document(ada, b"", filename="empty.zip")
    with pytest.raises(BadRequest, match="Failed to get http url content"):
        await bot.send_document(ada, "https://example.org/a.zip")
    with pytest.raises(BadRequest, match="Invalid file_id"):
        await bot.send_document(ada, "made-up")


async def test_photo__must_be_an_image(bot: Bot, control: StandInClient, ada: int) -> None:
    sent = await bot.send_photo(ada, PNG, caption="a page")

    assert (sent.photo[-1].width, sent.photo[-1].height) == (320, 200)
    assert (await control.messages(ada)).messages[-1].kind == "photo"
    with pytest.raises(BadRequest, match="Image_process_failed"):
        await bot.send_photo(ada, b"no image")


async def test_draft_and_action__are_told(bot: Bot, control: StandInClient, ada: int) -> None:
    assert await bot.send_chat_action(ada, "typing")
    assert await bot.send_message_draft(ada, 7, "Thinking a")
    assert await bot.send_message_draft(ada, 7, "Thinking aloud")
    assert await bot.send_message_draft(ada, 8)

    chat = await control.chat(ada)
    assert chat["actions"] == ["typing"]
    assert chat["drafts"] == {"7": "Thinking aloud", "8": ""}
    with pytest.raises(BadRequest, match="Wrong parameter action"):
        await bot.send_chat_action(ada, "singing")
    with pytest.raises(BadRequest, match="Random_id_invalid"):
        await bot.send_message_draft(ada, 0, "text")


async def test_message__is_deleted_pinned_and_reacted_to(bot: Bot, control: StandInClient, ada: int) -> None:
    first, second = await bot.send_message(ada, "first"), await bot.send_message(ada, "second")

    assert await bot.delete_message(ada, first.message_id)
    assert await bot.pin_chat_message(ada, second.message_id)
    assert await bot.set_message_reaction(ada, second.message_id, "👍")

    seen = {message.id: message for message in (await control.messages(ada)).messages}
    assert seen[first.message_id].deleted
    assert (seen[second.message_id].pinned, seen[second.message_id].reactions) == (True, ("👍",))
    assert (await bot.get_chat(ada)).pinned_message == second
    with pytest.raises(BadRequest, match="Message to delete not found"):
        await bot.delete_message(ada, first.message_id)


async def test_reply__needs_what_it_answers(bot: Bot, control: StandInClient, ada: int) -> None:
    asked = await control.say(ada, ada, "How?")

    sent = await bot.send_message(ada, "So.", reply_parameters=ReplyParameters(asked.id))

    assert sent.reply_to_message is not None
    assert sent.reply_to_message.text == "How?"
    with pytest.raises(BadRequest, match="Message to be replied not found"):
        await bot.send_message(ada, "So.", reply_parameters=ReplyParameters(99))
    loose = ReplyParameters(99, allow_sending_without_reply=True)
    assert (await bot.send_message(ada, "So.", reply_parameters=loose)).reply_to_message is None


async def test_commands__are_kept_by_scope_and_language(bot: Bot, control: StandInClient, ada: int) -> None:
    await bot.set_my_commands([BotCommand("start", "Begin")])
    await bot.set_my_commands([BotCommand("keys", "Keys")], scope=BotCommandScopeChat(ada), language_code="de")

    assert await bot.get_my_commands() == (BotCommand("start", "Begin"),)
    assert await bot.get_my_commands(scope=BotCommandScopeChat(ada)) == ()
    assert len(await control.commands()) == 2
    await bot.delete_my_commands()
    assert await bot.get_my_commands() == ()
    with pytest.raises(BadRequest, match="Bot_command_invalid"):
        await bot.set_my_commands([BotCommand("Start", "Begin")])


async def test_topics__are_threads_of_a_forum(bot: Bot, control: StandInClient, ada: int) -> None:
    group = await control.add_group("Builders", [ada], type="supergroup", is_forum=True)
    plain = await control.add_group("Talk", [ada])

    topic = await bot.create_forum_topic(group, "Shop")
    sent = await bot.send_message(group, "In here", message_thread_id=topic.message_thread_id)
    assert await bot.edit_forum_topic(group, topic.message_thread_id, name="Web shop")
    said = await control.say(group, ada, "/status", thread_id=topic.message_thread_id)
    assert await bot.close_forum_topic(group, topic.message_thread_id)

    assert sent.is_topic_message
    assert sent.message_thread_id == said.thread_id == topic.message_thread_id
    (told,) = (await control.chat(group))["topics"]
    assert (told["name"], told["closed"]) == ("Web shop", True)
    with pytest.raises(BadRequest, match="Topic_closed"):
        await bot.send_message(group, "More", message_thread_id=topic.message_thread_id)
    with pytest.raises(BadRequest, match="Message thread not found"):
        await bot.send_message(group, "More", message_thread_id=999)
    with pytest.raises(BadRequest, match="The chat is not a forum"):
        await bot.create_forum_topic(plain, "Shop")


async def test_chat_and_members__are_told(bot: Bot, control: StandInClient, ada: int) -> None:
    bob = await control.add_person("Bob")
    group = await control.add_group("Builders", [ada], type="supergroup")

    assert (await bot.get_chat(group)).title == "Builders"
    assert (await bot.get_chat("@ada_l")).id == ada
    assert (await bot.get_chat_member(group, ada)).status == "member"
    assert (await bot.get_chat_member(group, bob)).status == "left"
    assert (await bot.get_chat_member(group, bot.id)).status == "administrator"


async def test_calls__are_logged_in_their_order(bot: Bot, control: StandInClient, ada: int) -> None:
    await asyncio.gather(*(bot.send_message(ada, f"message {number}") for number in range(5)))
    with pytest.raises(BadRequest):
        await bot.send_message(ada, "")

    calls = await control.calls("sendMessage")
    assert [call["error_code"] for call in calls] == [0, 0, 0, 0, 0, 400]
    assert calls[-1]["description"] == "Bad Request: message text is empty"
    assert [call["result"]["text"] for call in calls[:5]] == [call["parameters"]["text"] for call in calls[:5]]
    assert await control.calls("sendMessage", after=calls[-1]["number"]) == []

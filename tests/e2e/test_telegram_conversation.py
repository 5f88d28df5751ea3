"""How the bot talks: from /start to the first question, in the wrong state, in groups and in topics of a forum."""

import base64
import hashlib
import io
import json
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from cluster.simulator.telegram.person import Person
from cluster.simulator.telegram.seen import SeenMessage
from runtime.errors import NotFoundError
from runtime.ids import BlobId
from runtime.project.messages import Status
from runtime.telegram.buttons import press
from tests.acceptance.phone import BACK, CANCEL, DECIDE, SKIP, YES, Phone, open_phone, said_by_bot, soon
from tests.e2e.world import BRIEF

PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII=")

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def phone(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Phone]:
    async with open_phone(tmp_path_factory.mktemp("phone")) as phone:
        yield phone


async def test_start__leads_to_the_first_question_in_two_messages(phone: Phone) -> None:
    ada = await phone.person()
    await ada.says("/start")
    welcome = await ada.hears("Hello Ada!")
    assert "You have 100.00 credits: enough for about 1 small project like these." in welcome.text
    assert len(welcome.labels) == 3
    await ada.says(BRIEF)
    question = await ada.hears("Question 1 of about 6", 30.0)
    assert said_by_bot(await ada.sees()) == [welcome, question]
    assert question.labels == (SKIP, DECIDE, CANCEL)


async def test_question__can_be_skipped_left_to_us_and_taken_back(phone: Phone) -> None:
    ada = await phone.welcomed()
    first = await phone.asked(ada)
    await ada.presses(SKIP, on=first)
    second = await ada.hears("Question 2 of about 6", 20.0)
    assert BACK in second.labels
    await ada.presses(DECIDE, on=second)
    third = await ada.hears("Question 3 of about 6", 20.0)
    told = await ada.is_told(await ada.presses(BACK, on=third))
    assert not told.alert
    again = await ada.hears(lambda message: second.text.splitlines()[-1] in message.text, 20.0)
    assert again.id > third.id
    assert again.labels == second.labels
    view = await phone.project(ada)
    assert view.question == second.text.splitlines()[-1]


async def test_question__that_was_answered_takes_no_second_answer(phone: Phone) -> None:
    ada = await phone.welcomed()
    first = await phone.asked(ada)
    await ada.says("The two of us")
    await ada.hears("Question 2", 20.0)
    told = await ada.is_told(await ada.presses(SKIP, on=first))
    assert told.text == "This was answered already."
    asked = (await phone.project(ada)).asked
    assert asked == 2


async def test_no_text__is_answered_with_what_works_now(phone: Phone) -> None:
    ada = await phone.welcomed()
    for kind, what in (("sticker", "A sticker is nice"), ("voice", "voice messages"), ("photo", "pictures")):
        await phone.control.send(ada.chat_id, ada.id, kind, PIXEL)  # type: ignore[arg-type]
        told = await ada.hears(what)
        assert "Please write it as a text. /new begins a project." in told.text
    await phone.control.send_location(ada.chat_id, ada.id, 52.2, 21.0)
    await ada.hears("I cannot read that. Please write it as a text.")
    question = await phone.asked(ada)
    await phone.control.send(ada.chat_id, ada.id, "sticker", b"x")
    told = await ada.hears("A sticker is nice")
    assert told.text.endswith(question.text.splitlines()[-1])


WRONG = [
    ("/pause", "You have no project at work. /new begins one."),
    ("/resume", "You have no project at work. /new begins one."),
    ("/cancel", "You have no project at work. /new begins one."),
    ("/change it is blue", "You have no project at work. /new begins one."),
    ("/feedback 5", "/feedback works when a project is finished."),
    ("/feedback", "/feedback 5 It does what I wanted"),
    ("/nonsense", "I do not know /nonsense. I know: /start /new /status"),
    ("hi", "Tell me what software you need"),
]


async def test_command__in_the_wrong_state_is_answered_with_what_works(phone: Phone) -> None:
    ada = await phone.welcomed()
    for said, heard in WRONG:
        await ada.says(said)
        await ada.hears(heard)
    await phone.asked(ada)
    await ada.says("/resume")
    refused = await ada.hears("That is not possible now: Asking questions.")
    assert "It waits for your answer, which /status shows. Or: /change /cancel" in refused.text
    await ada.says("/language pl")
    await ada.hears("Mówię teraz po polsku")
    await ada.says("/resume")
    assert "Czeka na Twoją odpowiedź" in (await ada.hears("To teraz niemożliwe: Zadaję pytania.")).text
    await ada.says("/language en")
    await ada.hears("I speak English now")
    await ada.says("/new another idea of mine")
    told = await ada.hears("is not finished")
    assert "/status shows it, /cancel stops it." in told.text
    assert len(await phone.projects(ada)) == 1


async def test_oversize_text__loses_no_part_without_a_word(phone: Phone) -> None:
    """Telegram cuts it into messages: what comes while the first part is read is said to be too early, or answers."""
    ada = await phone.welcomed()
    await ada.says("/new")
    await ada.hears("What shall I build?")
    await ada.says(f"{BRIEF}\n" + "and more of the same " * 300)

    async def both_are_answered() -> bool:
        return len(said_by_bot(await ada.sees())) >= 4

    await soon(both_are_answered, 20.0)
    texts = [message.text for message in said_by_bot(await ada.sees())][2:]
    assert any("did not take this" in text or "Question" in text or "could not be finished" in text for text in texts)


async def test_text__beside_a_question_becomes_a_project_only_after_a_yes(phone: Phone) -> None:
    ada = await phone.welcomed()
    await ada.says("/help")
    await ada.hears("What I can do")
    await ada.says(BRIEF)
    await ada.hears("Shall I build this?")
    assert await phone.projects(ada) == []
    told = await ada.is_told(await ada.presses("No"))
    assert told.text == "Forgotten."
    await ada.says("synthetic build tasks=1 seed=9")
    await ada.presses("🔨 Build this", on=await ada.hears(lambda message: "🔨 Build this" in message.labels))
    await ada.hears(lambda message: YES in message.labels, 30.0)


async def group(phone: Phone, *names: str, is_forum: bool = False) -> list[Person]:
    """Its members, as they are in it."""
    members = [await phone.person(name) for name in names]
    kind = "supergroup" if is_forum else "group"
    chat = await phone.control.add_group("Team", [each.id for each in members], type=kind, is_forum=is_forum)  # type: ignore[arg-type]
    return [Person(phone.control, each.id, each.name, chat_id=chat) for each in members]


async def test_group__is_answered_only_where_the_bot_is_meant(phone: Phone) -> None:
    ada, _bob = await group(phone, "Ada", "Bob")
    await ada.says("shall we have lunch?")
    await ada.says("/status@another_bot")
    await ada.says("/status@masterbuilder_bot")
    status = await ada.hears("You have no project at work.")
    await ada.says("@masterbuilder_bot /what is this")
    mentioned = await ada.hears(lambda message: message.id > status.id)
    await ada.says("a program that adds up our lunches", reply_to=mentioned.id)
    await ada.hears("Shall I build this?")
    assert len(said_by_bot(await ada.sees())) == 3
    await ada.says("/credits@masterbuilder_bot")
    await ada.hears("/credits works in a private chat with me.")


async def test_group__button_of_an_owner_is_refused_to_others(phone: Phone) -> None:
    ada, bob = await group(phone, "Ada", "Bob")
    await ada.says("/new@masterbuilder_bot synthetic build tasks=1 seed=77")
    scope = await ada.hears(lambda message: YES in message.labels, 30.0)
    told = await bob.is_told(await bob.presses(YES, on=scope))
    assert (told.text, told.alert) == ("This is not your project.", True)
    await ada.says("/cancel@masterbuilder_bot")
    sure = await ada.hears("for ever?")
    for label in ("✖️ Stop it", "No, go on"):
        told = await bob.is_told(await bob.presses(label, on=sure))
        assert (told.text, told.alert) == ("This is not your project.", True)
    assert (await phone.project(ada)).status is Status.CONFIRMING_SCOPE
    labels = next(message.labels for message in await ada.sees() if message.id == sure.id)
    assert labels == sure.labels, "what somebody else pressed is still there"
    await ada.is_told(await ada.presses("✖️ Stop it", on=sure))
    await ada.hears("is cancelled", 20.0)


async def test_group__shows_nobodys_wallet_at_the_press_of_a_button(phone: Phone) -> None:
    ada, _ = await group(phone, "Ada", "Bob")
    await ada.says("/status@masterbuilder_bot")
    seen = await ada.hears("no project at work")
    sent = (await phone.control.calls())[-1]["number"]
    chat = {"id": ada.chat_id, "type": "group", "title": "Team"}
    query = {
        "id": "forged-credits", "from": {"id": ada.id, "is_bot": False, "first_name": "Ada"}, "chat_instance": "1",
        "message": {"message_id": seen.id, "date": 1, "chat": chat}, "data": press("credits"),
    }  # fmt: skip
    await phone.control.inject({"callback_query": query})

    async def is_answered() -> bool:
        return await phone.answers(sent) == ["Ask for this in a private chat with me."]

    await soon(is_answered)
    assert len(said_by_bot(await ada.sees())) == 1


async def in_topic(person: Person, thread_id: int | None) -> list[SeenMessage]:
    return [message for message in said_by_bot(await person.sees()) if message.thread_id == thread_id]


async def test_forum__gives_a_project_a_topic_of_its_own(phone: Phone) -> None:
    ada, _ = await group(phone, "Ada", "Bob", is_forum=True)
    await ada.says("/new@masterbuilder_bot synthetic build tasks=1 seed=78")
    scope = await ada.hears(lambda message: YES in message.labels, 30.0)
    assert scope.thread_id is not None
    topics = (await phone.control.chat(ada.chat_id))["topics"]
    assert len(topics) == 1
    await ada.says("/status@masterbuilder_bot", thread_id=scope.thread_id)
    await ada.hears("Waiting for your yes")
    await ada.presses(CANCEL, on=scope)
    await ada.presses("✖️ Stop it", on=await ada.hears("for ever?"))
    ended = await ada.hears("is cancelled", 20.0)
    assert ended.thread_id == scope.thread_id
    assert await in_topic(ada, None) == []


async def test_forum__without_the_right_to_make_topics_stays_where_it_began(phone: Phone) -> None:
    """Telegram refuses it, as here, where the group only says that it is a forum."""
    ada, _ = await group(phone, "Ada", "Bob")
    said = {
        "message_id": 900, "date": 1, "text": "/new@masterbuilder_bot synthetic build tasks=1 seed=79",
        "chat": {"id": ada.chat_id, "type": "supergroup", "title": "Team", "is_forum": True},
        "from": {"id": ada.id, "is_bot": False, "first_name": "Ada"},
    }  # fmt: skip
    await phone.control.inject({"message": said})
    scope = await ada.hears(lambda message: YES in message.labels, 30.0)
    assert scope.thread_id is None
    assert [call["error_code"] for call in await phone.control.calls("createForumTopic")][-1] == 400


async def test_export__is_sent_whole_and_stays_nowhere(phone: Phone) -> None:
    ada = await phone.welcomed()
    await ada.says("/privacy")
    asked = await ada.hears(lambda message: "📤 Export my data" in message.labels)
    await ada.presses("📤 Export my data", on=asked)
    sent = await ada.hears(lambda message: message.kind == "document", 20.0)
    content = await ada.downloads(sent)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        profile = json.loads(archive.read("profile.json"))
    assert profile["telegram_id"] == ada.id
    blob = BlobId(hashlib.sha256(content).hexdigest())

    async def gone() -> bool:
        try:
            await phone.store.books.get_blob(blob)
        except NotFoundError:
            return True
        return False

    await soon(gone, 10.0)


async def test_bootstrap__brings_the_menu_of_administrators(tmp_path: Path) -> None:
    async with open_phone(tmp_path, admin_user_ids="") as phone:
        ada = await phone.welcomed()
        await ada.says(f"/bootstrap {phone.world.secrets.bootstrap_code}")
        await ada.hears("You are the administrator now")

        async def has_menu() -> bool:
            menus = [each for each in await phone.control.commands() if each["scope"].get("chat_id") == ada.id]
            return any(command["command"] == "ban" for menu in menus for command in menu["commands"])

        await soon(has_menu, 10.0)


async def test_language__that_is_not_spoken_is_answered_with_those_that_are(phone: Phone) -> None:
    ada = await phone.welcomed()
    await ada.says("/language de")
    assert (await ada.hears("Which language")).labels == ("English", "Polski", "Русский", "As in Telegram")
    await ada.says("/language PL")
    await ada.hears("Mówię teraz po polsku")

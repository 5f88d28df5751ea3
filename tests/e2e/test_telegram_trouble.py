"""What goes wrong on the way: people who block the bot, Telegram's refusals, broken connections, crashes, poison."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import pytest_asyncio

from cluster.simulator.telegram.disorder import DisorderSetup
from cluster.simulator.telegram.faults import Fault
from cluster.simulator.telegram.person import Person
from runtime.errors import BadInputError, UnavailableError
from runtime.project.messages import Status
from runtime.session.messages import Admit
from runtime.telegram import chat, following
from runtime.telegram.chat import chat_entity
from runtime.telegram.talk import Talk
from tests.acceptance.phone import SKIP, Phone, open_phone, said_by_bot, soon
from tests.e2e.telegram_world import Bystander
from tests.e2e.world import BRIEF

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def phone(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Phone]:
    async with open_phone(tmp_path_factory.mktemp("phone"), messages_per_minute=200) as phone:
        yield phone


async def texts(person: Person) -> list[str]:
    return [message.text for message in said_by_bot(await person.sees())]


async def test_block__keeps_what_happens_until_the_person_is_back(phone: Phone) -> None:
    """Blocked in the middle of a build: its end is told when the bot is unblocked, and told once."""
    ada = await phone.welcomed()
    view = await phone.begun(ada, "tasks=2 width=1 delay_ms=700 seed=21")
    await ada.hears("credits quoted", 20.0)
    await phone.control.block(ada.chat_id, ada.id)

    async def is_over() -> bool:
        return (await phone.view(view.id)).status.terminal

    await soon(is_over)
    await asyncio.sleep(following.LOOK_EVERY_S + 0.5)
    assert not [text for text in await texts(ada) if "is finished" in text]
    await phone.control.block(ada.chat_id, ada.id, blocked=False)
    await ada.hears("is finished", 20.0)
    await ada.hears(lambda message: message.file is not None)
    await asyncio.sleep(0.5)
    assert sum("is finished" in text for text in await texts(ada)) == 1


async def test_block__that_telegram_tells_by_a_refusal_loses_no_question(phone: Phone) -> None:
    ada = await phone.welcomed()
    await phone.asked(ada)
    await phone.control.order_fault(Fault(kind="blocked", method="sendMessage", chat_id=ada.chat_id))
    await ada.presses(SKIP)

    async def is_asked() -> bool:
        return (await phone.project(ada)).asked == 2

    await soon(is_asked)
    await asyncio.sleep(0.5)
    assert not [text for text in await texts(ada) if "Question 2" in text]
    await ada.says("/status")
    await ada.hears("Question 2", 20.0)
    assert sum("Question 2" in text for text in await texts(ada)) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="too_many_requests", method="sendMessage", retry_after_s=1, count=2),
        Fault(kind="server_error", method="sendMessage", status=502, count=2),
        Fault(kind="server_error", method="sendMessage", status=500),
        Fault(kind="dropped_before", method="sendMessage", count=2),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}",
)
async def test_call__that_was_not_carried_out_is_made_again_and_arrives_once(phone: Phone, fault: Fault) -> None:
    ada = await phone.welcomed()
    await phone.control.order_fault(fault.model_copy(update={"chat_id": ada.chat_id}))
    await ada.says("/status")
    await ada.hears("no project at work", 20.0)
    await ada.says("/history")
    await ada.hears("no projects yet")
    told = Counter(await texts(ada))
    assert max(told.values()) == 1


async def test_call__that_was_carried_out_before_the_connection_broke_comes_twice_at_most(phone: Phone) -> None:
    ada = await phone.welcomed()
    await phone.control.order_fault(Fault(kind="dropped_after", method="sendMessage", chat_id=ada.chat_id))
    await ada.says("/status")
    await ada.says("/history")
    await ada.hears("no projects yet", 20.0)
    told = [text.splitlines()[0] for text in await texts(ada)][1:]
    assert sum("no project at work" in text for text in told) == 2
    assert len(told) == 3


async def test_call__that_telegram_refuses_holds_up_nothing(phone: Phone) -> None:
    """The keyboard of a message that is gone cannot be changed; what follows arrives all the same."""
    ada = await phone.welcomed()
    await phone.asked(ada)
    await phone.control.order_fault(Fault(kind="server_error", method="editMessageReplyMarkup", chat_id=ada.chat_id))
    await ada.presses(SKIP)
    await ada.hears("Question 2", 20.0)


async def test_updates__that_come_twice_and_in_disorder_are_answered_once_and_in_order(phone: Phone) -> None:
    ada = await phone.welcomed()
    await phone.control.set_disorder(DisorderSetup(duplicate=0.7, seed=3))
    try:
        for said in ("/status", "/history", "/status", "/history"):
            await ada.says(said)

        async def all_are_answered() -> bool:
            return len(await texts(ada)) >= 5

        await soon(all_are_answered)
        await asyncio.sleep(0.5)
    finally:
        await phone.control.set_disorder(DisorderSetup())
    told = [text.splitlines()[0] for text in await texts(ada)][1:]
    assert ["project at work" in text for text in told] == [True, False, True, False]


async def test_update__that_meets_an_error_of_ours_is_answered_and_holds_up_no_other(
    phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await phone.welcomed()

    async def broken(talk: Talk) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(Talk, "active", broken)
        await ada.says("/status")
        await ada.hears("This did not work, and it is our fault.")
    await ada.says("/status")
    await ada.hears("no project at work")


async def test_update__waits_while_something_of_ours_is_away(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = await phone.welcomed()
    monkeypatch.setattr(chat, "PAUSES_S", (0.01,))
    ask, away = phone.world.entities.ask, [UnavailableError("away")] * 3

    async def absent(entity: object, message: object, **more: object) -> object:
        if isinstance(message, Admit) and away:
            raise away.pop()
        return await ask(entity, message, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(phone.world.entities, "ask", absent)
    await ada.says("/history")
    await ada.hears("no projects yet")
    assert not away
    assert len(await texts(ada)) == 2


POISON = [
    {},
    {"message": {"message_id": 1, "date": 1, "chat": {"id": 1, "type": "private"}}},
    {"message": {"message_id": "one", "date": 1, "chat": {"id": 1, "type": "private"}}},
    {"edited_channel_post": {"anything": [1, 2, {"x": None}]}},
    {"callback_query": {"id": "1", "from": {"id": 1, "is_bot": False, "first_name": "x"}, "data": "\u0000" * 9}},
    {"message": {"message_id": 1, "date": -5, "chat": {"id": 2**80, "type": "private"}}},
    {"message": None, "callback_query": None},
]


async def test_updates__that_no_person_sent_are_let_go(phone: Phone) -> None:
    ada = await phone.welcomed()
    for update in POISON:
        with suppress(BadInputError):
            await phone.control.inject(update)
    await ada.says("/status")
    await ada.hears("no project at work", 20.0)


TALK = ("👋 Hello", "❓ Question 1", "❓ Question 2")
DIES_AT = range(1, 27)
"""The talk below comes to about so many appends; where it comes to fewer, nothing crashes."""


async def talk(person: Person) -> None:
    await person.says("/start")
    await person.hears("Hello", 30.0)
    await person.says(BRIEF)
    question = await person.hears("Question 1", 60.0)
    while True:
        press = await person.presses(SKIP, on=question)
        with suppress(UnavailableError):
            await person.is_told(press, 20.0)
            break
    await person.hears("Question 2", 60.0)


@pytest.mark.parametrize("first", range(1, 5))
async def test_crash__of_a_chats_host_between_any_two_appends_loses_and_repeats_nothing(
    phone: Phone, first: int
) -> None:
    crashes = 0
    for dies_at in DIES_AT[first - 1 :: 4]:
        ada = await phone.person(f"Ada {dies_at}")
        incarnations = phone.world.incarnations
        phone.world.crash_at = phone.world.appends + dies_at
        async with Bystander(phone.world):
            await talk(ada)
        crashes += phone.world.incarnations - incarnations
        await asyncio.sleep(0.3)
        told = Counter(next((each for each in TALK if text.startswith(each)), text) for text in await texts(ada))
        assert told == dict.fromkeys(TALK, 1), (dies_at, told)
        (view,) = await phone.projects(ada)
        assert (view.asked, view.status) == (2, Status.CLARIFYING), dies_at
    assert crashes >= 4


async def test_notice__is_told_once_however_the_host_dies(phone: Phone) -> None:
    ada = await phone.welcomed()
    await phone.asked(ada)
    await phone.gives(ada, -85)
    phone.world.crash_before = False
    phone.world.crash_at = phone.world.appends + 1
    try:
        async with Bystander(phone.world):
            await phone.store.books.note_low_balances(20_000_000)
            await ada.hears("Few credits are left", 30.0)
            await asyncio.sleep(1.0)
    finally:
        phone.world.crash_before = None

    async def is_noted() -> bool:
        return not await phone.store.books.untold_notices(await phone.user(ada))

    await soon(is_noted)
    assert sum("Few credits are left" in text for text in await texts(ada)) == 1


async def test_chat__that_is_set_aside_says_nothing_and_loses_nothing(
    phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of ours in the chat itself, again and again: Telegram keeps what comes until it is pardoned."""
    ada, bob = await phone.welcomed("Ada"), await phone.welcomed("Bob")
    receive = chat.Chat.receive

    async def broken(self: chat.Chat, message: object) -> bool:
        if self._chat == ada.chat_id:
            raise ZeroDivisionError
        return await receive(self, message)

    with monkeypatch.context() as patched:
        patched.setattr(chat.Chat, "receive", broken)
        await ada.says("/status")

        async def is_set_aside() -> bool:
            return any(each.entity == chat_entity(ada.chat_id) for each in phone.world.host.vitals().quarantined)

        await soon(is_set_aside)
        await bob.says("/history")
        await bob.hears("no projects yet")
    phone.world.host.pardon(chat_entity(ada.chat_id))
    await ada.says("/history")
    await ada.hears("no project at work", 20.0)
    await ada.hears("no projects yet", 20.0)

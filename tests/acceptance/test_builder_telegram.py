"""Lines 1-6, 9, 10, 31, 32, 45, 46, 48-57, 65, 66, 77 and 78 of spec/builder.md §18, as met in the chat.

Real chats, store, ledger, sandbox and builds in one process, with the stand-in for Telegram. Those that other doors
have too are held there as well.
"""

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from cluster.simulator.telegram.person import Person
from cluster.simulator.telegram.seen import SeenMessage
from runtime.ids import UserId, user_entity
from runtime.keys.office import KeyFacts
from runtime.ledger.port import Spent
from runtime.project import delivery
from runtime.project.links import Link, check_link
from runtime.project.messages import ProjectView, Status
from runtime.reports.port import Asked
from runtime.session.session import ToppedUp
from runtime.telegram import following
from runtime.telegram.buttons import press
from tests.acceptance.phone import ADMIN, DECIDE, SKIP, YES, Phone, open_phone, said_by_bot, soon
from tests.e2e.test_privacy import erased
from tests.e2e.world import BRIEF

pytestmark = pytest.mark.asyncio(loop_scope="module")
ANSWER = "Two people who share a household"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def phone(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Phone]:
    async with open_phone(tmp_path_factory.mktemp("phone")) as phone:
        yield phone


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def finished(phone: Phone) -> tuple[Person, SeenMessage]:
    """Somebody whose project was delivered, and the message that said so."""
    anna = await phone.welcomed("Anna")
    return anna, await phone.built(anna)


async def spent(phone: Phone, person: Person) -> Spent:
    return await phone.store.books.spent((await phone.project(person)).id)


def calls_of(phone: Phone, view: ProjectView) -> int:
    """How many model calls were served for it, by the simulator's own count."""
    return sum(view.id in call for call in phone.world.served())


async def grants(phone: Phone, user: UserId) -> int:
    return sum(each.type == "initial_grant" for each in await phone.store.books.statement(user, None, 100))


async def test_01_02__start_makes_one_user_and_one_grant_however_often_it_comes(phone: Phone) -> None:
    before = len(await phone.store.books.accounts(1_000, 0))
    ada = await phone.welcomed()
    user = await phone.user(ada)
    assert await grants(phone, user) == 1
    for _ in range(2):
        await ada.says("/start")
        await ada.hears("Hello")
    assert len(await phone.store.books.accounts(1_000, 0)) == before + 1
    assert await grants(phone, user) == 1
    assert (await phone.balance(ada)).balance_ucredits == 100_000_000


async def leaves(person: Person) -> SeenMessage:
    """Has everything deleted. What was asked before."""
    await person.says("/privacy")
    await person.hears("erased")
    await person.presses("🗑 Delete me")
    question = await person.hears("for ever?")
    await person.presses("🗑 Delete everything")
    await person.hears("Goodbye")
    return question


async def test_03__who_was_erased_gets_no_second_grant(phone: Phone) -> None:
    ada = await phone.welcomed()
    user = await phone.user(ada)
    assert "100.00 credits are lost" in (await leaves(ada)).text
    updates = len(await phone.control.updates())
    await ada.says("/start")

    async def is_taken() -> bool:
        all = await phone.control.updates()
        return len(all) > updates and not all[-1]["pending"]

    await soon(is_taken)
    await asyncio.sleep(0.2)
    again = await phone.store.books.account_of(ada.id)
    if again is not None:
        assert await grants(phone, again.user) == (1 if again.user == user else 0)
        assert (await phone.store.books.balance(again.user)).balance_ucredits == 0


async def test_03__who_comes_back_after_the_erasure_is_answered_and_has_no_credits(phone: Phone) -> None:
    ada = await phone.welcomed()
    user = await phone.user(ada)
    await leaves(ada)
    await erased(phone.world)
    said = [each for each in await ada.sees() if each.from_bot]
    await ada.says("/start")

    async def is_answered() -> bool:
        return len([each for each in await ada.sees() if each.from_bot]) > len(said)

    await soon(is_answered, 20.0)
    again = await phone.store.books.account_of(ada.id)
    assert again is not None
    assert again.user != user
    assert await grants(phone, again.user) == 0
    assert (await phone.balance(ada)).balance_ucredits == 0


async def test_04__with_too_few_credits_there_is_an_offer_and_no_project(tmp_path: Path) -> None:
    async with open_phone(tmp_path, initial_free_credits=9, payments_enabled=True) as phone:
        ada = await phone.person()
        await ada.says("/start")
        offer = await ada.hears("at least 10 free credits; you have 9.00")
        assert "100 credits: 50 ⭐" in offer.labels
        await ada.says(f"/new {BRIEF}")
        await ada.hears("at least 10 free credits; you have 9.00")
        assert await phone.projects(ada) == []


async def test_04__where_nothing_is_sold_the_operator_is_named(tmp_path: Path) -> None:
    async with open_phone(tmp_path, initial_free_credits=9) as phone:
        ada = await phone.person()
        await ada.says("/start")
        offer = await ada.hears("at least 10 free credits")
        assert "Ask the operator for credits." in offer.text
        assert offer.labels == ()


async def test_05_06__a_new_project_begins_unread_and_answers_with_a_question_that_is_kept(phone: Phone) -> None:
    ada = await phone.welcomed()
    question = await phone.asked(ada)
    view = await phone.project(ada)
    assert view.index_status == "not_indexed"
    assert (await phone.statuses(view.id))[:2] == [Status.GATHERING_REQUIREMENTS, Status.CLARIFYING]
    assert view.status is Status.CLARIFYING
    await ada.says("/privacy")
    await ada.hears("erased")
    await ada.presses("📤 Export my data")
    file = await ada.hears(lambda message: message.file is not None)
    with zipfile.ZipFile(io.BytesIO(await ada.downloads(file))) as archive:
        name = next(each for each in archive.namelist() if "conversation" in each)
        told = json.loads(archive.read(name))
    first, second = told[:2]
    assert first["message_type"] == "user_message"
    assert second["message_type"] == "bot_question"
    assert second["content"] in question.text


async def test_09_10__planning_waits_for_the_yes_and_a_no_keeps_what_was_answered(phone: Phone) -> None:
    ada = await phone.welcomed()
    await phone.asked(ada)
    await ada.says(ANSWER)
    for number in range(2, 7):
        question = await ada.hears(f"Question {number} ", 20.0)
        await ada.presses(DECIDE, on=question)
    scope = await ada.hears(lambda message: YES in message.labels, 20.0)
    assert ANSWER in scope.text
    await asyncio.sleep(1.0)
    view = await phone.project(ada)
    assert view.status is Status.CONFIRMING_SCOPE
    assert not any(event.data.get("step", "").startswith("plan") for event in await phone.events(view.id))
    await ada.presses("✏️ Change", on=scope)
    await ada.hears("What should be different?")
    await ada.says("It also prints a yearly report.")
    again = await ada.hears(lambda message: YES in message.labels and message.id > scope.id, 20.0)
    assert ANSWER in again.text
    statuses = await phone.statuses(view.id)
    assert statuses[-3:] == [Status.CONFIRMING_SCOPE, Status.CLARIFYING, Status.CONFIRMING_SCOPE]


async def test_31__few_credits_are_told_once(phone: Phone) -> None:
    ada = await phone.welcomed()
    await phone.asked(ada)
    for _ in range(3):
        await phone.gives(ada, -27)
        await phone.store.books.note_low_balances(20_000_000)
    warning = await ada.hears("🔔 Few credits are left: ")
    assert "💳 Credits" in warning.labels
    await ada.presses(SKIP)
    await ada.hears("Question 2")
    await asyncio.sleep(following.LOOK_EVERY_S + 0.5)
    assert sum("Few credits are left" in message.text for message in await ada.sees()) == 1
    assert await phone.store.books.untold_notices(await phone.user(ada)) == []


async def test_32__an_empty_wallet_pauses_the_build_and_credits_let_it_go_on(phone: Phone) -> None:
    ada = await phone.welcomed()
    view = await phone.begun(ada, "tasks=2 width=1 delay_ms=700 seed=32")
    await phone.takes_all(ada)
    paused = await ada.hears("waits for credits", 30.0)
    assert {"💳 Credits", "▶️ Resume", "✖️ Cancel"} <= set(paused.labels)
    assert (await phone.view(view.id)).status is Status.PAUSED_NO_CREDITS
    await phone.gives(ada, 100)
    await phone.world.entities.ask(user_entity(await phone.user(ada)), ToppedUp())
    await ada.hears("is finished", 60.0)
    steps = [event.data["task"] for event in await phone.events(view.id) if event.type == "task.merged"]
    assert sorted(steps) == ["T-001", "T-002"]


async def test_45__what_is_too_large_for_telegram_comes_as_a_link_that_expires(
    phone: Phone, finished: tuple[Person, SeenMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    anna, _ = finished
    monkeypatch.setattr(delivery, "UPLOAD_BYTES_MAX", 1_000)
    await anna.says("/history")
    await anna.hears("Your projects")
    await anna.presses("📦 1")
    told = await anna.hears("too large for Telegram")
    url = next(each["url"] for each in told.entities if each["type"] == "text_link")
    *_, project, sha256, expires_s, signature = url.split("/")
    view = await phone.project(anna)
    assert view.package is not None
    assert (project, sha256) == (view.id, view.package.sha256)
    link = Link(project=view.id, sha256=sha256, expires_s=int(expires_s), signature=signature)
    check_link(phone.world.secrets.link_key, link, datetime.now(UTC))
    assert 0 < int(expires_s) - datetime.now(UTC).timestamp() <= 24 * 3_600


async def test_46__a_project_is_complete_when_its_package_is_there(
    phone: Phone, finished: tuple[Person, SeenMessage]
) -> None:
    anna, summary = finished
    view = await phone.project(anna)
    assert view.status is Status.COMPLETED
    assert view.completed_at is not None
    types = [event.type for event in await phone.events(view.id)]
    assert types.index("package.ready") < types.index("project.finished")
    file = next(message for message in await anna.sees() if message.file is not None)
    assert file.created > summary.created
    assert view.package is not None
    assert file.text == f"SHA-256 {view.package.sha256}"
    with zipfile.ZipFile(io.BytesIO(await anna.downloads(file))) as archive:
        assert archive.testzip() is None


async def test_48__the_delivery_says_what_it_cost_and_what_is_left(
    phone: Phone, finished: tuple[Person, SeenMessage]
) -> None:
    anna, summary = finished
    cost, view = await spent(phone, anna), await phone.project(anna)
    balance = await phone.balance(anna)
    assert cost.net_ucredits > 0
    assert f"It cost {cost.net_ucredits / 1e6:.2f} credits; the quote was 51.00." in summary.text
    assert f"{balance.balance_ucredits / 1e6:.2f} are left" in summary.text
    assert balance.balance_ucredits == 100_000_000 - cost.net_ucredits
    assert "1 of 1 requirements proven" in summary.text
    assert "To run it\nunzip synthetic-build-1.zip && cd generated_project\n" in summary.text
    assert {"🧾 Receipt", "✏️ Change", "1⭐", "5⭐"} <= set(summary.labels)
    await anna.presses("🧾 Receipt", on=summary)
    receipt = await anna.hears(lambda message: message.text.startswith(f"🧾 {view.title}"))
    assert f"Charged: {cost.total_ucredits / 1e6:.2f} credits" in receipt.text
    whole = await anna.hears(lambda message: message.file is not None and message.file.name == "receipt.txt")
    assert "coding" in (await anna.downloads(whole)).decode()


async def test_48__the_delivery_names_what_is_missing_and_what_was_given_back(phone: Phone) -> None:
    ada = await phone.welcomed()
    summary = await phone.built(ada, "tasks=3 sabotage=deletes_test")
    cost, view = await spent(phone, ada), await phone.project(ada)
    assert list(view.known_gaps) == ["T-002"]
    assert "✅ 1 of 2 requirements proven" in summary.text
    assert "⚠️ Not in it:\n• T-002: " in summary.text
    assert cost.refunded_ucredits > 0
    assert f"{cost.refunded_ucredits / 1e6:.2f} credits were given back." in summary.text
    assert [text for text in (message.text for message in await ada.sees()) if "could not be made to pass" in text]


async def test_49__status_counts_items_and_credits_as_the_ledger_does_and_51_52_cancel_stops_all_of_it(
    phone: Phone,
) -> None:
    ada = await phone.welcomed()
    view = await phone.begun(ada, "tasks=3 width=1 delay_ms=1500 seed=49")

    async def one_is_done() -> bool:
        return any(event.type == "task.merged" for event in await phone.events(view.id))

    await soon(one_is_done)
    await ada.says("/status")
    status = await ada.hears("1 of 3 tasks")
    cost = await phone.store.books.spent(view.id)
    assert f"{cost.net_ucredits / 1e6:.2f} of 51.00 credits quoted" in status.text
    assert "👛" in status.text

    await ada.says("/cancel")
    sure = await ada.hears("for ever?")
    assert "credits were charged and stay charged" in sure.text
    assert not (await phone.view(view.id)).status.terminal

    async def something_is_held() -> bool:
        return (await phone.balance(ada)).held_ucredits > 0

    await soon(something_is_held)  # Between two calls nothing is.
    await ada.presses("✖️ Stop it", on=sure)
    ended = await ada.hears("is cancelled", 30.0)
    asked = calls_of(phone, view)
    balance, cost = await phone.balance(ada), await phone.store.books.spent(view.id)
    assert balance.held_ucredits == 0
    assert balance.balance_ucredits == 100_000_000 - cost.net_ucredits
    assert f"It cost {cost.net_ucredits / 1e6:.2f} credits" in ended.text
    await asyncio.sleep(2.0)
    under_way = calls_of(phone, view) - asked
    assert under_way <= 1, "the one that the implementer had made is counted when it is answered"
    await asyncio.sleep(2.0)
    assert calls_of(phone, view) == asked + under_way


async def test_50__status_without_a_project_says_so(phone: Phone) -> None:
    ada = await phone.welcomed()
    await ada.says("/status")
    status = await ada.hears("You have no project at work. /new begins one.")
    assert "100.00 credits are left" in status.text


async def test_51__who_thinks_better_of_it_goes_on(phone: Phone) -> None:
    ada = await phone.welcomed()
    await phone.quoted(ada)
    await ada.says("/cancel")
    await ada.hears("for ever?")
    press = await ada.presses("No, go on")
    assert "Nothing was changed" in (await ada.is_told(press)).text
    assert (await phone.project(ada)).status is Status.CONFIRMING_SCOPE


async def test_53__history_shows_ones_own_projects_alone(phone: Phone, finished: tuple[Person, SeenMessage]) -> None:
    anna, bob = finished[0], await phone.welcomed("Bob")
    await bob.says("/history")
    await bob.hears("You have no projects yet")
    await anna.says("/history")
    told = await anna.hears("Your projects")
    cost = await spent(phone, anna)
    assert f"Finished, {cost.net_ucredits / 1e6:.2f} credits" in told.text
    assert told.text.count("Synthetic build") == 1


async def test_54__credits_show_balance_movements_and_what_can_be_done(
    phone: Phone, finished: tuple[Person, SeenMessage]
) -> None:
    anna, _ = finished
    await anna.says("/credits")
    told = await anna.hears("💳")
    balance = await phone.balance(anna)
    assert f"{balance.free_ucredits / 1e6:.2f} credits" in told.text
    assert "+100.00 welcome gift" in told.text or "use" in told.text
    assert "Ask the operator for credits." in told.text


async def test_55_57__keys_are_refused_to_others_and_written_down(phone: Phone) -> None:
    ada = await phone.welcomed()
    await ada.says("/keys")
    await ada.hears("🚫 /keys is for administrators.")
    user = await phone.user(ada)
    noted = [(row.action, row.target) for row in await phone.store.books.audit(100, 0) if row.actor == user]
    assert noted == [("command_refused", "/keys")]
    await ada.says("/help")
    told = await ada.hears("What I can do")
    assert "/keys" not in told.text
    assert "/history" in told.text


async def test_56_57__an_administrator_sees_keys_without_their_material(phone: Phone) -> None:
    secret = "sk-material-that-nobody-sees"
    phone.here.keys.facts = [
        KeyFacts(
            key_id="k-1", provider="openai", label="main", state="ready", limits="", cooling_s=0.0, in_flight=0,
            calls_last_minute=0, tokens_last_minute=0, calls=7, last_used_at=datetime(2026, 1, 2, tzinfo=UTC),
            expires_at=None,
        )
    ]  # fmt: skip
    admin = await phone.person("Root", id=ADMIN)
    await admin.says("/keys")
    told = await admin.hears("API keys")
    assert "openai k-1 main: ready" in told.text
    assert "used 7 times" in told.text
    assert "sim-test" not in told.text
    assert secret not in told.text
    await admin.says("/help")
    helped = await admin.hears("What I can do")
    assert {"/keys", "/ban", "/give"} <= {line.partition(":")[0] for line in helped.text.splitlines()}


VERBS = [
    "yes", "no", "skip", "decide", "back", "offer", "again", "pause", "resume", "change", "cancel", "stop", "goon",
    "retry", "skiptask", "receipt", "rate", "fetch",
]  # fmt: skip


async def test_65__nobody_reaches_the_project_of_another_by_its_id(
    phone: Phone, finished: tuple[Person, SeenMessage]
) -> None:
    anna, bob = finished[0], await phone.welcomed("Bob")
    running = await phone.welcomed("Cleo")
    await phone.asked(running)
    targets = [(await phone.project(anna)).id, (await phone.project(running)).id]
    before = [await phone.view(target) for target in targets]
    about = {"rate": "5", "offer": "change", "yes": "scope", "skip": "1", "decide": "1", "back": "1"}
    sent = (await phone.control.calls())[-1]["number"]
    for number, target in enumerate(targets):
        for verb in VERBS[number::2]:
            await phone.presses_unseen(bob, press(verb, target, about.get(verb, "")))

    async def all_are_answered() -> bool:
        return len(await phone.answers(sent)) == len(VERBS)

    await soon(all_are_answered)
    answers = await phone.answers(sent)
    assert set(answers) <= {"This is not your project.", "This was answered already."}, answers
    assert answers.count("This is not your project.") >= len(VERBS) - 1
    after = [await phone.view(target) for target in targets]
    assert [view.last_seq for view in after] == [view.last_seq for view in before]
    assert [message.text for message in said_by_bot(await bob.sees()) if "Hello" not in message.text] == []


async def test_66__too_many_messages_are_refused_once_with_a_clear_text(phone: Phone) -> None:
    ada = await phone.person()
    for _ in range(24):
        await ada.says("/help")

    async def all_are_answered() -> bool:
        return len(said_by_bot(await ada.sees())) >= 21

    await soon(all_are_answered)
    await asyncio.sleep(0.5)
    told = [message.text for message in said_by_bot(await ada.sees())]
    refusals = [text for text in told if "You may send 20 messages a minute." in text]
    assert len(told) == 21
    assert len(refusals) == 1
    assert "Try again in " in refusals[0]


async def test_77__scores_are_in_the_report(phone: Phone, finished: tuple[Person, SeenMessage]) -> None:
    anna, summary = finished
    await anna.presses("4⭐", on=summary)
    await anna.hears("What made it 4 of 5?")
    await anna.says("It does what I wanted.")
    await anna.hears("Thank you: 4 of 5.")
    report = await phone.store.reports.report(Asked(name="satisfaction"))
    row = dict(zip(report.columns, report.rows[-1], strict=True))
    assert (row["scores"], row["score_4"]) == (1, 1)
    (given,) = await phone.store.reports.feedback()
    assert given.feedback.text == "It does what I wanted."


async def test_78__progress_is_told_in_each_cycle_with_what_it_cost(
    phone: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "SHOW_EVERY_S", 0.0)
    ada = await phone.welcomed()
    sent = (await phone.control.calls())[-1]["number"]
    view = await phone.begun(ada, "tasks=3 width=1 phases=3 delay_ms=800 seed=78")
    await ada.hears("is finished", 60.0)
    edits = [
        str(call["parameters"]["text"])
        for call in await phone.control.calls("editMessageText", after=sent)
        if call["chat_id"] == ada.chat_id
    ]
    assert all("credits quoted" in text for text in edits)
    cycles = [e.data["phase"] for e in await phone.events(view.id) if e.type == "verify.finished"]
    assert len(cycles) >= 3
    shown = {line for text in edits for line in text.splitlines() if line.startswith("☑️ Verified")}
    assert {f"☑️ Verified: {cycle}" for cycle in cycles} <= shown

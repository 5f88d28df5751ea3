"""Hostile updates with the right secret, through the real door, chats, dialogue, ledger and store."""

import asyncio
import logging
import os
import random
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from runtime.accounts.port import TelegramIdentity
from runtime.errors import BadInputError
from runtime.telegram.commands import COMMANDS
from runtime.telegram.updates import Update, parse_update
from serve_apps.telegram_routes import HEADER
from tests.e2e.hostile_updates import mutated, originals, wire
from tests.e2e.listening_api import ListeningApi
from tests.e2e.needles import Haystack
from tests.e2e.telegram_world import BotWorld, silent_world

UPDATES = 10_000 if os.environ.get("NIGHTLY") else 1_500
"""10,000 take four minutes."""
AT_ONCE = 200
PEOPLE = range(1_001, 1_201)
FIRST = 700_000_000
NEEDLES = {
    "another's name": "Needle-of-Annabell",
    "another's idea": "needle-idea-of-annabell",
    "another's mail": "annabell@needle.example",
    "the unlock code": "needle-unlock-code-123456",
    "the bootstrap code": "needle-bootstrap-code-123456",
    "the token": "7000000001:needle-token-of-the-bot",
}
ANNABELL = 77


@pytest.fixture
def api() -> ListeningApi:
    return ListeningApi()


@pytest.fixture
async def here(tmp_path: Path, api: ListeningApi) -> AsyncIterator[BotWorld]:
    """Where everybody may write as often as they like, and nobody has the credits for a build."""
    plenty = {"messages_per_minute": 10**6, "min_credits_to_start": 10**6}
    async with silent_world(tmp_path, api, telegram_mode="webhook", webhook_path="x", **plenty) as made:
        yield made


@pytest.fixture
async def door(here: BotWorld) -> AsyncIterator[httpx.AsyncClient]:
    headers = {HEADER: here.world.secrets.webhook_secret}
    transport = httpx.ASGITransport(app=here.door())
    async with httpx.AsyncClient(transport=transport, base_url="http://door", headers=headers, timeout=120) as client:
        yield client


async def post(door: httpx.AsyncClient, update: dict[str, Any]) -> int:
    return (await door.post("/x", content=wire(update))).status_code


async def until_answered(here: BotWorld) -> None:
    async with asyncio.timeout(120):
        while await here.unanswered():  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_hostile_updates__break_no_chat_and_leak_nothing(
    here: BotWorld, door: httpx.AsyncClient, api: ListeningApi, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    draw = random.Random(8)
    numbers = iter(range(FIRST, FIRST + 10 * UPDATES))
    ann = {"id": ANNABELL, "first_name": NEEDLES["another's name"]}
    for text in (
        NEEDLES["another's idea"] + " is what I want to be built",
        "/email " + NEEDLES["another's mail"],
        f"/unlock {NEEDLES['the unlock code']}",
        f"/bootstrap {NEEDLES['the bootstrap code']}",
        f"/invite {NEEDLES['the unlock code']}",
    ):
        message = {"message_id": 1, "chat": {"id": ANNABELL, "type": "private"}, "from": ann, "text": text}
        assert await post(door, {"update_id": next(numbers), "message": message}) == 200
    await until_answered(here)
    said = len(api.calls)

    kinds = [list(originals(person, -person, [str(uuid.UUID(int=person))])) for person in PEOPLE]
    gate = asyncio.Semaphore(AT_ONCE)
    statuses = set[int]()

    async def one() -> None:
        async with gate:
            update = mutated(draw.choice(draw.choice(kinds)), draw)
            if draw.random() < 0.98:
                update["update_id"] = next(numbers)
            statuses.add(await post(door, update))

    await asyncio.gather(*(one() for _ in range(UPDATES)))
    await until_answered(here)

    assert statuses == {200}
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR] == []
    assert here.world.host.vitals().quarantined == ()
    assert api.faults == []
    assert len(api.calls) > UPDATES / 3, "or nobody was answered"
    haystack = Haystack(NEEDLES)
    told = "\n".join(str(data) for _, data in api.calls[said:]).encode()
    assert haystack.in_bytes(told) == set()
    assert haystack.in_bytes(caplog.text.encode()) == set()
    assert haystack.in_files([tmp_path]) == {}
    assert await here.world.store.check() == []


PAYER = {"id": 5, "first_name": "Ada"}


def paid(number: int, charge: str, **changes: Any) -> dict[str, Any]:
    payment = {
        "currency": "XTR", "total_amount": 50, "invoice_payload": "product:credits_100",
        "telegram_payment_charge_id": charge, "provider_payment_charge_id": "p",
    }  # fmt: skip
    message = {"message_id": 1, "date": 1_790_000_000, "chat": {"id": 5, "type": "private"}, "from": PAYER}
    return {"update_id": number, "message": {**message, "successful_payment": payment | changes}}


async def credits(here: BotWorld) -> float:
    account = await here.world.store.books.account_of(5)
    return 0 if account is None else (await here.world.store.books.balance(account.user)).balance_ucredits / 1e6


async def test_payment__counts_once_for_its_charge_and_only_with_the_secret(
    here: BotWorld, door: httpx.AsyncClient, api: ListeningApi
) -> None:
    assert (await door.post("/x", content=wire(paid(1, "c")), headers={HEADER: "wrong"})).status_code == 403
    assert await credits(here) == 0
    for number in (1, 1, 2, 3):
        assert await post(door, paid(number, "c")) == 200
    assert await post(door, paid(4, "d", total_amount=1)) == 200
    assert await post(door, paid(5, "e", invoice_payload="product:credits_100000")) == 200
    await until_answered(here)
    assert await credits(here) == 100 + 100
    assert sum("does not fit" in data.get("text", "") for _, data in api.calls) == 2
    assert api.faults == []


@pytest.mark.parametrize(
    "changes",
    [
        {"total_amount": 1},
        {"currency": "USD"},
        {"invoice_payload": "product:credits_7"},
        {"invoice_payload": "x" * 900},
    ],
)
async def test_checkout__that_does_not_fit_is_refused(
    here: BotWorld, door: httpx.AsyncClient, api: ListeningApi, changes: dict[str, Any]
) -> None:
    asked = {"id": "9", "from": PAYER, "currency": "XTR", "total_amount": 50, "invoice_payload": "product:credits_100"}
    assert await post(door, {"update_id": 1, "pre_checkout_query": asked | changes}) == 200
    await until_answered(here)
    ((_, answer),) = [call for call in api.calls if call[0] == "answerPreCheckoutQuery"]
    assert answer["ok"] is False
    assert answer["error_message"]
    assert api.faults == []


LONG = [
    "x" * 4_000,
    "<b>" * 1_300,
    "&" * 4_000,
    "\U0001f9e8" * 2_000,
    "\u202e" * 4_000,
    "1" * 4_000,
    "\u00b2",
    "{0} {x}",
]


async def test_command__of_any_length_gets_an_answer_that_telegram_takes(
    here: BotWorld, door: httpx.AsyncClient, api: ListeningApi
) -> None:
    for id in range(6, 46):
        await here.world.store.books.register(TelegramIdentity(telegram_id=id, first_name="<&" * 450))
    root = await here.world.store.books.register(TelegramIdentity(telegram_id=5, first_name="<i>" * 300))
    await here.world.store.books.bootstrap(root.user, here.world.secrets.bootstrap_code, "here")
    number = 0
    for command in COMMANDS:
        for rest in ("", *LONG):
            number += 1
            asked = len(api.calls)
            text = f"/{command.name} {rest}"
            message = {"message_id": 1, "chat": {"id": 5, "type": "private"}, "from": PAYER, "text": text}
            assert await post(door, {"update_id": number, "message": message}) == 200
            await until_answered(here)
            async with asyncio.timeout(10):
                while not any(method.startswith("send") for method, _ in api.calls[asked:]):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            assert not any("our fault" in data.get("text", "") for _, data in api.calls[asked:]), text[:60]
    assert api.faults == []


async def test_update__that_the_journal_holds_and_nobody_can_read_does_not_stop_its_chat(
    here: BotWorld, door: httpx.AsyncClient, api: ListeningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0

    def by_another_version(data: Any) -> Update:
        """Who took it could read it, who answers it cannot."""
        nonlocal read
        read += data["update_id"] == 1
        if data["update_id"] == 1 and read > 1:
            raise BadInputError("This is not an update of Telegram's: a field is missing.")
        return parse_update(data)

    monkeypatch.setattr("runtime.telegram.chat.parse_update", by_another_version)
    for number, text in ((1, "/help"), (2, "/credits")):
        message = {"message_id": 1, "chat": {"id": 5, "type": "private"}, "from": PAYER, "text": text}
        assert await post(door, {"update_id": number, "message": message}) == 200
    await until_answered(here)
    async with asyncio.timeout(10):
        while len([data for method, data in api.calls if method == "sendMessage"]) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    first, second = [data["text"] for method, data in api.calls if method == "sendMessage"]
    assert "our fault" in first
    assert "100.00 credits" in second
    assert here.world.host.vitals().quarantined == ()

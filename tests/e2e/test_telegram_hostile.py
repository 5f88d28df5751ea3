"""Hostile updates with the right secret, through the real door, chats, dialogue, ledger and store."""

import asyncio
import logging
import random
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_apps.telegram_routes import HEADER
from tests.e2e.hostile_updates import mutated, originals, wire
from tests.e2e.listening_api import ListeningApi
from tests.e2e.needles import Haystack
from tests.e2e.telegram_world import BotWorld, silent_world

UPDATES = 10_000
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


async def test_ten_thousand_hostile_updates__break_no_chat_and_leak_nothing(
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

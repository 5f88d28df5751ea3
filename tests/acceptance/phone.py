"""The bot as people have it on their phones: persons at the stand-in for Telegram, and what the books say of them."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cluster.simulator.telegram.client import StandInClient
from cluster.simulator.telegram.person import Person
from cluster.simulator.telegram.seen import SeenMessage
from cluster.simulator.telegram.server import TelegramStandIn
from runtime.entity.journal import EventRecord
from runtime.errors import NotEnoughCreditsError
from runtime.ids import ProjectId, UserId, name_of, project_entity
from runtime.ledger.port import Adjustment, Balance
from runtime.project.messages import Describe, ProjectView, Status
from runtime.project.state import State
from runtime.store.store import Store
from tests.e2e.telegram_world import BotWorld, bot_world
from tests.e2e.world import BRIEF, World

ADMIN = 500
IN_CHAT_S = 0.02
"""Nobody waits for Telegram's second in a chat here; `tests/e2e/test_telegram_journey.py` keeps to it."""
BUILD_S = 120.0
YES, SKIP, DECIDE, BACK, CANCEL = "✅ Build it", "⏭ Skip", "🤝 You decide", "◀️ Back", "✖️ Cancel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phone:
    telegram: TelegramStandIn
    control: StandInClient
    here: BotWorld

    @property
    def world(self) -> World:
        return self.here.world

    @property
    def store(self) -> Store:
        return self.here.world.store

    def store_now(self) -> datetime:
        return datetime.now(UTC) + self.world.store_ahead

    async def person(self, name: str = "Ada", *, id: int | None = None) -> Person:
        """Somebody who has not spoken with the bot yet."""
        return Person(self.control, await self.control.add_person(name, id=id), name)

    async def welcomed(self, name: str = "Ada") -> Person:
        """Somebody whom /start registered."""
        person = await self.person(name)
        await person.says("/start")
        await person.hears("Hello")
        return person

    async def user(self, person: Person) -> UserId:
        account = await self.store.books.account_of(person.id)
        assert account is not None
        return account.user

    async def balance(self, person: Person) -> Balance:
        return await self.store.books.balance(await self.user(person))

    async def gives(self, person: Person, credits: int) -> None:
        """Below zero: takes."""
        gift = Adjustment(
            id=uuid.uuid4().hex,
            user=await self.user(person),
            amount_ucredits=credits * 1_000_000,
            reason="for this test",
            made_by=UserId("operator"),
        )
        await self.store.books.adjust(gift)

    async def takes_all(self, person: Person) -> None:
        """All that is free, in whole credits; a build that runs may hold more a moment later."""
        for _ in range(20):
            with suppress(NotEnoughCreditsError):
                await self.gives(person, -int((await self.balance(person)).free_ucredits / 1e6))
                return
        raise AssertionError("the build was always faster")

    async def projects(self, person: Person) -> list[ProjectView]:
        """The newest first."""
        heads = await self.store.journal.heads("project", await self.user(person))
        return [await self.view(ProjectId(name_of(head.entity))) for head in heads]

    async def project(self, person: Person) -> ProjectView:
        return (await self.projects(person))[0]

    async def view(self, project: ProjectId) -> ProjectView:
        view: ProjectView = await self.world.entities.ask(project_entity(project), Describe())
        return view

    async def events(self, project: ProjectId) -> Sequence[EventRecord]:
        return await self.store.journal.read(project_entity(project), 0)

    async def statuses(self, project: ProjectId) -> list[Status]:
        """All that it had, in their order."""
        state, found = State(), list[Status]()
        for event in await self.events(project):
            state = state.after(event)
            if found[-1:] != [state.status]:
                found.append(state.status)
        return found

    async def asked(self, person: Person, idea: str = BRIEF) -> SeenMessage:
        """The first question about an idea."""
        await person.says(f"/new {idea}")
        return await person.hears(lambda message: DECIDE in message.labels, 30.0)

    async def quoted(self, person: Person, order: str = "tasks=1") -> SeenMessage:
        """The scope of a synthetic build, of which nothing is asked."""
        await person.says(f"/new synthetic build {order}")
        return await person.hears(lambda message: YES in message.labels, 30.0)

    async def begun(self, person: Person, order: str) -> ProjectView:
        await person.presses(YES, on=await self.quoted(person, order))
        return await self.project(person)

    async def built(self, person: Person, order: str = "tasks=1") -> SeenMessage:
        """The message that says how it ended."""
        await self.begun(person, order)
        return await person.hears(lambda message: "🧾 Receipt" in message.labels, BUILD_S)

    async def presses_unseen(self, person: Person, data: str) -> None:
        """A button that nobody showed this person, as a changed client could send it."""
        sees = (await person.sees())[-1]
        query = {
            "id": f"forged-{uuid.uuid4().hex}",
            "from": {"id": person.id, "is_bot": False, "first_name": person.name},
            "message": {"message_id": sees.id, "date": 1, "chat": {"id": person.chat_id, "type": "private"}},
            "chat_instance": "1",
            "data": data,
        }
        await self.control.inject({"callback_query": query})

    async def answers(self, after: int) -> list[str]:
        """What was answered to pressed buttons since call number `after`, those refused as too old included."""
        calls = await self.control.calls("answerCallbackQuery", after=after)
        return [str(call["parameters"].get("text", "")) for call in calls]


@asynccontextmanager
async def open_phone(folder: Path, **settings: Any) -> AsyncIterator[Phone]:
    settings = {"admin_user_ids": str(ADMIN), "in_chat_s": IN_CHAT_S, **settings}
    async with (
        TelegramStandIn() as telegram,
        StandInClient(telegram.root_url) as control,
        bot_world(folder, telegram, **settings) as here,
    ):
        yield Phone(telegram=telegram, control=control, here=here)


async def soon(reached: Callable[[], Awaitable[bool]], within_s: float = 60.0) -> None:
    """Waits until something is so."""
    async with asyncio.timeout(within_s):
        while True:
            if await reached():
                return
            await asyncio.sleep(0.02)


def said_by_bot(messages: Sequence[SeenMessage]) -> list[SeenMessage]:
    return [message for message in messages if message.from_bot]

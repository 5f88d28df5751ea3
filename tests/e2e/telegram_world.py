"""A whole build in one process with its bot: real chats, dialogue and limiter, against the stand-in for Telegram."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from cluster.simulator.server import Simulator
from cluster.simulator.telegram.server import TelegramStandIn
from runtime.catalogue.catalogue import CATALOGUE
from runtime.entity.host import Factory
from runtime.entity.journal import Journal
from runtime.errors import UnavailableError
from runtime.keys.office import KeyFacts
from runtime.telegram.bot import Bot
from runtime.telegram.chat import Chat
from runtime.telegram.desk import desk_of
from runtime.telegram.dialogue import Dialogue
from runtime.telegram.following import Telling
from runtime.telegram.reception import Reception
from tests.e2e.world import World


class NoKeys:
    """In the place of the operator's office."""

    async def listed(self) -> list[KeyFacts]:
        return []


class BotWorld:
    """A world whose host has chats too, and a loop that fetches updates as polling mode does."""

    def __init__(self, world: World, bot: Bot) -> None:
        self.world = world
        self.bot = bot
        self._polling: asyncio.Task[None] | None = None

    def factories(self, journal: Journal) -> Mapping[str, Factory]:
        world, books = self.world, self.world.store.books
        desk = desk_of(
            world.settings,
            world.secrets,
            books,
            world.entities,
            journal,
            world.store.reports,
            NoKeys(),  # type: ignore[arg-type]
            self.bot,
            lambda: CATALOGUE,
        )
        telling = Telling(world.entities, books, desk.speak, desk.link, books.get_blob)
        dialogue = Dialogue(desk)
        return {"chat": lambda entity: Chat(entity, self.bot, dialogue, telling)}

    def start_polling(self) -> None:
        self._polling = asyncio.create_task(self._poll())

    async def stop_polling(self) -> None:
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.gather(self._polling, return_exceptions=True)

    async def _poll(self) -> None:
        reception, offset = Reception(self.world.store.books, self.world.entities), 0
        while True:
            updates: Any = ()
            with suppress(UnavailableError):
                updates = await self.bot.updates(offset)
            for update in updates:
                await reception.take(update)
                offset = max(offset, update["update_id"] + 1)


@asynccontextmanager
async def bot_world(folder: Path, telegram: TelegramStandIn, **settings: Any) -> AsyncIterator[BotWorld]:
    """With a simulator of its own; polling has begun."""
    usage = folder / "usage.jsonl"
    async with Simulator(usage_file=usage) as simulator:
        world = World(folder, simulator, usage, **settings)
        bot = Bot(telegram.token, telegram.root_url)
        made = BotWorld(world, bot)
        world.more = made.factories
        await world.open()
        await bot.open()
        made.start_polling()
        try:
            yield made
        finally:
            await made.stop_polling()
            await world.close()
            await bot.close()

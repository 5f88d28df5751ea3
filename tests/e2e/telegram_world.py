"""A whole build in one process with its bot: real chats, dialogue and limiter, against a stand-in for Telegram."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uvicorn
from fastapi import FastAPI

from cluster.simulator.server import Simulator
from cluster.simulator.telegram.server import TelegramStandIn
from runtime.catalogue.catalogue import CATALOGUE
from runtime.entity.host import Factory
from runtime.entity.journal import Journal
from runtime.errors import UnavailableError
from runtime.keys.office import KeyFacts
from runtime.telegram.bot import Bot
from runtime.telegram.calls import BotApi
from runtime.telegram.chat import Chat
from runtime.telegram.desk import desk_of
from runtime.telegram.dialogue import Dialogue
from runtime.telegram.following import Telling
from runtime.telegram.reception import Reception
from runtime.telegram.updates import KINDS
from serve_apps.telegram_routes import create_app
from tests.e2e.telegram_test_api import TelegramTestApi
from tests.e2e.world import World


class NoKeys:
    """In the place of the operator's office."""

    async def listed(self) -> list[KeyFacts]:
        return []


class BotWorld:
    """A world whose host has chats too, which speak through `bot`, and a loop that fetches updates or a webhook."""

    def __init__(self, world: World, bot: BotApi) -> None:
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

    def start_polling(self, bot: Bot) -> None:
        self._polling = asyncio.create_task(self._poll(bot))

    def door(self) -> FastAPI:
        """The webhook's application over this world."""
        world = self.world
        system: Any = SimpleNamespace(settings=world.settings, ledger=world.store.books, entities=world.entities)
        return create_app(system, world.secrets.webhook_secret)

    async def unanswered(self) -> dict[str, int]:
        """Chat -> updates in its inbox."""
        heads = await self.world.store.journal.heads("chat", None)
        return {head.entity: head.data["inbox"] for head in heads if head.data["inbox"]}

    async def stop_polling(self) -> None:
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.gather(self._polling, return_exceptions=True)

    async def _poll(self, bot: Bot) -> None:
        reception, offset = Reception(self.world.store.books, self.world.entities), 0
        while True:
            updates: Any = ()
            with suppress(UnavailableError):
                updates = await bot.updates(offset)
            for update in updates:
                await reception.take(update)
                offset = max(offset, update["update_id"] + 1)


@asynccontextmanager
async def bot_world(
    folder: Path, telegram: TelegramStandIn | TelegramTestApi, **settings: Any
) -> AsyncIterator[BotWorld]:
    """With a simulator of its own; polling has begun, or, with `telegram_mode="webhook"`, the webhook is set."""
    usage = folder / "usage.jsonl"
    async with Simulator(usage_file=usage) as simulator:
        world = World(folder, simulator, usage, **settings)
        bot = Bot(telegram.token, telegram.root_url)
        made = BotWorld(world, bot)
        world.more = made.factories
        await world.open()
        await bot.open()
        try:
            if world.settings.telegram_mode == "polling":
                made.start_polling(bot)
                yield made
                return
            async with served(made.door()) as url:
                told = {
                    "url": f"{url}/{world.settings.webhook_path}",
                    "secret_token": world.secrets.webhook_secret,
                    "allowed_updates": list(KINDS),
                }
                await bot.call("setWebhook", told)
                yield made
                await bot.call("deleteWebhook", {})
        finally:
            await made.stop_polling()
            await world.close()
            await bot.close()


@asynccontextmanager
async def silent_world(folder: Path, bot: BotApi, **settings: Any) -> AsyncIterator[BotWorld]:
    """One that speaks through `bot` and hears only what is given to its `door`."""
    usage = folder / "usage.jsonl"
    async with Simulator(usage_file=usage) as simulator:
        made = BotWorld(World(folder, simulator, usage, **settings), bot)
        made.world.more = made.factories
        await made.world.open()
        try:
            yield made
        finally:
            await made.world.close()


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """Its address on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        task = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task

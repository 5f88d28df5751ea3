"""A whole build in one process with its bot: real chats, dialogue and limiter, against a stand-in for Telegram."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import uvicorn
from fastapi import FastAPI

from cluster.simulator.server import Simulator
from cluster.simulator.telegram.server import TelegramStandIn
from runtime.catalogue.catalogue import CATALOGUE
from runtime.entity.host import Factory
from runtime.entity.journal import Journal
from runtime.errors import BadInputError, UnavailableError
from runtime.keys.office import KeyFacts
from runtime.telegram.bot import Bot
from runtime.telegram.calls import BotApi, Upload
from runtime.telegram.chat import Chat
from runtime.telegram.desk import desk_of
from runtime.telegram.dialogue import Dialogue
from runtime.telegram.following import Telling
from runtime.telegram.pace import Pace
from runtime.telegram.reception import Reception
from runtime.telegram.updates import KINDS
from serve_apps.telegram_routes import create_app
from tests.e2e.telegram_test_api import TelegramTestApi
from tests.e2e.world import World


class Keys:
    """In the place of the operator's office."""

    def __init__(self, facts: Sequence[KeyFacts] = ()) -> None:
        self.facts = facts

    async def listed(self) -> Sequence[KeyFacts]:
        return self.facts


class Living:
    """The bot as one incarnation of the host reaches it: a dead one calls nobody."""

    def __init__(self, world: World, bot: BotApi) -> None:
        self._world = world
        self._incarnation = world.incarnations
        self._bot = bot

    async def call(
        self,
        method: str,
        data: Mapping[str, Any],
        upload: Upload | None = None,
        *,
        may_drop: bool = False,
        key: str = "",
    ) -> Any:
        if self._world.crashed.is_set() or self._incarnation != self._world.incarnations:
            raise UnavailableError("this process is dead")
        return await self._bot.call(method, data, upload, may_drop=may_drop, key=key)


class Bystander:
    """Restarts the host whenever it crashes, while `async with` lasts."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None, "entered"
        self._world.crash_at = 0
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if self._world.crashed.is_set():
            await self._world.crash_and_restart()

    async def _watch(self) -> None:
        while True:
            await self._world.crashed.wait()
            await asyncio.shield(asyncio.ensure_future(self._world.crash_and_restart()))


class BotWorld:
    """A world whose host has chats too, which speak through `bot`, and a loop that fetches updates or a webhook."""

    def __init__(self, world: World, bot: BotApi) -> None:
        self.world = world
        self.bot = bot
        self.keys = Keys()
        self._polling: asyncio.Task[None] | None = None

    def factories(self, journal: Journal) -> Mapping[str, Factory]:
        world, books, bot = self.world, self.world.store.books, Living(self.world, self.bot)
        desk = desk_of(
            world.settings,
            world.secrets,
            books,
            world.entities,
            journal,
            world.store.reports,
            self.keys,  # type: ignore[arg-type]
            bot,
            lambda: CATALOGUE,
        )
        telling = Telling(world.entities, books, desk.speak, desk.link, books.get_blob)
        dialogue = Dialogue(desk)
        return {"chat": lambda entity: Chat(entity, bot, dialogue, telling)}

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
        reception, offset = Reception(self.world.store.books, self.world.entities, is_pushed=False), 0
        while True:
            updates: Any = ()
            with suppress(UnavailableError):
                updates = await bot.updates(offset)
            took = await asyncio.gather(*(reception.take(update) for update in updates), return_exceptions=True)
            if any(isinstance(each, BaseException) and not isinstance(each, BadInputError) for each in took):
                await asyncio.sleep(0.05)
            elif updates:
                offset = max(update["update_id"] for update in updates) + 1


@asynccontextmanager
async def bot_world(
    folder: Path,
    telegram: TelegramStandIn | TelegramTestApi,
    *,
    in_chat_s: float | None = None,
    **settings: Any,
) -> AsyncIterator[BotWorld]:
    """With a simulator of its own; polling has begun, or, with `telegram_mode="webhook"`, the webhook is set.

    `in_chat_s`: in the place of Telegram's second in a chat.
    """
    usage = folder / "usage.jsonl"
    async with Simulator(usage_file=usage) as simulator:
        world = World(folder, simulator, usage, **settings)
        bot = Bot(telegram.token, telegram.root_url, Pace() if in_chat_s is None else Pace(in_chat_s, start_s=0.0))
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

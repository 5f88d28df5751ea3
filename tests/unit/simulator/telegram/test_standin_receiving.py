import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from telegram import InlineKeyboardButton, InlineKeyboardMarkup, Update
from telegram.error import BadRequest, Conflict
from telegram.ext import Application, ApplicationBuilder, CallbackQueryHandler, CommandHandler, ExtBot

from cluster.simulator.telegram.client import StandInClient
from cluster.simulator.telegram.disorder import DisorderSetup
from cluster.simulator.telegram.person import Person
from cluster.simulator.telegram.server import TelegramStandIn
from cluster.simulator.telegram.webhook import SECRET_HEADER

Bot = ExtBot[None]


class Receiver:
    """A webhook that notes what it gets, and answers as it is told."""

    def __init__(self) -> None:
        self.url = ""
        self.got: list[dict[str, Any]] = []
        self.secrets: list[str | None] = []
        self.statuses: list[int] = []
        """Of the next answers; 200 when they are used up."""
        self.gate = asyncio.Event()
        self.gate.set()
        self.under_way = self.most_under_way = 0
        self.hands_to: Callable[[dict[str, Any]], Awaitable[None]] = _nowhere

    @property
    def ids(self) -> list[int]:
        return [update["update_id"] for update in self.got]

    @property
    def texts(self) -> list[str]:
        return [update["message"]["text"] for update in self.got]

    async def take(self, request: web.Request) -> web.Response:
        told = await request.json()
        self.got.append(told)
        self.secrets.append(request.headers.get(SECRET_HEADER))
        assert request.headers["Content-Type"] == "application/json"
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await self.gate.wait()
        await self.hands_to(told)
        self.under_way -= 1
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)


async def _nowhere(_: dict[str, Any]) -> None:
    pass


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    told = Receiver()
    application = web.Application()
    application.router.add_post("/hook", told.take)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    told.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield told
    finally:
        told.gate.set()
        await runner.cleanup()


async def until(true: Callable[[], bool], timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_poll__gives_updates_until_they_are_confirmed(bot: Bot, control: StandInClient, ada: int) -> None:
    for text in ("one", "two", "three"):
        await control.say(ada, ada, text)

    first = await bot.get_updates(limit=2)
    same = await bot.get_updates()
    rest = await bot.get_updates(offset=first[-1].update_id + 1)

    assert [update.message.text for update in first if update.message] == ["one", "two"]
    assert len(same) == 3
    assert [update.message.text for update in rest if update.message] == ["three"]
    assert (await control.counts())["pending"] == 1
    assert [update.update_id for update in await bot.get_updates(offset=-1)] == [rest[0].update_id]


async def test_poll__waits_for_the_next_update(bot: Bot, control: StandInClient, ada: int) -> None:
    poll = asyncio.create_task(bot.get_updates(timeout=5))
    await asyncio.sleep(0.1)
    assert not poll.done()

    await control.say(ada, ada, "at last")

    (update,) = await asyncio.wait_for(poll, 1.0)
    assert update.message is not None
    assert update.message.text == "at last"


async def test_poll__that_another_replaces_is_a_conflict(bot: Bot, control: StandInClient, ada: int) -> None:
    first = asyncio.create_task(bot.get_updates(timeout=5))
    await asyncio.sleep(0.1)
    second = asyncio.create_task(bot.get_updates(timeout=5))

    with pytest.raises(Conflict, match=r"[Tt]erminated by other getUpdates request"):
        await first
    await control.say(ada, ada, "hello")
    assert len(await second) == 1


async def test_poll__is_a_conflict_while_a_webhook_is_set(bot: Bot) -> None:
    async with receiver() as hook:
        await bot.set_webhook(hook.url)
        with pytest.raises(Conflict, match=r"[Cc]an't use getUpdates method while webhook is active"):
            await bot.get_updates()
        await bot.delete_webhook()
    assert await bot.get_updates() == ()


async def test_allowed_updates__leave_out_the_others(bot: Bot, control: StandInClient, ada: int) -> None:
    sent = await bot.send_message(ada, "react!")
    await control.react(ada, ada, sent.message_id, "👍")
    assert await bot.get_updates() == ()

    await bot.get_updates(allowed_updates=["message_reaction"])
    await control.react(ada, ada, sent.message_id, "👍")
    await control.say(ada, ada, "not asked for")

    (update,) = await bot.get_updates()
    assert update.message_reaction is not None
    assert (await control.counts())["pending"] == 1


async def test_poll__with_disorder_repeats_and_overtakes(bot: Bot, control: StandInClient, ada: int) -> None:
    for number in range(20):
        await control.say(ada, ada, str(number))
    await control.set_disorder(DisorderSetup(duplicate=0.3, reorder=0.3, seed=1))
    ids = [update.update_id for update in await bot.get_updates()]
    await control.set_disorder(DisorderSetup(duplicate=0.3, reorder=0.3, seed=1))

    assert [update.update_id for update in await bot.get_updates()] == ids
    assert len(ids) > len(set(ids)) == 20
    assert ids != sorted(ids)


async def test_webhook__gets_each_update_once_with_the_secret(bot: Bot, control: StandInClient, ada: int) -> None:
    async with receiver() as hook:
        await control.say(ada, ada, "before")
        await bot.set_webhook(hook.url, secret_token="s3cret_-", max_connections=3, allowed_updates=["message"])
        await control.say(ada, ada, "after")
        await until(lambda: len(hook.got) == 2)

        info = await bot.get_webhook_info()
        await asyncio.sleep(0.1)

    assert hook.texts == ["before", "after"]
    assert hook.ids == sorted(hook.ids)
    assert hook.secrets == ["s3cret_-"] * 2
    assert (info.url, info.max_connections, info.allowed_updates) == (hook.url, 3, ("message",))


async def test_webhook__repeats_until_it_is_taken(bot: Bot, control: StandInClient, ada: int) -> None:
    async with receiver() as hook:
        hook.statuses += [500, 429, 302]
        await bot.set_webhook(hook.url)
        await control.say(ada, ada, "stubborn")
        await control.say(ada, ada, "behind it")
        await until(lambda: len(hook.got) == 5)
        info = await bot.get_webhook_info()

    assert hook.texts == ["stubborn"] * 4 + ["behind it"]
    assert [attempt["status"] for attempt in await control.deliveries()] == [500, 429, 302, 200, 200]
    assert info.last_error_message == "Wrong response from the webhook: 302 Found"


async def test_webhook__that_nobody_serves_is_tried_again(bot: Bot, control: StandInClient, ada: int) -> None:
    await bot.set_webhook("http://127.0.0.1:9/hook")
    await control.say(ada, ada, "anybody?")
    async with asyncio.timeout(10):
        while len(await control.deliveries()) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    info = await bot.get_webhook_info()

    assert (info.pending_update_count, info.last_error_message) == (1, "Connection refused")
    assert {attempt["status"] for attempt in await control.deliveries()} == {None}


async def test_webhook__serves_lanes_side_by_side_up_to_its_connections(
    bot: Bot, control: StandInClient, ada: int
) -> None:
    people = [ada, *[await control.add_person(f"Person {number}") for number in range(5)]]
    async with receiver() as hook:
        hook.gate.clear()
        await bot.set_webhook(hook.url, max_connections=4)
        for person in people:
            await control.say(person, person, "first")
            await control.say(person, person, "second")
        await until(lambda: hook.under_way == 4)
        await asyncio.sleep(0.1)
        assert (hook.under_way, hook.texts) == (4, ["first"] * 4)
        hook.gate.set()
        await until(lambda: len(hook.got) == 12)

    assert hook.most_under_way == 4
    by_person = {person: [one for one in hook.got if one["message"]["from"]["id"] == person] for person in people}
    assert all([one["message"]["text"] for one in got] == ["first", "second"] for got in by_person.values())


async def test_webhook__with_disorder_repeats_and_overtakes(bot: Bot, control: StandInClient, ada: int) -> None:
    async with receiver() as hook:
        await control.set_disorder(DisorderSetup(duplicate=0.4, reorder=0.4, seed=2, hold_s=0.1))
        await bot.set_webhook(hook.url)
        for number in range(20):
            await control.say(ada, ada, str(number))
        await until(lambda: len(set(hook.ids)) == 20)

    assert len(hook.ids) > 20
    assert list(dict.fromkeys(hook.ids)) != sorted(set(hook.ids))


async def test_webhook__is_on_loopback_and_drops_what_waits_when_asked(
    bot: Bot, control: StandInClient, ada: int
) -> None:
    await control.say(ada, ada, "old")
    with pytest.raises(BadRequest, match="loopback"):
        await bot.set_webhook("https://example.org/hook")
    with pytest.raises(BadRequest, match="Secret token contains unallowed characters"):
        await bot.set_webhook("http://127.0.0.1:9/hook", secret_token="no spaces")

    await bot.delete_webhook(drop_pending_updates=True)

    assert await bot.get_updates() == ()


async def test_update__that_is_forged_or_repeated_is_delivered_as_it_is(
    bot: Bot, control: StandInClient, ada: int
) -> None:
    async with receiver() as hook:
        await bot.set_webhook(hook.url)
        await control.say(ada, ada, "true")
        await until(lambda: len(hook.got) == 1)
        await control.deliver_again(hook.ids[0])
        await until(lambda: len(hook.got) == 2)
        forged = await control.inject({"message": {"text": 7}})
        await until(lambda: len(hook.got) == 3)
        await control.inject({"update_id": 5, "nonsense": None})
        await until(lambda: len(hook.got) == 4)

    assert hook.got[0] == hook.got[1]
    assert hook.got[2:] == [{"update_id": forged, "message": {"text": 7}}, {"update_id": 5, "nonsense": None}]


def application(telegram: TelegramStandIn) -> Application[Any, Any, Any, Any, Any, Any]:
    """Asks, and does what is pressed."""

    async def start(update: Update, _: Any) -> None:
        keyboard = InlineKeyboardMarkup([[InlineKeyboardButton("Yes", callback_data="y")]])
        await update.effective_message.reply_text("Shall I?", reply_markup=keyboard)  # type: ignore[union-attr]

    async def pressed(update: Update, _: Any) -> None:
        await update.callback_query.answer("Good", show_alert=True)  # type: ignore[union-attr]
        await update.callback_query.edit_message_text("Done")  # type: ignore[union-attr]

    builder = ApplicationBuilder().token(telegram.token).base_url(telegram.base_url)
    built: Application[Any, Any, Any, Any, Any, Any] = builder.base_file_url(telegram.base_file_url).build()
    built.add_handler(CommandHandler("start", start))
    built.add_handler(CallbackQueryHandler(pressed))
    return built


async def talk(control: StandInClient) -> None:
    ada = await Person.arrives(control, "Ada")
    await ada.says("/start")
    assert (await ada.hears("Shall I?")).labels == ("Yes",)
    answer = await ada.is_told(await ada.presses("Yes"))
    assert (answer.text, answer.alert) == ("Good", True)
    assert (await ada.hears("Done")).edited


async def test_application__serves_many_people_by_polling(telegram: TelegramStandIn, control: StandInClient) -> None:
    async with application(telegram) as served:
        await served.updater.start_polling(poll_interval=0)  # type: ignore[union-attr]
        await served.start()
        await asyncio.gather(*(talk(control) for _ in range(10)))
        await served.updater.stop()  # type: ignore[union-attr]
        await served.stop()


async def test_application__serves_many_people_by_webhook(telegram: TelegramStandIn, control: StandInClient) -> None:
    async with application(telegram) as served, receiver() as hook:
        hook.hands_to = lambda told: served.process_update(Update.de_json(told, served.bot))
        await served.bot.set_webhook(hook.url)
        await asyncio.gather(*(talk(control) for _ in range(10)))

"""The actor that speaks with Telegram."""

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from actors.entities import EntitiesHandle
from actors.handles import ActorGoneError, call, ensure, once
from actors.ledger import LedgerHandle
from actors.process import ends_at_once, prepare_process
from runtime.config import Secrets, Settings
from runtime.errors import BadInputError, MasterbuilderError
from runtime.frames import frames
from runtime.telegram.bot import Bot, DryBot
from runtime.telegram.calls import TelegramRefusedError, Upload
from runtime.telegram.chat import Announce, chat_entity
from runtime.telegram.commands import menus
from runtime.telegram.reception import Reception
from runtime.telegram.updates import KINDS

NAME = "telegram"
RETRY_S = 5.0
REFUNDS_EVERY_S = 10.0
ALERTS_EVERY_S = 60.0
WEBHOOK_CONNECTIONS = 40

log = logging.getLogger(__name__)


class TelegramActor:
    """Owns the bot's token and with it Telegram's limits: every call goes through it. It has nothing to lose.

    Called by the hosts of chats. In polling mode it also fetches what comes, and forgets no update before that is on
    disk. A restart repeats what it sets at the start; a call that was under way may have been carried out.
    """

    def __init__(self, settings: Settings) -> None:
        prepare_process(keeps_much=False)
        ends_at_once()
        self._settings = settings
        self._secrets = Secrets.load(settings.data_dir, os.environ)
        dry = settings.telegram_dry_run
        self._bot: Bot | DryBot = DryBot() if dry else Bot(self._secrets.telegram_bot_token, settings.telegram_api_url)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Returns at once; what it begins goes on for ever. Again, it changes nothing."""
        if self._tasks:
            return
        self._ledger = LedgerHandle.ensure(self._settings)
        self._entities = EntitiesHandle()
        self._entities.start_following()
        works = [self._introduce(), self._alert()]
        if isinstance(self._bot, Bot):  # A rehearsal gives no Stars back, and must not say that it did.
            works.append(self._give_back())
            if self._settings.telegram_mode == "polling":
                works.append(self._poll(self._bot))
        self._tasks = [asyncio.create_task(work) for work in works]

    async def call(self, method: str, data: Mapping[str, Any], upload: Upload | None, may_drop: bool, key: str) -> Any:
        await self.start()
        return await self._bot.call(method, data, upload, may_drop=may_drop, key=key)

    async def _introduce(self) -> None:
        """Where updates go, and the menus, until Telegram has taken all of it."""
        settings, is_set = self._settings, False
        while True:
            try:
                if settings.telegram_mode == "webhook":
                    await self._bot.call("setWebhook", self._webhook())
                elif not is_set:
                    await self._bot.call("deleteWebhook", {"drop_pending_updates": False})
                is_set = True
                admins = [each.telegram_id for each in await self._ledger.admins() if each.telegram_id is not None]
                for menu in menus(settings, admins):
                    await self._bot.call("setMyCommands", menu)
                return
            except TelegramRefusedError as error:
                log.error("Telegram refuses what the bot is set up with: %s", error.message)
                return
            except MasterbuilderError as error:
                log.warning("the bot is not set up yet: %s", error)
                await asyncio.sleep(RETRY_S)

    def _webhook(self) -> Mapping[str, Any]:
        settings = self._settings
        return {
            "url": f"{settings.webhook_url.rstrip('/')}/telegram/{settings.webhook_path}",
            "secret_token": self._secrets.webhook_secret,
            "allowed_updates": list(KINDS),
            "max_connections": WEBHOOK_CONNECTIONS,
        }

    async def _poll(self, bot: Bot) -> None:
        reception, offset = Reception(self._ledger, self._entities, is_pushed=False), 0
        while True:
            try:
                updates = await bot.updates(offset)
                await asyncio.gather(*(taken(reception, update) for update in updates))
                offset = next_offset(updates, offset)
            except MasterbuilderError as error:
                log.warning("updates wait at Telegram: %s", error)
                await asyncio.sleep(RETRY_S)

    async def _give_back(self) -> None:
        """Stars that the ledger says go back. Telegram refuses a second refund, so one that was cut off is repeated."""
        while True:
            try:
                for refund in await self._ledger.untold_star_refunds():
                    account = await self._ledger.account(refund.user)
                    if account is None or account.telegram_id is None:
                        continue
                    asked = {
                        "user_id": account.telegram_id,
                        "telegram_payment_charge_id": refund.telegram_charge_id,
                    }
                    try:
                        await self._bot.call("refundStarPayment", asked)
                    except TelegramRefusedError as error:
                        if "already" not in error.message.lower():
                            log.error("Telegram does not refund %s: %s", refund.telegram_charge_id, error.message)
                            continue
                    await self._ledger.star_refund_told(refund.telegram_charge_id)
            except MasterbuilderError as error:
                log.warning("refunds wait: %s", error)
            await asyncio.sleep(REFUNDS_EVERY_S)

    async def _alert(self) -> None:
        """What operators are to know, to every administrator, once. Source: spec/builder.md §12."""
        while True:
            try:
                for alert in await self._ledger.alerts(open_only=True):
                    for admin in await self._ledger.admins():
                        if admin.telegram_id is not None:
                            announce = Announce(owner=admin.user, key=f"alert/{alert.alert}", text=f"🔔 {alert.text}")
                            await self._entities.ask(chat_entity(admin.telegram_id), announce)
            except MasterbuilderError as error:
                log.warning("alerts wait: %s", error)
            await asyncio.sleep(ALERTS_EVERY_S)


async def taken(reception: Reception, update: Any) -> None:
    """What is no update of Telegram's is let go, and so is what meets an error of ours: it would come for ever.

    Raises UnavailableError: it is to be fetched again.
    """
    try:
        await reception.take(update)
    except BadInputError as error:
        log.warning("an update was let go: %s", error.message)
    except MasterbuilderError:
        raise
    except Exception as error:
        log.error("an update met an error of ours: %s at %s", type(error).__name__, " < ".join(frames(error)[::-1]))


def next_offset(updates: Sequence[Any], offset: int) -> int:
    """After the last of them that has a number."""
    numbers = [each.get("update_id") for each in updates if isinstance(each, Mapping)]
    return max((each for each in numbers if isinstance(each, int)), default=offset - 1) + 1


class TelegramHandle:
    """Implements `BotApi` from any process; makes the actor where it is not there."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._actor: Any = None

    async def start(self) -> None:
        actor = await self._found()
        await call(actor.start.remote, what="The bot")

    async def call(
        self,
        method: str,
        data: Mapping[str, Any],
        upload: Upload | None = None,
        *,
        may_drop: bool = False,
        key: str = "",
    ) -> Any:
        """What was under way when the actor died is for the caller to repeat: nobody knows what became of it."""
        actor = await self._found()
        try:
            return await once(lambda: actor.call.remote(method, dict(data), upload, may_drop, key), what="The bot")
        except ActorGoneError:
            self._actor = None
            raise

    async def pending(self) -> int:
        """How many updates Telegram keeps for the webhook. Raises as `call` does."""
        return int((await self.call("getWebhookInfo", {})).get("pending_update_count", 0))

    async def _found(self) -> Any:
        if self._actor is None:
            self._actor = await asyncio.to_thread(ensure, NAME, TelegramActor, self._settings)
        return self._actor

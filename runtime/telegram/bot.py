"""The bot at Telegram: every call of the installation goes through one of these, because the limits are the token's."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from telegram import InputFile
from telegram.error import (
    BadRequest,
    ChatMigrated,
    Conflict,
    EndPointNotFound,
    Forbidden,
    InvalidToken,
    RetryAfter,
    TelegramError,
)
from telegram.ext import ExtBot
from telegram.request import HTTPXRequest
from telegram.warnings import PTBUserWarning

from runtime.errors import OverloadedError, UnavailableError
from runtime.telegram.calls import BlockedError, TelegramRefusedError, Upload
from runtime.telegram.pace import Pace
from runtime.telegram.repeats import Repeats
from runtime.telegram.updates import KINDS

CONNECTIONS = 64
UPLOAD_S_MAX = 120.0
POLL_S = 25
DROPPED_ABOVE = 10
"""So many calls may wait before one is dropped that may be."""
_NOBODY = ("chat not found", "user is deactivated", "bot was kicked", "peer_id_invalid", "have no rights to send")

log = logging.getLogger(__name__)


class Bot:
    """Implements `BotApi` over python-telegram-bot: its requests, errors, files and limiter. Used from one loop."""

    def __init__(self, token: str, api_url: str, pace: Pace | None = None) -> None:
        self._bot = ExtBot(
            token,
            base_url=f"{api_url}/bot",
            base_file_url=f"{api_url}/file/bot",
            rate_limiter=pace or Pace(),
            request=HTTPXRequest(connection_pool_size=CONNECTIONS, pool_timeout=60.0, media_write_timeout=UPLOAD_S_MAX),
            get_updates_request=HTTPXRequest(read_timeout=POLL_S + 10.0),
        )
        self._waiting = 0
        self._repeats = Repeats()

    async def open(self) -> None:
        """Raises UnavailableError, TelegramRefusedError for a token that is none."""
        await self._asked("getMe", {})

    async def close(self) -> None:
        await self._bot.shutdown()

    async def call(
        self,
        method: str,
        data: Mapping[str, Any],
        upload: Upload | None = None,
        *,
        may_drop: bool = False,
        key: str = "",
    ) -> Any:
        if may_drop and self._waiting >= DROPPED_ABOVE:
            raise OverloadedError("Telegram has enough to do.")
        parameters = dict(data)
        if upload is not None:
            parameters[upload.field] = InputFile(upload.content, filename=upload.name)
        if key:
            return await self._repeats.once(key, lambda: self._counted(method, parameters))
        return await self._counted(method, parameters)

    async def _counted(self, method: str, parameters: dict[str, Any]) -> Any:
        self._waiting += 1
        try:
            return await self._asked(method, parameters)
        finally:
            self._waiting -= 1

    async def updates(self, offset: int) -> Sequence[Any]:
        """From this number on, as soon as there are some; whatever is before it, Telegram forgets.

        Raises UnavailableError; also while another one polls, or a webhook is set.
        """
        asked = {"offset": offset, "timeout": POLL_S, "allowed_updates": list(KINDS)}
        found: Sequence[Any] = await self._asked("getUpdates", asked, read_timeout=POLL_S + 10.0)
        return found

    async def _asked(self, method: str, parameters: dict[str, Any], read_timeout: float | None = None) -> Any:
        """Raises BlockedError, TelegramRefusedError, UnavailableError."""
        try:
            with warnings.catch_warnings():
                # It would rather have its own method called; what is called here is data.
                warnings.simplefilter("ignore", PTBUserWarning)
                if read_timeout is None:
                    return await self._bot.do_api_request(method, api_kwargs=parameters)
                return await self._bot.do_api_request(method, api_kwargs=parameters, read_timeout=read_timeout)
        except RetryAfter as error:
            raise UnavailableError("Telegram asks to wait.", "It is tried again.") from error
        except (Forbidden, ChatMigrated) as error:
            raise BlockedError(error.message) from error
        except Conflict as error:
            raise UnavailableError(f"Telegram is asked by another one too: {error.message}") from error
        except InvalidToken as error:
            if method != "getMe":
                # Telegram says the same of a method that it does not have, and then this does not raise.
                await self._asked("getMe", {})
                raise TelegramRefusedError(f"Telegram has no method {method}.") from error
            log.error("Telegram does not know TELEGRAM_BOT_TOKEN")
            raise UnavailableError(
                "Telegram does not know this token.", "Correct TELEGRAM_BOT_TOKEN and run `masterbuilder up`."
            ) from error
        except (BadRequest, EndPointNotFound) as error:
            if any(text in error.message.lower() for text in _NOBODY):
                raise BlockedError(error.message) from error
            raise TelegramRefusedError(error.message) from error
        except TelegramError as error:
            raise UnavailableError(f"Telegram does not answer: {type(error).__name__}.") from error


class DryBot:
    """Says what it would do, and does nothing: no call of it reaches a network."""

    def __init__(self) -> None:
        self._sent = 0

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def call(
        self,
        method: str,
        data: Mapping[str, Any],
        upload: Upload | None = None,
        *,
        may_drop: bool = False,
        key: str = "",
    ) -> Any:
        self._sent += 1
        log.info("dry run: %s", method)
        if method == "getMe":
            return {"id": 0, "is_bot": True, "first_name": "Masterbuilder", "username": "dry_run_bot"}
        return {"message_id": self._sent}

"""What proves to the service that somebody is who they say on Telegram.

Source: https://core.telegram.org/widgets/login#checking-authorization and
https://core.telegram.org/bots/webapps#validating-data-received-via-the-mini-app
"""

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import parse_qsl

from pydantic import BaseModel, Field, StringConstraints, ValidationError

from runtime.accounts.port import TelegramIdentity
from runtime.accounts.rules import TELEGRAM_ID_MAX
from runtime.errors import NotAuthenticatedError, UnavailableError

AGE_MAX = timedelta(minutes=5)
AHEAD_MAX = timedelta(minutes=1)
"""How far Telegram's clock may be before ours."""
_TEXT_BYTES_MAX = 4_096

Name = Annotated[str, StringConstraints(max_length=255)]


class _Person(BaseModel):
    """Telegram tells more, and may tell still more one day."""

    id: int = Field(ge=1, le=TELEGRAM_ID_MAX)
    username: Name = ""
    first_name: Name = ""
    last_name: Name = ""
    language_code: Annotated[str, StringConstraints(max_length=35)] = ""

    def identity(self) -> TelegramIdentity:
        told = self.model_dump()
        return TelegramIdentity(telegram_id=told.pop("id"), **told)


class Proofs:
    """Of one installation. `bot_service_token` is the bot's own; `telegram_bot_token` may be missing."""

    def __init__(
        self,
        bot_service_token: str,
        telegram_bot_token: str = "",
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._bot_service_token = bot_service_token
        self._telegram_bot_token = telegram_bot_token
        self._now = now

    def is_bot(self, token: str) -> bool:
        return bool(self._bot_service_token) and hmac.compare_digest(token.encode(), self._bot_service_token.encode())

    def of_widget(self, data: Mapping[str, Any]) -> TelegramIdentity:
        """What Telegram's login button gave. Raises NotAuthenticatedError; UnavailableError where no bot is set up."""
        told = {str(name): str(value) for name, value in data.items()}
        key = hashlib.sha256(self._bot_token()).digest()
        self._check(told, key)
        return _person(told).identity()

    def of_mini_app(self, init_data: str) -> TelegramIdentity:
        """The `initData` of a Mini App. Raises like `of_widget`."""
        if len(init_data.encode()) > _TEXT_BYTES_MAX:
            raise _not_proved("it is too long")
        try:
            told = dict(parse_qsl(init_data, strict_parsing=True, keep_blank_values=True, max_num_fields=50))
        except ValueError:
            raise _not_proved("it cannot be read") from None
        self._check(told, hmac.new(b"WebAppData", self._bot_token(), hashlib.sha256).digest())
        try:
            person = json.loads(told.get("user", ""))
        except ValueError:
            raise _not_proved("it names nobody") from None
        return _person(person).identity()

    def _bot_token(self) -> bytes:
        if not self._telegram_bot_token:
            raise UnavailableError(
                "This installation has no Telegram bot, so nothing of Telegram's can be checked.",
                "The operator sets TELEGRAM_BOT_TOKEN and starts it again.",
            )
        return self._telegram_bot_token.encode()

    def _check(self, told: dict[str, str], key: bytes) -> None:
        """Takes `hash` out of what was told. Raises NotAuthenticatedError."""
        given = told.pop("hash", "")
        lines = "\n".join(f"{name}={told[name]}" for name in sorted(told))
        right = hmac.new(key, lines.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(given.encode(), right.encode()):
            raise _not_proved("its signature is wrong")
        moment = told.get("auth_date", "")
        if not (moment.isascii() and moment.isdigit() and len(moment) <= 12):
            raise _not_proved("it has no time")
        age = self._now() - datetime.fromtimestamp(int(moment), UTC)
        if not -AHEAD_MAX <= age <= AGE_MAX:
            raise _not_proved("it is older than five minutes")


def _person(told: object) -> _Person:
    try:
        return _Person.model_validate(told)
    except ValidationError:
        raise _not_proved("it names nobody") from None


def _not_proved(why: str) -> NotAuthenticatedError:
    return NotAuthenticatedError(f"This does not prove who you are on Telegram: {why}.", "Log in at Telegram again.")

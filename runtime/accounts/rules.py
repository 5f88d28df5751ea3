"""What the operator set about accounts: codes, and lists of Telegram ids."""

import hmac
import json
import re
from dataclasses import dataclass, field

from runtime.accounts.roles import Role
from runtime.errors import BadInputError, ForbiddenError

_NUMBER = re.compile(r"[1-9][0-9]{0,18}")
TELEGRAM_ID_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRules:
    """The lists count at every registration and only ever raise; an empty `allowed_ids` allows everybody."""

    unlock_code: str = field(default="", repr=False)
    """Empty: nobody can use it. So is `bootstrap_code`."""
    bootstrap_code: str = field(default="", repr=False)
    admin_ids: frozenset[int] = frozenset()
    full_ids: frozenset[int] = frozenset()
    demo_ids: frozenset[int] = frozenset()
    allowed_ids: frozenset[int] = frozenset()

    def check_allowed(self, telegram_id: int) -> None:
        """Raises ForbiddenError."""
        if self.is_refused(telegram_id):
            raise ForbiddenError(
                "This installation is open to invited people only, and you are not on its list.",
                "Ask the operator to add your Telegram id to ALLOWED_USER_IDS.",
            )

    def is_refused(self, telegram_id: int | None) -> bool:
        """Somebody without a Telegram id was let in by the operator."""
        return bool(self.allowed_ids) and telegram_id is not None and telegram_id not in self.allowed_ids

    def listed(self, telegram_id: int) -> tuple[Role, bool, bool] | None:
        """Role, authorized and verified of somebody on a list; the highest list counts."""
        if telegram_id in self.admin_ids:
            return "ADMIN", True, True
        if telegram_id in self.full_ids:
            return "FULL_ACCESS", True, True
        return ("DEMO", True, False) if telegram_id in self.demo_ids else None


NO_RULES = AccountRules()
BANNED = "This account is banned."


def check_admitted(banned: bool) -> None:
    """Raises ForbiddenError for who is banned."""
    if banned:
        raise ForbiddenError(BANNED, "Write to the operator if you think that this is a mistake.")


def same_code(given: str, right: str) -> bool:
    """Takes as long whatever is wrong about it. No code is right where none is set."""
    return bool(right) and hmac.compare_digest(given.strip().encode(), right.encode())


def telegram_ids(text: str, name: str) -> frozenset[int]:
    """Reads `[1, 2]` or `1, 2`; nothing for an empty text. Raises BadInputError naming the variable `name`."""
    text = text.strip()
    if text.startswith("["):
        try:
            parsed = json.loads(text)
        except ValueError:
            raise _malformed(name) from None
        parts = [str(part) for part in parsed if not isinstance(part, bool)]
        if len(parts) != len(parsed):
            raise _malformed(name)
    else:
        parts = [part.strip() for part in text.split(",")] if text else []
    if not all(_NUMBER.fullmatch(part) and int(part) <= TELEGRAM_ID_MAX for part in parts):
        raise _malformed(name)
    return frozenset(map(int, parts))


def _malformed(name: str) -> BadInputError:
    return BadInputError(
        f"{name} is not a list of Telegram ids.", f"Write {name}=[123456789, 987654321], or 123456789,987654321."
    )

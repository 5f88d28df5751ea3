"""What stands behind Telegram's door, in memory: who is registered, and which updates each chat took."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from runtime.accounts.port import TelegramIdentity
from runtime.errors import UnavailableError
from runtime.telegram.chat import Receive


class Ledger:
    async def register(self, identity: TelegramIdentity) -> Any:
        await asyncio.sleep(0.001)
        return SimpleNamespace(user=f"telegram:{identity.telegram_id}")


@dataclass
class Chats:
    """In the place of the chats' entities: which updates each took, as news, and how long which of them wait."""

    taken: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    waits_s: dict[int, float] = field(default_factory=dict)
    """Of those that wait for another."""
    whole_to: dict[int, int] = field(default_factory=dict)
    """By the update that it came with."""
    slow: str = ""
    away: list[int] = field(default_factory=list)

    async def ask(self, entity: str, message: Receive, *, timeout_s: float = 30.0) -> bool:
        if entity == self.slow:
            await asyncio.sleep(1_000.0)
        if message.update_id in self.away:
            self.away.remove(message.update_id)
            raise UnavailableError("away")
        if message.update_id in self.taken[entity]:
            return False
        self.taken[entity].append(message.update_id)
        self.whole_to[message.update_id] = message.whole_to
        if message.waits_s > 0:
            self.waits_s[message.update_id] = message.waits_s
        return True


def update(number: int, chat: int = 5) -> dict[str, Any]:
    sender = {"id": chat, "first_name": "Ada"}
    return {"update_id": number, "message": {"message_id": 1, "chat": {"id": chat}, "from": sender, "text": "hello"}}

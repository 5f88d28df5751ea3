"""Pressed buttons, and the bot's answers to them."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

from cluster.simulator.telegram.chats import Account, Message, World
from cluster.simulator.telegram.parameters import Parameters
from cluster.simulator.telegram.refusal import QUERY_TOO_OLD, bad_request
from cluster.simulator.telegram.seen import Answered
from cluster.simulator.telegram.updates import Updates

CALLBACK_S = 15.0
"""How long the wheel on a button turns before Telegram gives up; measured by bots, documented nowhere."""
ANSWER_LENGTH_MAX = 200


@dataclass(slots=True, kw_only=True)
class _Pressed:
    at_s: float
    answer: Answered | None = None


class Callbacks:
    """`clock` counts seconds from anywhere."""

    def __init__(self, world: World, updates: Updates, clock: Callable[[], float]) -> None:
        self._world = world
        self._updates = updates
        self._clock = clock
        self._pressed: dict[str, _Pressed] = {}
        self._numbers = count(1)

    def press(self, person: Account, message: Message, data: str) -> str:
        """The id of the query that the bot now gets."""
        query_id = f"{person.id}{next(self._numbers):010d}"
        self._pressed[query_id] = _Pressed(at_s=self._clock())
        query: dict[str, Any] = {
            "id": query_id,
            "from": person.wire(),
            "message": message.wire(),
            "chat_instance": str(abs(message.chat.id)),
            "data": data,
        }
        self._updates.add("callback_query", query, message.chat.id)
        return query_id

    def answer(self, asked: Parameters) -> bool:
        pressed = self._pressed.get(asked.text("callback_query_id"))
        if pressed is None or pressed.answer is not None or self._clock() - pressed.at_s > CALLBACK_S:
            raise bad_request(QUERY_TOO_OLD)
        if len(asked.text("text")) > ANSWER_LENGTH_MAX:
            raise bad_request("MESSAGE_TOO_LONG")
        pressed.answer = Answered(
            text=asked.text("text"), alert=asked.boolean("show_alert"), url=asked.text("url")
        )  # fmt: skip
        self._world.changes.tell()
        return True

    def answered(self, query_id: str) -> Answered | None:
        """None while the bot did not answer. Raises TelegramRefusal for an id that was never given."""
        if query_id not in self._pressed:
            raise bad_request("query not found")
        return self._pressed[query_id].answer

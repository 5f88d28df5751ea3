"""Telegram by somebody else: npm's `telegram-test-api`, and its control side as our persons use it.

It has no files, payments, faults, groups or toasts; of a message it keeps what the bot sent, as it was sent.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from cluster.simulator.telegram.client import Changed, Press
from cluster.simulator.telegram.markup import parse
from cluster.simulator.telegram.seen import SeenButton, SeenMessage
from tests.e2e.npm import TELEGRAM_TEST_API, installed, node

LOOK_EVERY_S = 0.1
WRAPPER = Path(__file__).with_suffix(".cjs")


@dataclass(frozen=True, slots=True, kw_only=True)
class TelegramTestApi:
    root_url: str
    token: str = "777:somebody-elses"


@contextmanager
def telegram_test_api(folder: Path) -> Iterator[TelegramTestApi]:
    """`folder` gets its log. An update that the webhook refuses is lost there, and must not be its end."""
    package = installed(TELEGRAM_TEST_API)
    with node(folder / "telegram.log", "--unhandled-rejections=warn", WRAPPER, package) as url:
        yield TelegramTestApi(root_url=url)


class TestApiClient:
    """`async with TestApiClient(telegram) as control`: as much of `StandInClient` as there is, for one private chat.

    Changes are found by looking, for it tells of none: a message is known by its number, and edited when it differs.
    """

    __test__ = False

    def __init__(self, telegram: TelegramTestApi) -> None:
        self._token = telegram.token
        self._http = httpx.AsyncClient(base_url=telegram.root_url, trust_env=False, timeout=30.0)
        self._people: dict[int, Mapping[str, Any]] = {}
        self._seen: dict[int, SeenMessage] = {}
        self._revision = 0

    async def __aenter__(self) -> "TestApiClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def add_person(self, first_name: str, *, language_code: str = "en") -> int:
        id = 1_001 + len(self._people)
        self._people[id] = {"id": id, "is_bot": False, "first_name": first_name, "language_code": language_code}
        return id

    async def say(
        self, chat_id: int, person: int, text: str, *, thread_id: int | None = None, reply_to: int | None = None
    ) -> SeenMessage:
        """Its number is not told, and 0 here."""
        assert thread_id is None, "there are no topics"
        assert reply_to is None, "there are no replies"
        said = self._message(person) | {"text": text}
        if text.startswith("/"):
            command = {"type": "bot_command", "offset": 0, "length": len(text.split()[0])}
            await self._post("/sendCommand", said | {"entities": [command]})
        else:
            await self._post("/sendMessage", said)
        at = self._revision
        return SeenMessage(
            id=0, chat_id=chat_id, sender=str(person), from_bot=False, kind="text", text=text, created=at, revision=at
        )  # fmt: skip

    async def press(
        self, chat_id: int, person: int, *, message_id: int, text: str | None = None, data: str | None = None
    ) -> Press:
        """What the bot answers to it is not kept."""
        message = self._message(person) | {"message_id": message_id}
        pressed = {"botToken": self._token, "from": self._people[person], "message": message, "data": data}
        await self._post("/sendCallback", pressed)
        return Press(message_id=message_id, callback_id="", at=self._revision)

    async def messages(self, chat_id: int, *, after: int = 0, wait_s: float = 0.0) -> Changed:
        """The bot's, those changed after the revision `after`; waits for the first such change."""
        deadline = time.monotonic() + wait_s
        while True:
            await self._look(chat_id)
            changed = tuple(message for message in self._seen.values() if message.revision > after)
            if changed or time.monotonic() >= deadline:
                return Changed(revision=self._revision, messages=changed)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self, chat_id: int) -> None:
        for record in await self._post("/getUpdatesHistory", {"token": self._token}):
            sent = record.get("message", {})
            if str(sent.get("chat_id")) == str(chat_id):
                self._notice(chat_id, record["messageId"], sent)

    def _notice(self, chat_id: int, id: int, sent: Mapping[str, Any]) -> None:
        before = self._seen.get(id)
        marked = parse(sent["text"], sent.get("parse_mode", ""))
        rows = sent.get("reply_markup", {}).get("inline_keyboard", ())
        now = SeenMessage(
            id=id,
            chat_id=chat_id,
            sender="bot",
            from_bot=True,
            kind="text",
            text=marked.text,
            entities=marked.entities,
            rows=tuple(tuple(_button(each) for each in row) for row in rows),
            edited=before is not None,
            created=before.created if before else self._revision + 1,
            revision=before.revision if before else self._revision + 1,
        )
        if before is None or before.model_copy(update={"edited": True}) != now:
            self._revision += 1
            self._seen[id] = now.model_copy(update={"revision": self._revision})

    def _message(self, person: int) -> dict[str, Any]:
        who = self._people[person]
        chat = {"id": person, "type": "private", "first_name": who["first_name"]}
        return {"botToken": self._token, "from": who, "chat": chat, "date": int(time.time())}

    async def _post(self, path: str, told: Mapping[str, Any]) -> Any:
        answer = await self._http.post(path, json=dict(told))
        answer.raise_for_status()
        return answer.json()["result"]


def _button(wire: Mapping[str, Any]) -> SeenButton:
    return SeenButton(text=wire["text"], data=wire.get("callback_data"), url=wire.get("url"))

"""The control side from Python: also where the stand-in runs in another process."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aiohttp import ClientError, ClientSession, ClientTimeout

from cluster.simulator.telegram.control import ROOT, WAIT_S_MAX
from cluster.simulator.telegram.disorder import DisorderSetup
from cluster.simulator.telegram.faults import Fault
from cluster.simulator.telegram.limits import Excess, LimitSetup
from cluster.simulator.telegram.seen import Answered, Paid, SeenMessage
from runtime.errors import BadInputError, UnavailableError

FileKind = Literal["document", "photo", "voice", "sticker"]
_ANSWER_S_MAX = 2 * WAIT_S_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Press:
    """`callback_id` is empty where the button was one of a keyboard, whose label was sent as a text."""

    message_id: int
    callback_id: str
    at: int
    """How many changes there had been."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """Messages that changed, in the order of their ids, and how many changes there had been."""

    revision: int
    messages: Sequence[SeenMessage]


class StandInClient:
    """`async with StandInClient(telegram.root_url) as control`.

    Every method raises BadInputError for what the stand-in, or Telegram, refuses, and UnavailableError where nobody
    answers.
    """

    def __init__(self, root_url: str) -> None:
        self._root = root_url.rstrip("/") + ROOT
        self._session: ClientSession | None = None

    async def __aenter__(self) -> "StandInClient":
        self._session = ClientSession(timeout=ClientTimeout(total=_ANSWER_S_MAX))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def add_person(
        self,
        first_name: str,
        *,
        id: int | None = None,
        last_name: str = "",
        username: str = "",
        language_code: str = "en",
        is_forum: bool = False,
    ) -> int:
        """The id, which is that of the private chat too."""
        told = {
            "first_name": first_name,
            "id": id,
            "last_name": last_name,
            "username": username,
            "language_code": language_code,
            "is_forum": is_forum,
        }
        return int((await self._post("/persons", told))["id"])

    async def add_group(
        self,
        title: str,
        members: Sequence[int],
        *,
        type: Literal["group", "supergroup"] = "group",
        is_forum: bool = False,
    ) -> int:
        """The chat's id, which is negative."""
        told = {"title": title, "members": list(members), "type": type, "is_forum": is_forum}
        return int((await self._post("/groups", told))["id"])

    async def chat(self, chat_id: int) -> Mapping[str, Any]:
        """`blocked`, `members`, `topics`, `drafts` by their id, `actions` as they came, and `pinned`."""
        return await self._get(f"/chats/{chat_id}")

    async def say(
        self, chat_id: int, person: int, text: str, *, thread_id: int | None = None, reply_to: int | None = None
    ) -> SeenMessage:
        told = {"person": person, "text": text, "thread_id": thread_id, "reply_to": reply_to}
        return SeenMessage.model_validate(await self._post(f"/chats/{chat_id}/say", told))

    async def send(
        self,
        chat_id: int,
        person: int,
        kind: FileKind,
        content: bytes,
        *,
        name: str = "",
        mime_type: str = "",
        caption: str = "",
        size_bytes: int | None = None,
        thread_id: int | None = None,
    ) -> SeenMessage:
        """`size_bytes` is told in the place of the true size, so that nobody has to send what is too large."""
        told = {
            "person": person,
            "kind": kind,
            "content": base64.b64encode(content).decode(),
            "name": name,
            "mime_type": mime_type,
            "caption": caption,
            "size_bytes": size_bytes,
            "thread_id": thread_id,
        }
        return SeenMessage.model_validate(await self._post(f"/chats/{chat_id}/send", told))

    async def send_location(self, chat_id: int, person: int, latitude: float, longitude: float) -> SeenMessage:
        told = {"person": person, "latitude": latitude, "longitude": longitude}
        return SeenMessage.model_validate(await self._post(f"/chats/{chat_id}/location", told))

    async def edit(self, chat_id: int, person: int, message_id: int, text: str) -> SeenMessage:
        told = {"person": person, "message_id": message_id, "text": text}
        return SeenMessage.model_validate(await self._post(f"/chats/{chat_id}/edit", told))

    async def press(
        self,
        chat_id: int,
        person: int,
        *,
        message_id: int | None = None,
        text: str | None = None,
        data: str | None = None,
    ) -> Press:
        """Without `message_id` on the newest message that has such a button."""
        told = {"person": person, "message_id": message_id, "text": text, "data": data}
        return Press(**await self._post(f"/chats/{chat_id}/press", told))

    async def answered(self, callback_id: str, *, wait_s: float = 0.0) -> Answered | None:
        """None while the bot did not answer."""
        told = (await self._get(f"/callbacks/{callback_id}", wait_s=wait_s))["answered"]
        return told and Answered.model_validate(told)

    async def pay(
        self, chat_id: int, person: int, *, message_id: int | None = None, link: str = "", amount: int | None = None
    ) -> Paid:
        """Without message and link the newest invoice. `amount`: another than the invoice's."""
        told = {"person": person, "message_id": message_id, "link": link, "amount": amount}
        return Paid.model_validate(await self._post(f"/chats/{chat_id}/pay", told))

    async def refund(self, charge_id: str) -> None:
        """As Telegram itself does it."""
        await self._post("/refunds", {"charge_id": charge_id})

    async def react(self, chat_id: int, person: int, message_id: int, emoji: str) -> None:
        """An empty `emoji` takes the reaction back."""
        await self._post(f"/chats/{chat_id}/react", {"person": person, "message_id": message_id, "emoji": emoji})

    async def block(self, chat_id: int, person: int, *, blocked: bool = True) -> None:
        await self._post(f"/chats/{chat_id}/blocked", {"person": person, "blocked": blocked})

    async def messages(self, chat_id: int, *, after: int = 0, wait_s: float = 0.0) -> Changed:
        """Those changed after the revision `after`; waits for the first such change, `WAIT_S_MAX` at most."""
        told = await self._get(f"/chats/{chat_id}/messages", after=after, wait_s=wait_s)
        messages = tuple(SeenMessage.model_validate(message) for message in told["messages"])
        return Changed(revision=told["revision"], messages=messages)

    async def download(self, file_id: str) -> bytes:
        """Of any size: people may download more than bots."""
        async with self._open.get(f"{self._root}/files/{file_id}") as answer:
            if answer.status != 200:
                raise BadInputError((await answer.json())["error"], "Ask for the id of a file that was sent.")
            return await answer.read()

    async def inject(self, update: Mapping[str, Any]) -> int:
        """An update as somebody made it up; its id, which is given where it has none."""
        return int((await self._post("/updates", update))["update_id"])

    async def deliver_again(self, update_id: int) -> None:
        await self._post(f"/updates/{update_id}/again", {})

    async def updates(self) -> Sequence[Mapping[str, Any]]:
        """All that there were, oldest first: `update_id`, `kind`, `pending` and `wire`."""
        updates: Sequence[Mapping[str, Any]] = (await self._get("/updates"))["updates"]
        return updates

    async def drop_updates(self) -> None:
        await self._ask("DELETE", "/updates")

    async def calls(self, method: str = "", *, after: int = 0) -> Sequence[Mapping[str, Any]]:
        """The bot's calls in their order: `number`, `method`, `at_s`, `chat_id`, `parameters`, `error_code` (0: carried
        out, None: not answered), `description`, `result` and `fault`."""
        calls: Sequence[Mapping[str, Any]] = (await self._get("/calls", method=method, after=after))["calls"]
        return calls

    async def counts(self) -> Mapping[str, Any]:
        """Calls `by_method`, refusals `by_error`, `unknown` methods, `updates`, those `pending`, `deliveries`."""
        return await self._get("/counts")

    async def deliveries(self) -> Sequence[Mapping[str, Any]]:
        """The attempts at the webhook: `update_id`, `at_s`, `status`, `took_s`, `under_way`."""
        deliveries: Sequence[Mapping[str, Any]] = (await self._get("/deliveries"))["deliveries"]
        return deliveries

    async def commands(self) -> Sequence[Mapping[str, Any]]:
        """The lists that the bot set: `scope`, `language_code`, `commands`."""
        commands: Sequence[Mapping[str, Any]] = (await self._get("/commands"))["commands"]
        return commands

    async def order_fault(self, fault: Fault) -> int:
        """Its id, by which it can be cleared."""
        return int((await self._post("/faults", fault.model_dump(exclude_none=True)))["id"])

    async def faults(self) -> Sequence[Mapping[str, Any]]:
        faults: Sequence[Mapping[str, Any]] = (await self._get("/faults"))["faults"]
        return faults

    async def clear_faults(self, id: int | None = None) -> None:
        await self._ask("DELETE", "/faults", params={} if id is None else {"id": str(id)})

    async def set_disorder(self, setup: DisorderSetup) -> None:
        await self._ask("PUT", "/disorder", json=setup.model_dump())

    async def set_limits(self, setup: LimitSetup) -> None:
        await self._ask("PUT", "/limits", json=setup.model_dump())

    async def excesses(self) -> Sequence[Excess]:
        """Every call that was one too many."""
        return tuple(Excess.model_validate(excess) for excess in (await self._get("/limits"))["excesses"])

    async def reset_limits(self) -> None:
        await self._ask("DELETE", "/limits")

    @property
    def _open(self) -> ClientSession:
        assert self._session is not None, "use it in `async with`"
        return self._session

    async def _get(self, path: str, **query: Any) -> dict[str, Any]:
        return await self._ask("GET", path, params={name: str(value) for name, value in query.items()})

    async def _post(self, path: str, told: Mapping[str, Any]) -> dict[str, Any]:
        return await self._ask("POST", path, json=told)

    async def _ask(self, verb: str, path: str, **request: Any) -> dict[str, Any]:
        try:
            async with self._open.request(verb, self._root + path, **request) as answer:
                body: dict[str, Any] = await answer.json()
        except (ClientError, TimeoutError) as error:
            raise UnavailableError(
                f"The stand-in for Telegram does not answer: {type(error).__name__}.", "Look whether it runs."
            ) from error
        if "error" in body:
            raise BadInputError(body["error"], "See what the person can do in this chat.")
        return body

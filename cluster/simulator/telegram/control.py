"""The control side, `/__telegram/...`: JSON, for those who play the people and order what goes wrong.

What is asked wrongly is answered with 400 and `{"error": ...}`; Telegram's own refusals of what a person does too.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, ValidationError

from cluster.simulator.telegram.chats import Account, Chat
from cluster.simulator.telegram.disorder import DisorderSetup
from cluster.simulator.telegram.faults import Fault
from cluster.simulator.telegram.limits import LimitSetup
from cluster.simulator.telegram.refusal import TelegramRefusal, bad_request
from cluster.simulator.telegram.standin import StandIn

ROOT = "/__telegram"
WAIT_S_MAX = 60.0
_CHAT = ROOT + r"/chats/{chat:-?\d+}"
Read = TypeVar("Read", bound=BaseModel)


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NewPerson(_Asked):
    id: int | None = Field(default=None, ge=1)
    first_name: str = Field(min_length=1, max_length=64)
    last_name: str = ""
    username: str = ""
    language_code: str = "en"
    is_forum: bool = False
    """The private chat with the bot has topics."""


class NewGroup(_Asked):
    id: int | None = None
    title: str = Field(min_length=1, max_length=128)
    type: Literal["group", "supergroup"] = "group"
    is_forum: bool = False
    members: list[int]


class _ByPerson(_Asked):
    person: int


class Saying(_ByPerson):
    text: str
    thread_id: int | None = None
    reply_to: int | None = None


class Sending(_ByPerson):
    """`content` is base64. `size_bytes` is told in the place of the true size."""

    kind: Literal["document", "photo", "voice", "sticker"]
    content: Base64Bytes
    name: str = ""
    mime_type: str = ""
    caption: str = ""
    size_bytes: int | None = Field(default=None, ge=0)
    thread_id: int | None = None


class Location(_ByPerson):
    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)


class Editing(_ByPerson):
    message_id: int
    text: str = Field(min_length=1)


class Pressing(_ByPerson):
    message_id: int | None = None
    text: str | None = None
    data: str | None = None


class Paying(_ByPerson):
    message_id: int | None = None
    link: str = ""
    amount: int | None = None


class Reacting(_ByPerson):
    message_id: int
    emoji: str


class Blocking(_ByPerson):
    blocked: bool


class Refunding(_Asked):
    charge_id: str


class Control:
    def __init__(self, standin: StandIn) -> None:
        self._standin = standin
        self._world = standin.world
        self._people = standin.people

    def add_to(self, application: web.Application) -> None:
        add = application.router.add_route
        routes: tuple[tuple[str, str, Callable[[web.Request], Awaitable[web.StreamResponse]]], ...] = (
            ("POST", ROOT + "/persons", self._add_person),
            ("POST", ROOT + "/groups", self._add_group),
            ("GET", ROOT + "/chats", self._list_chats),
            ("GET", _CHAT, self._tell_chat),
            ("GET", _CHAT + "/messages", self._tell_messages),
            ("POST", _CHAT + "/say", self._say),
            ("POST", _CHAT + "/send", self._send),
            ("POST", _CHAT + "/location", self._send_location),
            ("POST", _CHAT + "/edit", self._edit),
            ("POST", _CHAT + "/press", self._press),
            ("POST", _CHAT + "/pay", self._pay),
            ("POST", _CHAT + "/react", self._react),
            ("POST", _CHAT + "/blocked", self._block),
            ("GET", ROOT + "/callbacks/{id}", self._tell_callback),
            ("GET", ROOT + "/files/{id}", self._tell_file),
            ("POST", ROOT + "/refunds", self._refund),
            ("POST", ROOT + "/updates", self._inject),
            ("POST", ROOT + r"/updates/{id:\d+}/again", self._again),
            ("GET", ROOT + "/updates", self._list_updates),
            ("DELETE", ROOT + "/updates", self._drop_updates),
            ("GET", ROOT + "/calls", self._list_calls),
            ("GET", ROOT + "/counts", self._tell_counts),
            ("GET", ROOT + "/deliveries", self._list_deliveries),
            ("GET", ROOT + "/commands", self._list_commands),
            ("POST", ROOT + "/faults", self._order_fault),
            ("GET", ROOT + "/faults", self._list_faults),
            ("DELETE", ROOT + "/faults", self._clear_faults),
            ("PUT", ROOT + "/disorder", self._set_disorder),
            ("PUT", ROOT + "/limits", self._set_limits),
            ("GET", ROOT + "/limits", self._tell_limits),
            ("DELETE", ROOT + "/limits", self._reset_limits),
        )
        for verb, path, handler in routes:
            add(verb, path, handler)

    async def _add_person(self, request: web.Request) -> web.Response:
        account = self._world.add_person(**(await _read(request, NewPerson)).model_dump())
        return web.json_response(account.wire() | {"chat_id": account.id})

    async def _add_group(self, request: web.Request) -> web.Response:
        chat = self._world.add_group(**(await _read(request, NewGroup)).model_dump())
        return web.json_response(chat.wire() | {"chat_id": chat.id})

    async def _list_chats(self, _: web.Request) -> web.Response:
        return web.json_response({"chats": [_chat_facts(chat) for chat in self._world.chats.values()]})

    async def _tell_chat(self, request: web.Request) -> web.Response:
        return web.json_response(_chat_facts(self._chat(request)))

    async def _tell_messages(self, request: web.Request) -> web.Response:
        """With `after` and `wait_s`: those changed after that revision, when there are some or the time is up."""
        chat, after = self._chat(request), _number(request, "after", 0)
        ends_at_s = asyncio.get_running_loop().time() + min(_number(request, "wait_s", 0), WAIT_S_MAX)
        while True:
            revision = self._world.changes.number
            messages = [message for message in chat.messages.values() if message.revision > after]
            left_s = ends_at_s - asyncio.get_running_loop().time()
            if messages or left_s <= 0:
                break
            await self._world.changes.wait(revision, left_s)
        told = [message.seen().model_dump(mode="json") for message in messages]
        return web.json_response({"revision": int(revision), "messages": told})

    async def _say(self, request: web.Request) -> web.Response:
        chat, asked = self._chat(request), await _read(request, Saying)
        message = self._people.say(
            chat, self._person(asked), asked.text, thread_id=asked.thread_id, reply_to=asked.reply_to
        )  # fmt: skip
        return web.json_response(message.seen().model_dump(mode="json"))

    async def _send(self, request: web.Request) -> web.Response:
        chat, asked = self._chat(request), await _read(request, Sending)
        about = asked.model_dump(exclude={"person", "kind", "content"})
        message = self._people.send_file(chat, self._person(asked), asked.kind, asked.content, **about)
        return web.json_response(message.seen().model_dump(mode="json"))

    async def _send_location(self, request: web.Request) -> web.Response:
        chat, asked = self._chat(request), await _read(request, Location)
        message = self._people.send_location(chat, self._person(asked), asked.latitude, asked.longitude)
        return web.json_response(message.seen().model_dump(mode="json"))

    async def _edit(self, request: web.Request) -> web.Response:
        chat, asked = self._chat(request), await _read(request, Editing)
        message = self._people.edit(chat, self._person(asked), asked.message_id, asked.text)
        return web.json_response(message.seen().model_dump(mode="json"))

    async def _press(self, request: web.Request) -> web.Response:
        chat, asked = self._chat(request), await _read(request, Pressing)
        message, query_id = self._people.press(
            chat, self._person(asked), message_id=asked.message_id, text=asked.text, data=asked.data
        )  # fmt: skip
        return web.json_response({"message_id": message.id, "callback_id": query_id, "at": self._world.changes.number})

    async def _pay(self, request: web.Request) -> web.Response:
        chat, asked = self._chat(request), await _read(request, Paying)
        paid = await self._people.pay(
            chat, self._person(asked), message_id=asked.message_id, link=asked.link, amount=asked.amount
        )  # fmt: skip
        return web.json_response(paid.model_dump(mode="json"))

    async def _react(self, request: web.Request) -> web.Response:
        chat, asked = self._chat(request), await _read(request, Reacting)
        self._people.react(chat, self._person(asked), asked.message_id, asked.emoji)
        return web.json_response({})

    async def _block(self, request: web.Request) -> web.Response:
        chat, asked = self._chat(request), await _read(request, Blocking)
        self._people.shut_out(chat, self._person(asked), asked.blocked)
        return web.json_response({})

    async def _tell_callback(self, request: web.Request) -> web.Response:
        """With `wait_s`: when it is answered, or the time is up."""
        ends_at_s = asyncio.get_running_loop().time() + min(_number(request, "wait_s", 0), WAIT_S_MAX)
        while True:
            seen = self._world.changes.number
            answered = self._standin.callbacks.answered(request.match_info["id"])
            left_s = ends_at_s - asyncio.get_running_loop().time()
            if answered is not None or left_s <= 0:
                break
            await self._world.changes.wait(seen, left_s)
        return web.json_response({"answered": answered and answered.model_dump(mode="json")})

    async def _tell_file(self, request: web.Request) -> web.Response:
        file = self._standin.files.by_id(request.match_info["id"])
        return web.Response(body=file.content, content_type="application/octet-stream")

    async def _refund(self, request: web.Request) -> web.Response:
        self._standin.payments.refund_charge((await _read(request, Refunding)).charge_id)
        return web.json_response({})

    async def _inject(self, request: web.Request) -> web.Response:
        try:
            wire = await request.json()
        except ValueError:
            wire = None
        if not isinstance(wire, dict):
            raise bad_request("an update is a JSON object")
        return web.json_response({"update_id": self._standin.updates.add_raw(wire)})

    async def _again(self, request: web.Request) -> web.Response:
        self._standin.updates.again(int(request.match_info["id"]))
        return web.json_response({})

    async def _list_updates(self, _: web.Request) -> web.Response:
        """All that there were, oldest first."""
        updates = self._standin.updates
        told = [
            {"update_id": update.id, "kind": update.kind, "pending": update.id in updates.pending, "wire": update.wire}
            for update in updates.all.values()
        ]
        return web.json_response({"updates": told, "refused": updates.refused})

    async def _drop_updates(self, _: web.Request) -> web.Response:
        self._standin.updates.drop()
        return web.json_response({})

    async def _list_calls(self, request: web.Request) -> web.Response:
        calls = self._standin.calls.since(int(_number(request, "after", 0)), request.query.get("method", ""))
        return web.json_response({"calls": [call.facts() for call in calls]})

    async def _tell_counts(self, _: web.Request) -> web.Response:
        calls, updates = self._standin.calls, self._standin.updates
        return web.json_response(
            {
                "by_method": calls.by_method,
                "by_error": calls.by_error,
                "unknown": calls.unknown,
                "updates": len(updates.all),
                "pending": len(updates.pending),
                "deliveries": len(self._standin.webhook.attempts),
            }
        )

    async def _list_deliveries(self, _: web.Request) -> web.Response:
        return web.json_response({"deliveries": [attempt.facts() for attempt in self._standin.webhook.attempts]})

    async def _list_commands(self, _: web.Request) -> web.Response:
        return web.json_response({"commands": self._standin.commands.told()})

    async def _order_fault(self, request: web.Request) -> web.Response:
        return web.json_response({"id": self._standin.faults.order(await _read(request, Fault))})

    async def _list_faults(self, _: web.Request) -> web.Response:
        return web.json_response({"faults": self._standin.faults.waiting()})

    async def _clear_faults(self, request: web.Request) -> web.Response:
        id = request.query.get("id")
        self._standin.faults.clear(int(id) if id else None)
        return web.json_response({})

    async def _set_disorder(self, request: web.Request) -> web.Response:
        self._standin.disorder.set(await _read(request, DisorderSetup))
        return web.json_response({})

    async def _set_limits(self, request: web.Request) -> web.Response:
        self._standin.limits.setup = await _read(request, LimitSetup)
        return web.json_response({})

    async def _tell_limits(self, _: web.Request) -> web.Response:
        limits = self._standin.limits
        excesses = [excess.model_dump() for excess in limits.excesses]
        return web.json_response(
            {"setup": limits.setup.model_dump(), "counted": limits.counted, "excesses": excesses}
        )  # fmt: skip

    async def _reset_limits(self, _: web.Request) -> web.Response:
        self._standin.limits.reset()
        return web.json_response({})

    def _chat(self, request: web.Request) -> Chat:
        return self._world.chat(request.match_info["chat"])

    def _person(self, asked: _ByPerson) -> Account:
        return self._world.account(asked.person)


@web.middleware
async def control_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """For the control side alone: the Bot API has its own answers."""
    if not request.path.startswith(ROOT):
        return await handler(request)
    try:
        return await handler(request)
    except TelegramRefusal as refusal:
        return web.json_response({"error": refusal.description}, status=400)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return web.json_response({"error": f"{where}: {first['msg']}" if where else first["msg"]}, status=400)
    except web.HTTPNotFound:
        return web.json_response({"error": f"There is no {request.method} {request.path}."}, status=404)


def _number(request: web.Request, name: str, default: float) -> float:
    try:
        return float(request.query.get(name, default))
    except ValueError:
        raise bad_request(f"{name} is a number") from None


async def _read(request: web.Request, kind: type[Read]) -> Read:
    return kind.model_validate_json(await request.read() or b"{}")


def _chat_facts(chat: Chat) -> dict[str, Any]:
    return {
        **chat.wire(),
        "blocked": chat.shut_out,
        "members": chat.members,
        "topics": [topic.wire() | {"closed": topic.closed} for topic in chat.topics.values()],
        "drafts": chat.drafts,
        "actions": chat.actions,
        "pinned": chat.pinned,
    }

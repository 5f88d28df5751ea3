"""Whatever a call says, it is answered as Telegram would: never with an error of ours."""

import itertools
from typing import Any

import pytest
from aiohttp import ClientSession, FormData

from cluster.simulator.telegram.client import StandInClient
from cluster.simulator.telegram.server import TelegramStandIn

GARBAGE: tuple[Any, ...] = (
    None, "", "x", "{", "[", "-1", "9" * 40, 0, -7, 1.5, True, [], {}, [[]], [[[]]], [1], [None], {"a": 1},
    {"type": "chat"}, {"inline_keyboard": 1}, {"inline_keyboard": [1]}, {"inline_keyboard": [[1]]}, {"keyboard": [[1]]},
    "\x00", "\ud800", '["\\ud800"]', {"inline_keyboard": [[{"text": "a", "callback_data": "\ud800"}]]},
    [{"type": "bold"}], [{"type": "bold", "offset": "a", "length": None}], {"message_id": "x"}, [{"label": 1}],
)  # fmt: skip
METHODS: dict[str, tuple[str, ...]] = {
    "sendMessage": (
        "chat_id", "text", "parse_mode", "entities", "reply_markup", "message_thread_id", "reply_parameters",
    ),
    "sendMessageDraft": ("chat_id", "draft_id", "text"),
    "editMessageText": ("chat_id", "message_id", "text", "reply_markup"),
    "editMessageReplyMarkup": ("chat_id", "message_id", "reply_markup"),
    "deleteMessage": ("chat_id", "message_id"),
    "pinChatMessage": ("chat_id", "message_id"),
    "setMessageReaction": ("chat_id", "message_id", "reaction"),
    "sendDocument": ("chat_id", "document", "caption", "caption_entities"),
    "sendPhoto": ("chat_id", "photo"),
    "sendChatAction": ("chat_id", "action"),
    "getFile": ("file_id",),
    "getChat": ("chat_id",),
    "getChatMember": ("chat_id", "user_id"),
    "answerCallbackQuery": ("callback_query_id", "text"),
    "answerPreCheckoutQuery": ("pre_checkout_query_id", "ok", "error_message"),
    "sendInvoice": ("chat_id", "title", "description", "payload", "currency", "prices", "reply_markup"),
    "refundStarPayment": ("user_id", "telegram_payment_charge_id"),
    "createForumTopic": ("chat_id", "name", "icon_color"),
    "editForumTopic": ("chat_id", "message_thread_id", "name"),
    "closeForumTopic": ("chat_id", "message_thread_id"),
    "setMyCommands": ("commands", "scope", "language_code"),
    "getMyCommands": ("scope", "language_code"),
    "setWebhook": ("url", "max_connections", "secret_token", "allowed_updates"),
    "getUpdates": ("offset", "limit", "allowed_updates"),
}  # fmt: skip
GOOD = {
    "text": "hello", "message_id": 2, "draft_id": 1, "caption": "c", "action": "typing", "title": "t",
    "description": "d",
    "payload": "p", "currency": "XTR", "prices": [{"label": "a", "amount": 1}], "name": "n", "commands": [],
    "message_thread_id": 0, "user_id": 1, "pre_checkout_query_id": "1", "reaction": [],
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
async def test_call__with_garbage_is_refused_or_done(
    telegram: TelegramStandIn, control: StandInClient, ada: int, method: str
) -> None:
    forum = await control.add_group("Forum", [ada], type="supergroup", is_forum=True)
    good = {**GOOD, "chat_id": forum if "Topic" in method else ada}
    async with ClientSession() as client:
        await client.post(f"{telegram.base_url}{telegram.token}/sendMessage", json={"chat_id": ada, "text": "2"})
        for name, value in itertools.product(METHODS[method], GARBAGE):
            asked = {one: good[one] for one in METHODS[method] if one in good} | {name: value}
            async with client.post(f"{telegram.base_url}{telegram.token}/{method}", json=asked) as answer:
                assert answer.status < 500, (name, value)
                told = await answer.json()
            assert told["ok"] is (answer.status == 200)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{", "application/json"),
        (b"[1]", "application/json"),
        (b"\xff\xfe", "application/json"),
        (b"a=%ff", "application/x-www-form-urlencoded"),
        (b"no parts", "multipart/form-data; boundary=x"),
        (b"anything", "text/plain"),
    ],
)
async def test_body__that_is_none_is_refused(telegram: TelegramStandIn, body: bytes, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    async with (
        ClientSession() as client,
        client.post(f"{telegram.base_url}{telegram.token}/sendMessage", data=body, headers=headers) as answer,
    ):
        assert answer.status == 400
        assert (await answer.json())["description"].startswith("Bad Request")


async def test_call__may_come_in_the_address_or_as_a_form(telegram: TelegramStandIn, ada: int) -> None:
    form = FormData({"chat_id": str(ada), "text": "form"})
    url = f"{telegram.base_url}{telegram.token}"
    async with ClientSession() as client:
        async with client.get(f"{url}/sendmessage", params={"chat_id": ada, "text": "address"}) as answer:
            assert (await answer.json())["result"]["text"] == "address"
        async with client.post(f"{url}/sendMessage", data=form) as answer:
            assert (await answer.json())["result"]["text"] == "form"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"person": "x"}', b'{"person": 1, "text": 2, "more": 3}'])
async def test_control__with_garbage_says_what_is_wrong(telegram: TelegramStandIn, ada: int, body: bytes) -> None:
    async with ClientSession() as client:
        for path in ("persons", "groups", "faults", "refunds", f"chats/{ada}/say", f"chats/{ada}/send", "updates"):
            async with client.post(f"{telegram.root_url}/__telegram/{path}", data=body) as answer:
                assert answer.status == 400 or (path == "updates" and body.startswith(b'{"'))
        async with client.get(f"{telegram.root_url}/__telegram/chats/{ada}/messages?after=x") as answer:
            assert (await answer.json())["error"] == "Bad Request: after is a number"
        async with client.get(f"{telegram.root_url}/__telegram/nowhere") as answer:
            assert "There is no GET" in (await answer.json())["error"]

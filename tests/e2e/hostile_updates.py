"""Updates of every kind as Telegram sends them, and what hostile hands make of them."""

import copy
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from runtime.telegram.commands import COMMANDS
from runtime.telegram.dialogue import PRESSED

NASTY: Sequence[str] = (
    "", " ", "\0", "\x1b[2J\x07", "\u200b\u200d\u2060", "\u202eabc\u202c", "\ufeff",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1f5\U0001f1f1" * 50, "e" + "\u0301" * 500, "\u05d0\u0628",
    "<b>", "</b>", "<b><i></b></i>", "<script>alert(1)</script>",
    '<a href="tg://user?id=1">x</a>', "&lt;&amp;&#0;&bogus;", "*_`[x](http://x)`_*", "```\n</pre>\n```",
    "{title} {0} {}",
    "%s%n%x", "${jndi:ldap://x}", "'; DROP TABLE users; --", "../../../etc/passwd", "/start", "/give 1 1", "yes",
    "/bootstrap x",
    "\ud800", "\udfff\ud800", "NaN", "null", "x" * 4_096, "\U0001f9e8" * 4_096, "<" * 4_096, "&" * 4_096, "x" * 70_000,
    "\u2028\u2029\x85", "@masterbuilder_bot", "-1", "1" * 400, "\u00b2\u0663",
)  # fmt: skip
VALUES: Sequence[Any] = (
    None, True, False, 0, -1, 1.5, 1e308, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**30, [], {}, [None], [[[]]],
    {"id": None},
    {"": ""}, "text", float("nan"), float("inf"),
)  # fmt: skip


def originals(person: int, group: int, projects: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Without numbers."""
    ada = {"id": person, "is_bot": False, "first_name": "Ada", "username": "ada", "language_code": "en"}
    private = {"id": person, "type": "private", "first_name": "Ada"}
    forum = {"id": group, "type": "supergroup", "title": "Team", "is_forum": True}
    message = {"message_id": 7, "date": 1_790_000_000, "from": ada}
    file = {"file_id": "f", "file_unique_id": "u", "file_name": "a.txt", "file_size": 9, "mime_type": "text/plain"}
    money = {"currency": "XTR", "total_amount": 50, "invoice_payload": "product:credits_100"}
    for chat in (private, forum):
        here = {**message, "chat": chat}
        for text in (
            "hello",
            "A program that counts words in a file",
            "@masterbuilder_bot hello",
            "yes",
            "@masterbuilder_bot",
        ):
            yield {"message": {**here, "text": text, "entities": [{"type": "bold", "offset": 0, "length": 2}]}}
        for command in COMMANDS:
            yield {"message": {**here, "text": f"/{command.name}"}}
            yield {"message": {**here, "text": f"/{command.name} {projects[0]}"}}
            yield {"message": {**here, "text": f"/{command.name}@masterbuilder_bot 5 words"}}
        for kind in ("document", "voice", "audio", "video", "video_note", "sticker"):
            yield {"message": {**here, kind: file, "caption": "this"}}
        yield {"message": {**here, "photo": [file, file]}}
        yield {"message": {**here, "reply_to_message": {**here, "text": "asked"}, "text": "an answer"}}
        yield {"message": {**here, "message_thread_id": 3, "is_topic_message": True, "text": "/status"}}
        charge = {**money, "telegram_payment_charge_id": "c1", "provider_payment_charge_id": "p1"}
        yield {"message": {**here, "refunded_payment": charge}}
        for verb in PRESSED:
            for named in ("", *(each.replace("-", "") for each in projects)):
                for about in ("", "1", "scope", "scope/1", "change/1", "5", "9" * 18, "build", "auto"):
                    data = f"{verb}:{named}:{about}".rstrip(":")
                    yield {
                        "callback_query": {"id": "9", "from": ada, "message": here, "chat_instance": "1", "data": data}
                    }
    yield {
        "callback_query": {"id": "9", "from": ada, "inline_message_id": "x", "chat_instance": "1", "data": "credits"}
    }
    yield {"pre_checkout_query": {"id": "9", "from": ada, **money}}
    for status in ("member", "kicked", "left", "administrator"):
        changed = {"status": status, "user": {"id": 1, "is_bot": True, "first_name": "bot"}}
        for chat in (private, forum):
            yield {
                "my_chat_member": {
                    "chat": chat,
                    "from": ada,
                    "date": 1,
                    "old_chat_member": changed,
                    "new_chat_member": changed,
                }
            }
    yield {"channel_post": {**message, "chat": {"id": -5, "type": "channel"}, "text": "news"}}
    yield {"edited_message": {**message, "chat": private, "text": "edited"}}


def mutated(original: Mapping[str, Any], draw: random.Random) -> dict[str, Any]:
    """The same with one to three wrong or missing parts, but still an object; now and then as it was."""
    made = copy.deepcopy(dict(original))
    for _ in range(draw.choice((0, 1, 1, 2, 3))):
        places = list(_places(made))
        if not places:
            break
        holder, name = draw.choice(places)
        match draw.randrange(4):
            case 0:
                holder[name] = draw.choice(VALUES)
            case 1 if isinstance(holder, dict):
                del holder[name]
            case _ if isinstance(holder[name], str):
                kept = holder[name]
                holder[name] = draw.choice(
                    (draw.choice(NASTY), kept + draw.choice(NASTY), kept + " " + draw.choice(NASTY))
                )
            case _:
                holder[name] = draw.choice(NASTY)
    return made


def wire(update: Mapping[str, Any]) -> bytes:
    return json.dumps(update).encode()


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    names = list(node) if isinstance(node, dict) else range(len(node))
    for name in names:
        yield node, name
        if isinstance(node[name], (dict, list)):
            yield from _places(node[name])

"""Telegram's door as strangers knock at it: who is let in, what is let go, and what the log says of it."""

import json
import logging
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from runtime.config import Settings
from serve_apps.telegram_routes import BODY_BYTES_MAX, HEADER, create_app
from tests.unit.telegram.fake_chats import Chats, Ledger, update

SECRET = "0123456789abcdef-the-right-one"
PATH = "/our-path"
NEEDLE = "planted-needle"
FIRST = 700_000_000
HEADERS = {HEADER: SECRET}


@pytest.fixture
def chats() -> Chats:
    return Chats()


@pytest.fixture
async def door(chats: Chats) -> AsyncIterator[httpx.AsyncClient]:
    async with knock(chats, "webhook") as client:
        yield client


def knock(chats: Chats, mode: str) -> httpx.AsyncClient:
    settings = Settings.model_validate({"telegram_mode": mode, "webhook_path": PATH.removeprefix("/")})
    system: Any = SimpleNamespace(settings=settings, ledger=Ledger(), entities=chats)
    transport = httpx.ASGITransport(app=create_app(system, SECRET))
    return httpx.AsyncClient(transport=transport, base_url="http://door")


def told(number: int = FIRST, **changes: Any) -> dict[str, Any]:
    made = update(number)
    made["message"] |= {"text": NEEDLE, **changes}
    return made


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [json.loads(each.getMessage())["event"] for each in caplog.records if each.name == "masterbuilder.http"]


async def test_update__with_the_secret_is_taken(door: httpx.AsyncClient, chats: Chats) -> None:
    assert (await door.post(PATH, json=told(), headers=HEADERS)).status_code == 200
    assert chats.taken == {"chat:5": [FIRST]}


FORGED: dict[str, dict[str, str]] = {
    "no secret": {},
    "an empty secret": {HEADER: ""},
    "a wrong secret": {HEADER: SECRET[:-1] + "x"},
    "a shorter secret": {HEADER: SECRET[:-1]},
    "a longer secret": {HEADER: SECRET + "x"},
    "a secret in capitals": {HEADER: SECRET.upper()},
    "a secret of other letters": {HEADER: "\xe9\xff"},
    "a bearer's secret": {"authorization": f"Bearer {SECRET}"},
}


@pytest.mark.parametrize("headers", FORGED.values(), ids=FORGED)
async def test_update__without_the_right_secret_is_refused_and_nothing_of_it_is_kept(
    door: httpx.AsyncClient, chats: Chats, caplog: pytest.LogCaptureFixture, headers: dict[str, str]
) -> None:
    caplog.set_level(logging.DEBUG)
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    answer = await door.post(PATH, json=told(), headers=raw)
    assert answer.status_code == 403
    assert not chats.taken
    assert "webhook_forged" in events(caplog)
    assert NEEDLE not in caplog.text + answer.text
    assert SECRET not in caplog.text + answer.text


@pytest.mark.parametrize("path", ["/webhook", "/our-pat", "/our-pathx", "/our-path/x", "/", "/our-path/", "/OUR-PATH"])
async def test_update__on_another_path_is_refused_with_the_right_secret_too(
    door: httpx.AsyncClient, chats: Chats, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    caplog.set_level(logging.DEBUG)
    assert (await door.post(path, json=told(), headers=HEADERS)).status_code in (307, 404, 405)
    assert not chats.taken
    assert {"webhook_forged", "request"} & set(events(caplog))
    assert NEEDLE not in caplog.text


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
async def test_update__by_another_method_is_refused(door: httpx.AsyncClient, chats: Chats, method: str) -> None:
    assert (await door.request(method, PATH, json=told(), headers=HEADERS)).status_code == 405
    assert not chats.taken


async def test_update__where_updates_are_fetched_is_refused(chats: Chats, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with knock(chats, "polling") as client:
        assert (await client.post(PATH, json=told(), headers=HEADERS)).status_code == 404
    assert not chats.taken
    assert "webhook_forged" in events(caplog)


def body(text: str) -> bytes:
    """Of an update whose text reads so on the wire."""
    return json.dumps(told()).replace(f'"{NEEDLE}"', text).encode()


LET_GO: dict[str, bytes] = {
    "nothing": b"",
    "spaces": b"   ",
    "a word": b"hello",
    "half": json.dumps(told()).encode()[:50],
    "more behind it": json.dumps(told()).encode() + b"}",
    "a list": b"[]",
    "null": b"null",
    "a number": b"7",
    "an empty object": b"{}",
    "zeros": b"\0" * 1_000,
    "a deep list": b"[" * 200_000,
    "a deep closed list": b"[" * 100_000 + b"]" * 100_000,
    "a deep object": b'{"message":' * 50_000 + b"1" + b"}" * 50_000,
    "too much": b'{"update_id": 1, "x": "' + b"x" * BODY_BYTES_MAX + b'"}',
    "bad UTF-8": body('"BAD"').replace(b"BAD", b"\xff\xfe\xc0\xaf"),
    "a surrogate in UTF-8": body('"BAD"').replace(b"BAD", b"\xed\xa0\x80"),
    "half a pair": body(r'"\ud83d"'),
    "two halves in the wrong order": body(r'"\ude00\ud83d"'),
    "a text that is NaN": body("NaN"),
    "a text that is endless": body("Infinity"),
    "a text that is nothing": body("null"),
    "a text that is a number": body("7"),
    "a text that is a list": body("[[]]"),
    **{
        f"the number {number}": json.dumps(told()).replace(str(FIRST), number).encode()
        for number in (
            "-1", "1.0", "1.5", "1e3", "1e999", "NaN", "Infinity", "-Infinity", '"1"', "true", "null", "[]", "{}",
            "9223372036854775808", "9223372036854775807", "1" + "0" * 400, "1" + "0" * 5_000,
        )
    },
    **{
        f"the person {number}": json.dumps(told()).replace('"id": 5', f'"id": {number}').encode()
        for number in (
            "0", "-5", "5.0", "5.5", "NaN", '"5"', "true", "null", "9223372036854775808", "-9223372036854775809",
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("content", LET_GO.values(), ids=LET_GO)
async def test_body__that_is_no_update_is_let_go_so_that_it_does_not_come_again(
    door: httpx.AsyncClient, chats: Chats, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    caplog.set_level(logging.DEBUG)
    answer = await door.post(PATH, content=content, headers=HEADERS)
    assert (answer.status_code, answer.json()) == (200, {})
    assert not chats.taken
    assert "update_let_go" in events(caplog)
    assert NEEDLE not in caplog.text


TAKEN: dict[str, bytes] = {
    "the number 0": json.dumps(told(0)).encode(),
    "names twice": json.dumps(told()).encode().replace(b'"update_id"', b'"update_id": "x", "update_id"'),
    "much that is not known": json.dumps(told(unknown={"a": [1, None, 1e308]})).encode(),
    "a text of everything": json.dumps(told(text="\0\x1b[2J<b>&\u202e\u200b🧨" * 100)).encode(),
}


@pytest.mark.parametrize("content", TAKEN.values(), ids=TAKEN)
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "multipart/form-data", "x", ""])
async def test_body__that_is_an_update_is_taken_whatever_it_is_called(
    door: httpx.AsyncClient, chats: Chats, content: bytes, kind: str
) -> None:
    headers = {**HEADERS, "content-type": kind}
    assert (await door.post(PATH, content=content, headers=headers)).status_code == 200
    assert [len(taken) for taken in chats.taken.values()] == [1]


async def test_update__that_cannot_be_kept_now_is_refused_so_that_it_comes_again(
    door: httpx.AsyncClient, chats: Chats
) -> None:
    chats.away.append(FIRST)
    assert (await door.post(PATH, json=told(), headers=HEADERS)).status_code == 503
    assert (await door.post(PATH, json=told(), headers=HEADERS)).status_code == 200
    assert chats.taken == {"chat:5": [FIRST]}

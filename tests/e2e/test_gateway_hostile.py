"""The model door against those who mean harm, or know no better.

Whatever comes: a refusal in the caller's own wire, or back-pressure; never an error of ours, memory stays bounded, and
whoever did nothing wrong is answered meanwhile.
"""

import json
import re
import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from serve_apps.gateway_routes import BODIES_BYTES_MAX, BODY_BYTES_MAX
from tests.e2e.bystander import Bystander, door_processes, weighed
from tests.e2e.hostile_bodies import ODD, REFUSED, REFUSED_CHATS
from tests.e2e.hostile_requests import NO_REQUESTS, REQUEST
from tests.e2e.live import Live
from tests.e2e.raw_http import Answer, connection, exchange, head
from tests.e2e.upstream import CLAUDE, GEMINI, GPT, simulated

CHAT, MESSAGES, EMBEDDINGS = "/v1/chat/completions", "/v1/messages", "/v1/embeddings"
DOORS = ((CHAT, GPT), (CHAT, GEMINI), (MESSAGES, CLAUDE), (MESSAGES, GPT))
"""Each wire to a provider of its own, and to one of another, for which the request is taken apart."""
LARGE = b'{"model": "openai/gpt-4o", "max_tokens": 9, "messages": [{"role": "user", "content": "'
MEGABYTE = 1 << 20
IDLE = 1_000


@pytest.fixture(scope="module")
def up(live: Live) -> Iterator[Live]:
    started = live.run("up", **simulated(live), INITIAL_FREE_CREDITS="100000")
    assert started.returncode == 0, started.stderr
    with _files_allowed(IDLE + 500):
        yield live


@pytest.fixture(scope="module", autouse=True)
def bystander(up: Live) -> Iterator[Bystander]:
    bystander = Bystander(up)
    for path, model in (*DOORS, (CHAT, CLAUDE)):
        _ask(up, path, model)  # What is loaded with a first call is no growth of later ones.
    with bystander.at_work():
        yield bystander


@pytest.fixture(scope="module", autouse=True)
def first_processes(bystander: Bystander, up: Live) -> set[int]:
    """Those a request passes through, before anything was done to them."""
    return {process.pid for process in door_processes(up)}


# Readers. They come first: what other tests leave in a process's heap would hide what these put there.


def test_slow_readers__hold_up_their_providers_and_not_our_memory(up: Live) -> None:
    """Each asks for 16 MB of stream, which is more than the kernel keeps for it, and reads none."""
    message = {"role": "user", "content": "synthetic tokens=60000 piece_tokens=1"}
    readers = ((CHAT, GPT), (CHAT, CLAUDE), (MESSAGES, CLAUDE)) * 2
    with weighed(up) as weight, ExitStack() as lines:
        for path, model in readers:
            asked = {"model": model, "messages": [message], "max_tokens": 60_000, "stream": True}
            body = json.dumps(asked).encode()
            line = lines.enter_context(connection(up.url, receive_bytes=4_096))
            line.sendall(_head(up, path, len(body)) + body)
            assert line.recv(15).endswith(b" 200 OK"), path
        for _ in range(3):
            Bystander(up).call()
            time.sleep(0.5)
    assert weight.grown_bytes < len(readers) * 6 * MEGABYTE


# Bodies


@pytest.mark.parametrize(("path", "model"), DOORS)
def test_malformed_body__is_refused_in_the_callers_wire(up: Live, path: str, model: str) -> None:
    cases = {**REFUSED, **(REFUSED_CHATS if path == CHAT else {})}
    with _client(up) as client:
        told = {name: _post(client, path, model, body, served=False) for name, body in cases.items()}
    assert {name: complaint for name, complaint in told.items() if complaint} == {}


@pytest.mark.parametrize(("path", "model"), DOORS)
@pytest.mark.parametrize("streamed", [False, True])
def test_odd_body__is_served_or_refused_in_the_callers_wire(up: Live, path: str, model: str, streamed: bool) -> None:
    begin = '{"stream": true, ' if streamed else "{"
    with _client(up) as client:
        told = {
            name: _post(client, path, model, body.replace("{", begin, 1), served=True) for name, body in ODD.items()
        }
    assert {name: complaint for name, complaint in told.items() if complaint} == {}


def test_malformed_texts_to_embed__are_refused(up: Live) -> None:
    model = "openai/text-embedding-3-small"
    refused = (
        "null",
        "5",
        "[]",
        "{}",
        "[null]",
        "[[]]",
        '[["x"]]',
        "[1.5]",
        "true",
        json.dumps(["x"] * 3_000),
        "[" * 9_999,
    )
    odd = (r'"\ud800"', '""', '["", ""]', "[99999999999999999999]")
    with _client(up) as client:
        for value in (*refused, *odd):
            body = '{"model": MODEL, "input": VALUE}'.replace("VALUE", value)
            assert not _post(client, EMBEDDINGS, model, body, served=value in odd), value


def test_name_given_twice__is_billed_as_it_is_served(up: Live) -> None:
    models = '"model": "openai/gpt-4o-mini", "model": "openai/gpt-4o"'
    messages = '"messages": [], "messages": [{"role": "user", "content": "synthetic tokens=50"}]'
    with _client(up) as client:
        reply = client.post(CHAT, content=f'{{{models}, {messages}, "max_tokens": 50, "max_tokens": 4}}').json()
    assert reply["usage"]["completion_tokens"] == 4
    (served,) = [line for line in _served(up) if line["completion_tokens"] == 4]
    assert served["model"] == "gpt-4o"


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("size_mb", [10, 100])
def test_huge_body__is_refused_before_it_has_come_whole(up: Live, path: str, size_mb: int) -> None:
    with weighed(up) as weight:
        body = LARGE + b"x" * (size_mb * MEGABYTE) + b'"}]}'
        answer = exchange(up.url, [_head(up, path, len(body)), body])
        chunks = (b"%x\r\n%s\r\n" % (MEGABYTE, b"x" * MEGABYTE) for _ in range(size_mb))
        chunked = exchange(up.url, [_head(up, path, None), *chunks, b"0\r\n\r\n"])
    for each in (answer, chunked):
        # One connection may end before we have read why; the status, where there is one, says it.
        assert each.status in ((413,) if size_mb * MEGABYTE > BODY_BYTES_MAX else (400, 402, 413))
        assert_refusal(each, path)
    assert weight.grown_bytes < 8 * BODY_BYTES_MAX


def test_large_bodies_that_stop_in_the_middle__keep_out_nobody_with_a_small_one(up: Live) -> None:
    with weighed(up) as weight, ExitStack() as lines:
        # given more of them than there is room for; the smaller ones take what the large ones leave of it
        for size in [BODY_BYTES_MAX] * (2 * BODIES_BYTES_MAX // BODY_BYTES_MAX) + [MEGABYTE, 100_000, 70_000] * 2:
            line = lines.enter_context(connection(up.url))
            line.settimeout(0.2)
            try:
                line.sendall(_head(up, CHAT, size) + LARGE + b"x" * (size - 1_000))
            except (TimeoutError, ConnectionError):
                continue
        # when somebody asks as everybody does
        with OpenAI(base_url=f"{up.url}/v1", api_key=up.client_token, max_retries=0) as client:
            hello: Any = [{"role": "user", "content": "synthetic"}]
            reply = client.chat.completions.create(model=GPT, messages=hello, max_tokens=9)
        # then
        assert reply.choices[0].message.content
    assert weight.grown_bytes < 3 * BODIES_BYTES_MAX


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_compressed_body__is_refused_unread(up: Live, path: str) -> None:
    for encoding in ("gzip", "deflate", "br", "zstd", "gzip, gzip"):
        headers = {**_token(up), "Content-Encoding": encoding}
        answer = httpx.post(f"{up.url}{path}", headers=headers, content=b"\x1f\x8b")
        assert answer.status_code in (400, 415)
        assert_refusal(_of(answer), path)


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("content_type", ["text/plain", "multipart/form-data; boundary=x", "\xff", "x" * 999, ""])
def test_wrong_content_type__does_no_harm(up: Live, path: str, content_type: str) -> None:
    headers = {**_token(up), "Content-Type": content_type.encode("latin-1")}
    answer = httpx.post(f"{up.url}{path}", headers=headers, content=b"model=x&messages=y")
    assert 400 <= answer.status_code < 500
    assert_refusal(_of(answer), path)


# Addresses, methods, tokens


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "MADE_UP"])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_wrong_method__is_refused(up: Live, path: str, method: str) -> None:
    answer = exchange(up.url, [head(method, path, {**_token(up), "Connection": "close"})])
    assert 400 <= answer.status < 500
    if answer.status == 405:
        assert answer.headers["allow"] == "POST"
        assert_refusal(answer, path)


@pytest.mark.parametrize(
    "path",
    ["/v1", "/v1/", "/v1/made/up", "/v1//chat/completions", "/v1/chat/completions/", "/v1/chat%2fcompletions",
     "/v1/chat/../../api/v1/me", "/v1/%2e%2e/api/v1/me", "/v1/..;/api", "/v1/messages/count_tokens", "/v1/files",
     "/v1/chat/completions%00", "/v1/%ff%fe", "/v1/" + "x" * 4_000],
)  # fmt: skip
def test_wrong_address__is_not_found_and_leads_nowhere(up: Live, path: str) -> None:
    answer = exchange(up.url, [head("POST", path, {**_token(up), "Content-Length": 2, "Connection": "close"}) + b"{}"])
    assert 400 <= answer.status < 500
    assert b"balance" not in answer.body


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize(
    "token",
    ["", "Bearer", "Bearer ", "Basic bWI6eA==", "Bearer mb-wrong", "Bearer " + "x" * 5_000, "Bearer \xff\xfe",
     "Bearer ' OR 1=1 --", "bearer\tmb-wrong", "Bearer a b c"],
)  # fmt: skip
def test_wrong_token__is_refused_in_the_callers_wire(up: Live, path: str, token: str) -> None:
    headers = {"Authorization": token, "Content-Length": 2, "Connection": "close"}
    answer = exchange(up.url, [head("POST", path, headers) + b"{}"])
    assert answer.status in (400, 401)
    if answer.status == 401:
        assert_refusal(answer, path)


def test_two_tokens__are_not_both_believed(up: Live) -> None:
    lines = f"Authorization: Bearer {up.client_token}\r\nAuthorization: Bearer mb-wrong\r\nConnection: close\r\n"
    answer = exchange(up.url, [f"GET /v1/models HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode()])
    assert answer.status in (400, 401)


# Headers, and what is no request at all


@pytest.mark.parametrize("name", NO_REQUESTS)
def test_header_trick__is_refused_or_hung_up_on(up: Live, name: str) -> None:
    with weighed(up) as weight:
        try:
            answer = exchange(up.url, [NO_REQUESTS[name]], timeout_s=3.0)
        except TimeoutError:
            answer = Answer(status=0, headers={}, body=b"")  # It waits for the rest; how long is another test's matter.
    # 501 is what RFC 9112 wants for a coding nobody knows, and 505 RFC 9110 for such a version.
    assert answer.status in (0, 501, 505) or 400 <= answer.status < 500
    assert weight.grown_bytes < 100 * MEGABYTE


@pytest.mark.parametrize(
    "framing",
    [b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
     b"Content-Length: 0\r\nContent-Length: 60\r\n\r\n",
     b"Transfer-Encoding: chunked\r\n\r\n0;\n\r\n\r\n",
     b"Content-Length: 0\r\nX: y\rContent-Length: 60\r\n\r\n"],
)  # fmt: skip
def test_request_smuggled_behind_another__reaches_nobody_elses_answer(up: Live, framing: bytes) -> None:
    smuggled = b"GET /api/v1/me HTTP/1.1\r\nHost: a\r\nX-Request-Id: smuggled-request\r\n"
    for _ in range(5):
        with connection(up.url) as line:
            line.sendall(REQUEST.replace(b"close", b"keep-alive") + framing + smuggled)
            _drain(line, 0.2)
        models = httpx.get(f"{up.url}/v1/models", headers={**_token(up), "X-Request-Id": "honest-request"})
        assert models.status_code == 200
        assert models.headers["x-request-id"] == "honest-request"
        assert models.json()["data"]


def test_request_id__is_taken_over_only_where_it_is_harmless(up: Live) -> None:
    for given, kept in (("ours-1.2_3", True), ("x" * 65, False), ('a"b', False), ("<script>", False), ("\xff", False)):
        headers = {"X-Request-Id": given.encode("latin-1"), "Authorization": "Bearer mb-wrong"}
        answer = httpx.get(f"{up.url}/v1/models", headers=headers)
        assert answer.status_code == 401
        assert (answer.json()["error"]["request_id"] == given) is kept, given


@pytest.mark.parametrize("value", ["\xff", "0.000001", "nan", "?1", "x" * 9_000])
def test_headers_that_steer_ray_serve__are_nobodys_to_send(up: Live, value: str) -> None:
    names = (
        "X-Request-Timeout-Seconds",
        "X-Request-Disconnect-Disabled",
        "X-Session-Id",
        "Serve-Multiplexed-Model-Id",
        "serve_multiplexed_model_id",
        "Traceparent",
    )
    asked = {"model": GPT, "messages": [{"role": "user", "content": "synthetic"}], "max_tokens": 9}
    with _client(up) as client:
        for name in names:
            answer = client.post(CHAT, json=asked, headers={name: value.encode("latin-1")})
            assert answer.status_code == 200, name


# Time and connections


def test_slow_headers_and_slow_bodies__keep_nobody_waiting(up: Live) -> None:
    with ExitStack() as lines:
        slow = [lines.enter_context(connection(up.url)) for _ in range(200)]
        begun = (REQUEST, _head(up, CHAT, 1_000) + b"{")
        for number, line in enumerate(slow):
            line.sendall(begun[number % 2])
        for _ in range(3):
            for number, line in enumerate(slow):
                line.sendall(b"X" if number % 2 == 0 else b" ")
            Bystander(up).call()
            time.sleep(0.3)


def test_idle_connections__keep_nobody_waiting(up: Live) -> None:
    with weighed(up) as weight, ExitStack() as lines:
        for number in range(IDLE):
            line = lines.enter_context(connection(up.url))
            if number % 2:
                line.sendall(head("GET", "/v1/models", {"Authorization": "Bearer mb-wrong"}))
        for _ in range(3):
            Bystander(up).call()
    assert weight.grown_bytes < 150 * MEGABYTE


def test_clients_that_hang_up__leave_nothing_behind(up: Live) -> None:
    body = json.dumps(
        {
            "model": GPT,
            "messages": [{"role": "user", "content": "synthetic tokens=5000 piece_ms=20 piece_tokens=1"}],
            "max_tokens": 6_000,
            "stream": True,
        }
    ).encode()
    with weighed(up) as weight:
        for _ in range(100):
            with connection(up.url) as line:
                line.sendall(_head(up, CHAT, len(body)) + body)
        Bystander(up).call()
    assert weight.grown_bytes < 100 * MEGABYTE


# Afterwards


def test_afterwards__others_were_answered_all_the_while(bystander: Bystander) -> None:
    assert bystander.failures == []
    assert bystander.answered > 10


def test_afterwards__nothing_fell_and_nothing_was_unforeseen(up: Live, first_processes: set[int]) -> None:
    """The same processes stand, and their logs know of no error of ours."""
    replicas = {process.pid for process in door_processes(up)}
    assert first_processes <= replicas
    lines = [f"{path.name}: {line}" for path in _logs(up) for line in path.read_text(errors="replace").splitlines()]
    assert [line for line in lines if '"route":"/chat/completions"' in line]
    assert [line for line in lines if re.search("unforeseen|Traceback|exception was never retrieved", line)] == []


def assert_refusal(answer: Answer, path: str) -> None:
    complaint = refusal_complaint(answer, path)
    assert not complaint, f"{complaint}: {answer.body[:500]!r}"


def refusal_complaint(answer: Answer, path: str) -> str:
    """What is wrong with it as the wire's own error; empty where it is one."""
    try:
        told = answer.json()
        error = told["error"]
        request_id = told["request_id"] if path == MESSAGES else error["request_id"]
        if path == MESSAGES and (told["type"] != "error" or set(told) != {"type", "error", "request_id"}):
            return "not Anthropic's shape"
        if path != MESSAGES and set(told) != {"error"}:
            return "not OpenAI's shape"
    except (ValueError, KeyError, TypeError) as unreadable:
        return f"unreadable ({unreadable!r})"
    if not (isinstance(error["type"], str) and error["message"] and len(error["message"]) < 2_000):
        return "no type, or no message of a length one can read"
    if request_id != answer.headers.get("request-id"):
        return "the request id is not the header's"
    return ""


def _post(client: httpx.Client, path: str, model: str, body: str | bytes, *, served: bool) -> str:
    """What is wrong with the answer; empty where it is right. `served`: it may also be 200."""
    content = body if isinstance(body, bytes) else body.encode()
    answer = client.post(path, content=content.replace(b"MODEL", json.dumps(model).encode(), 1))
    if served and answer.status_code == 200:
        return "an error of ours in the stream" if "could not be foreseen" in answer.text else ""
    if not 400 <= answer.status_code < 500:
        return f"{answer.status_code} {answer.text[:300]}"
    complaint = refusal_complaint(_of(answer), path)
    return f"{complaint}: {answer.text[:300]}" if complaint else ""


def _ask(up: Live, path: str, model: str) -> None:
    """What anybody asks."""
    message = {"role": "user", "content": "synthetic tokens=3"}
    with _client(up) as client:
        for streams in (False, True):
            asked = {"model": model, "messages": [message], "max_tokens": 9, "stream": streams}
            assert client.post(path, json=asked).status_code == 200


def _client(up: Live) -> httpx.Client:
    return httpx.Client(base_url=up.url, headers=_token(up), timeout=120.0, trust_env=False)


def _token(up: Live) -> dict[str, str]:
    return {"Authorization": f"Bearer {up.client_token}"}


def _head(up: Live, path: str, length: int | None) -> bytes:
    framing: dict[str, str | int] = {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": length}
    return head("POST", path, {**_token(up), "Content-Type": "application/json", "Connection": "close", **framing})


def _of(answer: httpx.Response) -> Answer:
    return Answer(status=answer.status_code, headers=answer.headers, body=answer.content)


def _drain(line: Any, wait_s: float) -> None:
    line.settimeout(wait_s)
    try:
        while line.recv(1 << 16):
            pass
    except OSError:
        return


def _served(up: Live) -> list[dict[str, Any]]:
    return [json.loads(line) for line in up.usage_file.read_text().splitlines()]


def _logs(up: Live) -> list[Path]:
    prefix = Path(up.instance.temp_prefix)
    return [
        path
        for folder in prefix.parent.glob(f"{prefix.name}*")
        for path in (folder / "session_latest" / "logs").rglob("*")
        if path.is_file()
    ]


@contextmanager
def _files_allowed(count: int) -> Iterator[None]:
    """This process may have so many files open; the service has its own bound."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(count, hard)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

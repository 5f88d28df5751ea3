import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession, UnixConnector, web

from runtime.implementer.relay import Relay

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Upstream:
    """Stands for the gateway. Answers with `handler`, and keeps the requests it saw."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.handler: Handler | None = None
        self.url = ""

    async def serve(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append((f"{request.method} {request.path}", headers, await request.read()))
        return await self.handler(request) if self.handler else web.json_response({"ok": True})


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", upstream.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    upstream.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield upstream
    await runner.cleanup()


@pytest.fixture
async def relay(tmp_path: Path, upstream: Upstream) -> AsyncIterator[Relay]:
    # A folder whose path is longer than a socket's may be.
    folder = tmp_path / ("long" * 30)
    folder.mkdir(mode=0o700)
    relay = Relay(folder / "gateway.sock")
    await relay.start()
    relay.forward_to(upstream.url)
    yield relay
    await relay.stop()
    assert list(folder.iterdir()) == []


@contextmanager
def short_path(relay: Relay) -> Iterator[str]:
    """Clients cannot name a socket with a long path either."""
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "l"
        link.symlink_to(relay.socket_path.parent)
        yield str(link / relay.socket_path.name)


async def connect(relay: Relay) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    with short_path(relay) as path:
        return await asyncio.open_unix_connection(path)


async def send(relay: Relay, raw: bytes) -> bytes:
    reader, writer = await connect(relay)
    writer.write(raw)
    answer = await reader.read()
    writer.close()
    return answer


def post(body: bytes = b"{}", path: str = "/v1/chat/completions", extra: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body


async def test_relay__forwards_a_model_call_with_its_token(relay: Relay, upstream: Upstream) -> None:
    answer = await send(relay, post(b'{"a":1}', extra="authorization: Bearer t\r\ncookie: c\r\nx-forwarded-for: 1\r\n"))
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b'{"ok": true}')
    ((line, headers, body),) = upstream.seen
    assert (line, body) == ("POST /v1/chat/completions", b'{"a":1}')
    assert headers["authorization"] == "Bearer t"
    assert headers["host"] in upstream.url
    assert "cookie" not in headers
    assert "x-forwarded-for" not in headers


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n", 403),
        (post(path="/api/v1/projects"), 403),
        (post(path="/v1/chat/completions/../../api/v1/me"), 403),
        (post(path="http://elsewhere/v1/chat/completions"), 403),
        (b"CONNECT elsewhere:443 HTTP/1.1\r\n\r\n", 403),
        (b"\r\n\r\n", 403),
        (b"POST /v1/chat/completions HTTP/1.1\r\n\r\n", 411),
        (post(extra="content-length: 3\r\n"), 411),
        (post(extra="transfer-encoding: chunked\r\n"), 411),
        (post(extra="content-length : 3\r\n"), 411),
        (b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n", 413),
        (b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 411),
        (b"POST /v1/chat/completions HTTP/1.1\r\nx: " + b"y" * 200_000, 431),
    ],
)
async def test_relay__refuses_everything_else(relay: Relay, upstream: Upstream, raw: bytes, status: int) -> None:
    answer = await send(relay, raw)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert upstream.seen == []


async def test_relay__forwards_one_request_a_connection(relay: Relay, upstream: Upstream) -> None:
    await send(relay, post() + post(b"again"))
    assert [body for _, _, body in upstream.seen] == [b"{}"]


async def test_relay__forwards_nothing_when_no_call_is_expected(relay: Relay, upstream: Upstream) -> None:
    relay.forward_to(None)
    assert (await send(relay, post())).startswith(b"HTTP/1.1 403 ")
    assert upstream.seen == []


async def test_relay__says_when_the_gateway_does_not_answer(relay: Relay) -> None:
    relay.forward_to("http://127.0.0.1:1/v1")
    assert (await send(relay, post())).startswith(b"HTTP/1.1 502 ")


async def test_relay__passes_a_stream_on_as_it_comes(relay: Relay, upstream: Upstream) -> None:
    # given a gateway that goes on only when told
    go_on = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await go_on.wait()
        await response.write(b"data: 2\n\n")
        return response

    upstream.handler = stream
    # when
    reader, writer = await connect(relay)
    writer.write(post())
    # then the first piece arrives before the second exists
    assert b"data: 1" in await reader.readuntil(b"data: 1\n\n")
    go_on.set()
    assert b"data: 2" in await reader.read()
    writer.close()


async def test_relay__hangs_up_on_the_gateway_when_the_client_does(relay: Relay, upstream: Upstream) -> None:
    # given
    begun, cut_off = asyncio.Event(), asyncio.Event()

    async def wait(request: web.Request) -> web.StreamResponse:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cut_off.set()
        raise AssertionError

    upstream.handler = wait
    _, writer = await connect(relay)
    writer.write(post())
    await begun.wait()
    # when
    writer.close()
    # then
    await asyncio.wait_for(cut_off.wait(), 60)


async def test_relay__cuts_off_what_is_under_way_when_the_request_is_over(relay: Relay, upstream: Upstream) -> None:
    begun = asyncio.Event()

    async def wait(request: web.Request) -> web.StreamResponse:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    upstream.handler = wait
    reader, writer = await connect(relay)
    writer.write(post())
    await begun.wait()
    relay.forward_to(None)
    assert await asyncio.wait_for(reader.read(), 60) == b""
    writer.close()


async def test_relay__carries_large_bodies_both_ways(relay: Relay, upstream: Upstream) -> None:
    async def echo(request: web.Request) -> web.StreamResponse:
        return web.Response(body=await request.read())

    upstream.handler = echo
    body = bytes(range(256)) * 20_000
    assert (await send(relay, post(body))).endswith(body)


async def test_relay__speaks_to_an_ordinary_http_client(relay: Relay) -> None:
    with short_path(relay) as path:
        async with ClientSession(connector=UnixConnector(path=path)) as client:
            for _ in range(2):
                async with client.post("http://gateway/v1/chat/completions", json={"a": 1}) as response:
                    assert await response.json() == {"ok": True}

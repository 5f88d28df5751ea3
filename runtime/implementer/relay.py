"""The only way out of the edit engine's sandbox: model calls to one gateway, through a Unix socket."""

import asyncio
import contextlib
import json
import os
import socket
import ssl
from collections.abc import Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

_HEAD_BYTES_MAX = 64 << 10
_HEAD_S_MAX = 30.0
_BODY_BYTES_MAX = 32 << 20
_CHUNK_BYTES = 64 << 10
_CONNECT_S_MAX = 10.0
_PATH = "/v1/chat/completions"
_FORWARDED = ("authorization", "content-type", "accept", "user-agent", "idempotency-key", "x-request-id")


class Relay:
    """Listens on a Unix socket and forwards `POST /v1/chat/completions`, one request a connection; refuses the rest.

    Bytes of an answer are passed on as they come. When the client hangs up, the gateway's connection is closed too.
    """

    def __init__(self, socket_path: Path) -> None:
        """`socket_path` may be of any length; its folder must exist and be closed to others."""
        self.socket_path = socket_path
        self._gateway: SplitResult | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        listener = _bind(self.socket_path)
        self._server = await asyncio.start_unix_server(self._accept, sock=listener, limit=_HEAD_BYTES_MAX)

    async def stop(self) -> None:
        """Closes the socket and every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self.socket_path.unlink(missing_ok=True)
        self.forward_to(None)

    def forward_to(self, gateway_url: str | None) -> None:
        """Where calls go from now on (base URL with `/v1`); None refuses them all and cuts off what is under way."""
        self._gateway = urlsplit(gateway_url) if gateway_url else None
        if gateway_url is None:
            for connection in self._connections:
                connection.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # Either end hung up, or the request is over.
        finally:
            self._connections.discard(connection)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _HEAD_S_MAX)
            length, headers = _parse_head(head)
        except (asyncio.IncompleteReadError, TimeoutError):
            return
        except asyncio.LimitOverrunError:
            writer.write(_refusal(431, "The request's headers are too long."))
            return
        except _Refused as refused:
            writer.write(_refusal(refused.status, refused.text))
            return
        gateway = self._gateway
        if gateway is None:
            writer.write(_refusal(403, "No model call is expected now."))
            return
        try:
            upstream_reader, upstream_writer = await asyncio.wait_for(_connect(gateway), _CONNECT_S_MAX)
        except (OSError, TimeoutError) as error:
            writer.write(_refusal(502, f"The gateway does not answer: {error}."))
            return
        try:
            upstream_writer.write(_upstream_head(gateway, headers, length))
            await _copy_exactly(reader, upstream_writer, length)
            await _first_done(_copy_all(upstream_reader, writer), _until_closed(reader))
        finally:
            upstream_writer.close()


class _Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Body length and the headers that are passed on. Raises _Refused."""
    lines = head.decode("latin-1").split("\r\n")
    method, path, _ = [*lines[0].split(" "), "", ""][:3]
    if method != "POST" or path != _PATH:
        raise _Refused(403, f"Only POST {_PATH} is allowed here.")
    fields = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
    lengths = [value for name, value in fields if name == "content-length"]
    if len(lengths) != 1 or not lengths[0].isdecimal() or any(name == "transfer-encoding" for name, _ in fields):
        raise _Refused(411, "The request must state its length, once.")
    if int(lengths[0]) > _BODY_BYTES_MAX:
        raise _Refused(413, f"The request is over {_BODY_BYTES_MAX} bytes.")
    return int(lengths[0]), {name: value for name, value in fields if name in _FORWARDED}


def _upstream_head(gateway: SplitResult, headers: dict[str, str], length: int) -> bytes:
    path = gateway.path.rstrip("/") + "/chat/completions"
    lines = [f"POST {path} HTTP/1.1", f"host: {gateway.netloc}", "connection: close", f"content-length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _connect(gateway: SplitResult) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = ssl.create_default_context() if gateway.scheme == "https" else None
    port = gateway.port or (443 if context else 80)
    return await asyncio.open_connection(gateway.hostname, port, ssl=context)


async def _copy_exactly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int) -> None:
    while length > 0:
        chunk = await reader.read(min(_CHUNK_BYTES, length))
        if not chunk:
            raise ConnectionResetError("the client hung up")
        writer.write(chunk)
        await writer.drain()
        length -= len(chunk)


async def _copy_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()


async def _until_closed(reader: asyncio.StreamReader) -> None:
    while await reader.read(_CHUNK_BYTES):
        pass


async def _first_done(*works: Coroutine[Any, Any, None]) -> None:
    """Waits for one, ends the others. Raises what that one raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _refusal(status: int, text: str) -> bytes:
    body = json.dumps({"error": {"type": "relay", "code": "relay", "message": text}}).encode()
    head = f"HTTP/1.1 {status} Refused\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"connection: close\r\n\r\n" + body


def _bind(path: Path) -> socket.socket:
    """Binds through a descriptor of the folder: a socket's own path may have 107 bytes only.

    The file is open to all, because inside the sandbox it is another user's; the folder around it must not be.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        listener.bind(f"/proc/self/fd/{folder}/{path.name}")
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(folder)
    path.chmod(0o666)
    return listener
